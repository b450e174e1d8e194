"""When a worker stays silent: the rule of LAQ (Sun et al. 2019, eq. 7a and 7b; algorithm.md 4).

    skip iff clock < C, k >= warmup and
    (M w_m)^2 ||c_m||^2 < thr_scale (sum_d xi_d ||v^{k-d}||^2
                                     + lazy_eps (M w_m)^2 (||eps_m||^2 + ||eps_hat_m||^2))
"""

from typing import NamedTuple, Sequence, Tuple

NEVER_COMMITTED = 2 ** 31 - 1
"""The clock of a worker that has not committed yet: above any C, so it never skips and is selected
first.
"""


class LazyTerms(NamedTuple):
    """What the rule of one round needs besides the worker's own vectors.

    history_sum: sum_d xi_d ||v^{k-d}||^2, computed by the master. max_skips: C. relative_weight: M
    w_m.
    """

    thr_scale: float
    history_sum: float
    max_skips: int
    warmup: int
    lazy_eps: float
    relative_weight: float


def push_norm(norms: Tuple[float, ...], norm2: float, window: int) -> Tuple[float, ...]:
    """The last `window` values of ||v||^2, newest first."""
    return ((norm2,) + norms)[:window]


def history_sum(norms: Sequence[float], ck: float, window: int) -> float:
    """sum_{d=1..D} (ck / D) ||v^{k-d}||^2; norms are newest first and may be fewer than D (v = 0
    before round 0).
    """
    xi = ck / window
    total = 0.0
    for norm2 in norms:
        total += xi * norm2
    return total


def should_skip(terms: LazyTerms, round_: int, clock: int, innovation2: float, error2: float,
                last_error2: float) -> bool:
    """True when the worker has nothing new to say. Equality sends, as in the authors' code.

    innovation2: ||c_m||^2. error2: ||d - c||^2 now. last_error2: that of the last commit, 0 before
    it.
    """
    if terms.thr_scale <= 0 or round_ < terms.warmup or clock >= terms.max_skips:
        return False
    scale = terms.relative_weight ** 2
    threshold = terms.thr_scale * (terms.history_sum + terms.lazy_eps * scale *
                                   (error2 + last_error2))
    return scale * innovation2 < threshold
