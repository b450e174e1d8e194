"""The rules of algorithm.md 11, on lists, in double."""

import math

from tests.oracles.floats import f32
from tests.oracles.sums import fixed_order_sum

CLIPPINGS = 3


def median(vectors, bad, center):
    """Yin 2018, algorithm 1, option I."""
    result = []
    for values in zip(*vectors):
        ordered = sorted(values)
        low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
        result.append(f32(low if len(ordered) % 2 else (low + high) / 2))
    return result


def trimmed_mean(vectors, bad, center):
    """Yin 2018, algorithm 1, option II: without the f smallest and the f largest."""
    result = []
    for values in zip(*vectors):
        kept = sorted(values)[bad:len(values) - bad]
        total = kept[0]
        for value in kept[1:]:
            total += value
        result.append(f32(total / len(kept)))
    return result


def krum(vectors, bad, center):
    """Multi-Krum (Blanchard 2017, section 4), which averages n - f - 2 vectors."""
    near = len(vectors) - bad - 2
    scores = []
    for i, x in enumerate(vectors):
        squares = sorted(fixed_order_sum([(a - b) * (a - b) for a, b in zip(x, y)])
                         for j, y in enumerate(vectors) if j != i)
        total = 0.0
        for square in squares[:near]:
            total += square
        scores.append((total, i))
    chosen = sorted(i for _, i in sorted(scores)[:near])
    result = []
    for k in range(len(vectors[0])):
        total = 0.0
        for i in chosen:
            total += vectors[i][k]
        result.append(f32(total / near))
    return result


def centered_clipping(vectors, bad, center):
    """Karimireddy 2021, equation 9, CLIPPINGS times, tau the median of the distances."""
    v, n = list(center), len(vectors)
    for _ in range(CLIPPINGS):
        lengths = [math.sqrt(fixed_order_sum([(a - b) ** 2 for a, b in zip(x, v)]))
                   for x in vectors]
        ordered = sorted(lengths)
        tau = ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2
        factors = [1.0 if length <= tau else tau / length for length in lengths]
        moved = [0.0] * len(v)
        for x, factor in zip(vectors, factors):
            moved = [m + (a - b) * factor for m, a, b in zip(moved, x, v)]
        v = [b + m / n for b, m in zip(v, moved)]
    return [f32(x) for x in v]


RULES = {"median": (median, 1), "trimmed_mean": (trimmed_mean, 1), "krum": (krum, 3),
         "centered_clipping": (centered_clipping, 1)}
"""The rule, and how many vectors it needs beyond 2 f."""


class Bounded(object):
    """What a master with a rule makes of each round's innovations: v, or None without a step.

    memory: reference, residual or none. rate: that of the references.
    """

    def __init__(self, rule, bad, memory, rate, p):
        self.rule, self.extra = RULES[rule]
        self.bad, self.memory, self.rate = bad, memory, rate
        self.committed = {}  # what each member committed, added up
        self.center = [0.0] * p

    def leave(self, worker):
        self.committed.pop(worker, None)

    def direction(self, uploads, members_of_turn):
        """uploads: {worker: c}."""
        if self.memory == "reference":
            seen = {}
            for worker in set(self.committed) | set(uploads):
                g = self.committed.get(worker)
                c = uploads.get(worker)
                if g is None:
                    seen[worker] = list(c)
                elif c is None:
                    seen[worker] = [f32(self.rate * x) for x in g]
                else:
                    seen[worker] = [f32(self.rate * x + y) for x, y in zip(g, c)]
            for worker, c in uploads.items():
                g = self.committed.get(worker, [0.0] * len(c))
                self.committed[worker] = [x + y for x, y in zip(g, c)]
        else:
            seen = uploads
        if len(seen) < 2 * self.bad + self.extra:
            return None
        v = self.rule([seen[worker] for worker in sorted(seen)], self.bad, self.center)
        if self.memory == "residual":
            part = f32(len(seen) / members_of_turn)
            v = [f32(x * part) for x in v]
        self.center = v
        return v
