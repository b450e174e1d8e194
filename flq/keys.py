"""The one table of keys.

`KEYS` is the one place where a key is declared: its section, type, default, range and meaning. The
defaults of flq_config.json and the tables in docs/guide/ are compared with it by tests.
"""

import collections
import difflib
import json
import math
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from flq.errors import ConfigError
from flq.modes import (
    AGGREGATIONS,
    ALWAYS,
    BLOCK,
    BLOCK_SIZES,
    CONTEXT,
    DOWNLINKS,
    LOWEST_MEMORY_RATE,
    MEAN,
    MEMORIES,
    MODES,
    OWN_FORM,
    QUANTIZER_ROWS,
    RADII,
    RADII_DOWN,
    TENSOR,
    VECTOR,
    WITH_REFERENCES,
    with_radius,
)

# What the table of modes says, in words.
_REFERENCES = " or ".join(WITH_REFERENCES)
_WIDTHS = ", ".join(
    f"{widths} ({', '.join((row.name for row in MODES.values() if row.widths == widths))})"
    for widths in collections.OrderedDict((row.widths, None) for row in MODES.values()))
_GRIDS = (
    f"{', '.join((row.name for row in QUANTIZER_ROWS.values() if row.coding == ALWAYS))}: the "
    "largest grid, its levels are coded"
)
_CONTEXTS = " or ".join(row.name for row in MODES.values() if row.contexts)
_FINE = ", ".join(f"{row.name} with b >= {row.fine_from}" for row in QUANTIZER_ROWS.values()
                  if row.fine_from is not None)

OWN_MODEL = "own"
"""model.name of a run whose learners are a program's own (docs/frameworks.md)."""


class Key(NamedTuple):
    """One key of the configuration.

    kind: bool, int, float, str or list (of str). low and high are inclusive. choices: of a text, or
    words that a bool can be. null_means is set when null is allowed. local: a worker may set it for
    itself. runtime: PATCH /config may change it. own: a user's own, `package.module:NAME`, may
    stand in the place of a choice. older: what a version that did not know the key did, where that
    is not its default.
    """

    section: str
    name: str
    kind: type
    default: Any
    doc: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Tuple[str, ...] = ()
    null_means: Optional[str] = None
    local: bool = False
    runtime: bool = False
    own: bool = False
    older: Any = None

    @property
    def path(self) -> str:
        return self.section + "." + self.name

    @property
    def allowed(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            text = ("true, false or " if self.kind is bool else "") + ", ".join(self.choices)
            text += " or " + OWN_FORM if self.own else ""
        elif self.kind in (int, float):
            word = "an integer" if self.kind is int else "a number"
            if self.low is not None and self.high is not None:
                text = f"{word} from {self.low} to {self.high}"
            elif self.low is not None:
                text = f"{word} of at least {self.low}"
            else:
                text = word
        else:
            text = {bool: "true or false", str: "a text", list: "a list of texts"}[self.kind]
        return text + " or null" if self.null_means else text


def _parameter_keys() -> Iterator[Key]:
    """The keys that only one mode reads: its parameters up, and down where it can go down."""
    for row in QUANTIZER_ROWS.values():
        for name, default, default_down, low, high, doc, null_means, _ in row.parameters:
            yield Key("flq_algorithm", name, float, default, f"mode {row.name}: {doc}", low=low,
                      high=high, null_means=null_means)
            if row.down_bits is not None:
                yield Key("flq_algorithm", name + "_down", float, default_down,
                          f"downlink {row.name}: {doc}", low=low, high=high,
                          null_means=null_means)


KEYS = (
    Key("system", "total_workers", int, 4,
        "M, the number of workers the run is planned for; with quorum all they are 0..M-1", low=1,
        high=65535),
    Key("system", "min_workers", int, None,
        "how many workers must be there to open and to close a round", low=1, high=65535,
        null_means="total_workers with quorum all, else 1", runtime=True),
    Key("system", "start_workers", int, None,
        "how many workers must be there before the first round (quorum deadline)", low=1,
        high=65535, null_means="min_workers", runtime=True),
    Key("system", "max_rounds", int, 100, "number of rounds", low=1, high=10**9, runtime=True),
    Key(
        "system", "quorum", str, "deadline",
        "all: every round waits for every worker (reproducible); deadline: a round closes without "
        "stragglers",
        choices=("all", "deadline")),
    Key("system", "master_url", str, "http://127.0.0.1:5000", "where a worker finds the master",
        local=True),
    Key(
        "system", "round_deadline_s", float, None,
        "longest duration of a phase with quorum deadline", low=0.1, high=1e6, null_means=
        "four times the slowest answer of the last rounds, from 10 s to longest_deadline_s",
        runtime=True),
    Key("system", "longest_deadline_s", float, 3600.0,
        "upper limit of the deadline where round_deadline_s is null", low=0.1, high=1e6,
        runtime=True),
    Key(
        "system", "worker_timeout_s", float, 60.0,
        "a worker unseen for that long counts as gone (quorum deadline), and another process may "
        "take its id",
        low=1.0, high=1e6),
    Key(
        "system", "absent_rounds", int, 20,
        "rounds of its cohort without an answer after which a worker's reference leaves the "
        "average (quorum deadline)",
        low=1, high=10**6),
    Key(
        "system", "late_updates", str, "refuse",
        "an upload that came after its round had closed (quorum deadline); apply: the next round "
        f"commits it (memory {_REFERENCES}, no budget)",
        choices=("refuse", "apply")),
    Key(
        "system", "cohorts", int, None,
        "J: round k is played by the workers m with m mod J = k mod J; 1: by all", low=1,
        high=65535, null_means="a cohort for every 10 workers, at most 3, with quorum all and "
        f"memory {_REFERENCES}, without a budget and without thr_scale; else 1, as with another "
        f"aggregation than {MEAN}", older=1),
    Key("system", "master_side_information_mb", int, 256,
        "entropy_coding context: MiB that the histories of all workers may take at the master, a "
        "byte a weight and worker; where they would take more, the levels are coded as with true",
        low=0, high=10**6),
    Key("system", "references_mb", int, 1024,
        f"aggregation other than {MEAN} with memory {_REFERENCES}: MiB that the references of all "
        "workers may take at the master, 8 bytes a weight and worker; a run that needs more is "
        "refused",
        low=0, high=10**6),
    Key("dataset", "name", str, "digits",
        "digits, mnist, fmnist, cifar10, npz:FILE, csv:FILE?label=COLUMN, images:FOLDER or "
        "package.module:function (docs/data.md)"),
    Key("dataset", "batch_size", int, 32, "B; 0 is the whole shard", low=0, high=10**6),
    Key("dataset", "partition", str, "iid",
        "how the training samples are dealt out; local: each worker's own file is its shard",
        choices=("iid", "non_iid", "natural", "local")),
    Key("dataset", "dir_alpha", float, 0.5,
        "Dirichlet concentration of non_iid; smaller is more uneven", low=1e-3, high=1e6),
    Key(
        "dataset", "standardize", bool, False,
        "the model sees (x - mean) / deviation of each feature; mean and deviation are those of "
        "the master's training samples"),
    Key("dataset", "data_dir", str, None, "folder of NAME.npz, and where own files are looked for",
        null_means="FLQ_DATA_DIR, else the Keras cache", local=True),
    Key("dataset", "seed", int, 0, "seed of everything that is drawn", low=0, high=2**63 - 1),
    Key("model", "name", str, "cnn_small",
        "cnn, cnn_small, mlp, softmax or package.module:function; own: a program's own learner"),
    Key("model", "init", str, "glorot_uniform", "initial weights of the built-in models",
        choices=("glorot_uniform", "zeros")),
    Key("model", "lr", float, None, "server learning rate", low=0.0, high=1e6,
        null_means="sgd: local_lr x mean local steps; momentum: that x (1 - momentum); adam: 0.01",
        runtime=True),
    Key("model", "server_optimizer", str, "sgd", "how the master applies the direction",
        choices=("sgd", "momentum", "adam")),
    Key("model", "momentum", float, 0.9, "beta of momentum, beta_1 of adam", low=0.0,
        high=0.999999),
    Key("model", "adam_beta2", float, 0.99, "beta_2 of adam", low=0.0, high=0.999999999),
    Key("model", "adam_epsilon", float, 1e-3, "epsilon of adam, the degree of adaptivity",
        low=1e-12, high=1.0),
    Key("model", "averaging", float, 0.1,
        "the model that is tested and kept is an average over the last rounds, whose mean age is "
        "about this part of the rounds so far; 0: the last broadcast model",
        low=0.0, high=1.0, older=0.0),
    Key("model", "l2", float, 0.0, "L2 penalty, l2/2 ||theta||^2 in each worker's loss", low=0.0,
        high=1e3), Key("model", "l2_biases", bool, False, "penalise rank-1 tensors too"),
    Key("model", "local_epochs", int, None, "local passes over the shard per round", low=1,
        high=10**4, null_means="local_steps counts"),
    Key("model", "local_steps", int, 5, "local SGD steps per round", low=1, high=10**6,
        null_means="local_epochs counts"),
    Key("model", "local_lr", float, 0.1, "rate of the local SGD steps", low=0.0, high=1e6),
    Key("model", "num_threads", int, 1,
        "TensorFlow threads of one operation; part of what makes runs bit-identical", low=1,
        high=1024),
    Key("flq_algorithm", "mode", str, "laq", "the uplink quantiser", choices=tuple(MODES),
        own=True),
    Key("flq_algorithm", "b_up", int, None, f"bits per weight up: {_WIDTHS}; {_GRIDS}", low=1,
        high=32, null_means="the mode's default"),
    Key("flq_algorithm", "b_down", int, None,
        f"bits per weight down ({_GRIDS}); 0 or 32 is float32", low=0, high=32,
        null_means="; ".join(f"{name}: {MODES[name].down_bits}" for name in DOWNLINKS)),
    Key("flq_algorithm", "downlink", str, "bbit", "the downlink quantiser",
        choices=DOWNLINKS), *_parameter_keys(),
    Key("flq_algorithm", "memory", str, None,
        "reference (LAQ, EF21), residual (error feedback) or none", choices=MEMORIES,
        null_means="the mode's default"),
    Key(
        "flq_algorithm", "memory_rate", float, None,
        "memory reference: the part of what was committed that the reference takes in; 1 is LAQ "
        "and EF21, below 1 DIANA",
        low=LOWEST_MEMORY_RATE, high=1.0,
        null_means="the mode's default; 1 where lazy_selection.thr_scale is above 0", older=1.0),
    Key("flq_algorithm", "radius", str, None,
        "what shares a radius, step or scale: a tensor; the vector "
        f"({', '.join(with_radius(VECTOR))}); a block of block_size weights "
        f"({', '.join(with_radius(BLOCK))})", choices=RADII, null_means="the mode's default"),
    Key("flq_algorithm", "radius_down", str, TENSOR, "the same for the downlink",
        choices=RADII_DOWN),
    Key("flq_algorithm", "block_size", int, 256,
        "radius block: consecutive weights of a tensor that share a scale; a power of two",
        low=BLOCK_SIZES[0], high=BLOCK_SIZES[-1]),
    Key("flq_algorithm", "block_size_down", int, 256, "radius_down block: the same",
        low=BLOCK_SIZES[0], high=BLOCK_SIZES[-1]),
    Key("flq_algorithm", "weighting", str, None,
        "weight of a worker: its number of samples, or 1", choices=("samples", "uniform"),
        null_means=f"samples with aggregation {MEAN}, else uniform"),
    Key("flq_algorithm", "aggregation", str, MEAN,
        "how one direction is made of the workers' updates; all but the mean bound what bad "
        "workers can do (docs/algorithm.md 11)",
        choices=tuple(AGGREGATIONS)),
    Key("flq_algorithm", "bad_workers", int, None,
        f"f, the most workers that may send anything they like (aggregation other than {MEAN})",
        low=0, high=32767, null_means="a fifth of total_workers, at least 1",
        runtime=True),
    Key("flq_algorithm", "entropy_coding", bool, None, choices=(CONTEXT,),
        doc="code the uplink's levels when that is smaller; context: also beside the history of "
        "the worker's own uploads", null_means="the mode's default"),
    Key("flq_algorithm", "entropy_coding_down", bool, None, choices=(CONTEXT,),
        doc="code the downlink's levels when that is smaller; context: also beside their history",
        null_means=f"context with mode {_CONTEXTS}, else true", older=True),
    Key("flq_algorithm", "clip_global", float, 0.0, "largest norm of the direction; 0 is off",
        low=0.0, high=1e30, runtime=True),
    Key("flq_algorithm", "scale_by_selected", bool, False,
        "scale the server rate by |S| / sel_ref"),
    Key("flq_algorithm", "sel_ref", int, 0,
        "reference number of scale_by_selected; 0 is the number of members whose turn it is",
        low=0, high=65535),
    Key("flq_algorithm", "scale_max", float, 1.0, "largest factor of scale_by_selected", low=0.0,
        high=1e6),
    Key("flq_algorithm", "correction", str, None,
        "how the innovations of those who were refused, or whose turn it was not, are estimated "
        f"from the selected ones (memory {_REFERENCES})",
        choices=("bids", "count", "none"),
        null_means=f"bids with one cohort, else count; none with another aggregation than {MEAN}"),
    Key("flq_algorithm", "rho_max", float, None, "largest factor of the correction", low=1.0,
        high=1e6, null_means="members / sel_clients, else 4 x cohorts"),
    Key("lazy_selection", "D", int, 10, "window of the lazy rule, in rounds", low=1, high=10**4),
    Key("lazy_selection", "ck", float, 0.8, "weight of the window; xi_d = ck / D", low=0.0,
        high=1e6),
    Key("lazy_selection", "C", int, 100,
        "a worker is silent for at most C rounds of its cohort in a row", low=1, high=10**9,
        runtime=True),
    Key("lazy_selection", "warmup", int, 1, "no silence before this round", low=1, high=10**9),
    Key("lazy_selection", "thr_scale", float, 0.0,
        "threshold of the lazy rule; 0 is off, 1 is LAQ (7a)", low=0.0, high=1e12, runtime=True),
    Key("lazy_selection", "lazy_eps", float, None,
        "weight of the quantisation errors in the lazy rule", low=0.0, high=1e6,
        null_means=f"3 for {_FINE}, else 0"),
    Key("budget_selection", "sel_clients", int, 0,
        "at most this many uploads a round; 0 is no limit", low=0, high=65535, runtime=True),
    Key("budget_selection", "up_budget_bits", int, 0,
        "at most this many payload bits a round; 0 is no limit", low=0, high=2**62, runtime=True),
    Key("jetson_optimization", "gpu_memory_limit_mb", int, 0,
        "hard limit of GPU memory; 0 is growth on demand", low=0, high=10**6, local=True),
    Key(
        "jetson_optimization", "enable_mixed_precision", bool, False,
        "float16 with loss scaling; weights and updates stay float32. For GPUs: on a CPU it is "
        "slower",
        local=True),
    Key(
        "jetson_optimization", "prefetch_size", int, 2,
        "batches that tf.data prepares ahead for a GPU; 0 is none. On a CPU nothing is prepared "
        "ahead",
        low=0, high=1024, local=True),
    Key("jetson_optimization", "num_parallel_calls", int, 1,
        "threads that prepare batches for a GPU", low=1, high=64, local=True),
    Key(
        "security", "protect_reads", str, "auto",
        "auto: weights and /config need a viewer's or an operator's token unless the master is "
        "bound to loopback",
        choices=("auto", "always", "never")),
    Key("security", "allowed_hosts", list, [], "further names that a Host header may carry"),
    Key("security", "cafile", str, None,
        "PEM file of the CA that signed the certificate of an https:// master",
        null_means="the CAs that Python's requests brings", local=True),
    Key("security", "allow", list, [],
        "what this worker runs and reads when its master names it: package.module with all that is "
        "in it, package.module:NAME, or KIND:PATH of a file or a folder with data; --allow adds to "
        "it (docs/guide/security.md)",
        local=True),
    Key("security", "max_params", int, 2 * 10**7,
        "a worker refuses a master's model with more weights", low=1, high=2**40, local=True),
    Key(
        "security", "max_batch_values", int, 2**20,
        "a worker refuses batches of more numbers: samples of a batch x numbers of a sample", low=1,
        high=2**40, local=True),
    Key("security", "max_round_samples", int, 10**7,
        "a worker refuses to train on more samples in one round: local steps x batch size", low=1,
        high=2**40, local=True),
    Key("security", "max_data_mb", int, 1024,
        "a worker refuses the size that its master wants for images, where all would take more MiB",
        low=1, high=2**30, local=True),
    Key("security", "max_update_norm", float, 0.0,
        "an update of a larger norm is refused; 0 is off", low=0.0, high=1e30),
    Key(
        "security", "max_norm_ratio", float, 5.0,
        "an upload that is so many times as long as is typical in this run is refused "
        "(docs/algorithm.md 10); 0 is off",
        low=0.0, high=1e30, runtime=True, older=0.0),
    Key("security", "max_samples", int, 10**7,
        "partition local: a worker with more samples is refused", low=1, high=2**40, older=2**40),
    Key(
        "security", "max_weight_share", float, 1.0,
        "partition local: with three members or more, one with a larger part of all weight is "
        "taken out of the average and its uploads are refused; 1 is off",
        low=0.01, high=1.0, runtime=True),
    Key("logging", "log_level", str, "INFO", "what goes to the log and the terminal",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"), local=True),
    Key("logging", "save_results", bool, True, "write the workbook and the plots at the end",
        local=True),
    Key("logging", "result_dir", str, "results", "where results/<run_id> is made",
        local=True), Key("logging", "log_dir", str, "logs", "one log file per process", local=True),
    Key("logging", "eval_every", int, 1,
        "test the model after every n-th round (the last one always)", low=1, high=10**6,
        local=True),
)

RETIRED = (
    # Runs are stored with it, and so are files that were copied from flq_config.json.
    Key("lazy_selection", "lazy_rule", str, "laq", "LAQ's is the only lazy rule", choices=("laq",)),
)

SECTIONS = tuple(collections.OrderedDict((key.section, None) for key in KEYS))
BY_PATH = {key.path: key for key in KEYS}
_BY_NAME: Dict[str, List[Key]] = {}
for _key in KEYS:
    _BY_NAME.setdefault(_key.name, []).append(_key)
_RETIRED = {name: key for key in RETIRED for name in (key.path, key.name)}


def find(name: str, where: str) -> Key:
    if name in BY_PATH:
        return BY_PATH[name]
    if name in _RETIRED:
        return _RETIRED[name]
    if len(_BY_NAME.get(name, ())) == 1:
        return _BY_NAME[name][0]
    if name in _BY_NAME:
        raise ConfigError(f"{where}: unknown key {name}",
                          " or ".join(key.path for key in _BY_NAME[name]), name)
    if name in SECTIONS:
        raise ConfigError(f"{where}: {name} is a section", f"{name}.KEY", name)
    near = difflib.get_close_matches(name, [*BY_PATH, *_BY_NAME, *SECTIONS], 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else "docs/guide/configuration.md lists the keys"
    raise ConfigError(f"{where}: unknown key {name}", hint=hint)


def by_path(document: Dict[str, Any], where: str) -> Dict[str, Any]:
    """Nested sections, paths and short keys -> values by path.

    Raises ConfigError for an unknown name and a key that is set twice.
    """
    values: Dict[str, Any] = {}
    for name, value in document.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: section {name} is not an object", "keys and values",
                                  value)
            found = [(find(name + "." + inner, where), inner_value)
                     for inner, inner_value in value.items()]
        elif isinstance(value, dict) and name not in BY_PATH and name not in _BY_NAME:
            near = difflib.get_close_matches(name, SECTIONS, 1, 0.5)
            raise ConfigError(f"{where}: unknown section {name}", ", ".join(SECTIONS),
                              hint=f"did you mean {near[0]}?" if near else None)
        else:
            found = [(find(name, where), value)]
        for key, key_value in found:
            if key.path in values:
                raise ConfigError(f"{where}: {key.path} is set twice", "one value",
                                  [values[key.path], key_value])
            values[key.path] = key_value
    return values


def check_value(key: Key, value: Any) -> None:
    if value is None:
        good = key.null_means is not None
    elif key.kind is float:
        good = isinstance(
            value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    elif key.kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif key.kind is list:
        good = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    else:
        good = isinstance(value, key.kind) or bool(key.choices) and isinstance(value, str)
    if good and value is not None:
        if key.choices and isinstance(value, str) and value not in key.choices and not (
                key.own and ":" in value):
            near = difflib.get_close_matches(str(value), key.choices, 1)
            raise ConfigError(f"{key.path} has an unknown value", key.allowed,
                              json.dumps(value, default=repr),
                              f"did you mean {near[0]}?" if near else None)
        good = (key.low is None or value >= key.low) and (key.high is None or value <= key.high)
    if not good:
        raise ConfigError(f"{key.path} cannot take this value", key.allowed,
                          json.dumps(value, default=repr))


def defaults() -> Dict[str, Dict[str, Any]]:
    """What flq_config.json holds: every key with its default."""
    nested: Dict[str, Dict[str, Any]] = collections.OrderedDict()
    for key in KEYS:
        nested.setdefault(key.section, collections.OrderedDict())[key.name] = key.default
    return nested


def table() -> str:
    """The keys as a Markdown table."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in KEYS:
        marks = [word for word, on in (("local", key.local), ("run time", key.runtime)) if on]
        meaning = key.doc + ("; null: " + key.null_means if key.null_means else
                             "") + (f" *({', '.join(marks)})*" if marks else "")
        lines.append("| `{}` | `{}` | {} | {} |".format(
            key.path, json.dumps(key.default), key.allowed,
            meaning.replace("|S|", "\\|S\\|").replace("||", "\\|\\|")))
    return "\n".join(lines) + "\n"
