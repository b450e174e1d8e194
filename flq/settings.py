"""The resolved configuration as named tuples: config.<section>.<name>.

What a key means, its range and its default stand in flq/keys.py alone; tests/test_settings.py
compares the two. Optional is what can still be null once a configuration is built, because the run
decides it.
"""

from typing import List, NamedTuple, Optional, Union


class SystemSection(NamedTuple):
    total_workers: int
    min_workers: int
    start_workers: Optional[int]
    max_rounds: int
    quorum: str
    master_url: str
    round_deadline_s: Optional[float]
    longest_deadline_s: float
    worker_timeout_s: float
    absent_rounds: int
    late_updates: str
    cohorts: int
    master_side_information_mb: int
    references_mb: int


class DatasetSection(NamedTuple):
    name: str
    batch_size: int
    partition: str
    dir_alpha: float
    standardize: bool
    data_dir: Optional[str]
    seed: int


class ModelSection(NamedTuple):
    name: str
    init: str
    lr: Optional[float]
    server_optimizer: str
    momentum: float
    adam_beta2: float
    adam_epsilon: float
    averaging: float
    l2: float
    l2_biases: bool
    local_epochs: Optional[int]
    local_steps: Optional[int]
    local_lr: float
    num_threads: int


class FlqAlgorithmSection(NamedTuple):
    mode: str
    b_up: int
    b_down: int
    downlink: str
    rd_step: float
    rd_step_down: float
    rd_target_bits: Optional[float]
    rd_target_bits_down: Optional[float]
    memory: str
    memory_rate: float
    radius: str
    radius_down: str
    block_size: int
    block_size_down: int
    weighting: str
    aggregation: str
    bad_workers: int
    entropy_coding: Union[bool, str]
    entropy_coding_down: Union[bool, str]
    clip_global: float
    scale_by_selected: bool
    sel_ref: int
    scale_max: float
    correction: str
    rho_max: Optional[float]


class LazySelectionSection(NamedTuple):
    D: int
    ck: float
    C: int
    warmup: int
    thr_scale: float
    lazy_eps: float


class BudgetSelectionSection(NamedTuple):
    sel_clients: int
    up_budget_bits: int


class JetsonOptimizationSection(NamedTuple):
    gpu_memory_limit_mb: int
    enable_mixed_precision: bool
    prefetch_size: int
    num_parallel_calls: int


class SecuritySection(NamedTuple):
    protect_reads: str
    allowed_hosts: List[str]
    cafile: Optional[str]
    allow: List[str]
    max_params: int
    max_batch_values: int
    max_round_samples: int
    max_data_mb: int
    max_update_norm: float
    max_norm_ratio: float
    max_samples: int
    max_weight_share: float


class LoggingSection(NamedTuple):
    log_level: str
    save_results: bool
    result_dir: str
    log_dir: str
    eval_every: int


class Config(NamedTuple):
    """A whole configuration, checked, with no null where the mode decides.

    `flq.config.build` makes it.
    """

    system: SystemSection
    dataset: DatasetSection
    model: ModelSection
    flq_algorithm: FlqAlgorithmSection
    lazy_selection: LazySelectionSection
    budget_selection: BudgetSelectionSection
    jetson_optimization: JetsonOptimizationSection
    security: SecuritySection
    logging: LoggingSection
