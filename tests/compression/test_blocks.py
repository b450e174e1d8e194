"""Scales of blocks: their codes and bytes against the oracle, and every way in which they can be
wrong.
"""

import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq import rng
from flq.compression import QUANTIZERS, blocks, codec
from flq.compression.codec import Body
from flq.errors import DataError, FrameError
from flq.modes import BLOCK_SIZES
from tests.oracles import bit_stream, quantisers
from tests.oracles import blocks as oracle
from tests.vectors import same_bits

WITH_BLOCKS = sorted(name for name, quantizer in QUANTIZERS.items() if quantizer.by_scale)
COVERING = [name for name in WITH_BLOCKS if QUANTIZERS[name].by_scale.covers]
SIZES = (40, 0, 1, 33)
TIE = Fraction(1, 2 ** 32)


def _blocked(name, block_size=16):
    return QUANTIZERS[name]._replace(block_size=block_size)


def _draw():
    return rng.Stream(1, rng.UPLINK).uniform


def _vector(sizes=SIZES):
    """Blocks of very different magnitudes, one of them zero."""
    vector = (rng.Stream(1, rng.INIT).uniform(sum(sizes)) - 0.5).astype(np.float32)
    vector *= np.float32(2) ** -(np.arange(vector.size, dtype=np.float32) // 8)
    vector[16:32] = 0
    return vector


def _tensors(vector, sizes):
    starts = np.cumsum((0,) + tuple(sizes))
    return [vector[start:start + size].tolist() for start, size in zip(starts, sizes)]


def _encoded(name, bits=None, sizes=SIZES, vector=None, block_size=16):
    quantizer = _blocked(name, block_size)
    return codec.encode(quantizer, _vector(sizes) if vector is None else vector, sizes,
                        bits or quantizer.min_bits, _draw())


def _reason(data, name="laq", bits=4, sizes=SIZES, coded=False):
    with pytest.raises(FrameError) as refusal:
        codec.from_body(Body(bytes(data), coded), _blocked(name), bits, sizes)
    return refusal.value.reason


def test_the_sizes_of_blocks_are_those_of_the_pages():
    assert BLOCK_SIZES == (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    assert WITH_BLOCKS == ["bbit", "bin", "laq", "qsgd"] and COVERING == ["bbit", "laq", "qsgd"]


def test_ratios_are_those_of_the_page_and_fall():
    assert blocks.RATIOS.dtype == np.float32
    assert [Fraction(float(ratio)) for ratio in blocks.RATIOS] == [
        oracle.ratio(code) for code in range(256)
    ]
    assert blocks.RATIOS[0] == 1 and (np.diff(blocks.RATIOS) < 0).all()
    steps = blocks.RATIOS[:254] / blocks.RATIOS[1:255]
    assert steps.min() > 1 + 1 / 31 - 1e-6 and steps.max() < 1 + 1 / 16 + 1e-6


def test_a_block_is_some_consecutive_weights_of_one_tensor():
    assert blocks.counts((0, 1, 16, 17, 40), 16) == (0, 1, 1, 2, 3)
    assert codec.num_scales(_blocked("laq"), SIZES) == 3 + 0 + 1 + 3
    assert codec.nominal_bits(_blocked("laq"), 4, SIZES) == 32 * 4 + 8 * 7 + 4 * 74


def test_an_encoding_by_hand():
    """Tensors of 36 and 2 weights; scales 4, 1.0625 = 4 (32 - 15) / 2^6 and 0, then 0.5."""
    first = np.zeros(36, np.float32)
    first[3], first[20] = -4, 1.0625
    encoded = codec.encode(_blocked("bbit"), np.concatenate([first, np.float32([0.5, 0.25])]),
                           (36, 2), 2, None)
    assert encoded.scales.tolist() == [4, 0.5]
    assert encoded.codes.tolist() == [0, 31, 255, 0]
    assert encoded.levels[[3, 20]].tolist() == [0, 2] and encoded.levels[36:].tolist() == [2, 2]
    assert encoded.levels.sum() == 36 - 1 + 1 + 4
    assert codec.to_body(encoded, False).data == (
        struct.pack("<2fI4B", 4, 0.5, 4, 0, 31, 255, 0)
        + bit_stream.pack(encoded.levels.tolist(), 2))


@pytest.mark.parametrize("name, bits", [("laq", 2), ("laq", 4), ("laq", 16), ("bbit", 3),
                                        ("bbit", 9), ("qsgd", 4), ("bin", 1)])
@pytest.mark.parametrize("block_size", [16, 32])
def test_scales_levels_and_decoding_are_the_oracles(name, bits, block_size):
    encoded = _encoded(name, bits, block_size=block_size)
    decoded = codec.decode(encoded, SIZES).tolist()
    levels, codes = iter(encoded.levels.tolist()), iter(encoded.codes.tolist())
    uniforms, at = _draw()(sum(SIZES)), 0
    for largest, parts in zip(encoded.scales.tolist(),
                              oracle.cut(_tensors(_vector(), SIZES), block_size)):
        own = [quantisers.bin_scale(part) if name == "bin" else quantisers.radius(part)
               for part in parts]
        assert largest == max(own + [0.0])
        for part, scale in zip(parts, own):
            code = next(codes)
            if name == "bin" and scale:
                assert oracle.is_nearest(code, scale, largest)
            else:
                assert code == oracle.code_above(scale, largest)
            scale = oracle.scale(largest, code)
            mine = [next(levels) for _ in part]
            if name == "bin":
                want = quantisers.bin_decode(scale, mine)
                assert not scale or all(level == (x > 0) for level, x in zip(mine, part) if x)
            elif name == "laq":
                want = quantisers.laq_decode(scale, mine, bits)
                places = [quantisers.laq_position(x, scale, bits) + Fraction(1, 2)
                          for x in part] if scale else []
            else:
                want = quantisers.bbit_decode(scale, mine, bits)
                added = [0.5] * len(part)
                if name == "qsgd":
                    added = uniforms[at:at + len(part)].tolist()
                places = [quantisers.bbit_position(x, scale, bits) + Fraction(u)
                          for x, u in zip(part, added)] if scale else []
            if name != "bin":
                assert all(level - TIE <= place < level + 1 + TIE
                           for level, place in zip(mine, places))
            assert same_bits(decoded[at:at + len(part)], want)
            at += len(part)
    assert next(levels, None) is next(codes, None) is None


@given(st.lists(st.floats(0, 3.4028234663852886e38, width=32), min_size=1, max_size=20),
       st.booleans())
def test_codes_of_any_scales_are_the_oracles(values, covers):
    scales = np.array([value if value >= quantisers.SMALLEST_SCALE else 0.0 for value in values],
                      np.float32)
    largest, codes = blocks._coded(scales, (scales.size,), covers)
    assert largest.tolist() == [float(scales.max())]
    for scale, code in zip(scales.tolist(), codes.tolist()):
        if covers or not scale:
            assert code == oracle.code_above(scale, float(largest[0]))
        else:
            assert oracle.is_nearest(code, scale, float(largest[0]))
    assert blocks.decoded_scales(largest, codes, (scales.size,)).tolist() == [
        oracle.scale(float(largest[0]), code) for code in codes.tolist()
    ]


@pytest.mark.parametrize("name", COVERING)
def test_a_block_far_below_the_largest_keeps_a_scale(name):
    """The smallest ratio is 9/16 2^-15: what is below it is rounded up, and for qsgd unbiased."""
    vector = np.zeros(32, np.float32)
    vector[0], vector[16:] = 1.0, 1e-9
    encoded = _encoded(name, 4, (32,), vector)
    assert encoded.codes.tolist() == [0, 254]
    c = codec.decode(encoded, (32,))
    assert np.abs(c[16:]).max() <= 9 / 16 * 2.0 ** -15


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_qsgd_stays_unbiased(bits):
    """Over an even lattice of uniforms, in a block whose coded scale is above its radius."""
    n = 4096
    vector = np.full(2 * n, 0.37, np.float32)
    vector[n] = 1.1
    vector[0] = 0.77
    lattice = (np.arange(2 * n) % n + 0.5) / n
    encoded = codec.encode(_blocked("qsgd", n), vector, (2 * n,), bits, _pieces_of(lattice))
    assert encoded.codes.tolist() == [9, 0]
    mean = float(np.mean(codec.decode(encoded, (2 * n,))[1:n].astype(np.float64)))
    assert abs(mean - 0.37) <= 2.0 / n / quantisers.bbit_top(bits) + 1e-6


def _pieces_of(uniforms):
    left = list(uniforms)

    def draw(count):
        taken, left[:] = left[:count], left[count:]
        return np.array(taken)
    return draw


# --- bytes


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_codes_are_entropy_coded_where_that_is_smaller(name):
    sizes = (16 * 500, 7)
    vector = np.tile(_vector((16,)), 501)[:sum(sizes)]
    encoded = _encoded(name, None, sizes, vector)
    plain, coded = codec.to_body(encoded, False), codec.to_body(encoded, True)
    number = codec.num_scales(encoded.quantizer, sizes)
    assert number == 501 and struct.unpack_from("<I", plain.data, 8) == (501,)
    length, = struct.unpack_from("<I", coded.data, 8)
    assert 0 < length < 100
    assert zlib.decompress(coded.data[12:12 + length]) == encoded.codes.tobytes()
    for body in (plain, coded):
        back = codec.from_body(body, encoded.quantizer, encoded.bits, sizes)
        assert back.codes.tolist() == encoded.codes.tolist()
        assert same_bits(codec.decode(back, sizes), codec.decode(encoded, sizes))
    low, high = codec.body_length_range(encoded.quantizer, encoded.bits, sizes, False)
    assert low == high - 500 and high == len(plain.data)


def test_codes_that_coding_makes_longer_travel_as_they_are():
    body = codec.to_body(_encoded("bin"), True)
    assert struct.unpack_from("<I", body.data, 16) == (7,)
    assert body == codec.to_body(_encoded("bin"), False)


@pytest.mark.parametrize("name", WITH_BLOCKS)
def test_every_other_length_is_refused(name):
    body = codec.to_body(_encoded(name), False)
    for end in range(len(body.data)):
        assert _reason(body.data[:end], name, QUANTIZERS[name].min_bits) == "body_short"
    assert _reason(body.data + b"\0", name, QUANTIZERS[name].min_bits) == "body_long"


@pytest.mark.parametrize("length", [0, 8, 2 ** 31, 2 ** 32 - 1])
def test_an_impossible_length_of_the_codes_is_refused(length):
    body = bytearray(codec.to_body(_encoded("laq", 4), False).data)
    body[16:20] = struct.pack("<I", length)
    assert _reason(body) == "bad_coding"


def test_codes_that_are_no_stream_or_another_number_are_refused():
    head = struct.pack("<f", 1.0)
    number = 2000
    levels = bytes(codec.packing.packed_length(16 * number, 4))
    for stream in (b"\1\2\3", zlib.compress(bytes(number - 1)), zlib.compress(bytes(number + 1)),
                   zlib.compress(bytes(10**6), 9)[:1999], zlib.compress(bytes(number))[:-1]):
        data = head + struct.pack("<I", len(stream)) + stream + levels
        assert _reason(data, sizes=(16 * number,)) == "bad_coding"
    good = zlib.compress(bytes(number))
    data = head + struct.pack("<I", len(good)) + good
    sizes = (16 * number,)
    assert codec.from_body(Body(data + levels, False), _blocked("laq"), 4, sizes).codes.sum() == 0
    # within the whole body's range, but the codes left another length to the levels
    assert _reason(data + levels[:-1], sizes=sizes) == "body_short"
    assert _reason(data + levels + b"\0", sizes=sizes) == "body_long"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_largest_scale_that_is_no_magnitude_is_refused(value):
    body = bytearray(codec.to_body(_encoded("laq", 4), False).data)
    body[8:12] = struct.pack("<f", value)
    assert _reason(body) == "bad_scale"


@given(st.sampled_from([("laq", 2), ("laq", 9), ("bbit", 3), ("bin", 1), ("qsgd", 5)]),
       st.booleans(), st.data())
def test_foreign_bytes_are_one_body_or_a_named_refusal(width, coded, data):
    """Every code stands for a scale: a plain body that is accepted is written back as it came."""
    name, bits = width
    quantizer = _blocked(name)
    low, high = codec.body_length_range(quantizer, bits, SIZES, coded)
    body = data.draw(st.binary(min_size=low, max_size=high))
    if data.draw(st.booleans()):
        body = body[:16] + struct.pack("<I", 7) + body[20:]
    try:
        encoded = codec.from_body(Body(body, coded), quantizer, bits, SIZES)
    except FrameError as refusal:
        assert refusal.reason
        return
    assert np.isfinite(codec.decode(encoded, SIZES)).all()
    assert coded or codec.to_body(encoded, False).data == body


def test_codes_of_another_number_are_one_line():
    encoded = _encoded("laq", 4)
    with pytest.raises(DataError) as refusal:
        codec.decode(encoded._replace(codes=encoded.codes[:-1]), SIZES)
    assert str(refusal.value) == (
        "the codes of the scales do not belong to these blocks; expected (7,); got (6,)")
