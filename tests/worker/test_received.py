"""Broadcasts of a master that lies: what no master sends is refused by name."""

import struct
import warnings

import numpy as np
import pytest

from flq.compression import QUANTIZERS, codec, packing
from flq.compression.codec import Body
from flq.errors import FrameError
from flq.parameters import Layout, params_hash
from flq.protocol import frames
from flq.worker.received import Held, receive

LAYOUT = Layout(((3, 2), (2,)))
EXPECTED = frames.Expected("run", LAYOUT, LAYOUT.sizes)
TERMS = frames.RoundTerms(0.0, 0.0, 1.0, 0.0, 100, 0)
ZEROS, NONE = np.zeros(8, np.float32), np.zeros(0, np.float32)
HELD = Held(3, ZEROS, NONE, params_hash(ZEROS, NONE), None)


def difference(name, bits, scale, level):
    levels = np.full(8, level, np.uint8)
    body = struct.pack("<2f", scale, scale) + packing.pack(levels, bits)
    place = frames.Place(4, 3, bytes(8))
    return frames.pack(frames.Content(QUANTIZERS[name], bits, Body(body, False), NONE), place,
                       TERMS, EXPECTED)


def test_a_finite_scale_times_a_level_that_is_not_finite_is_refused():
    data = difference("rd", 8, 3e38, 254)
    frame = frames.unpack(data, frames.BROADCAST_KIND, EXPECTED)
    with np.errstate(over="ignore"):
        assert np.isinf(codec.decode(frame.encoded, LAYOUT.sizes)).all()
    with warnings.catch_warnings(), pytest.raises(FrameError) as refused:
        warnings.simplefilter("error")
        receive(data, HELD, EXPECTED)
    assert refused.value.reason == "bad_value"


def test_a_finite_difference_of_a_model_that_it_makes_infinite_is_refused():
    held = HELD._replace(params=np.full(8, 3e38, np.float32))
    with pytest.raises(FrameError) as refused:
        receive(difference("rd", 8, 3e38, 128), held, EXPECTED)
    assert refused.value.reason == "bad_value"


def test_no_answer_with_frames_is_longer_than_a_worker_reads():
    """The longest payload of one frame: float32 for each weight, or the widest levels with a scale
    for each tensor and its blocks, in a model of tensors of one weight."""
    for layout in (LAYOUT, Layout(((1,),) * 50, ((7,),)), Layout(((100, 1000), (10,)))):
        room = frames.longest_answer(layout) - frames.MOST_FRAMES * frames.header_length(
            frames.BROADCAST_KIND)
        for quantizer in QUANTIZERS.values():
            sizes = [0] + [16] * (quantizer.by_scale is not None)
            for block_size in sizes:
                _, longest = codec.body_length_range(quantizer._replace(block_size=block_size),
                                                     quantizer.max_bits, layout.sizes, False)
                assert longest + 4 * layout.num_non_trainable <= room
