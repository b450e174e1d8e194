"""How many bits DEFLATE takes for some bytes, counted instead of written (RFC 1951).

zlib's own output differs between its versions. This count does not: it is made of integers and
basic operations on float64, so that whoever computes a broadcast again chooses the same step.
"""

import heapq

import numpy as np

# Lengths of 3 to 258 are 29 symbols, from 257 on, with so many further bits.
_LONGEST, _FIRST = 258, 257
_FURTHER = np.array([0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0])
_SYMBOL = np.repeat(np.arange(29), [1 << bits for bits in _FURTHER[:-1]] + [1])
"""By length - 3. The last symbol of five further bits ends one early, at 257."""
_SYMBOL = np.append(_SYMBOL[:_LONGEST - 3], 28)
_BLOCK_BITS, _BITS_PER_SYMBOL = 120, 3.5
"""Of a dynamic block: its head, and what the length of a symbol's code takes, about."""


def deflated(data: bytes, runs: bool) -> float:
    """Bits of a block, Huffman coded; runs: with matches of distance 1, as Z_RLE finds them."""
    values = np.frombuffer(data, np.uint8)
    used = np.count_nonzero(np.bincount(values, minlength=1))
    head = _BLOCK_BITS + _BITS_PER_SYMBOL * used
    if not runs:
        return head + _huffman(np.append(np.bincount(values, minlength=256), 1))
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))[:values.size]
    # The first byte of a run is a literal, and so are one or two that are left over.
    whole, rest = np.divmod(np.diff(np.append(starts, values.size)) - 1, _LONGEST)
    matched = rest >= 3
    literals = np.bincount(values[starts], weights=1 + np.where(matched, 0, rest), minlength=256)
    symbols = _SYMBOL[rest[matched] - 3]
    lengths = np.bincount(symbols, minlength=29)
    lengths[-1] += whole.sum()
    matches = int(lengths.sum())  # each with a distance of one bit
    counts = np.concatenate([literals.astype(np.int64), [1], lengths])
    return head + _huffman(counts) + matches + int(_FURTHER[symbols].sum())


def _huffman(counts: np.ndarray) -> int:
    """Bits of symbols that occur so often, in an optimal prefix code."""
    heap = counts[counts > 0].tolist()
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total
