"""The body of a frame: scales, then levels; and every way in which one can be wrong."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.compression import QUANTIZERS, codec, contexts
from flq.compression.codec import Body
from flq.errors import ConfigError, DataError, FrameError
from flq.pieces import PIECE
from tests.oracles import base_n, bit_stream
from tests.oracles import quantisers as oracle
from tests.vectors import same_bits

SIZES = (5, 0, 1, 7)
WIDTHS = [(name, bits) for name in sorted(QUANTIZERS) for bits in (1, 2, 3, 4, 7, 8, 9, 15, 16, 32)
          if QUANTIZERS[name].min_bits <= bits <= QUANTIZERS[name].max_bits]


def _vector(sizes=SIZES):
    return ((rng.Stream(1, rng.INIT).uniform(sum(sizes)) - 0.5) * 3).astype(np.float32)


def _body(name, bits, sizes=SIZES, entropy_coding=False):
    draw = rng.Stream(1, rng.UPLINK).uniform
    return codec.to_body(codec.encode(QUANTIZERS[name], _vector(sizes), sizes, bits, draw),
                         entropy_coding)


def _reason(data, name, bits, sizes=SIZES, coded=False):
    with pytest.raises(FrameError) as refusal:
        codec.from_body(Body(bytes(data), coded), QUANTIZERS[name], bits, sizes)
    return refusal.value.reason


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_a_body_is_the_oracles_bytes(bits):
    vector, start, scales, levels, decoded = _vector(), 0, [], [], []
    for size in SIZES:
        part = vector[start:start + size].tolist()
        r = oracle.radius(part)
        scales.append(r)
        levels += oracle.laq_levels(part, bits)
        decoded += oracle.laq_decode(r, oracle.laq_levels(part, bits), bits)
        start += size
    body = _body("laq", bits)
    assert body == Body(struct.pack("<4f", *scales) + bit_stream.pack(levels, bits), False)
    assert same_bits(codec.decode(codec.from_body(body, QUANTIZERS["laq"], bits, SIZES), SIZES),
                     decoded)


def test_one_radius_for_the_vector_is_one_scale():
    encoded = codec.encode(QUANTIZERS["laq"], _vector(), (13,), 4,
                           rng.Stream(1, rng.UPLINK).uniform)
    assert encoded.scales.tolist() == [oracle.radius(_vector().tolist())]
    assert codec.nominal_bits(QUANTIZERS["laq"], 4, (13,)) == 32 + 4 * 13


@pytest.mark.parametrize("name, bits", WIDTHS)
def test_every_other_length_is_refused(name, bits):
    body = _body(name, bits)
    for end in range(len(body.data)):
        assert _reason(body.data[:end], name, bits) == "body_short"
    assert _reason(body.data + b"\0", name, bits) == "body_long"


@pytest.mark.parametrize("name, bits", WIDTHS)
def test_every_set_padding_bit_is_refused(name, bits):
    body = _body(name, bits)
    for bit in range(sum(SIZES) * bits % 8 or 8, 8):
        dirty = bytearray(body.data)
        dirty[-1] |= 1 << bit
        assert _reason(dirty, name, bits) == "dirty_padding"


@pytest.mark.parametrize("name, bits",
                         [(name, bits) for name, bits in WIDTHS if QUANTIZERS[name].has_scale])
@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_a_scale_that_is_no_magnitude_is_refused(name, bits, scale):
    body = bytearray(_body(name, bits).data)
    body[8:12] = struct.pack("<f", scale)
    assert _reason(body, name, bits) == "bad_scale"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_float32_that_is_not_finite_is_refused(value):
    body = bytearray(_body("fedavg", 32).data)
    body[8:12] = struct.pack("<f", value)
    assert _reason(body, "fedavg", 32) == "bad_value"


@pytest.mark.parametrize("name, bits",
                         [(name, bits) for name, bits in WIDTHS if name in ("bbit", "qsgd")])
def test_the_unused_code_of_a_symmetric_grid_is_refused(name, bits):
    levels = [0] * sum(SIZES)
    levels[6] = 2 ** bits - 1
    assert _reason(bytes(16) + bit_stream.pack(levels, bits), name, bits) == "bad_level"


def test_a_width_that_the_quantiser_does_not_have_is_refused():
    assert _reason(_body("laq", 4).data, "laq", 1) == "bad_bits"
    assert _reason(_body("laq", 4).data, "laq", 17) == "bad_bits"
    assert _reason(_body("laq", 4).data, "bin", 4) == "bad_bits"
    assert _reason(_body("laq", 4).data, "fedavg", 4) == "bad_bits"


@pytest.mark.parametrize("count", [12, 13])
def test_float32_is_never_entropy_coded(count):
    """Neither written so, nor read so: a coded float32 body is a refusal, not a crash."""
    assert not _body("fedavg", 32, entropy_coding=True).coded
    for plain in (bytes(2 * count), bytes(4 * count)):
        with pytest.raises(FrameError):
            codec.from_body(Body(zlib.compress(plain), True), QUANTIZERS["fedavg"], 32, (count,))


@pytest.mark.parametrize("name, bits", WIDTHS)
def test_coded_bodies_are_smaller_or_not_used(name, bits):
    sizes = (4000,)
    vector = np.zeros(4000, np.float32)
    vector[::97] = _vector((42,))
    draw = rng.Stream(1, rng.UPLINK).uniform
    encoded = codec.encode(QUANTIZERS[name], vector, sizes, bits, draw)
    plain, coded = codec.to_body(encoded, False), codec.to_body(encoded, True)
    assert not plain.coded
    assert coded == plain if not coded.coded else len(coded.data) < len(plain.data)
    back = codec.from_body(coded, QUANTIZERS[name], bits, sizes)
    assert same_bits(codec.decode(back, sizes), codec.decode(encoded, sizes))


@pytest.mark.parametrize("name, bits", [width for width in WIDTHS if width[1] <= 16])
def test_the_shorter_one_of_both_codings_is_used(name, bits):
    sizes = (4000,)
    vector = np.zeros(4000, np.float32)
    vector[::97] = _vector((42,))
    encoded = codec.encode(QUANTIZERS[name], vector, sizes, bits, rng.Stream(1, 4).uniform)
    activity = contexts.initial_activity(4000)
    for asked in (True, False):
        without, body = codec.to_body(encoded, asked), codec.to_body(encoded, asked, activity)
        assert len(body.data) <= len(without.data) and not without.beside_history
        assert body.coded >= body.beside_history
        if not body.beside_history:
            assert body == without
        back = codec.from_body(body, QUANTIZERS[name], bits, sizes, activity)
        assert same_bits(codec.decode(back, sizes), codec.decode(encoded, sizes))
    assert body.beside_history or name != "rd"  # the last one, where only this way is open
    with pytest.raises(DataError):
        codec.to_body(encoded, True, activity[1:])


def test_levels_beside_a_history_are_refused_by_who_has_none_or_another():
    encoded = codec.encode(QUANTIZERS["rd"], _vector((42,)), (42,), 8, rng.Stream(1, 4).uniform)
    activity = contexts.initial_activity(42)
    body = codec.to_body(encoded, False, activity)
    assert body.beside_history
    for other in (None, activity + np.uint8(1), activity[1:]):
        with pytest.raises(FrameError) as refusal:
            codec.from_body(body, QUANTIZERS["rd"], 8, (42,), other)
        assert refusal.value.reason == "other_history"


# rd: test_escape.py
@pytest.mark.parametrize("name, bits",
                         [(name, bits) for name, bits in WIDTHS if bits <= 16 and name != "rd"])
def test_a_coded_level_above_the_grid_is_refused(name, bits):
    quantizer, sizes = QUANTIZERS[name], (400,)
    top = quantizer.max_level(bits)
    digits = base_n.digits_per_byte(top + 1)
    if digits == 0:
        above = [
            struct.pack("<H", value) for value in (top + 1, 2**16 - 1)
            if value > top and value < 2**16
        ]
        streams = [bytes(399) + word[:1] + bytes(399) + word[1:] for word in above]
    else:
        streams = [
            bytes(-(-400 // digits) - 1) + bytes([value]) for value in ((top + 1)**digits, 255)
            if (top + 1)**digits <= value < 256
        ]
    for stream in streams:
        assert _reason(bytes(4) + zlib.compress(stream), name, bits, sizes,
                       coded=True) == "bad_level"


@given(st.sampled_from([width for width in WIDTHS if width[1] <= 16 and width[0] != "rd"]),
       st.binary(min_size=1, max_size=40), st.integers(100, 300))
def test_foreign_coded_bytes_are_levels_of_the_grid_or_a_named_refusal(width, seed, count):
    name, bits = width
    quantizer = QUANTIZERS[name]
    n = quantizer.max_level(bits) + 1
    m = base_n.digits_per_byte(n)
    length = -(-count // m) if m else 2 * count
    plain = (seed * length)[:length]
    try:
        encoded = codec.from_body(Body(bytes(4) + zlib.compress(plain, 9), True), quantizer, bits,
                                  (count,))
    except FrameError as refusal:
        assert refusal.reason in ("bad_level", "dirty_padding", "body_long")
        return
    assert encoded.levels.max() < n
    assert base_n.plain_bytes(encoded.levels.tolist(), n) == plain


@given(st.sampled_from(WIDTHS), st.booleans(), st.data())
def test_foreign_bytes_are_one_body_or_a_named_refusal(width, coded, data):
    """A plain body has one reading and one writing: what is accepted is written back as the same
    bytes.
    """
    name, bits = width
    low, high = codec.body_length_range(QUANTIZERS[name], bits, SIZES, coded)
    body = data.draw(st.binary(min_size=low, max_size=high))
    try:
        encoded = codec.from_body(Body(body, coded), QUANTIZERS[name], bits, SIZES)
    except FrameError as refusal:
        assert refusal.reason
        return
    assert np.isfinite(codec.decode(encoded, SIZES)).all()
    assert codec.to_body(encoded, False).data == body or coded


# --- arguments that do not fit


@pytest.mark.parametrize("name, bits", [("bbit", 1), ("qsgd", 1), ("rd", 1), ("laq", 1),
                                        ("laq", 17), ("bin", 2), ("fedavg", 16), ("bbit", 0)])
def test_a_width_that_the_quantiser_lacks_is_one_line(name, bits):
    for call in (
            lambda: codec.encode(QUANTIZERS[name], np.ones(3, np.float32), (3,), bits, None),
            lambda: codec.decode(
                codec.Encoded(QUANTIZERS[name], bits, np.ones(1, np.float32), np.ones(3, np.uint8)),
                (3,))):
        with pytest.raises(ConfigError) as refusal:
            call()
        assert str(refusal.value).startswith(f"quantiser {name} has no such width; expected ")


@pytest.mark.parametrize("sizes", [(2,), (5, 4), (), (20, -7), (-1, 14)])
def test_sizes_that_do_not_add_up_are_one_line(sizes):
    """They left entries of the vector and of the levels as they were in memory."""
    encoded = codec.encode(QUANTIZERS["laq"], _vector(), SIZES, 4, None)
    for call in (lambda: codec.encode(QUANTIZERS["laq"], _vector(), sizes, 4, None),
                 lambda: codec.decode(encoded, sizes)):
        with pytest.raises(DataError) as refusal:
            call()
        assert (
            str(refusal.value) ==
            "the sizes of the tensors do not add up to the vector; expected (13,); got "
            f"{list(sizes)}"
        )


def test_a_vector_of_another_form_is_one_line():
    for vector in (_vector().astype(np.float64), _vector().astype(np.int32), _vector().reshape(
            1, 13)):
        with pytest.raises(DataError):
            codec.encode(QUANTIZERS["laq"], vector, SIZES, 4, None)
    encoded = codec.encode(QUANTIZERS["laq"], _vector(), SIZES, 4, None)
    with pytest.raises(DataError) as refusal:
        codec.decode(encoded._replace(scales=encoded.scales[:2]), SIZES)
    assert str(refusal.value) == "the scales do not belong to these tensors; expected 4; got (2,)"


@pytest.mark.parametrize("name, bits", WIDTHS)
def test_a_long_vector_is_decoded_as_its_tensors_are(name, bits):
    """In pieces, of which none crosses tensors."""
    quantizer, sizes = QUANTIZERS[name], (PIECE + 5, 0, 3, 2 * PIECE)
    vector = np.random.RandomState(2).standard_normal(sum(sizes)).astype(np.float32)
    draw = rng.Stream(1, rng.UPLINK).uniform
    encoded = codec.encode(quantizer, vector, sizes, bits, draw)
    decoded, start = codec.decode(encoded, sizes), 0
    for index, size in enumerate(sizes):
        part = slice(start, start + size)
        if size:
            scale = encoded.scales[index] if quantizer.has_scale else None
            whole = quantizer.decode(scale, encoded.levels[part], bits)
            assert same_bits(decoded[part], whole)
        start += size
