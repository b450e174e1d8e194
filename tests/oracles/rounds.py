"""The master of algorithm.md 1, 3 and 4, one round after the other, on lists."""

import math

from tests.oracles import aggregation, lazy
from tests.oracles.floats import add, f32, subtract
from tests.oracles.sums import fixed_order_sum


class SlowMaster(object):
    """Server optimisers sgd and momentum, float32 bit for bit.

    samples: {worker: n}. settings: memory, beta (None for sgd), lr, clip, window, ck, sel_ref and
    scale_max (sel_ref None: no scaling). quantise: Q_dn, list -> list. cohorts: J; broadcasts has
    theta_hat of each, and broadcast is the one that the next round starts from. averaging: s.
    bounded: the rule against bad workers (robust.Bounded), None for the mean.
    """

    def __init__(self, theta, samples, settings, quantise, cohorts=1, averaging=0.0, bounded=None):
        self.bounded = bounded
        self.theta, self.cohorts, self.round = list(theta), cohorts, 0
        self.average, self.averaging = list(theta), averaging
        self.broadcasts = {cohort: list(theta) for cohort in range(cohorts)}
        self.samples, self.settings, self.quantise = samples, settings, quantise
        self.references = {}  # h_m of members, which the real master does not hold
        self.total = [0.0] * len(theta)
        self.m = [0.0] * len(theta)
        self.norms = []

    @property
    def weight_of_members(self):
        return sum(self.samples[worker] for worker in sorted(self.references))

    @property
    def broadcast(self):
        return self.broadcasts[self.round % self.cohorts]

    def turn(self):
        """The members whose turn it is."""
        return [w for w in sorted(self.references) if w % self.cohorts == self.round % self.cohorts]

    def bidders(self, committed, skipped):
        """B: the members, from this round's commits on, that bid, are missing or wait for their
        turn, with their n.
        """
        members = set(self.references) | set(committed)
        return {worker: self.samples[worker] for worker in members if worker not in skipped}

    def leave(self, worker):
        h = self.references.pop(worker)
        if self.bounded is not None:
            self.bounded.leave(worker)
        self.total = [
            a - self.samples[worker] * x if self.references else 0.0 for a, x in zip(self.total, h)
        ]

    def close(self, committed, rho):
        """committed: {worker: c}.

        Returns v (None: the optimiser does not step), ||v||^2 and lr_k.
        """
        p = len(self.theta)
        for worker, c in committed.items():
            self.references[worker] = [
                h + x for h, x in zip(self.references.get(worker, [0.0] * p), c)
            ]
        memory, n = self.settings["memory"], self.weight_of_members
        v = None
        if self.bounded is not None:
            v = self.bounded.direction(committed, len(self.turn()))
        elif memory == "reference":
            if n:
                v, self.total = aggregation.reference(self.total, n, self.samples, committed, rho)
        elif committed and memory == "residual":
            n = sum(self.samples[worker] for worker in self.turn())
            v = aggregation.residual(n, self.samples, committed, p)
        elif committed:
            v = aggregation.mean_of_selected(self.samples, committed, p)
        norm2, rate = 0.0, 0.0
        if v is not None:
            v, norm2 = clip(v, self.settings["clip"])
            rate = self.settings["lr"]
            if self.settings["sel_ref"] is not None:
                rate = aggregation.selected_rate(rate, len(committed), self.settings["sel_ref"],
                                                 len(self.turn()), self.settings["scale_max"])
            step = v
            if self.settings["beta"] is not None:
                beta = f32(self.settings["beta"])
                self.m = step = [f32(f32(beta * a) + g) for a, g in zip(self.m, v)]
            self.theta = [f32(x - f32(f32(rate) * s)) for x, s in zip(self.theta, step)]
        self.norms.append(norm2)
        weight = f32(1 / (1 + self.averaging * self.round))
        self.average = [
            f32(mean + f32(weight * f32(x - mean))) for mean, x in zip(self.average, self.theta)
        ]
        self.round += 1
        self.broadcasts[self.round % self.cohorts] = add(
            self.broadcast, self.quantise(subtract(self.theta, self.broadcast)))
        return v, norm2, rate

    @property
    def history_sum(self):
        return lazy.history_sum(self.norms, self.settings["window"], self.settings["ck"])


def clip(v, limit):
    """clip_global: v scaled to the norm `limit` where it is longer."""
    norm2 = fixed_order_sum([x * x for x in v])
    if limit and norm2 > limit * limit:
        factor = f32(limit / math.sqrt(norm2))
        v = [f32(factor * x) for x in v]
        norm2 = fixed_order_sum([x * x for x in v])
    return v, norm2
