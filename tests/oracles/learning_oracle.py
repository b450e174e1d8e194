"""Local training written slowly from its definition, float64, one sample at a time.

No TensorFlow.
"""

import math


def dense(x, kernel, bias):
    """x W + b for one sample."""
    return [bias[k] + sum(x[j] * kernel[j][k] for j in range(len(x))) for k in range(len(bias))]


def softmax(logits):
    largest = max(logits)
    exponentials = [math.exp(z - largest) for z in logits]
    return [e / sum(exponentials) for e in exponentials]


def loss_and_gradients(layers, xs, ys, l2=0.0, l2_biases=False):
    """Mean cross-entropy of ReLU layers [(kernel, bias), ...] and its gradients, plus l2 times the
    weights.

    The last layer gives the logits. xs: samples as lists; ys: labels. The penalty is in the
    gradients only.
    """
    loss = 0.0
    gradients = [([[0.0] * len(bias) for _ in kernel], [0.0] * len(bias))
                 for kernel, bias in layers]
    for x, y in zip(xs, ys):
        inputs = [x]
        for kernel, bias in layers[:-1]:
            inputs.append([max(0.0, z) for z in dense(inputs[-1], kernel, bias)])
        probabilities = softmax(dense(inputs[-1], *layers[-1]))
        loss -= math.log(probabilities[y]) / len(xs)
        delta = [(p - (k == y)) / len(xs) for k, p in enumerate(probabilities)]
        for (kernel, _), (kernel_gradient, bias_gradient), a in reversed(
                list(zip(layers, gradients, inputs))):
            for k, d in enumerate(delta):
                bias_gradient[k] += d
                for j, value in enumerate(a):
                    kernel_gradient[j][k] += value * d
            delta = [
                sum(w * d for w, d in zip(row, delta)) if value > 0 else 0.0
                for row, value in zip(kernel, a)
            ]
    for (kernel, bias), (kernel_gradient, bias_gradient) in zip(layers, gradients):
        for j, row in enumerate(kernel):
            for k, w in enumerate(row):
                kernel_gradient[j][k] += l2 * w
        for k, w in enumerate(bias):
            bias_gradient[k] += l2 * w if l2_biases else 0.0
    return loss, gradients


def flat(layers):
    """The values of layers in the order of the flat vector."""
    values = []
    for kernel, bias in layers:
        values += [w for row in kernel for w in row] + list(bias)
    return values


def unflat(vector, shapes):
    """The flat vector as layers of kernels [inputs, outputs] and their biases."""
    layers, start = [], 0
    for inputs, outputs in shapes:
        kernel = [
            list(vector[start + j * outputs:start + (j + 1) * outputs]) for j in range(inputs)
        ]
        start += inputs * outputs
        layers.append((kernel, list(vector[start:start + outputs])))
        start += outputs
    return layers


def local_update(params, shapes, xs, ys, batches, lr, l2=0.0, l2_biases=False, mu=0.0):
    """Mean gradient and mean loss on the path of SGD over `batches`, lists of positions in xs
    (algorithm.md 1.2).

    mu: each step is on the batch's loss + mu / 2 ||w - w_0||^2 (FedProx: Li 2020, algorithm 2).
    """
    w = [float(value) for value in params]
    w_0 = list(w)
    total, losses = [0.0] * len(w), []
    for batch in batches:
        loss, gradients = loss_and_gradients(unflat(w, shapes), [xs[i] for i in batch],
                                             [ys[i] for i in batch], l2, l2_biases)
        losses.append(loss)
        g = [slope + mu * (value - first) for slope, value, first in zip(flat(gradients), w, w_0)]
        total = [t + value for t, value in zip(total, g)]
        w = [value - lr * slope for value, slope in zip(w, g)]
    return [t / len(batches) for t in total], sum(losses) / len(losses)


def cut(order, batch):
    """One pass cut into batches, the last one possibly smaller."""
    return [list(order[start:start + batch]) for start in range(0, len(order), batch)]


def fill_up(shards, minimum):
    """Algorithm.md 8: in worker order, who is below the minimum takes the last sample of the
    currently largest shard.
    """
    shards = [list(shard) for shard in shards]
    for shard in shards:
        while len(shard) < minimum:
            donor = max(shards, key=len)  # the first of equals
            shard.append(donor.pop())
    return shards


def largest_remainder(shares, total):
    """Hamilton's method: whole parts first, then one each by the largest remainder, ties to the
    lower position.
    """
    counts = [math.floor(share * total) for share in shares]
    order = sorted(range(len(shares)), key=lambda k: (counts[k] - shares[k] * total, k))
    for k in order[:total - sum(counts)]:
        counts[k] += 1
    return counts
