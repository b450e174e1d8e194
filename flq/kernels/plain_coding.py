"""What the entropy coders do for each weight or byte, with NumPy: as plain.py."""

from typing import List, Optional, Tuple

import numpy as np

RANS_PRECISION, RANS_LOW = 15, 24
"""Of flq/compression/rans.py: frequencies are of 2^15, and a lane is a number of [2^24, 2^40)."""


def deflate_literals(plain: np.ndarray) -> Optional[bytes]:
    """The zlib stream of uint8[n] with Huffman codes alone; None where zlib is to write it."""
    return None


def inflate_literals(stream: bytes, length: int) -> Optional[np.ndarray]:
    """The uint8[length] that a zlib stream holds; None where zlib is to read it, or to say what is
    wrong with it.
    """
    return None


def order_of_bytes(values: np.ndarray) -> np.ndarray:
    """The places of uint8[n], those of small ones first, equal ones as they come: int64[n]."""
    return np.argsort(values, kind="stable")  # NumPy sorts bytes by radix


def after_steps(table: np.ndarray, codes: np.ndarray, steps: np.ndarray,
                out: np.ndarray) -> None:
    """table[128 code + min(127, steps)] in `out`. table: uint8[2^15]; codes and out: uint8[n];
    steps: int16 or int32[n], none negative.
    """
    index = codes.astype(np.uint16)
    index <<= 7
    index |= np.minimum(steps, 127).astype(np.uint16)
    # no index is outside of the table; without the check of that it takes half as long
    table.take(index, out=out, mode="clip")


def rans_write(symbols: np.ndarray, frequencies: np.ndarray, starts: np.ndarray,
               states: np.ndarray) -> np.ndarray:
    """Write the symbols into the lanes, the last one first; the words that come out, uint16.

    symbols: int64[n], n at least 1; symbol t belongs to lane t mod W. frequencies, starts: of each
    kind of symbol, int64. states: of the W lanes, int64[W], overwritten.
    """
    lanes, of_each = states.size, frequencies.take(symbols)
    limits = of_each << (RANS_LOW + 16 - RANS_PRECISION)
    # x <- x + (M - f) floor(x / f) + c. A quotient of float64 is rounded once; x / f is at least
    # 1 / f > x / f 2^-40 away from the next integer, so that its floor is exact.
    divisors, gaps = of_each.astype(np.float64), (1 << RANS_PRECISION) - of_each
    begins = starts.take(symbols)
    words: List[np.ndarray] = []
    for start in range((symbols.size - 1) // lanes * lanes, -1, -lanes):
        part = slice(start, min(start + lanes, symbols.size))
        x = states[:part.stop - start]
        full, = (x >= limits[part]).nonzero()
        if full.size:
            high = x.take(full)
            words.append(high & 0xffff)
            x[full] = high >> 16
        quotient = (x / divisors[part]).astype(np.int64)
        quotient *= gaps[part]
        x += quotient
        x += begins[part]
    return np.concatenate(words[::-1] + [np.zeros(0, np.int64)]).astype(np.uint16)


def rans_read(rows: np.ndarray, found: np.ndarray, frequencies: np.ndarray, starts: np.ndarray,
              states: np.ndarray, words: np.ndarray) -> Tuple[np.ndarray, int]:
    """What rans_write was given: the low bytes of the symbols, uint8[n], and how many words were
    taken, more than there are where they do not suffice.

    rows: the symbols without their low bytes, int64[n]. found: by 2^15 row + slot, the byte that
    has it, uint8. words: uint16.
    """
    lanes, values = states.size, np.empty(rows.size, np.uint8)
    places, first = rows << RANS_PRECISION, rows << 8
    used = 0
    for start in range(0, rows.size, lanes):
        part = slice(start, min(start + lanes, rows.size))
        x = states[:part.stop - start]
        slot = x & ((1 << RANS_PRECISION) - 1)
        value = found.take(slot + places[part])
        values[part] = value
        symbol = first[part] + value
        x >>= RANS_PRECISION
        x *= frequencies.take(symbol)
        x += slot
        x -= starts.take(symbol)
        empty, = (x < 1 << RANS_LOW).nonzero()
        if empty.size:
            more = words[used:used + empty.size].astype(np.int64)
            used += empty.size
            if more.size != empty.size:
                return values, words.size + 1
            x[empty] = (x.take(empty) << 16) | more
    return values, used
