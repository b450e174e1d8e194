"""Whether a library gives the bits of plain.py:

    FLQ_KERNELS=numpy python -m flq.kernels.check FILE

Ends with 0 where it does. build.py asks this of what a compiler made.
"""

import sys
from typing import Any, Iterator, List, Tuple

import numpy as np

from flq.kernels import library, plain
from flq.pieces import PIECE

LENGTHS = (1, 255, 1023, 1025, PIECE + 1, 2 * PIECE + 5000)
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


def bits_of(result: Any) -> Tuple[Tuple[str, bytes], ...]:
    """Every bit of what a kernel gave, and its dtype."""
    parts = result if isinstance(result, tuple) else (result,)
    return tuple((str(np.asarray(part).dtype), np.asarray(part).tobytes()) for part in parts)


def differences(compiled: Any) -> List[str]:
    """The functions that gave other bits. compiled: a module with those of plain.py."""
    found = set()
    with np.errstate(all="ignore"):
        for length in LENGTHS:
            for name, arguments in cases(length):
                results = (getattr(kernels, name)(*arguments) for kernels in (compiled, plain))
                if len({bits_of(result) for result in results}) > 1:
                    found.add(name)
            for made in (sketch, around_reference):
                if bits_of(made(compiled, length)) != bits_of(made(plain, length)):
                    found.add(made.__name__)
    return sorted(found)


def main() -> int:
    library.LOADED = library.load(sys.argv[1])
    if library.LOADED is None:
        print(f"{sys.argv[1]} cannot be loaded", file=sys.stderr)
        return 1
    from flq.kernels import compiled  # it takes the functions of what is loaded

    found = differences(compiled)
    if found:
        print("other bits than NumPy's: " + ", ".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
