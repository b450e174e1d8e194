"""What an engine carries between a server and its nodes in place of a model's arrays, in named
fields; exchange_server.py and exchange_node.py are the two ends.

A field is a whole number, a text or bytes. To a node:

    run           the run's id
    key           the place of the model among the engine's records, on NVFlare its arrays' type
    about         JSON: the configuration and the form of the arrays; fixed: the bytes of those that
                  nothing changes. Both only for a node that may not know them
    frames        the broadcast frames from what the node holds to the model, as over HTTP
    params_hash   of the model
    reference     the chain r of the node's uploads that count, empty for a newcomer
    epoch         how often its reference was reset, -1 for a newcomer
    fresh         1: the server holds no reference of it, so that both can start from 0
    worker        its number, unless it has one of its own

From a node:

    state         answered, skipped, tested, or lost: it does not hold what the frames start from
    worker        its number
    version, params_hash    the model that it holds; -1 for none
    reset         1: its reference is 0, in the epoch after the server's
    frame         the upload frame of an answer, as over HTTP
"""

from __future__ import annotations

import fnmatch
import json
from typing import Any, Mapping, NamedTuple, Sequence, Union

import numpy as np

from flq import config as configuration
from flq.errors import ConfigError, DataError
from flq.learning import own
from flq.parameters import Layout, flatten, unflatten
from flq.settings import Config

Fields = Mapping[str, Union[int, str, bytes]]
Arrays = Mapping[str, np.ndarray]

ANSWERED, SKIPPED, TESTED, LOST = "answered", "skipped", "tested", "lost"
TRAINED, MOVING, FIXED = "trained", "moving", "fixed"
MOVING_NAMES = ("*running_mean", "*running_var", "*moving_mean*", "*moving_variance*")
"""What batch normalisation calls the values that training moves without a gradient, in PyTorch and
Keras."""


class Form(NamedTuple):
    """The arrays of a model by name, in order. kinds: TRAINED travels quantised, MOVING in float32,
    FIXED (whole numbers) once and only down.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    kinds: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        return Layout(self._shapes(TRAINED), self._shapes(MOVING))

    @property
    def fixed_bytes(self) -> int:
        """How many bytes `fixed_of` gives."""
        return sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for shape, dtype, kind in zip(
            self.shapes, self.dtypes, self.kinds) if kind == FIXED)

    def _shapes(self, kind: str) -> tuple[tuple[int, ...], ...]:
        return tuple(shape for shape, found in zip(self.shapes, self.kinds) if found == kind)

    def split(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """The arrays as params float32[p] and moving values float32[N]. Raises DataError where they
        are not of this form.
        """
        if tuple(arrays) != self.names:
            raise DataError("the arrays have other names than the model's", list(self.names),
                            list(arrays))
        params, moving = (
            flatten([arrays[name] for name, found in zip(self.names, self.kinds) if found == kind],
                    self._shapes(kind)) for kind in (TRAINED, MOVING))
        return params, moving

    def join(self, params: np.ndarray, moving: np.ndarray, fixed: bytes) -> dict[str, np.ndarray]:
        """The arrays by name, in their own dtypes; they may be changed."""
        layout = self.layout
        of = {TRAINED: iter(unflatten(params, layout.shapes)),
              MOVING: iter(unflatten(moving, layout.non_trainable_shapes)),
              FIXED: iter(self._fixed(fixed))}
        return {name: np.array(next(of[kind]), dtype) for name, dtype, kind in zip(
            self.names, self.dtypes, self.kinds)}

    def _fixed(self, data: bytes) -> list[np.ndarray]:
        found, start = [], 0
        for shape, dtype, kind in zip(self.shapes, self.dtypes, self.kinds):
            if kind == FIXED:
                array = np.frombuffer(data, dtype, int(np.prod(shape)), start).reshape(shape)
                found.append(array)
                start += array.nbytes
        return found


def form_of(arrays: Arrays, moving: Sequence[str] = MOVING_NAMES) -> Form:
    """The form of a model's first arrays. moving: patterns of the names of moving values.

    Raises DataError for arrays that are no numbers.
    """
    kinds = []
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"array {name} cannot travel", "numbers", array.dtype)
        is_moving = any(fnmatch.fnmatchcase(name, pattern) for pattern in moving)
        kinds.append(FIXED if array.dtype.kind != "f" else MOVING if is_moving else TRAINED)
    if TRAINED not in kinds:
        raise DataError("the model has nothing to train", "at least one array of floats", "none")
    return Form(tuple(arrays), tuple(array.shape for array in arrays.values()),
                tuple(array.dtype.str for array in arrays.values()), tuple(kinds))


def fixed_of(form: Form, arrays: Arrays) -> bytes:
    """The bytes of the arrays that nothing changes."""
    return b"".join(np.ascontiguousarray(arrays[name]).tobytes()
                    for name, kind in zip(form.names, form.kinds) if kind == FIXED)


def configured(source: Any, keywords: Mapping[str, Any]) -> Config:
    """The configuration of an exchange: that of a run of own learners. Raises ConfigError for what
    one message to a node and one back cannot do.
    """
    loaded = configuration.load(source, values=dict(keywords))
    if "system.cohorts" not in loaded.explicit:  # null may stand for more than one
        loaded = configuration.load(source, values=dict(keywords, **{"system.cohorts": 1}))
    config = own.configured(loaded).config
    budget = config.budget_selection
    for path, idle in (("budget_selection.sel_clients", budget.sel_clients == 0),
                       ("budget_selection.up_budget_bits", budget.up_budget_bits == 0),
                       ("system.cohorts", config.system.cohorts == 1),
                       ("system.late_updates", config.system.late_updates == "refuse")):
        if not idle:
            raise ConfigError(f"{path} does not fit an engine", "a configuration without it",
                              configuration.flat(config)[path],
                              "the engine selects its nodes itself, and a bid would need a second "
                              "message (docs/engines.md)")
    return config


def about(config: Config, form: Form) -> str:
    """What a node must know once. `told` reads it."""
    return json.dumps({"config": configuration.to_dict(config), "form": form._asdict()},
                      separators=(",", ":"))


def told(text: str) -> tuple[Config, Form]:
    """The configuration and the form in an `about`. Raises DataError and ConfigError for a text
    that no server makes.
    """
    try:
        document = json.loads(text)
        form = Form(*(tuple(document["form"][name]) for name in Form._fields))
        form = form._replace(shapes=tuple(tuple(map(int, shape)) for shape in form.shapes))
        values = dict(document["config"])
        sizes = [size for shape in form.shapes for size in shape]
        if min(sizes, default=0) < 0 or set(form.kinds) - {TRAINED, MOVING, FIXED} or len(
                {len(part) for part in form}) != 1 or any(
                    np.dtype(dtype).kind not in "fiub" for dtype in form.dtypes):
            raise ValueError("a form that no model has")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError("the server's words about its run cannot be read",
                        "what flq.integrations.exchange.about makes", error)
    return configuration.build(values), form


def field(fields: Fields, name: str, kind: type, default: Any = None) -> Any:
    """One field, of its kind; without it the default. Raises DataError where it is of another kind
    or missing without a default.
    """
    value = fields.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"field {name} of an FLQ message is not usable", kind.__name__,
                        type(value).__name__)
    return value
