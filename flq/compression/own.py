"""A user's own quantiser, `mode: package.module:NAME`: what it gives is checked each time, and what
is wrong is said in one line.
"""

import functools
from typing import Any, Tuple

import numpy as np

from flq.compression import codec
from flq.compression.quantizer import FLOAT32_MAX, Draw, Quantizer, level_dtype
from flq.errors import DataError
from flq.modes import own_quantizer
from flq.user_code import blamed

ENCODE = "encode(values, bits, draw) -> (scale, levels)"
DECODE = "decode(scale, levels, bits) -> float32 values"


@functools.lru_cache(maxsize=None)
def checked(name: str) -> Quantizer:
    """The quantiser that `package.module:NAME` names, tried with a few values. Raises DataError
    where it breaks its contract, and so do its two functions whenever they are called."""
    found = own_quantizer(name).quantizer
    if not isinstance(found, Quantizer):
        raise DataError(f"{name} is no quantiser", "a Quantizer made from a Mode",
                        type(found).__name__)
    for bits in range(found.min_bits, found.max_bits + 1):
        with blamed(name, "max_level(bits) -> the largest level"):
            top = found.max_level(bits)
        _need(name, f"max_level({bits})",
              isinstance(top, int) and 0 < top < 2**bits, f"1 to {2 ** bits - 1}", repr(top))
    if found.coder not in codec.CODERS:
        raise DataError(f"{name} cannot be used: its coder", ", ".join(codec.CODERS),
                        repr(found.coder))
    quantizer = found._replace(encode=functools.partial(_encode, name, found),
                               decode=functools.partial(_decode, name, found), by_scale=None,
                               grid=None, block_size=0)  # modes.OWN_RADII
    for bits in sorted({found.min_bits, found.mode.bits, found.max_bits}):
        for value in (0.0, 1.0):
            codec.decode(
                codec.encode(quantizer, np.array([value, -0.5 * value, 0.0], np.float32), (3,),
                             bits, np.zeros), (3,))
    return quantizer


def _encode(name: str, quantizer: Quantizer, values: np.ndarray, bits: int,
            draw: Draw) -> Tuple[Any, np.ndarray]:
    kept = values.view()
    kept.flags.writeable = False  # the caller goes on to use them
    with blamed(name, ENCODE):
        scale, levels = quantizer.encode(kept, bits, draw)
    _need_array(name, "the levels of encode", levels, level_dtype(bits), values.size)
    top = quantizer.max_level(bits)
    _need(name, "the levels of encode",
          levels.max() <= top, f"at most max_level({bits}) = {top}", levels.max())
    if quantizer.has_scale:
        good = isinstance(scale, (float, np.floating)) and 0 <= float(scale) <= FLOAT32_MAX
        _need(name, "the scale of encode", good, "a finite float32 of at least 0", repr(scale))
        return np.float32(scale), levels
    _need(name, "the scale of encode", scale is None, "None, because has_scale is False",
          repr(scale))
    return None, levels


def _decode(name: str, quantizer: Quantizer, scale: Any, levels: np.ndarray,
            bits: int) -> np.ndarray:
    kept = levels.view()
    kept.flags.writeable = False
    with blamed(name, DECODE):
        values = quantizer.decode(scale, kept, bits)
    _need_array(name, "the values of decode", values, np.float32, levels.size)
    _need(name, "the values of decode", np.isfinite(values).all(), "finite values", "inf or nan")
    return values


def _need_array(name: str, what: str, found: Any, dtype: type, size: int) -> None:
    good = isinstance(found, np.ndarray) and found.dtype == dtype and found.shape == (size,)
    got = f"{found.dtype} of shape {found.shape}" if isinstance(
        found, np.ndarray) else type(found).__name__
    _need(name, what, good, f"{np.dtype(dtype).name} of shape ({size},)", got)


def _need(name: str, what: str, good: Any, expected: str, got: Any) -> None:
    if not good:
        raise DataError(f"{name} breaks its contract: {what}", expected, got)
