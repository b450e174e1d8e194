"""The direction of algorithm.md 3, in double and by worker id, and the norms and rates that follow
it.
"""

import math

from tests.oracles.floats import f32


def rho_count(selected, bidders):
    """W_B / W_S; selected (S) and bidders (B, which contains S): {worker: n}."""
    return sum(bidders.values()) / sum(selected.values())


def rho_bids(selected, gains, missing):
    """sum_B sqrt(gain) / sum_S sqrt(gain), gain = w^2 raw.

    selected: workers of S; gains: {worker: (w, raw gain)} of all that bid; missing: {worker: w},
    each counted with the mean of sqrt(gain) / w over the bids.
    """
    roots = {worker: math.sqrt(w * w * raw) for worker, (w, raw) in gains.items()}
    mean = sum(roots[worker] / gains[worker][0] for worker in gains) / len(gains)
    total = sum(roots.values()) + sum(w * mean for w in missing.values())
    return total / sum(roots[worker] for worker in selected)


def weighted_sum(samples, committed, p):
    """D = 0; D += n_m c_m by worker id. samples: {worker: n}; committed: {worker: c}."""
    total = [0.0] * p
    for worker in sorted(committed):
        for i in range(p):
            total[i] += samples[worker] * committed[worker][i]
    return total


def reference(a, n, samples, committed, rho):
    """v = float32((A + rho D) / N), then A += D. Returns v and the new A."""
    d = weighted_sum(samples, committed, len(a))
    v = [f32((x + rho * y) / n) for x, y in zip(a, d)]
    return v, [x + y for x, y in zip(a, d)]


def residual(n, samples, committed, p):
    """v = sum_S w_m c_m with w_m = n_m / N of all members."""
    return [f32(x / n) for x in weighted_sum(samples, committed, p)]


def mean_of_selected(samples, committed, p):
    """v = the weighted mean over S (memory none)."""
    total = sum(samples[worker] for worker in committed)
    return [f32(x / total) for x in weighted_sum(samples, committed, p)]


def selected_rate(lr, selected, sel_ref, members, scale_max):
    """lr_k = lr * min(scale_max, max(1, |S|) / sel_ref), sel_ref 0 = M."""
    return lr * min(scale_max, max(1, selected) / (sel_ref or members))
