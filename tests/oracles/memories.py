"""One worker's memory over rounds (algorithm.md 2). quantise: list -> list, Q of one vector."""

import hashlib

from tests.oracles.floats import add, subtract


def laq_step(gradient, quantised, quantise):
    """LAQ (Sun 2019, eq. 4 to 6; EF21, Richtarik 2021): c = Q(g - Q_prev); committed, Q_new =
    Q_prev + c.

    Q_prev and Q_new are doubles; the difference is rounded to float32.
    """
    c = quantise(subtract(gradient, quantised))
    return c, [x + y for x, y in zip(quantised, c)]


def diana_step(gradient, committed, rate, quantise):
    """DIANA (Mishchenko 2019, algorithm 1): c = Q(g - h), h_new = h + rate c, both from the sum of
    what was committed: h = rate * committed, in doubles. Returns c and the new sum.
    """
    c, _ = laq_step(gradient, [rate * x for x in committed], quantise)
    return c, [x + y for x, y in zip(committed, c)]


def residual_step(update, error, quantise):
    """Error feedback (Seide 2014; Karimireddy 2019, algorithm 2): a = u + e, c = Q(a).

    Returns c, e when it is committed (a - c), e when it is not (a).
    """
    a = add(update, error)
    c = quantise(a)
    return c, subtract(a, c), a


def chain(run, worker, epoch, bodies, first):
    """r_0 = SHA-256(run, worker, epoch), r <- SHA-256(r || body). first: the bytes of (run, worker,
    epoch).
    """
    digest = hashlib.sha256(first(run, worker, epoch)).digest()
    for body in bodies:
        digest = hashlib.sha256(digest + body).digest()
    return digest
