"""The rule of algorithm.md 4 and the one of the paper."""


def history_sum(norms, window, ck):
    """sum over d = 1..D of xi_d ||v^{k-d}||^2 with xi_d = ck / D. norms: ||v^0||^2 ..
    ||v^{k-1}||^2.
    """
    k = len(norms)
    total = 0.0
    for d in range(1, window + 1):
        if k - d >= 0:
            total += ck / window * norms[k - d]
    return total


def skips(innovation2, error2, last_error2, m_w, history, thr_scale, lazy_eps, clock, max_skips, k,
          warmup):
    """m_w = M w_m; the three norms are squared: ||c||^2, ||eps||^2, ||eps_hat||^2."""
    if clock >= max_skips or k < max(1, warmup):
        return False
    scale = m_w * m_w
    return scale * innovation2 < thr_scale * (history + lazy_eps * scale * (error2 + last_error2))


def laq_7a(innovation2, error2, last_error2, models, alpha, workers, xi):
    """LAQ's skip condition as printed (Sun 2019, eq. 7a): gradients of a sum of `workers` losses,
    rate alpha.

    models: theta^0 .. theta^k as lists; xi: xi_1 .. xi_D.
    """
    k = len(models) - 1
    total = 0.0
    for d in range(1, len(xi) + 1):
        if k - d >= 0:
            total += xi[d - 1] * sum((a - b) ** 2 for a, b in zip(models[k + 1 - d], models[k - d]))
    return innovation2 <= total / (alpha * workers) ** 2 + 3 * (error2 + last_error2)
