"""flq.quantize and flq.dequantize: the bytes of a run, and one line for what cannot be quantised.
"""

import doctest

import numpy as np
import pytest

import flq
import flq.api.quantizing
from flq import config, rng
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.errors import ConfigError, DataError
from flq.modes import MODES
from flq.parameters import Layout
from flq.records import LocalResult
from tests.vectors import same_bits

TENSORS = [
    np.random.RandomState(1).standard_normal((20, 30)),
    np.random.RandomState(2).standard_normal(30) * 1e-3,
    np.zeros((2, 2))
]
EVERY_MODE = pytest.mark.parametrize("mode", MODES)


def test_its_examples():
    results = doctest.testmod(flq.api.quantizing, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0 and results.attempted > 8


@EVERY_MODE
def test_the_bytes_are_those_of_a_worker(mode):
    layout = Layout(tuple(tensor.shape for tensor in TENSORS))
    coding = config.build({"mode": mode}).flq_algorithm.entropy_coding
    # One array has no history.
    settings = uplink.settings_from(
        config.build({"mode": mode, "entropy_coding": bool(coding)}), layout)
    state = uplink.initial_state(settings, layout.num_params, flq.QUANTIZERS[mode].bits, bytes(32))
    update = np.concatenate([tensor.reshape(-1) for tensor in TENSORS]).astype(np.float32)
    proposal = uplink.propose(state, LocalResult(update, np.zeros(0, np.float32), 0.0, 1), 0,
                              settings, LazyTerms(0, 0, 100, 1, 0, 1),
                              rng.Stream(0, rng.UPLINK).uniform)
    sent = flq.quantize(TENSORS, mode)
    assert sent.data == proposal.body.data and sent.coded == proposal.body.coded
    assert sent.width == proposal.bits
    assert sent.bits == 8 * len(sent.data) and sent.bits_per_value == sent.bits / 634
    # A run keeps d - c in float32.
    assert sent.error == pytest.approx(
        proposal.residual_norm**2 / np.square(update, dtype=np.float64).sum(), rel=1e-6, abs=1e-12)


@EVERY_MODE
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_receiver_has_the_values_in_their_shapes(mode, dtype):
    for values in ([tensor.astype(dtype) for tensor in TENSORS], TENSORS[0].astype(dtype),
                   TENSORS[1].astype(dtype), np.array(0.5, dtype)):
        sent = flq.quantize(values, mode)
        again = flq.dequantize(sent.data, sent.shapes, mode, sent.width, sent.coded)
        arrays, expected = ((sent.values, again),
                            values) if isinstance(values, list) else (([sent.values], [again]),
                                                                      [values])
        for received, decoded, given in zip(*arrays, expected):
            assert same_bits(received, decoded) and received.shape == given.shape
        assert isinstance(sent.values, list) == isinstance(values, list)
        if mode == "fedavg":
            assert sent.error < 1e-13 and (dtype == np.float64 or sent.error == 0)


@pytest.mark.parametrize("mode", ["laq", "laq8", "bbit", "bin", "qsgd"])
@pytest.mark.parametrize("block_size", [None, 16, 4096])
def test_blocks_have_scales_of_their_own(mode, block_size):
    sent = flq.quantize(TENSORS, mode, radius="block", block_size=block_size)
    assert (sent.radius, sent.block_size) == ("block", block_size or 256)
    again = flq.dequantize(sent.data, sent.shapes, mode, sent.width, sent.coded, "block",
                           block_size)
    for received, decoded, there in zip(sent.values, again, flq.dequantize(sent)):
        assert same_bits(received, decoded) and same_bits(received, there)
    with pytest.raises(DataError):
        flq.dequantize(sent.data, sent.shapes, mode, sent.width, sent.coded, "block", 32)


def test_a_list_of_numbers_is_a_vector():
    assert flq.quantize([1.0, -2.0]).shapes == (2,) and flq.quantize(np.float32(3)).shapes == ()
    assert flq.quantize([[1.0, 2.0], [3.0]]).shapes == [(2,), (1,)]


def test_zeros_are_met():
    sent = flq.quantize(np.zeros(5))
    assert sent.error == 0.0 and not sent.values.any()


def test_qsgd_draws_from_its_seed():
    one, two, again = (flq.quantize(TENSORS, "qsgd", seed=seed).data for seed in (1, 2, 1))
    assert one == again != two and flq.quantize(TENSORS, "qsgd").data == flq.quantize(
        TENSORS, "qsgd", seed=0).data


def test_its_settings_are_those_of_the_configuration():
    vector = TENSORS[0].reshape(-1)
    assert not flq.quantize(vector, "laq", entropy_coding=False).coded and flq.quantize(
        vector * 0 + vector[0], "laq").coded
    assert flq.quantize(vector, "rd", rd_step=0.2).error < flq.quantize(vector, "rd").error
    coarse, fine = (flq.quantize(vector, "rd", bits=16, rd_target_bits=target)
                    for target in (4.0, 9.0))
    assert fine.error < coarse.error and coarse.bits < fine.bits
    assert len(flq.quantize(TENSORS, "laq", radius="vector",
                            entropy_coding=False).data) == 4 + 634 // 2
    sent = flq.quantize(TENSORS, "laq", radius="vector")
    assert all(same_bits(left, right) for left, right in zip(flq.dequantize(sent), sent.values))


@pytest.mark.parametrize(
    "values, line",
    [([], "values cannot be quantised; expected at least one number; got none"),
     (np.zeros((3, 0)), "values cannot be quantised; expected at least one number; got none"),
     ([np.ones(2), np.array([1.0, np.inf])
       ], "values[1] cannot be quantised; expected finite numbers; got inf"),
     (np.array(
         [1e39]), "values cannot be quantised; expected numbers that float32 can hold; got 1e+39"),
     (np.array([1, 2]), "values cannot be quantised; expected float32 or float64; got int64"),
     ("text", "values cannot be quantised; expected float32 or float64; got <U4"),
     (None, "values cannot be quantised; expected float32 or float64; got object"),
     ([np.ones(2), None], "values[1] cannot be quantised; expected float32 or float64; got object"),
     ([1.0, object()], "values cannot be quantised; expected float32 or float64; got object"), ])
def test_what_cannot_be_quantised_is_one_line(values, line):
    with pytest.raises(DataError) as refusal:
        flq.quantize(values)
    assert str(refusal.value) == line


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "bbit", "bits": 1}, {"mode": "laq8", "bits": 4}, {"mode": "bin", "bits": 2},
     {"bits": 40}, {"bits": "4"}, {"mode": "lqa"}, {"radius": "matrix"}, {"seed": -1},
     {"mode": "rd", "rd_step": 0}, {"mode": "rd", "rd_target_bits": 0},
     {"mode": "bbit", "radius": "vector"}, {"mode": "rd", "radius": "block"},
     {"radius": "block", "block_size": 100}, {"radius": "block", "block_size": 8192}], ids=str)
def test_an_argument_that_does_not_fit_is_one_line(arguments):
    with pytest.raises(ConfigError) as refusal:
        flq.quantize(np.ones(3), **arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data, shapes", [(b"", (3,)), (bytes(5), (3,)), (bytes(7), (3,)),
                                          (b"\0\0\xc0\x7f\0\0", (3,)), (bytes(6), None),
                                          (bytes(6), ()), (bytes(6), []), (bytes(6), (3.0,)),
                                          (bytes(6), (-3,)), (bytes(6), [3]), (bytes(6), 3),
                                          (bytes(4), (0,)), ("text", (3,)), (None, (3,))],
                         ids=repr)
def test_bytes_that_are_not_what_is_said_are_one_line(data, shapes):
    with pytest.raises(DataError) as refusal:
        flq.dequantize(data, shapes)
    assert "\n" not in str(refusal.value)
    assert flq.dequantize(bytes(6), (3,)).tolist() == [0, 0, 0]


def test_every_mode_is_described():
    assert list(flq.QUANTIZERS) == list(MODES)
    for mode, row in flq.QUANTIZERS.items():
        assert row.mode == mode and len(
            row.meaning) > 20 and row.min_bits <= row.bits <= row.max_bits
        assert row.bits == config.build({"mode": mode}).flq_algorithm.b_up
        for bits in (row.min_bits, row.max_bits):
            assert flq.quantize(np.ones(3), mode, bits).width == bits
    assert (flq.QUANTIZERS["laq8"].min_bits, flq.QUANTIZERS["laq8"].max_bits) == (8, 8)
    with pytest.raises(TypeError):
        flq.QUANTIZERS["mine"] = flq.QUANTIZERS["laq"]
