"""What a frame carries behind its header, and what a chain hashes: the body of codec.py, then the
non-trainable values as little-endian float32 (docs/protocol.md 2).
"""

from typing import Sequence, Tuple

import numpy as np

from flq.compression import codec
from flq.compression.quantizer import Quantizer


def pack(body: bytes, values: np.ndarray) -> bytes:
    """body: of scales and levels. values: float32[N]."""
    return body + values.astype("<f4").tobytes()


def unpack(payload: bytes, num_values: int) -> Tuple[bytes, np.ndarray]:
    """The body, and values float32[N]. The payload is as long as num_bytes says."""
    split = len(payload) - 4 * num_values
    return payload[:split], np.frombuffer(payload[split:], "<f4").astype(np.float32)


def num_bytes(body_length: int, num_values: int) -> int:
    """Bytes of a payload with a body of that length."""
    return body_length + 4 * num_values


def num_bits(body_length: int, num_values: int) -> int:
    """What a payload counts in bits."""
    return 8 * num_bytes(body_length, num_values)


def nominal_bits(quantizer: Quantizer, bits: int, sizes: Sequence[int], num_values: int) -> int:
    """The papers' count of a payload, without entropy coding."""
    return codec.nominal_bits(quantizer, bits, sizes) + 32 * num_values
