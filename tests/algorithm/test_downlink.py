"""The broadcast model: what the quantiser left out comes back, and everybody holds the same bits.
"""

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import downlink
from flq.compression import QUANTIZERS, codec
from flq.parameters import Layout
from tests.oracles import context_stream
from tests.oracles import quantisers as oracle
from tests.oracles.floats import add, subtract
from tests.oracles.sums import squared_norm
from tests.vectors import same_bits

LAYOUT = Layout(((3, 4), (4,)))
SIZES = LAYOUT.sizes


def _theta(round_):
    return (rng.Stream(6, rng.INIT, 0, round_).uniform(16) - 0.5).astype(np.float32)


def _settings(**keys):
    return downlink.settings_from(
        config.build({"flq_algorithm." + name: value for name, value in keys.items()}), LAYOUT)


def test_theta_hat_follows_theta_by_the_oracles_steps():
    settings = _settings(b_down=4, downlink="laq")
    fast, slow = np.zeros(16, np.float32), [0.0] * 16
    for round_ in range(20):
        encoded, fast = downlink.encode(_theta(round_ // 5), fast, round_, settings)
        d, c = subtract(_theta(round_ // 5).tolist(), slow), []
        for part in (d[:12], d[12:]):
            c += oracle.laq_decode(oracle.radius(part), oracle.laq_levels(part, 4), 4)
        slow = add(slow, c)
        assert same_bits(fast, slow)


@pytest.mark.parametrize("keys", [{"b_down": 4}, {"b_down": 2, "downlink": "bbit"},
                                  {"b_down": 1, "downlink": "bin"}, {"b_down": 16},
                                  {"downlink": "rd", "rd_target_bits_down": 2},
                                  {"b_down": 2, "radius_down": "block", "block_size_down": 16}])
def test_a_model_that_stands_still_is_reached(keys):
    settings, theta = _settings(**keys), _theta(0)
    theta_hat = np.zeros(16, np.float32)
    for round_ in range(1500):
        _, theta_hat = downlink.encode(theta, theta_hat, round_, settings)
    assert squared_norm((theta - theta_hat).tolist()) <= 1e-12 * squared_norm(theta.tolist())


@pytest.mark.parametrize("b_down", [0, 32])
def test_float32_is_the_difference_itself(b_down):
    settings = _settings(b_down=b_down)
    encoded, theta_hat = downlink.encode(_theta(1), _theta(0), 0, settings)
    assert encoded.quantizer is QUANTIZERS["fedavg"] and encoded.bits == 32
    assert same_bits(theta_hat, _theta(0) + (_theta(1) - _theta(0)))


@pytest.mark.parametrize("keys", [{"b_down": 4}, {"b_down": 4, "downlink": "bbit"},
                                  {"b_down": 1, "downlink": "bin"}, {"b_down": 0},
                                  {"downlink": "rd", "rd_target_bits_down": 2}])
def test_a_receiver_of_the_bytes_holds_the_same_bits(keys):
    settings = _settings(**keys)
    master = worker = _theta(7)
    for round_ in range(6):
        encoded, master = downlink.encode(_theta(round_), master, round_, settings)
        body = codec.to_body(encoded, settings.entropy_coding)
        worker = downlink.apply(worker,
                                codec.from_body(body, settings.quantizer, settings.bits, SIZES),
                                SIZES)
        assert same_bits(worker, master)


def test_a_keyframe_is_the_model_bit_for_bit():
    body = downlink.keyframe(_theta(3), SIZES)
    assert body == codec.Body(_theta(3).astype("<f4").tobytes(), False)
    assert same_bits(codec.decode(codec.from_body(body, QUANTIZERS["fedavg"], 32, SIZES), SIZES),
                     _theta(3))


@pytest.mark.parametrize("keys", [{"downlink": "rd"}, {"downlink": "bbit", "b_down": 3},
                                  {"downlink": "laq", "b_down": 4}, {"downlink": "bin"}])
def test_a_history_is_what_was_broadcast(keys):
    """Both sides make it of the levels alone, and it codes the next ones."""
    settings = _settings(entropy_coding_down="context", **keys)
    theta_hat, top = np.zeros(16, np.float32), settings.quantizer.max_level(settings.bits)
    master = worker = downlink.initial_activity(settings)
    slow = [0] * 16
    assert master.tolist() == slow and master.dtype == np.uint8
    for round_ in range(8):
        encoded, theta_hat = downlink.encode(_theta(round_), theta_hat, round_, settings)
        body = codec.to_body(encoded, settings.entropy_coding, master)
        came = codec.from_body(body, settings.quantizer, settings.bits, SIZES, worker)
        assert came.levels.tolist() == encoded.levels.tolist()
        slow = context_stream.next_activity(slow, encoded.levels.tolist(), top)
        master = codec.next_activity(master, encoded)
        worker = codec.next_activity(worker, came)
        assert master.tolist() == worker.tolist() == slow
    assert (max(slow) > 0) == (top > 1)  # of a sign alone nothing is known


@pytest.mark.parametrize("keys", [{}, {"entropy_coding_down": False},
                                  {"entropy_coding_down": "context", "b_down": 0},
                                  {"entropy_coding_down": "context", "b_down": 32}])
def test_no_history_is_kept_where_it_codes_nothing(keys):
    settings = _settings(**keys)
    assert downlink.initial_activity(settings) is None
    encoded, _ = downlink.encode(_theta(1), _theta(0), 0, settings)
    assert codec.next_activity(None, encoded) is None
