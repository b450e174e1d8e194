"""Whether a library gives the bits of plain.py and plain_coding.py:

    FLQ_KERNELS=numpy python -m flq.kernels.check FILE

Ends with 0 where it does. build.py asks this of what a compiler made.
"""

import hashlib
import sys
from types import SimpleNamespace
from typing import Any, Iterator, List, Tuple

import numpy as np

from flq.kernels import library, plain, plain_coding
from flq.pieces import PIECE

LENGTHS = (1, 255, 1023, 1025, PIECE + 1, 2 * PIECE + 5000)
STREAMS = {
    (1, 2): "d59c599d430ca2bc", (1, 16): "90174a8fd68bd1c6", (1, 200): "d59c599d430ca2bc",
    (255, 2): "339174bcd3fa8f42", (255, 16): "dcd2a06262404595", (255, 200): "",
    (1023, 2): "497f29e7a506f93d", (1023, 16): "3abc007ef89466fb",
    (1023, 200): "ac0e15ef1cc1b76b", (1025, 2): "344c0badfcaa9ea4",
    (1025, 16): "cc4f559b3be7170f", (1025, 200): "1dee112afaed791e",
    (32769, 2): "909bfb7b0c8697b2", (32769, 16): "b0a8f977f40f2e95",
    (32769, 200): "2ef85bf2844b32e2", (70536, 2): "2c5e7a0d4bd4dfaf",
    (70536, 16): "7bfdde8a6d2d7d74", (70536, 200): "415dff4fc29bf4ab"
}
"""SHA-256 of what zlib 1.2.13 writes of the literals below, by how many and how wide."""
Case = Tuple[str, Tuple[Any, ...]]


def cases(length: int) -> Iterator[Case]:
    """Names of functions of plain.py and arguments of theirs, for vectors of that length."""
    noise = np.random.RandomState(length)
    x, y = (_wide(noise, length) for _ in range(2))
    near = noise.uniform(-1, 1, length).astype(np.float32)
    g = _wide(noise, length).astype(np.float64) / 3
    levels = noise.randint(0, 256, length).astype(np.uint8)
    yield "squared_norm", (x,)
    yield "squared_norm", (np.where(np.arange(length) == length // 2, np.float32(np.inf), x),)
    yield "squared_distance", (x, y)
    yield "squared_distance_f64", (x, y)
    yield "sum_of_magnitudes", (x,)
    yield "largest_magnitude", (x,)
    for bits in (1, 2, 4, 8):
        half, margin = 2.0 ** (bits - 1) - 0.5, 2.0 ** (bits - 20)
        yield "near_levels", (near, half, half + 0.5 - margin, half + 0.5 + margin)
        yield "on_grid", (levels & (2 ** bits - 1), 2, 2 ** bits - 1, np.float32(0.1), bits)
    yield "on_grid", (levels, 1, 127, np.float32(1e-30), 8)
    yield "on_grid", (levels, 1, 127, np.float32(0.3), 8, x)
    yield "products_with_levels", (x, levels, 127)
    for rate in (1.0, 0.4):
        yield "from_reference", (rate, x, g)
        most = float(np.abs(g + x).max()) * rate
        yield "to_reference", (rate, most, g, x)
        yield "to_reference", (rate, most * 0.999, g, x)
    for part in (slice(0, length), slice(length // 3, length)):
        yield "weighted_sum", ([x, y, near], [1.0, 17.0, 0.3], part)
        yield "weighted_sum", ([], [], part)
    yield "order_of_bytes", (levels,)
    yield "moved", (x, y, np.float32(0.3))
    yield "stepped", (x, np.float32(0.1), y)


def _wide(noise: np.random.RandomState, length: int) -> np.ndarray:
    """Numbers of very different sizes, denormals and both zeros among them."""
    values = noise.standard_normal(length) * 10.0 ** noise.randint(-44, 18, length)
    values[noise.randint(0, 9, length) == 0] = 0.0
    return (values * noise.choice([-1.0, 1.0], length)).astype(np.float32)


def sketch(kernels: Any, length: int) -> Any:
    """A sketch: the signs are made by the kernels that read them."""
    noise = np.random.RandomState(length)
    rows = -(-length // PIECE)
    turns = plain.Turns(kernels.signs(noise.randint(0, 2, length).astype(np.uint8)),
                        noise.randint(0, PIECE, rows).astype(np.uint32),
                        noise.randint(0, plain.WIDTH, PIECE // plain.WIDTH).astype(np.uint32))
    return kernels.sketch(_wide(noise, length), turns)


def around_reference(kernels: Any, length: int) -> Any:
    """Directions, which are written into vectors."""
    noise = np.random.RandomState(length)
    g, weighted = (_wide(noise, length).astype(np.float64) / 3 for _ in range(2))
    found = tuple(np.empty(length, np.float32) for _ in range(2))
    for rate, out in zip((1.0, 0.4), found):
        kernels.around_reference(g, rate, weighted, 1.25, 300.0, out)
    return found


def after_steps(kernels: Any, length: int) -> Any:
    """Codes that steps lead to, which are written into a vector."""
    noise = np.random.RandomState(length)
    table, codes = (noise.randint(0, 256, size).astype(np.uint8) for size in (1 << 15, length))
    out = np.empty(length, np.uint8)
    kernels.after_steps(table, codes, noise.randint(0, 300, length).astype(np.int16), out)
    return out


def rans(kernels: Any, length: int) -> Any:
    """Words, the lanes after them, and what is read from both. Symbol 256 r + v has the frequency
    of row r for each v."""
    noise, rows = np.random.RandomState(length), 3
    each = (1 << plain_coding.RANS_PRECISION) // 256
    frequencies: np.ndarray = np.full(256 * rows, each, np.int64)
    starts = np.arange(256 * rows) % 256 * frequencies
    found = np.repeat(np.arange(256 * rows) % 256, frequencies).astype(np.uint8)
    row = noise.randint(0, rows, length).astype(np.int64)
    states = noise.randint(1 << 24, 1 << 25, min(7, length)).astype(np.int64)
    symbols = (row << 8) + noise.randint(0, 256, length)
    words = kernels.rans_write(symbols, frequencies, starts, states)
    written = states.copy()
    values, used = kernels.rans_read(row, found, frequencies, starts, states, words)
    _, missing = kernels.rans_read(row, found, frequencies, starts, written.copy(), words[:-1])
    return words, written, states, values, np.int64(used), np.int64(missing)


def literals_are_zlibs(compiled: Any, length: int) -> bool:
    """Whether literals become the stream that zlib writes, and are read again."""
    noise = np.random.RandomState(length)
    for most in (2, 16, 200):
        data = np.minimum(noise.geometric(2.0 / most, length), most).astype(np.uint8)
        stream = compiled.deflate_literals(data)
        digest = "" if stream is None else hashlib.sha256(stream).hexdigest()[:16]
        if STREAMS.get((length, most)) != digest:
            return False
        read = data if stream is None else compiled.inflate_literals(stream, length)
        if read is None or read.tobytes() != data.tobytes():
            return False
    return True


def bits_of(result: Any) -> Tuple[Tuple[str, bytes], ...]:
    """Every bit of what a kernel gave, and its dtype."""
    parts = result if isinstance(result, tuple) else (result,)
    return tuple((str(np.asarray(part).dtype), np.asarray(part).tobytes()) for part in parts)


def differences(compiled: Any) -> List[str]:
    """The functions that gave other bits. compiled: a module with those of both plain ones."""
    numpy, found = SimpleNamespace(**vars(plain_coding), **{
        name: value for name, value in vars(plain).items() if name not in vars(plain_coding)
    }), set()
    with np.errstate(all="ignore"):
        for length in LENGTHS:
            for name, arguments in cases(length):
                results = (getattr(kernels, name)(*arguments) for kernels in (compiled, numpy))
                if len({bits_of(result) for result in results}) > 1:
                    found.add(name)
            for made in (sketch, around_reference, after_steps, rans):
                if bits_of(made(compiled, length)) != bits_of(made(numpy, length)):
                    found.add(made.__name__)
            if not literals_are_zlibs(compiled, length):
                found.add("literals")
    return sorted(found)


def keeps_denormals() -> bool:
    """Whether this process computes with the smallest floats. What is linked with -ffast-math turns
    them off where it is loaded, for NumPy too: the comparison would not see it.
    """
    return bool(np.full(1, 1e-42, np.float32) * np.float32(0.5) != 0)


def main() -> int:
    library.LOADED = library.load(sys.argv[1])
    if library.LOADED is None:
        print(f"{sys.argv[1]} cannot be loaded", file=sys.stderr)
        return 1
    if not keeps_denormals():
        print("while it is loaded the processor takes denormal numbers for 0", file=sys.stderr)
        return 1
    from flq.kernels import compiled  # it takes the functions of what is loaded

    found = differences(compiled)
    if found:
        print("other bits than NumPy's: " + ", ".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
