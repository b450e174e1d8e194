"""A quantiser of your own: two functions of one tensor, and the row that says what the
configuration may set beside it.

Name it in the configuration as package.module:NAME, from the folder that holds the package:

    python flq_master.py --set mode=examples.custom_quantizer:TERNARY
    python flq_worker.py --worker_id 0 --allow examples.custom_quantizer

Master and workers each import it, so the file must be there on every machine, and the same: a
worker whose file differs is refused. What the functions give is checked each time, and what is
wrong is said in one line. decode must give the same bits on every machine: elementwise, in float32.
A scale below SMALLEST_SCALE is sent as 0.

Try it alone:

    python -m examples.custom_quantizer
"""

import numpy as np

from flq.compression.quantizer import SMALLEST_SCALE, Quantizer
from flq.modes import Mode


def encode(values, bits, draw):
    """float32[n] -> (scale, levels uint8[n]): 0, 1 and 2 stand for -s, 0 and s. draw(n) would give
    n uniforms of [0, 1).
    """
    sizes = np.abs(values.astype(np.float64))
    large = sizes > 0.7 * sizes.mean()
    scale = sizes[large].mean() if large.any() else 0.0
    if scale < SMALLEST_SCALE:
        return np.float32(0), np.ones(values.size, np.uint8)
    return np.float32(scale), (1 + np.sign(values) * large).astype(np.uint8)


def decode(scale, levels, bits):
    """(scale, levels) -> float32[n]."""
    return (levels.astype(np.float32) - np.float32(1)) * scale


# Levels from 0 to 2 fit into 2 bits. Wire ids from 128 to 255 are for quantisers like this one.
# flq/modes.py says what else a row can hold.
TERNARY = Quantizer(
    Mode("ternary", wire_id=128, min_bits=2, max_bits=2, bits=2, memory="reference"),
    has_scale=True, max_level=lambda bits: 2, encode=encode, decode=decode)


def main():
    from flq.compression import codec, quantizer_of

    values = np.random.RandomState(0).standard_normal(10000).astype(np.float32)
    encoded = codec.encode(quantizer_of("examples.custom_quantizer:TERNARY"), values,
                           (values.size,), 2,
                           np.random.RandomState(1).uniform)
    error = np.linalg.norm(values - codec.decode(encoded, (values.size,))) / np.linalg.norm(values)
    body = codec.to_body(encoded, entropy_coding=True)
    print(
        f"normal values: an error of {error:.2f} of their norm, with "
        f"{8 * len(body.data) / values.size:.2f} bits a value"
    )


if __name__ == "__main__":
    main()
