"""theta -= lr step, coordinate by coordinate (algorithm.md 1.4)."""

import math

from tests.oracles.floats import f32


def sgd(theta, directions, lr):
    """In float32, bit for bit. directions: v of each round."""
    rate = f32(lr)
    for v in directions:
        theta = [f32(x - f32(rate * g)) for x, g in zip(theta, v)]
    return theta


def momentum(theta, directions, lr, beta):
    """m = beta m + v, step = m; in float32, bit for bit."""
    rate, beta = f32(lr), f32(beta)
    m = [0.0] * len(theta)
    for v in directions:
        m = [f32(f32(beta * a) + g) for a, g in zip(m, v)]
        theta = [f32(x - f32(rate * a)) for x, a in zip(theta, m)]
    return theta


def adam(theta, directions, lr, beta1, beta2, epsilon):
    """FedAdam (Reddi 2021, algorithm 2) with the bias correction of Kingma 2015; in double
    throughout.
    """
    m, s = [0.0] * len(theta), [0.0] * len(theta)
    power1, power2 = 1.0, 1.0
    for v in directions:
        power1, power2 = power1 * beta1, power2 * beta2
        for i, g in enumerate(v):
            m[i] = beta1 * m[i] + (1 - beta1) * g
            s[i] = beta2 * s[i] + (1 - beta2) * g * g
            unbiased_m, unbiased_s = m[i] / (1 - power1), s[i] / (1 - power2)
            theta = theta[:i] + [theta[i] - lr * unbiased_m /
                                 (math.sqrt(unbiased_s) + epsilon)] + theta[i + 1:]
    return theta
