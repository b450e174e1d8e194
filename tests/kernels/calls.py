"""Calls of every pass over long vectors, and what comes of them.

    FLQ_KERNELS=numpy python -m tests.kernels.calls FILE

compares the library FILE with NumPy on all of them, with vectors that lie in every way and have
other lengths too, and with zlib on honest and damaged streams. It ends with 0 where no outcome
differs.
"""

import sys
from types import SimpleNamespace

import numpy as np

from flq import kernels
from flq.kernels import check, library, plain, plain_coding
from flq.kernels.plain import WIDTH, Turns
from flq.pieces import PIECE
from tests.kernels import streams

PLAIN = SimpleNamespace(**dict(vars(plain), **vars(plain_coding)))
"""All of them with NumPy."""
PASSES = set(kernels.__all__) - {"RANS_LOW", "RANS_PRECISION", "Turns", "WIDTH",
                                 "deflate_literals", "inflate_literals", "row_sums_f64", "signs",
                                 "sum_f64"}
WRITTEN = {"around_reference": 5, "after_steps": 3, "rans_write": 3, "rans_read": 4}
"""Which of their arguments some passes write into."""
LENGTHS = (0, 1, 255, 256, 257, 1023, 1024, 1025, PIECE - 1, PIECE, PIECE + 1)
BOUNDED = "near_levels"
"""Its values lie within the grid: those of any other vector have no level."""


def calls(length):
    """(name, arguments) for vectors of that length. Of a sketch the signs are given as bits."""
    yield from of_floats(length)
    yield from _of_coders(length)


def of_floats(length):
    """The passes over numbers, and what check.py calls."""
    if length:  # the cases draw limits from the vectors
        for name, arguments in check.cases(length):
            yield name, arguments
            if name != BOUNDED:
                yield name, tuple(map(_with_rare_numbers, arguments))
    else:
        for name, arguments in check.cases(1):
            yield name, tuple(changed(argument, lambda vector: vector[:0])
                              if not isinstance(argument, slice) else slice(0, 0)
                              for argument in arguments)
    noise = np.random.RandomState(length)
    turned = (noise.randint(0, 2, length).astype(np.uint8),
              noise.randint(0, PIECE, -(-length // PIECE)).astype(np.uint32),
              noise.randint(0, WIDTH, PIECE // WIDTH).astype(np.uint32))
    values = noise.standard_normal(length).astype(np.float32)
    for vector in (values, _with_rare_numbers(values)):
        yield "sketch", (vector, *turned)
        g, weighted = (vector.astype(np.float64) / 3, noise.standard_normal(length))
        for rate in (1.0, 0.4):
            yield "around_reference", (g, rate, weighted, 1.25, 300.0, np.zeros_like(vector))


def _of_coders(length):
    noise = np.random.RandomState(length)
    codes, steps = (noise.randint(low, high, length) for low, high in ((0, 256), (-3, 300)))
    yield "after_steps", (noise.randint(0, 256, 1 << 15).astype(np.uint8), codes.astype(np.uint8),
                          steps.astype(np.int16), np.zeros(length, np.uint8))
    rows, lanes = noise.randint(0, 3, length), noise.randint(1 << 24, 1 << 40, 7 + length // 40)
    frequencies = np.full(768, (1 << PLAIN.RANS_PRECISION) // 256)
    starts = np.arange(768) % 256 * frequencies
    symbols = (rows << 8) + codes
    yield "rans_write", (symbols, frequencies, starts, lanes)
    states = lanes.copy()
    words = PLAIN.rans_write(symbols, frequencies, starts, states)
    found = np.repeat(np.arange(768) % 256, frequencies).astype(np.uint8)
    yield "rans_read", (rows, found, frequencies, starts, states, words)
    yield "rans_read", (rows + 1, found, frequencies, starts, states, words)
    yield "rans_write", (symbols - 1, frequencies, starts, lanes)
    yield "rans_write", (symbols, frequencies * 0, starts, lanes)


def changed(argument, change):
    """A vector, or each of a list of vectors, after `change`; everything else as it is."""
    if isinstance(argument, list):
        return [changed(item, change) for item in argument]
    return change(argument) if isinstance(argument, np.ndarray) else argument


def _with_rare_numbers(argument):
    """NaN, infinity, the largest number, denormals and both zeros among the floats."""
    def change(vector):
        if vector.dtype.kind != "f" or not vector.size:
            return vector
        info, mixed = np.finfo(vector.dtype), vector.copy()
        rare = [np.nan, np.inf, -np.inf, info.max, info.tiny / 8, -0.0, 0.0]
        mixed[vector.size // 2:][:7] = rare[:mixed[vector.size // 2:].size]
        return mixed

    return changed(argument, change)


# --- vectors that lie in other ways


def _misaligned(vector):
    data = bytearray(vector.nbytes + 1)
    moved = np.frombuffer(data, vector.dtype, vector.size, offset=1) if vector.size else vector
    moved[...] = vector
    return moved


def _strided(vector):
    apart = np.zeros((vector.size, 2), vector.dtype)
    apart[:, 0] = vector
    return apart[:, 0]


def _read_only(vector):
    copy = vector.copy()
    copy.flags.writeable = False
    return copy


WAYS = {
    "misaligned": _misaligned,
    "strided": _strided,
    "backwards": lambda vector: vector[::-1].copy()[::-1],
    "other byte order": lambda vector: vector.astype(vector.dtype.newbyteorder()),
    "read-only": _read_only,
    "float64": lambda vector: vector.astype(np.float64),
    "float16": lambda vector: np.clip(vector, -6e4, 6e4).astype(np.float16),
    "int64": lambda vector: (np.nan_to_num(vector) % 2 if vector.dtype.kind == "f" else vector
                             ).astype(np.int64),
    "a matrix": lambda vector: vector.reshape(1, -1),
    "empty": lambda vector: vector[:0],
    "one number": lambda vector: vector[:1],
    "one number less": lambda vector: vector[:-1],
    "half": lambda vector: vector[:vector.size // 2],
    "one number more": lambda vector: np.append(vector, vector[:1]),
}


def variants(arguments):
    """(how, arguments) with one vector, or the vectors of one list, or all, lying in another way;
    and with other parts of the vectors.
    """
    vectors = [place for place, argument in enumerate(arguments)
               if isinstance(argument, (list, np.ndarray))]
    for how, change in WAYS.items():
        for places in [[place] for place in vectors] + [vectors] * (len(vectors) > 1):
            yield how, tuple(changed(argument, change) if place in places else argument
                             for place, argument in enumerate(arguments))
    for place, argument in enumerate(arguments):
        before, after = arguments[:place], arguments[place + 1:]
        if isinstance(argument, list) and argument:
            yield "a shorter list", (*before, argument[:-1], *after)
            last = [*argument[:-1], changed(argument[-1], lambda vector: vector[:-1])]
            yield "a short last vector", (*before, last, *after)
        if isinstance(argument, slice):
            for other in (slice(argument.start, argument.stop + 1),
                          slice(-1, argument.stop), slice(argument.stop, argument.start),
                          slice(argument.start, argument.stop, 2), slice(None, argument.stop)):
                yield f"part {other}", (*before, other, *after)


# --- what comes of a call


def outcome(module, name, arguments):
    """Every bit of what a pass gave and wrote and its dtype, or which error it raised. All NaN
    count as one: which of two a processor hands on is its own choice.
    """
    written = arguments[WRITTEN[name]] if name in WRITTEN else None
    before = None if written is None else written.copy()
    with np.errstate(all="ignore"):
        try:
            if name == "sketch":
                vector, bits, first, second = arguments
                arguments = (vector, Turns(module.signs(bits.astype(np.uint8)), first, second))
            result = getattr(module, name)(*arguments)
            parts = result if isinstance(result, tuple) else (result,)
            if name == "rans_read" and parts[1] > arguments[5].size:
                return "too few words", parts[1]
            if written is not None:
                parts += (written,)
            return type(result).__name__, check.bits_of(tuple(map(_with_one_nan, parts)))
        except Exception as error:
            return type(error).__name__
        finally:
            if written is not None and written.flags.writeable:
                written[...] = before


def _with_one_nan(part):
    values = np.array(part)
    if values.dtype.kind == "f":
        values[np.isnan(values)] = np.nan
    return values


def differences(compiled, lengths=LENGTHS):
    """(name, length, how) of the calls of which the two made something else."""
    for length in lengths:
        for name, arguments in calls(length):
            for how, others in [("as they are", arguments), *variants(arguments)]:
                if outcome(compiled, name, others) != outcome(PLAIN, name, others):
                    yield name, length, how


def main():
    library.LOADED = library.load(sys.argv[1])
    from flq.kernels import compiled

    found = sorted(set(differences(compiled))) + list(streams.wrong(compiled, times=12))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
