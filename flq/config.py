"""The configuration: one table of keys, read strictly.

`KEYS` is the one place where a key is declared: its section, type, default, range and meaning. The
defaults of flq_config.json and the table in USAGE_GUIDE.md are compared with it by tests.
"""

import collections
import difflib
import json
import math
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from flq.errors import ConfigError

MODES = ("fedavg", "laq", "laq8", "bbit", "bin", "qsgd", "rd")
MEMORIES = ("reference", "residual", "none")

# The mode decides what null stands for; docs/benchmarks.md has the measurements behind it.
_MODE_DEFAULTS = {
    "fedavg": {"b_up": 32, "memory": "none", "radius": "tensor", "entropy_coding": False},
    "laq": {"b_up": 4, "memory": "reference", "radius": "tensor", "entropy_coding": True},
    "laq8": {"b_up": 8, "memory": "reference", "radius": "tensor", "entropy_coding": True},
    "bbit": {"b_up": 4, "memory": "residual", "radius": "tensor", "entropy_coding": True},
    "bin": {"b_up": 1, "memory": "reference", "radius": "tensor", "entropy_coding": False},
    "qsgd": {"b_up": 4, "memory": "none", "radius": "tensor", "entropy_coding": True},
    "rd": {"b_up": 8, "memory": "reference", "radius": "vector", "entropy_coding": True},
}


class Key(NamedTuple):
    """One key of the configuration.

    kind: bool, int, float, str or list (of str). low and high are inclusive. null_means is set when
    null is allowed. local: a worker may set it for itself. runtime: PATCH /config may change it.
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

    @property
    def path(self) -> str:
        return self.section + "." + self.name

    @property
    def allowed(self) -> str:
        """The values that are allowed, in words."""
        if self.choices:
            text = ", ".join(self.choices)
        elif self.kind in (int, float):
            word = "an integer" if self.kind is int else "a number"
            if self.low is not None and self.high is not None:
                text = "{} from {} to {}".format(word, self.low, self.high)
            elif self.low is not None:
                text = "{} of at least {}".format(word, self.low)
            else:
                text = word
        else:
            text = {bool: "true or false", str: "a text", list: "a list of texts"}[self.kind]
        return text + " or null" if self.null_means else text


KEYS = (
    Key("system", "total_workers", int, 4, "M, the number of workers the run is planned for; with quorum all they are 0..M-1", low=1, high=65535),
    Key("system", "min_workers", int, None, "how many workers must be there to open and to close a round", low=1, high=65535,
        null_means="total_workers with quorum all, else 1", runtime=True),
    Key("system", "max_rounds", int, 100, "number of rounds", low=1, high=10 ** 9, runtime=True),
    Key("system", "quorum", str, "deadline", "all: every round waits for every worker (reproducible); deadline: a round closes without stragglers", choices=("all", "deadline")),
    Key("system", "master_url", str, "http://127.0.0.1:5000", "where a worker finds the master", local=True),
    Key("system", "round_deadline_s", float, None, "longest duration of a phase with quorum deadline", low=0.1, high=1e6,
        null_means="four times the slowest answer of the last rounds, from 10 s to longest_deadline_s", runtime=True),
    Key("system", "longest_deadline_s", float, 3600.0, "upper limit of the deadline where round_deadline_s is null", low=0.1, high=1e6, runtime=True),
    Key("system", "worker_timeout_s", float, 60.0, "a worker unseen for that long counts as gone (quorum deadline), and another process may take its id", low=1.0, high=1e6),
    Key("system", "absent_rounds", int, 20, "rounds without an answer after which a worker's reference leaves the average (quorum deadline)", low=1, high=10 ** 6),
    Key("system", "late_updates", str, "refuse", "an upload that came after its round had closed (quorum deadline); apply: the next round commits it (memory reference, no budget)", choices=("refuse", "apply")),
    Key("dataset", "name", str, "digits", "digits, mnist, fmnist, cifar10, npz:FILE or package.module:function"),
    Key("dataset", "batch_size", int, 32, "B; 0 is the whole shard", low=0, high=10 ** 6),
    Key("dataset", "partition", str, "iid", "how the training samples are dealt out; local: each worker's own file is its shard", choices=("iid", "non_iid", "natural", "local")),
    Key("dataset", "dir_alpha", float, 0.5, "Dirichlet concentration of non_iid; smaller is more uneven", low=1e-3, high=1e6),
    Key("dataset", "data_dir", str, None, "folder of NAME.npz", null_means="FLQ_DATA_DIR, else the Keras cache", local=True),
    Key("dataset", "seed", int, 0, "seed of everything that is drawn", low=0, high=2 ** 63 - 1),
    Key("model", "name", str, "cnn_small", "cnn, cnn_small, mlp, softmax or package.module:function"),
    Key("model", "init", str, "glorot_uniform", "initial weights of the built-in models", choices=("glorot_uniform", "zeros")),
    Key("model", "lr", float, None, "server learning rate", low=0.0, high=1e6,
        null_means="sgd: local_lr x mean local steps; momentum: that x (1 - momentum); adam: 0.01", runtime=True),
    Key("model", "server_optimizer", str, "sgd", "how the master applies the direction", choices=("sgd", "momentum", "adam")),
    Key("model", "momentum", float, 0.9, "beta of momentum, beta_1 of adam", low=0.0, high=0.999999),
    Key("model", "adam_beta2", float, 0.99, "beta_2 of adam", low=0.0, high=0.999999999),
    Key("model", "adam_epsilon", float, 1e-3, "epsilon of adam, the degree of adaptivity", low=1e-12, high=1.0),
    Key("model", "l2", float, 0.0, "L2 penalty, l2/2 ||theta||^2 in each worker's loss", low=0.0, high=1e3),
    Key("model", "l2_biases", bool, False, "penalise rank-1 tensors too"),
    Key("model", "local_epochs", int, None, "local passes over the shard per round", low=1, high=10 ** 4, null_means="local_steps counts"),
    Key("model", "local_steps", int, 5, "local SGD steps per round", low=1, high=10 ** 6, null_means="local_epochs counts"),
    Key("model", "local_lr", float, 0.1, "rate of the local SGD steps", low=0.0, high=1e6),
    Key("model", "num_threads", int, 1, "TensorFlow threads of one operation; part of what makes runs bit-identical", low=1, high=1024),
    Key("flq_algorithm", "mode", str, "laq", "the uplink quantiser", choices=MODES),
    Key("flq_algorithm", "b_up", int, None, "bits per weight up: 2 to 16 (laq, bbit, qsgd; rd: the largest grid, its levels are coded)", low=1, high=32, null_means="the mode's default"),
    Key("flq_algorithm", "b_down", int, None, "bits per weight down (rd: the largest grid); 0 or 32 is float32", low=0, high=32,
        null_means="bbit: 3; laq: 4; rd: 8; bin: 1"),
    Key("flq_algorithm", "downlink", str, "bbit", "the downlink quantiser", choices=("laq", "bbit", "bin", "rd")),
    Key("flq_algorithm", "rd_step", float, 2.5, "mode rd: step of the grid, in root mean squares of each tensor; larger is coarser", low=1e-3, high=1e3),
    Key("flq_algorithm", "rd_step_down", float, 1.5, "downlink rd: step of the grid", low=1e-3, high=1e3),
    Key("flq_algorithm", "memory", str, None, "reference (LAQ, EF21), residual (error feedback) or none", choices=MEMORIES, null_means="the mode's default"),
    Key("flq_algorithm", "radius", str, None, "laq, rd: one radius or step per tensor, or one for the vector", choices=("tensor", "vector"), null_means="the mode's default"),
    Key("flq_algorithm", "weighting", str, "samples", "weight of a worker: its number of samples, or 1", choices=("samples", "uniform")),
    Key("flq_algorithm", "entropy_coding", bool, None, "code the uplink's levels when that is smaller", null_means="the mode's default"),
    Key("flq_algorithm", "entropy_coding_down", bool, True, "code the downlink's levels when that is smaller"),
    Key("flq_algorithm", "clip_global", float, 0.0, "largest norm of the direction; 0 is off", low=0.0, high=1e30, runtime=True),
    Key("flq_algorithm", "scale_by_selected", bool, False, "scale the server rate by |S| / sel_ref"),
    Key("flq_algorithm", "sel_ref", int, 0, "reference number of scale_by_selected; 0 is the number of members", low=0, high=65535),
    Key("flq_algorithm", "scale_max", float, 1.0, "largest factor of scale_by_selected", low=0.0, high=1e6),
    Key("flq_algorithm", "correction", str, "bids", "how refused innovations are estimated from the selected ones (memory reference)", choices=("bids", "count", "none")),
    Key("flq_algorithm", "rho_max", float, None, "largest factor of the correction", low=1.0, high=1e6, null_means="members / sel_clients, else 4"),
    Key("lazy_selection", "D", int, 10, "window of the lazy rule, in rounds", low=1, high=10 ** 4),
    Key("lazy_selection", "ck", float, 0.8, "weight of the window; xi_d = ck / D", low=0.0, high=1e6),
    Key("lazy_selection", "C", int, 100, "a worker is silent for at most C rounds in a row", low=1, high=10 ** 9, runtime=True),
    Key("lazy_selection", "warmup", int, 1, "no silence before this round", low=1, high=10 ** 9),
    Key("lazy_selection", "thr_scale", float, 0.0, "threshold of the lazy rule; 0 is off, 1 is LAQ (7a)", low=0.0, high=1e12, runtime=True),
    Key("lazy_selection", "lazy_eps", float, None, "weight of the quantisation errors in the lazy rule", low=0.0, high=1e6, null_means="3 for laq with b >= 3, else 0"),
    Key("budget_selection", "sel_clients", int, 0, "at most this many uploads a round; 0 is no limit", low=0, high=65535, runtime=True),
    Key("budget_selection", "up_budget_bits", int, 0, "at most this many payload bits a round; 0 is no limit", low=0, high=2 ** 62, runtime=True),
    Key("jetson_optimization", "gpu_memory_limit_mb", int, 0, "hard limit of GPU memory; 0 is growth on demand", low=0, high=10 ** 6, local=True),
    Key("jetson_optimization", "enable_mixed_precision", bool, False, "float16 with loss scaling; weights and updates stay float32. For GPUs: on a CPU it is slower", local=True),
    Key("jetson_optimization", "prefetch_size", int, 2, "batches that tf.data prepares ahead for a GPU; 0 is none. On a CPU nothing is prepared ahead", low=0, high=1024, local=True),
    Key("jetson_optimization", "num_parallel_calls", int, 1, "threads that prepare batches for a GPU", low=1, high=64, local=True),
    Key("security", "protect_reads", str, "auto", "auto: weights and /config need the operator's token unless the master is bound to loopback", choices=("auto", "always", "never")),
    Key("security", "allowed_hosts", list, [], "further names that a Host header may carry"),
    Key("security", "cafile", str, None, "PEM file of the CA that signed the certificate of an https:// master", null_means="the CAs that Python's requests brings", local=True),
    Key("security", "max_update_norm", float, 0.0, "an update of a larger norm is refused; 0 is off", low=0.0, high=1e30),
    Key("logging", "log_level", str, "INFO", "what goes to the log and the terminal", choices=("DEBUG", "INFO", "WARNING", "ERROR"), local=True),
    Key("logging", "save_results", bool, True, "write the workbook and the plots at the end", local=True),
    Key("logging", "result_dir", str, "results", "where results/<run_id> is made", local=True),
    Key("logging", "log_dir", str, "logs", "one log file per process", local=True),
    Key("logging", "eval_every", int, 1, "test the model after every n-th round (the last one always)", low=1, high=10 ** 6, local=True),
)

RETIRED = (
    # Runs are stored with it, and so are files that were copied from flq_config.json.
    Key("lazy_selection", "lazy_rule", str, "laq", "LAQ's is the only lazy rule", choices=("laq",)),
)

SECTIONS = tuple(collections.OrderedDict((key.section, None) for key in KEYS))
BY_PATH = {key.path: key for key in KEYS}
_BY_NAME = {}  # type: Dict[str, List[Key]]
for _key in KEYS:
    _BY_NAME.setdefault(_key.name, []).append(_key)
_RETIRED = {name: key for key in RETIRED for name in (key.path, key.name)}

_SectionTypes = {section: collections.namedtuple(section, [key.name for key in KEYS if key.section == section])
                 for section in SECTIONS}
Config = collections.namedtuple("Config", SECTIONS)  # type: Any
Config.__doc__ = "The resolved configuration: config.<section>.<name>, one named tuple per section, no null where the mode decides."


class Loaded(NamedTuple):
    """A configuration and the paths that somebody set, retired ones too, as opposed to defaults; null sets nothing."""

    config: Any
    explicit: Set[str]


def load(source: Union[None, str, Dict[str, Any]] = None, overrides: Sequence[str] = (), values: Optional[Dict[str, Any]] = None) -> Loaded:
    """Read a file, or what one would hold (nested sections or flat keys), and `section.key=value` overrides, over the defaults.

    values: as a file has them, over both. Raises ConfigError for an unknown key, a wrong type, a value out of range and a contradiction.
    """
    merged = {}  # type: Dict[str, Any]
    if source is not None:
        merged.update(_by_path(source, "configuration") if isinstance(source, dict) else _read_file(source))
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError("--set takes section.key=value", "section.key=value", override)
        merged[_find(name.strip(), "--set").path] = _parse_value(text.strip())
    merged.update(_by_path(values or {}, "configuration"))
    return Loaded(build(merged), {path for path, value in merged.items() if value is not None})


def simulated(loaded: Loaded) -> Loaded:
    """The same for a simulation: it has no network and every worker is there, so that each round waits for all unless somebody set that."""
    if "system.quorum" in loaded.explicit:
        return loaded
    values = {path: value for path, value in flat(loaded.config).items() if path in loaded.explicit}
    return Loaded(build(dict(values, **{"system.quorum": "all"})), loaded.explicit | {"system.quorum"})


def build(values: Dict[str, Any]) -> Any:
    """Values by name as a file has them (sections, paths, short keys), over the defaults -> a checked and resolved Config."""
    values = _by_path(values, "configuration")
    for path, value in values.items():
        _check_value(_find(path, "configuration"), value)
    merged = {key.path: values.get(key.path, key.default) for key in KEYS}
    if "model.local_epochs" in values and values["model.local_epochs"] is not None and "model.local_steps" not in values:
        merged["model.local_steps"] = None
    _resolve(merged)
    config = Config(**{section: _SectionTypes[section](**{key.name: merged[key.path] for key in KEYS if key.section == section})
                       for section in SECTIONS})
    _check_together(config)
    return config


def to_dict(config: Any) -> Dict[str, Dict[str, Any]]:
    """Nested sections, ready for JSON."""
    return collections.OrderedDict((section, collections.OrderedDict(getattr(config, section)._asdict())) for section in SECTIONS)


def flat(config: Any) -> Dict[str, Any]:
    """Values by path."""
    return collections.OrderedDict((key.path, getattr(getattr(config, key.section), key.name)) for key in KEYS)


def defaults() -> Dict[str, Dict[str, Any]]:
    """What flq_config.json holds: every key with its default."""
    nested = collections.OrderedDict()  # type: Dict[str, Dict[str, Any]]
    for key in KEYS:
        nested.setdefault(key.section, collections.OrderedDict())[key.name] = key.default
    return nested


def shared_values(config: Any) -> Dict[str, Any]:
    """What the master hands out at registration: the values of all keys that are not a machine's own."""
    return {path: value for path, value in flat(config).items() if not BY_PATH[path].local}


def adopt(shared: Dict[str, Any], own: Loaded) -> Any:
    """A worker's configuration: the master's shared values and its own local ones.

    Raises ConfigError naming the key and both values when the worker's file set a shared key differently.
    """
    mine = flat(own.config)
    for path in sorted(own.explicit.intersection(mine)):
        if path in shared and mine[path] != shared[path]:
            raise ConfigError("{} differs from the master's".format(path), json.dumps(shared[path]), json.dumps(mine[path]),
                              "remove the key from the worker's file: the master hands the shared keys out")
    values = {path: value for path, value in mine.items() if BY_PATH[path].local}
    for path, value in shared.items():
        if path in BY_PATH:
            values[path] = value
    return build(values)


def change(config: Any, path: str, value: Any) -> Any:
    """The configuration with one value changed at run time. Raises ConfigError when that is not possible."""
    key = _find(path, "configuration")
    if not key.runtime:
        raise ConfigError("{} cannot be changed while a run goes on".format(key.path),
                          "one of " + ", ".join(k.path for k in KEYS if k.runtime), key.path)
    values = flat(config)
    values[key.path] = value
    return build(values)


class Idle(NamedTuple):
    """A key changes nothing while `holds(config)`. reason: what holds then."""

    path: str
    holds: Callable[[Any], bool]
    reason: str


def _waits_for_all(config: Any) -> bool:
    return config.system.quorum == "all"


def _sends_float32_down(config: Any) -> bool:
    return config.flq_algorithm.b_down in (0, 32)


def _is_never_silent(config: Any) -> bool:
    return config.lazy_selection.thr_scale == 0


def _has_no_budget(config: Any) -> bool:
    return not (config.budget_selection.sel_clients or config.budget_selection.up_budget_bits)


def _has_one_step(config: Any) -> bool:
    model = config.model
    return model.local_steps == 1 or (model.local_epochs == 1 and config.dataset.batch_size == 0)


# One row for each way in which a key can be without effect. tests/simulation/test_idle_keys.py and tests/learning/test_idle_keys.py
# show for every row that runs with and without the key are the same.
IDLE = (
    Idle("system.min_workers", _waits_for_all, "system.quorum is all"),
    Idle("system.round_deadline_s", _waits_for_all, "system.quorum is all"),
    Idle("system.longest_deadline_s", _waits_for_all, "system.quorum is all"),
    Idle("system.longest_deadline_s", lambda config: config.system.round_deadline_s is not None, "system.round_deadline_s is set"),
    Idle("system.absent_rounds", _waits_for_all, "system.quorum is all"),
    Idle("dataset.dir_alpha", lambda config: config.dataset.partition != "non_iid", "dataset.partition is not non_iid"),
    Idle("model.init", lambda config: ":" in config.model.name, "model.name is a model of your own, which brings its own weights"),
    Idle("model.momentum", lambda config: config.model.server_optimizer == "sgd", "model.server_optimizer is sgd"),
    Idle("model.adam_beta2", lambda config: config.model.server_optimizer != "adam", "model.server_optimizer is not adam"),
    Idle("model.adam_epsilon", lambda config: config.model.server_optimizer != "adam", "model.server_optimizer is not adam"),
    Idle("model.l2_biases", lambda config: config.model.l2 == 0, "model.l2 is 0"),
    Idle("model.local_lr", lambda config: _has_one_step(config) and (config.model.lr is not None or config.model.server_optimizer == "adam"),
         "one local step sends its gradient, and model.lr is not derived from it"),
    Idle("flq_algorithm.downlink", _sends_float32_down, "flq_algorithm.b_down is 0 or 32"),
    Idle("flq_algorithm.rd_step", lambda config: config.flq_algorithm.mode != "rd", "flq_algorithm.mode is not rd"),
    Idle("flq_algorithm.rd_step_down", lambda config: config.flq_algorithm.downlink != "rd", "flq_algorithm.downlink is not rd"),
    Idle("flq_algorithm.rd_step_down", _sends_float32_down, "flq_algorithm.b_down is 0 or 32"),
    Idle("flq_algorithm.entropy_coding", lambda config: config.flq_algorithm.mode == "rd", "mode rd is always coded"),
    Idle("flq_algorithm.entropy_coding", lambda config: config.flq_algorithm.mode == "fedavg", "float32 is never coded"),
    Idle("flq_algorithm.entropy_coding_down", lambda config: config.flq_algorithm.downlink == "rd", "downlink rd is always coded"),
    Idle("flq_algorithm.entropy_coding_down", _sends_float32_down, "flq_algorithm.b_down is 0 or 32, and float32 is never coded"),
    Idle("flq_algorithm.sel_ref", lambda config: not config.flq_algorithm.scale_by_selected, "flq_algorithm.scale_by_selected is false"),
    Idle("flq_algorithm.scale_max", lambda config: not config.flq_algorithm.scale_by_selected, "flq_algorithm.scale_by_selected is false"),
    Idle("flq_algorithm.correction", lambda config: config.flq_algorithm.memory != "reference", "flq_algorithm.memory is not reference"),
    Idle("flq_algorithm.rho_max", lambda config: config.flq_algorithm.memory != "reference", "flq_algorithm.memory is not reference"),
    Idle("flq_algorithm.rho_max", lambda config: config.flq_algorithm.correction == "none", "flq_algorithm.correction is none"),
    Idle("lazy_selection.D", _is_never_silent, "lazy_selection.thr_scale is 0 (only the recorded history_sum differs)"),
    Idle("lazy_selection.ck", _is_never_silent, "lazy_selection.thr_scale is 0 (only the recorded history_sum differs)"),
    # With a budget C also says who is selected first.
    Idle("lazy_selection.C", lambda config: _is_never_silent(config) and _has_no_budget(config),
         "lazy_selection.thr_scale is 0 and there is no budget"),
    Idle("lazy_selection.warmup", _is_never_silent, "lazy_selection.thr_scale is 0"),
    Idle("lazy_selection.lazy_eps", _is_never_silent, "lazy_selection.thr_scale is 0"),
)


def without_effect(config: Any, explicit: Set[str]) -> List[str]:
    """One line for each key that somebody set (explicit) and that changes nothing in this configuration.

    A key that says what it would be anyway is not among them, as in a copy of flq_config.json.
    """
    values, reasons = flat(config), collections.OrderedDict()  # type: Dict[str, Any], Dict[str, str]
    for row in IDLE:
        if row.path in explicit and row.holds(config) and build(dict(values, **{row.path: BY_PATH[row.path].default})) != config:
            reasons.setdefault(row.path, row.reason)
    return (["{} {} has no effect: {}".format(path, json.dumps(values[path]), reason) for path, reason in reasons.items()]
            + ["{} is no key any more: {}; remove it".format(key.path, key.doc) for key in RETIRED if key.path in explicit])


def table() -> str:
    """The keys as a Markdown table."""
    lines = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in KEYS:
        marks = [word for word, on in (("local", key.local), ("run time", key.runtime)) if on]
        meaning = key.doc + ("; null: " + key.null_means if key.null_means else "") + (" *({})*".format(", ".join(marks)) if marks else "")
        lines.append("| `{}` | `{}` | {} | {} |".format(key.path, json.dumps(key.default), key.allowed, meaning.replace("|S|", "\\|S\\|").replace("||", "\\|\\|")))
    return "\n".join(lines) + "\n"


def _read_file(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=_no_duplicates)
    except OSError as error:
        raise ConfigError("cannot read the configuration {}".format(path), got=error.strerror, hint="name a JSON file with --config")
    except (ValueError, RecursionError) as error:
        raise ConfigError("{} is not valid JSON".format(path), got=str(error))
    if not isinstance(document, dict):
        raise ConfigError("{} is not a JSON object".format(path), "sections or keys", type(document).__name__)
    return _by_path(document, path)


def _by_path(document: Dict[str, Any], where: str) -> Dict[str, Any]:
    """Nested sections, paths and short keys -> values by path. Raises ConfigError for an unknown name and a key that is set twice."""
    values = {}  # type: Dict[str, Any]
    for name, value in document.items():
        if name in SECTIONS:
            if not isinstance(value, dict):
                raise ConfigError("{}: section {} is not an object".format(where, name), "keys and values", value)
            found = [(_find(name + "." + inner, where), inner_value) for inner, inner_value in value.items()]
        elif isinstance(value, dict) and name not in BY_PATH and name not in _BY_NAME:
            near = difflib.get_close_matches(name, SECTIONS, 1, 0.5)
            raise ConfigError("{}: unknown section {}".format(where, name), ", ".join(SECTIONS),
                              hint="did you mean {}?".format(near[0]) if near else None)
        else:
            found = [(_find(name, where), value)]
        for key, key_value in found:
            if key.path in values:
                raise ConfigError("{}: {} is set twice".format(where, key.path), "one value", [values[key.path], key_value])
            values[key.path] = key_value
    return values


def _no_duplicates(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError("{!r} appears twice".format(name))
    return collections.OrderedDict(pairs)


def _find(name: str, where: str) -> Key:
    if name in BY_PATH:
        return BY_PATH[name]
    if name in _RETIRED:
        return _RETIRED[name]
    if len(_BY_NAME.get(name, ())) == 1:
        return _BY_NAME[name][0]
    if name in _BY_NAME:
        raise ConfigError("{}: unknown key {}".format(where, name), " or ".join(key.path for key in _BY_NAME[name]), name)
    near = difflib.get_close_matches(name, list(BY_PATH) + list(_BY_NAME), 1, 0.5)
    hint = "did you mean {}?".format(near[0]) if near else "USAGE_GUIDE.md lists the keys"
    raise ConfigError("{}: unknown key {}".format(where, name), hint=hint)


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_value(key: Key, value: Any) -> None:
    if value is None:
        good = key.null_means is not None
    elif key.kind is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    elif key.kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif key.kind is list:
        good = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    else:
        good = isinstance(value, key.kind)
    if good and value is not None:
        if key.choices and value not in key.choices:
            near = difflib.get_close_matches(str(value), key.choices, 1)
            raise ConfigError("{} has an unknown value".format(key.path), key.allowed, json.dumps(value, default=repr),
                              "did you mean {}?".format(near[0]) if near else None)
        good = (key.low is None or value >= key.low) and (key.high is None or value <= key.high)
    if not good:
        raise ConfigError("{} cannot take this value".format(key.path), key.allowed, json.dumps(value, default=repr))


def _resolve(values: Dict[str, Any]) -> None:
    """Fill in what null stands for where the other keys decide it."""
    by_mode = _MODE_DEFAULTS[values["flq_algorithm.mode"]]
    for name, default in by_mode.items():
        if values["flq_algorithm." + name] is None:
            values["flq_algorithm." + name] = default
    if values["flq_algorithm.b_down"] is None:
        values["flq_algorithm.b_down"] = {"rd": 8, "bin": 1, "bbit": 3}.get(values["flq_algorithm.downlink"], 4)
    if values["system.min_workers"] is None:
        values["system.min_workers"] = values["system.total_workers"] if values["system.quorum"] == "all" else 1
    if values["lazy_selection.lazy_eps"] is None:
        # An error above a quarter of ||d||^2 would silence a coarse quantiser for ever (algorithm.md 4).
        fine = values["flq_algorithm.mode"] in ("laq", "laq8") and values["flq_algorithm.b_up"] >= 3
        values["lazy_selection.lazy_eps"] = 3.0 if fine else 0.0
    for key in KEYS:
        if key.kind is float and values[key.path] is not None:
            values[key.path] = float(values[key.path])


def _check_together(config: Any) -> None:
    flq, model, system, lazy = config.flq_algorithm, config.model, config.system, config.lazy_selection
    if system.min_workers > system.total_workers:
        raise ConfigError("system.min_workers is larger than system.total_workers", "at most {}".format(system.total_workers), system.min_workers)
    if (model.local_epochs is None) == (model.local_steps is None):
        raise ConfigError("set one of model.local_epochs and model.local_steps", "one of the two null",
                          {"local_epochs": model.local_epochs, "local_steps": model.local_steps})
    low, high = {"fedavg": (32, 32), "bin": (1, 1), "laq8": (8, 8)}.get(flq.mode, (2, 16))
    if not low <= flq.b_up <= high:
        wanted = str(low) if low == high else "{} to {}".format(low, high)
        raise ConfigError("flq_algorithm.b_up does not fit mode {}".format(flq.mode), wanted, flq.b_up,
                          "use mode bin for one bit" if flq.b_up == 1 else None)
    if flq.b_down not in (0, 32):
        low, high = (1, 1) if flq.downlink == "bin" else (2, 16)
        if not low <= flq.b_down <= high:
            raise ConfigError("flq_algorithm.b_down does not fit downlink {}".format(flq.downlink), "0, 32 or {} to {}".format(low, high), flq.b_down)
    if flq.mode == "qsgd" and flq.memory != "none":
        raise ConfigError("mode qsgd is unbiased and takes no memory", "none", flq.memory)
    if flq.radius == "vector" and flq.mode not in ("laq", "laq8", "rd"):
        raise ConfigError("flq_algorithm.radius vector is for modes laq and rd", "tensor", flq.radius)
    budget = config.budget_selection
    if system.late_updates == "apply" and (flq.memory != "reference" or system.quorum != "deadline" or budget.sel_clients or budget.up_budget_bits):
        raise ConfigError("system.late_updates apply does not fit the other keys", "memory reference, quorum deadline and no budget",
                          {"memory": flq.memory, "quorum": system.quorum, "sel_clients": budget.sel_clients, "up_budget_bits": budget.up_budget_bits},
                          "system.late_updates refuse goes with everything")
    if lazy.thr_scale > 0 and flq.memory != "reference":
        raise ConfigError("lazy transmission needs memory reference", "lazy_selection.thr_scale 0 or flq_algorithm.memory reference",
                          {"thr_scale": lazy.thr_scale, "memory": flq.memory})
