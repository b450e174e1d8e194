"""rd against the rational oracle (algorithm.md 2), and what it promises: nothing lost, least
squares, no scale of its own.
"""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.compression import QUANTIZERS, codec, contexts, rate_distortion
from tests.oracles import quantisers as oracle
from tests.vectors import no_draw, same_bits, vectors

RD = QUANTIZERS["rd"]


def _noise(count):
    """Sums of twelve uniforms: nearly normal, variance 1."""
    return sum(rng.Stream(3, rng.INIT, 0, i).uniform(count)
               for i in range(12)).astype(np.float32) - np.float32(6)


def test_three_entries_by_hand():
    # rms = 2, step = min(0.5 * 2, 3) = 1: levels 3, -1, 1, 1 (0.5 goes up), 0; s = (9 + 1.4 + 1.3 +
    # 0.5) / 12.
    d = np.array([3, -1.4, 1.3, 0.5, 0.2], np.float32)
    rms = float(np.sqrt(np.mean(d.astype(np.float64) ** 2)))
    scale, levels = rate_distortion.with_step(1 / rms).encode(d, 4, no_draw)
    assert (levels.astype(int) - 7).tolist() == [3, -1, 1, 1, 0]
    assert scale.dtype == np.float32 and scale == np.float32(12.2 / 12)


@given(vectors(), st.integers(2, 16), st.sampled_from([0.05, 1.0, 2.5, 8.0]))
def test_levels_scale_and_decoding_are_the_oracles(d, bits, factor):
    values = d.tolist()
    scale, levels = rate_distortion.with_step(factor).encode(d, bits, no_draw)
    r, half = oracle.radius(values), oracle.bbit_top(bits)
    if scale == 0:
        # Nothing to send, or a scale that float32 arithmetic cannot use: then the tensor is zero.
        assert r <= oracle.SMALLEST_SCALE * 2 * half and (levels == half).all()
        return
    step = oracle.rd_step(values, factor, bits)
    signed = [level - half for level in levels.tolist()]
    for value, level in zip(values, signed):
        place = Fraction(value) / Fraction(step)
        assert level - Fraction(1, 2) - Fraction(1, 2**30) <= place <= level + Fraction(
            1, 2) + Fraction(1, 2**30)
    assert float(scale) == pytest.approx(float(oracle.rd_scale(values, signed)), rel=1e-6)
    assert same_bits(RD.decode(scale, levels, bits),
                     oracle.rd_decode(float(scale), levels.tolist(), bits))


@given(vectors(), st.integers(2, 16))
def test_the_largest_entry_is_never_lost(d, bits):
    scale, levels = rate_distortion.with_step(1e3).encode(d, bits, no_draw)
    if scale > 0:
        assert levels[np.argmax(np.abs(d))] != oracle.bbit_top(bits)


@pytest.mark.parametrize("exponent", range(-30, 31, 5))
def test_a_factor_changes_only_the_scale(exponent):
    d, factor = _noise(300), np.float32(10.0 ** exponent)
    scale, levels = RD.encode(d, 8, no_draw)
    other, same = RD.encode(d * factor, 8, no_draw)
    # a product that is rounded may move an entry over an edge
    assert np.count_nonzero(levels != same) <= 1
    assert float(other) == pytest.approx(float(scale) * float(factor), rel=1e-3)


def test_a_coarse_grid_grows_to_hold_the_largest_entry():
    d = np.append(_noise(1000), np.float32(500)).astype(np.float32)
    _, levels = RD.encode(d, 3, no_draw)
    assert levels[-1] == 6  # the end of the grid
    _, levels = RD.encode(d, 16, no_draw)
    assert abs(int(levels[-1]) - 32767 - 500 /
               (2.5 * np.sqrt(np.mean(d.astype(np.float64)**2)))) <= 0.5


@pytest.mark.parametrize("factor, most", [(0.25, 0.35), (1.0, 0.30), (2.5, 0.30), (4.0, 0.30)])
def test_it_stays_near_shannons_bound(factor, most):
    """Bits per weight above log2(1 / relative error), with the entropy coder that it always has."""
    d = _noise(100000)
    quantizer = rate_distortion.with_step(factor)
    encoded = codec.encode(quantizer, d, (d.size,), 8, no_draw)
    error = np.linalg.norm(d - codec.decode(encoded, (d.size,))) / np.linalg.norm(d)
    assert 8 * len(codec.to_body(encoded, True).data) / d.size + np.log2(error) <= most


# --- bits a weight that were asked for


def _update(count=60000):
    """What updates look like: few entries carry it, and there are long runs of zeros."""
    draw = np.random.RandomState(11)
    size = np.exp(1.5 * draw.standard_normal(count // 64 + 1)).repeat(64)[:count]
    dead = (draw.random_sample(count // 128 + 1) < 0.2).repeat(128)[:count]
    return np.where(dead, 0, size * draw.standard_t(4, count)).astype(np.float32)


def _bits_a_weight(encoded, size):
    return 8 * (len(codec.to_body(encoded, True).data) - 4 * encoded.scales.size) / size


@pytest.mark.parametrize("vector, target",
                         [(_update(), target) for target in (0.15, 0.25, 0.5, 1.0, 2.0, 4.0)] +
                         [(_noise(60000), target) for target in (0.5, 1.0, 2.0, 4.0)],
                         ids=lambda value: str(value) if isinstance(value, float) else "")
@pytest.mark.parametrize("sizes", [(60000,), (40000, 0, 400, 19600)])
def test_it_takes_the_bits_that_were_asked_for(vector, sizes, target):
    """To 3 hundredths, in a grid that is wide enough and with a step below the largest entry."""
    quantizer = rate_distortion.with_parameters(2.5, target)
    encoded = codec.encode(quantizer, vector, sizes, 16, no_draw)
    assert _bits_a_weight(encoded, vector.size) == pytest.approx(target, rel=0.03)
    error = np.linalg.norm(vector - codec.decode(encoded, sizes)) / np.linalg.norm(vector)
    assert 0 < error < 1
    body = codec.to_body(encoded, True)
    read = codec.from_body(body, RD, 16, sizes)
    assert same_bits(codec.decode(read, sizes), codec.decode(encoded, sizes)), "any rd reads it"


@pytest.mark.parametrize("target", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [(60000,), (40000, 0, 400, 19600), (3000,)])
def test_it_takes_the_bits_that_were_asked_for_beside_a_history(sizes, target):
    """Whose coder takes a fifth less of the same levels, or still less."""
    quantizer = rate_distortion.with_parameters(2.5, target)
    count, draw = sum(sizes), np.random.RandomState(1)
    spread, activity = np.exp(draw.standard_normal(count)), contexts.initial_activity(count)
    for _ in range(8):
        vector = (draw.standard_normal(count) * spread).astype(np.float32)
        encoded = codec.encode(quantizer, vector, sizes, 16, no_draw, activity)
        body = codec.to_body(encoded, True, activity)
        assert body.beside_history
        taken = 8 * (len(body.data) - 4 * encoded.scales.size) / count
        assert taken == pytest.approx(target, rel=0.03 if count > 3000 else 0.15)
        activity = codec.next_activity(activity, encoded)
    if count > 3000:
        assert len(codec.to_body(encoded, True).data) > 1.2 * len(body.data)


def test_more_bits_leave_less():
    vector, errors = _update(), []
    for target in (0.1, 0.3, 1.0, 3.0):
        encoded = codec.encode(rate_distortion.with_parameters(2.5, target), vector,
                               (vector.size,), 16, no_draw)
        errors.append(np.linalg.norm(vector - codec.decode(encoded, (vector.size,))))
    assert errors == sorted(errors, reverse=True)


def test_what_no_step_takes_is_taken_as_nearly_as_it_goes():
    """The finest grid that b allows, and the step that loses all but the largest entries."""
    vector = _update()
    most = codec.encode(rate_distortion.with_parameters(2.5, 16.0), vector, (vector.size,), 4,
                        no_draw)
    finest = codec.encode(rate_distortion.with_step(1e-3), vector, (vector.size,), 4, no_draw)
    assert (most.levels == finest.levels).all()
    least = codec.encode(rate_distortion.with_parameters(2.5, 0.01), _noise(5000), (5000,), 8,
                         no_draw)
    coarsest = codec.encode(rate_distortion.with_step(1e3), _noise(5000), (5000,), 8, no_draw)
    assert (least.levels == coarsest.levels).all()


@given(vectors(0, 40), st.sampled_from([0.01, 0.5, 3.0, 16.0]), st.integers(2, 16))
def test_any_vector_has_a_step(vector, target, bits):
    sizes = (vector.size // 3, vector.size - vector.size // 3)
    encoded = codec.encode(rate_distortion.with_parameters(2.5, target), vector, sizes, bits,
                           no_draw)
    again = codec.encode(rate_distortion.with_parameters(2.5, target), vector, sizes, bits,
                         no_draw)
    assert (encoded.levels == again.levels).all() and same_bits(encoded.scales, again.scales)
    assert np.isfinite(codec.decode(encoded, sizes)).all()


def test_without_a_target_it_is_the_rd_of_before():
    vector = _update()
    for step in (0.5, 2.5):
        one, other = (codec.encode(quantizer, vector, (vector.size,), 8, no_draw)
                      for quantizer in (rate_distortion.with_parameters(step, None),
                                        rate_distortion.with_step(step)))
        assert (one.levels == other.levels).all() and same_bits(one.scales, other.scales)
