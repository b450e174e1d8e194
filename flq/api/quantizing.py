"""flq.quantize and flq.dequantize: arrays <-> the bytes that would travel, with the same code as a
run's.
"""

import sys
import types
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from flq import rng
from flq.algorithm import uplink
from flq.api.configuration import Config
from flq.compression import codec
from flq.compression.quantizer import FLOAT32_MAX
from flq.errors import DataError, FrameError
from flq.kernels import squared_norm
from flq.modes import MODES, QUANTIZER_ROWS, Mode
from flq.parameters import Layout, flatten, unflatten

Arrays = Union[np.ndarray, List[np.ndarray]]
Shape = Tuple[int, ...]


class Description(NamedTuple):
    """One mode of flq.QUANTIZERS. bits: what it takes unless told, from min_bits to max_bits;
    coded: whether its levels are entropy coded by default where that is smaller; memory: what a run
    with it keeps at the workers (docs/algorithm.md 2)."""

    mode: str
    meaning: str
    bits: int
    min_bits: int
    max_bits: int
    coded: bool
    memory: str


class Quantized(NamedTuple):
    """What flq.quantize gives.

    data: the bytes that would travel, without a frame's header. values: what the receiver has,
    float32, in the shapes of the input. error: the squared norm of what is left out over that of
    the input. bits: all that would travel, 8 for each byte of data. What the receiver must know
    beside the data: mode, width (bits of a level), shapes, coded, radius, and with radius block
    block_size.
    """

    data: bytes
    values: Arrays
    error: float
    mode: str
    width: int
    shapes: Union[Shape, List[Shape]]
    coded: bool
    radius: str
    block_size: int

    @property
    def bits(self) -> int:
        return 8 * len(self.data)

    @property
    def bits_per_value(self) -> float:
        return self.bits / _layout(self.shapes).num_params

    def __repr__(self) -> str:
        return (
            f"Quantized(mode {self.mode}, {_layout(self.shapes).num_params} values, {self.bits} "
            f"bits, {self.bits_per_value:.3g} a value, error {self.error:.3g})"
        )


def quantize(values: Any, mode: str = "laq", bits: Optional[int] = None,
             radius: Optional[str] = None, rd_step: Optional[float] = None,
             entropy_coding: Optional[bool] = None, seed: int = 0,
             rd_target_bits: Optional[float] = None,
             block_size: Optional[int] = None) -> Quantized:
    """Quantise an array, or a list of arrays with a scale each, as a worker would its update.

    values: finite, float32 or float64, a TensorFlow or PyTorch tensor or a list of floats too. The
    other arguments are a configuration's keys of that name (bits: b_up), and None stands for the
    mode's default; seed counts for qsgd, which draws. Raises ConfigError for an argument that does
    not fit and DataError for values that do not, each in one line.

    >>> import flq, numpy as np
    >>> weights = [np.linspace(-1, 1, 600).reshape(20, 30), np.full(30, 0.5)]
    >>> sent = flq.quantize(weights, "bbit", bits=4)
    >>> sent.data[:8].hex(), sent.width, sent.values[0].shape, sent.values[1][:2]
    ('0000803f0000003f', 4, (20, 30), array([0.5, 0.5], dtype=float32))
    >>> sent.bits < 4 * 630 + 2 * 32, sent.error < 0.01
    (True, True)
    >>> flq.quantize(weights, "bin").bits == 630 + 2 + 2 * 32
    True
    >>> blocks = flq.quantize(weights, "laq", bits=4, radius="block", block_size=64)
    >>> blocks.error < flq.quantize(weights, "laq", bits=4).error
    True
    >>> flq.quantize([1.0, float("nan")])
    Traceback (most recent call last):
    flq.errors.DataError: values cannot be quantised; expected finite numbers; got nan
    """
    tensors, shapes = _tensors(values)
    settings = _settings(mode, bits, radius, entropy_coding, seed, rd_step=rd_step,
                         rd_target_bits=rd_target_bits, block_size=block_size)
    layout = _layout(shapes)
    vector = flatten(tensors, layout.shapes)
    up, width = uplink.settings_from(settings, layout), settings.flq_algorithm.b_up
    encoded = codec.encode(up.quantizer, vector, up.sizes, width,
                           rng.Stream(settings.dataset.seed, rng.UPLINK).uniform)
    body = codec.to_body(encoded, up.entropy_coding)
    received = codec.decode(encoded, up.sizes)
    whole = np.concatenate([tensor.reshape(-1).astype(np.float64) for tensor in tensors])
    norm2 = squared_norm(whole)
    error = squared_norm(whole - received) / norm2 if norm2 > 0 else 0.0
    return Quantized(body.data, _in_shapes(received, shapes), error, mode, width, shapes,
                     body.coded, settings.flq_algorithm.radius,
                     settings.flq_algorithm.block_size)


def dequantize(data: Union[Quantized, bytes], shapes: Union[None, Shape, Sequence[Shape]] = None,
               mode: str = "laq", bits: Optional[int] = None, coded: bool = False,
               radius: Optional[str] = None, block_size: Optional[int] = None) -> Arrays:
    """What the receiver of the bytes has: an array, or a list of them where shapes is a list.

    data: what flq.quantize gave, or its bytes; then the rest says what a frame's header would
    (bits: the width). Raises DataError, in one line, for bytes that are not what these arguments
    say.

    >>> import flq, numpy as np
    >>> sent = flq.quantize(np.array([0.75, -1.0, 0.25]), "bbit", bits=2)
    >>> flq.dequantize(sent)
    array([ 1., -1.,  0.], dtype=float32)
    >>> flq.dequantize(sent.data, (3,), "bbit", bits=2, coded=sent.coded)
    array([ 1., -1.,  0.], dtype=float32)
    >>> flq.dequantize(sent.data[:-1], (3,), "bbit", bits=2)
    Traceback (most recent call last):
    flq.errors.DataError: body_short: the body has another length than its header implies;
    expected 5; got 4
    """
    if isinstance(data, Quantized):
        shapes, mode, bits, coded, radius, block_size, data = (data.shapes, data.mode, data.width,
                                                               data.coded, data.radius,
                                                               data.block_size, data.data)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise DataError("there is nothing to dequantise", "what flq.quantize gives, or its bytes",
                        type(data).__name__)
    shapes = _checked_shapes(shapes)
    settings = _settings(mode, bits, radius, None, 0, block_size=block_size)
    layout = _layout(shapes)
    up = uplink.settings_from(settings, layout)
    try:
        encoded = codec.from_body(codec.Body(bytes(data), bool(coded)), up.quantizer,
                                  settings.flq_algorithm.b_up, up.sizes)
    except FrameError as error:
        raise DataError(error.message.replace("bad_frame: ", ""), error.expected, error.got)
    return _in_shapes(codec.decode(encoded, up.sizes), shapes)


def _describe(row: Mode) -> Description:
    first = (sys.modules[row.code.partition(":")[0]].__doc__ or "").partition("\n")[0]
    # laq8 is laq
    meaning = first.partition(": ")[2] + ("" if row is QUANTIZER_ROWS[row.code] else
                                          f" With {row.widths} bits.")
    return Description(row.name, meaning, row.bits, row.min_bits, row.max_bits,
                       row.defaults["entropy_coding"], row.memory)


QUANTIZERS: Mapping[str, Description] = types.MappingProxyType(
    {name: _describe(row) for name, row in MODES.items()})
"""Every mode, by its name in a configuration, with its Description."""


def _settings(mode: str, bits: Any, radius: Any, entropy_coding: Any, seed: Any,
              **given: Any) -> Config:
    """given: keys whose default does not follow from the mode; None sets nothing."""
    keys = {
        "mode": mode, "b_up": bits, "radius": radius, "entropy_coding": entropy_coding, "seed": seed
    }
    keys.update((name, value) for name, value in given.items() if value is not None)
    return Config(keys)


def _tensors(values: Any) -> Tuple[List[np.ndarray], Union[Shape, List[Shape]]]:
    """The arrays, checked, and their shapes: a list of them for a list of arrays."""
    several = isinstance(values, (list, tuple))
    values = [_on_cpu(value) for value in values] if several else _on_cpu(values)
    if several and any(np.ndim(value) > 0 for value in values):
        tensors = [_checked(value, f"values[{index}]") for index, value in enumerate(values)]
        shapes: Union[Shape, List[Shape]] = [tensor.shape for tensor in tensors]
    else:
        tensors = [_checked(values, "values")]
        shapes = tensors[0].shape
    if not sum(tensor.size for tensor in tensors):
        raise DataError("values cannot be quantised", "at least one number", "none")
    return tensors, shapes


def _on_cpu(value: Any) -> Any:
    """What NumPy can read: a torch tensor without its gradient and on the processor, which copies
    nothing where it lies there already.
    """
    return value.detach().cpu() if hasattr(value, "detach") and hasattr(value, "cpu") else value


def _checked(value: Any, name: str) -> np.ndarray:
    try:
        tensor = np.asarray(value)
    except ValueError:
        tensor = np.asarray(None)
    if tensor.size and tensor.dtype not in (np.float32, np.float64):
        raise DataError(f"{name} cannot be quantised", "float32 or float64", tensor.dtype)
    if not np.isfinite(tensor.astype(np.float64)).all():
        raise DataError(f"{name} cannot be quantised", "finite numbers",
                        float(tensor[~np.isfinite(tensor)][0]))
    if tensor.size and max(tensor.max(), -tensor.min()) > FLOAT32_MAX:
        raise DataError(f"{name} cannot be quantised", "numbers that float32 can hold",
                        float(np.abs(tensor).max()))
    return tensor


def _checked_shapes(shapes: Any) -> Any:
    """A shape as a tuple, or several as a list of tuples."""
    def one(shape: Any) -> Shape:
        if not all(isinstance(size, (int, np.integer)) and size >= 0 for size in shape):
            raise TypeError
        return tuple(int(size) for size in shape)

    try:
        checked = [one(shape) for shape in shapes] if isinstance(shapes, list) else one(shapes)
        empty = not _layout(checked).num_params
    except TypeError:
        empty = True
    if empty:
        raise DataError("shapes does not say what the bytes hold",
                        "a tuple of sizes such as (20, 30), or a list of such tuples", shapes)
    return checked


def _layout(shapes: Any) -> Layout:
    return Layout(tuple(shapes) if isinstance(shapes, list) else (shapes,))


def _in_shapes(vector: np.ndarray, shapes: Any) -> Arrays:
    arrays = unflatten(vector, _layout(shapes).shapes)
    return arrays if isinstance(shapes, list) else arrays[0]
