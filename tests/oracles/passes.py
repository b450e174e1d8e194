"""The passes over long vectors of flq/kernels, number by number, on Python's floats.

Vectors are lists. A float32 operation is one of doubles that is rounded to float32: the products of
two float32 are exact in double, and sums and quotients that are rounded twice come out as if they
were rounded once (Figueroa 1995), because 53 >= 2 * 24 + 2.
"""

import math

from tests.oracles.floats import f32
from tests.oracles.sums import fixed_order_sum

ROW, WIDTH = 32768, 1024


def squared_norm(x):
    return fixed_order_sum([value * value for value in x])


def squared_distance(x, y):
    return squared_norm([f32(a - b) for a, b in zip(x, y)])


def squared_distance_f64(x, y):
    return squared_norm([a - b for a, b in zip(x, y)])


def sum_of_magnitudes(x):
    return fixed_order_sum([abs(value) for value in x])


def largest_magnitude(x):
    return max([abs(value) for value in x] or [0.0])


def near_levels(x, slope, low, high):
    """(levels, the places where the two floors differ)."""
    slope, low, high = f32(slope), f32(low), f32(high)
    floors = [[math.floor(f32(f32(value * slope) + offset)) for value in x]
              for offset in (low, high)]
    return floors[1], [place for place, (a, b) in enumerate(zip(*floors)) if a != b]


def on_grid(levels, times, middle, step):
    return [f32((times * level - middle) * step) for level in levels]


def products_with_levels(x, levels, middle):
    steps = [float(level - middle) for level in levels]
    return (fixed_order_sum([value * step for value, step in zip(x, steps)]),
            fixed_order_sum([step * step for step in steps]))


def from_reference(rate, u, g):
    return [f32(a - rate * b) for a, b in zip(u, g)]


def to_reference(g, c):
    return [a + b for a, b in zip(g, c)]


def is_within(g, rate, limit):
    return all(-limit <= rate * value <= limit for value in g)


def weighted_sum(vectors, weights, start, stop):
    total = [0.0] * (stop - start)
    for vector, weight in zip(vectors, weights):
        total = [before + value * weight for before, value in zip(total, vector[start:stop])]
    return total


def around_reference(reference_sum, rate, weighted, rho, total_weight):
    return [f32((rho * d + rate * a) / total_weight) for a, d in zip(reference_sum, weighted)]


def sketch(x, negative, first, second):
    """Turn each row of ROW and add them, turn each row of WIDTH of their sum and add those."""
    rows, sketched = [0.0] * ROW, [0.0] * WIDTH
    for place, value in enumerate(x):
        row, column = divmod(place, ROW)
        rows[(column + first[row]) % ROW] += -value if negative[place] else value
    for place, value in enumerate(rows):
        row, column = divmod(place, WIDTH)
        sketched[(column + second[row]) % WIDTH] += value
    return sketched


def moved(x, to, weight):
    return [f32(f32(f32(b - a) * weight) + a) for a, b in zip(x, to)]


def stepped(x, rate, step):
    return [f32(a - f32(rate * b)) for a, b in zip(x, step)]
