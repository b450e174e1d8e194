"""Levels around a middle one <-> few bytes when nearly all are close to the middle and some are far
out.

A grid wide enough for the largest entry would leave no room for several levels in a byte. So each
distance from the middle is cut at K: what is left, -K .. K, is written in base 2K + 1, several
digits a byte (entropy.py), and for each entry at one of the two ends the excess |level - L| - K
follows. One byte in front says K.

    K | zlib( digits of max(-K, min(K, level - L)) + K, then the excesses )
"""

from typing import Tuple

import numpy as np

from flq.compression import entropy
from flq.compression.code_length import deflated
from flq.compression.deflate import zlib
from flq.compression.quantizer import level_dtype
from flq.errors import FrameError

CUTS = (1, 2, 7, 127)
"""K: bases 3, 5, 15 and 255, of which 5, 3, 2 and 1 digits fit into a byte."""


def compress(levels: np.ndarray, max_level: int) -> bytes:
    """Levels of at most two bytes around max_level / 2 -> K and a zlib stream.

    A sample of the levels says which K is the shortest.
    """
    few = entropy.sample(levels)

    def cost(choice: Tuple[int, int]) -> float:
        # A smaller K takes more passes over the levels: it must save a hundredth.
        return len(_stream(few, max_level, *choice)) * (1.0 if choice[0] == CUTS[-1] else 1.01)

    cut, strategy = min(((cut, strategy) for cut in CUTS for strategy in entropy.STRATEGIES),
                        key=cost)
    return bytes([cut]) + _stream(levels, max_level, cut, strategy)


def coded_bits(levels: np.ndarray, max_level: int) -> float:
    """About how many bits compress(levels) takes, the same on every machine."""
    few = entropy.sample(levels)

    def cost(choice: Tuple[int, bool]) -> float:
        return _bits(few, max_level, *choice) * (1.0 if choice[0] == CUTS[-1] else 1.01)

    return _bits(levels, max_level,
                 *min(((cut, runs) for cut in CUTS for runs in (False, True)), key=cost))


def _bits(levels: np.ndarray, max_level: int, cut: int, runs: bool) -> float:
    """What _stream takes."""
    return sum(deflated(part, runs) for part in _parts(levels, max_level, cut) if part)


def _parts(levels: np.ndarray, max_level: int, cut: int) -> Tuple[bytes, bytes]:
    """The digits and the excesses before zlib."""
    half = max_level // 2
    low, high = max(0, half - cut), min(max_level, half + cut)
    digits = levels
    excess = b""
    if half > cut:
        digits = np.clip(levels, low, high)
        digits -= digits.dtype.type(low)
        ends = np.flatnonzero((digits == 0) | (digits == 2 * cut))
        away = np.abs(levels[ends].astype(np.int32) - half) - cut
        excess = entropy.to_bytes(away.astype(np.uint16), half - cut + 1)
    return entropy.to_bytes(digits, min(max_level, 2 * cut) + 1), excess


def _stream(levels: np.ndarray, max_level: int, cut: int, strategy: int) -> bytes:
    """What follows K."""
    digits, excess = _parts(levels, max_level, cut)
    if not excess:
        return entropy.to_stream(np.frombuffer(digits, np.uint8), strategy)
    coder = entropy.zlib_coder(strategy)
    # zlib sees two kinds of bytes: a new block between them keeps their Huffman codes apart.
    return (coder.compress(digits) + coder.flush(zlib.Z_FULL_FLUSH) + coder.compress(excess)
            + coder.flush())


def decompress(stream: bytes, count: int, bits: int, max_level: int) -> np.ndarray:
    """K and a zlib stream -> `count` levels. Inflates at most what count and max_level imply.

    Raises FrameError when the stream is damaged, longer or shorter, or stands for a level above the
    grid.
    """
    half = max_level // 2
    if not stream or stream[0] not in CUTS:
        raise FrameError("bad_coding", "the coded levels name an unknown cut", list(CUTS),
                         list(stream[:1]))
    cut = min(stream[0], half)
    inflating = entropy.Inflating(stream[1:])
    plain = inflating.read(entropy.plain_length(count, 2 * cut + 1))
    levels = entropy.from_bytes(plain, count, min(bits, 8), 2 * cut + 1)
    if levels.size and levels.max() > 2 * cut:
        raise FrameError("bad_level", "a coded digit is above its base", f"at most {2 * cut}",
                         int(levels.max()))
    if cut < half:
        ends = np.flatnonzero((levels == 0) | (levels == 2 * cut))
        base = half - cut + 1
        away = entropy.from_bytes(inflating.read(entropy.plain_length(ends.size, base)), ends.size,
                                  bits, base).astype(np.int32)
        if away.size and away.max() >= base:
            raise FrameError("bad_level", "a level is above the grid", f"at most {max_level}",
                             int(away.max()) + half + cut)
        negative = levels[ends] == 0
        levels = levels.astype(level_dtype(bits))
        levels += levels.dtype.type(half - cut)
        levels[ends] = np.where(negative, half - cut - away, half + cut + away)
    inflating.end()
    return levels
