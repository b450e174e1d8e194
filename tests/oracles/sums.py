"""The one sum of algorithm.md 7: rows of 1024, added row by row in double, then folded by halves.
"""

import math


def fixed_order_sum(values):
    padded = list(values) + [0.0] * (-len(values) % 1024)
    partial = [0.0] * 1024
    for row in range(len(padded) // 1024):
        for column in range(1024):
            partial[column] = partial[column] + padded[row * 1024 + column]
    while len(partial) > 1:
        half = len(partial) // 2
        partial = [partial[i] + partial[i + half] for i in range(half)]
    return partial[0]


def squared_norm(vector):
    """||x||^2, correctly rounded."""
    return math.fsum(x * x for x in vector)
