"""What the coders do for each weight or byte with NumPy, against loops on Python's integers."""

import numpy as np
import pytest

from flq.kernels import plain_coding
from tests.kernels import calls

every_length = pytest.mark.parametrize("length", [1, 2, 255, 1023, 5000])


def arguments_of(name, length):
    """Those of the first call of a pass."""
    return next(arguments for known, arguments in calls.calls(length) if known == name)


@every_length
def test_places_are_in_the_order_of_their_bytes(length):
    values, = arguments_of("order_of_bytes", length)
    assert plain_coding.order_of_bytes(values).tolist() == sorted(range(length),
                                                                  key=values.tolist().__getitem__)


@every_length
def test_a_code_goes_where_its_steps_lead(length):
    table, codes, steps, out = arguments_of("after_steps", length)
    steps = np.maximum(steps, 0)
    plain_coding.after_steps(table, codes, steps, out)
    assert out.tolist() == [table[128 * code + min(127, step)]
                            for code, step in zip(codes.tolist(), steps.tolist())]


@every_length
def test_symbols_are_written_last_one_first_and_read_first_one_first(length):
    symbols, frequencies, starts, lanes = arguments_of("rans_write", length)
    states, expected, words = lanes.copy(), lanes.tolist(), []
    for place in range(length - 1, -1, -1):
        x, frequency = expected[place % len(expected)], int(frequencies[symbols[place]])
        if x >= frequency << 25:
            words.insert(0, x & 0xffff)
            x >>= 16
        x = (x // frequency << 15) + x % frequency + int(starts[symbols[place]])
        expected[place % len(expected)] = x
    written = plain_coding.rans_write(symbols, frequencies, starts, states)
    assert written.tolist() == words and states.tolist() == expected

    rows, found, *_ = arguments_of("rans_read", length)
    values, used = plain_coding.rans_read(rows, found, frequencies, starts, states, written)
    assert (values == symbols & 255).all() and used == len(words)
    assert (states == lanes).all()
