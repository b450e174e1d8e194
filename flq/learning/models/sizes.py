"""How many weights a layer has: what a model takes is known before it is made."""


def dense(inputs: int, outputs: int) -> int:
    """Weights and biases of a dense layer."""
    return (inputs + 1) * outputs


def conv3x3(channels: int, filters: int) -> int:
    """Weights and biases of a 3 x 3 convolution."""
    return (9 * channels + 1) * filters
