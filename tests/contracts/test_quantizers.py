"""What every quantiser of the registry promises. A newcomer is accepted when this file passes."""

import json
import os

import numpy as np
import pytest
from hypothesis import given

from flq import config, rng
from flq.compression import BY_WIRE_ID, QUANTIZERS, blocks, codec, packing
from flq.compression.codec import Body
from flq.errors import FlqError, FrameError
from tests.golden import make
from tests.oracles import bit_stream
from tests.oracles import quantisers as oracle
from tests.vectors import same_bits, vectors

with open(os.path.join(os.path.dirname(os.path.abspath(make.__file__)), "levels.json")) as _file:
    GOLDEN = {(record["quantizer"], record["bits"]): record for record in json.load(_file)}

WIDTHS = [(name, bits) for name, quantizer in sorted(QUANTIZERS.items())
          for bits in sorted({quantizer.min_bits, 3, 4, 7, 8, 9, 15, quantizer.max_bits})
          if quantizer.min_bits <= bits <= quantizer.max_bits]

with open(os.path.join(os.path.dirname(os.path.abspath(make.__file__)), "blocks.json")) as _file:
    GOLDEN_BLOCKS = json.load(_file)

# Largest |d - c| as a part of R = max|d|. A newcomer starts with R itself.
_WORST_ERROR = {
    "fedavg": lambda bits: 0.0,
    "laq": lambda bits: 1.0 / (2 ** bits - 1),
    "bbit": lambda bits: 0.5 / oracle.bbit_top(bits),
    "qsgd": lambda bits: 1.0 / oracle.bbit_top(bits),
}

# With scales of blocks too: the shortest, so that a short vector has several.
BLOCKED = {
    f"{name} in blocks": quantizer._replace(block_size=16)
    for name, quantizer in QUANTIZERS.items() if quantizer.by_scale
}
EVERY = dict(QUANTIZERS, **BLOCKED)
WIDTHS += [(name, bits) for name, quantizer in sorted(BLOCKED.items())
           for bits in sorted({quantizer.min_bits, 4, 9, quantizer.max_bits})
           if quantizer.min_bits <= bits <= quantizer.max_bits]

every_width = pytest.mark.parametrize("name, bits", WIDTHS)


def _draw():
    return rng.Stream(11, rng.UPLINK, 3, 5).uniform


def _encode(name, bits, vector, sizes=None):
    vector = np.asarray(vector, np.float32)
    return codec.encode(EVERY[name], vector, sizes or (vector.size,), bits, _draw())


def _there_and_back(name, bits, vector, sizes=None):
    sizes = sizes or (len(vector),)
    return codec.decode(_encode(name, bits, vector, sizes), sizes)


def test_the_registry_is_keyed_by_name_and_by_wire_id():
    assert all(quantizer.name == name for name, quantizer in QUANTIZERS.items())
    assert all(quantizer.wire_id == wire_id for wire_id, quantizer in BY_WIRE_ID.items())
    assert len(BY_WIRE_ID) == len(QUANTIZERS)


@pytest.mark.parametrize("name", sorted(QUANTIZERS))
def test_the_facts_agree_with_each_other(name):
    quantizer = QUANTIZERS[name]
    settings = config.build({"flq_algorithm.mode": name}).flq_algorithm
    assert quantizer.min_bits <= settings.b_up <= quantizer.max_bits
    coded = bool(settings.entropy_coding)
    assert quantizer.mode.is_coded(False) <= coded <= quantizer.mode.is_coded(True)
    assert (quantizer.with_parameters is not None) == bool(quantizer.mode.parameters)
    assert 1 <= quantizer.min_bits <= quantizer.max_bits <= 32
    for bits in range(quantizer.min_bits, quantizer.max_bits + 1):
        assert 0 < quantizer.max_level(bits) < 2 ** bits


@every_width
@pytest.mark.parametrize("entropy_coding", [False, True])
@given(vectors(), vectors(min_size=0))
def test_levels_survive_the_way_through_bytes(name, bits, entropy_coding, first, second):
    sizes, vector = (len(first), len(second)), np.concatenate([first, second])
    encoded = _encode(name, bits, vector, sizes)
    assert encoded.levels.max() <= EVERY[name].max_level(bits)
    body = codec.to_body(encoded, entropy_coding)
    back = codec.from_body(body, EVERY[name], bits, sizes)
    assert back.bits == bits and back.quantizer is encoded.quantizer is EVERY[name]
    assert back.levels.dtype == encoded.levels.dtype and back.levels.tolist(
    ) == encoded.levels.tolist()
    assert same_bits(back.scales, encoded.scales)
    assert encoded.codes is back.codes is None or back.codes.tolist() == encoded.codes.tolist()
    assert same_bits(codec.decode(back, sizes), codec.decode(encoded, sizes))


@every_width
@given(vectors())
def test_no_entry_is_further_off_than_the_grid_allows(name, bits, vector):
    r = float(np.abs(vector).max())
    c = _there_and_back(name, bits, vector)
    assert c.dtype == np.float32 and np.isfinite(c).all()
    worst = float(np.abs(vector.astype(np.float64) - c).max())
    if r < 1e-30:
        assert worst <= r  # the float32 step is denormal and coarser than the grid
    else:
        assert worst <= r * (_WORST_ERROR.get(name.split()[0], lambda bits: 1.0)(bits) + 2.0 ** -22)


@every_width
def test_zero_stays_zero(name, bits):
    encoded = _encode(name, bits, np.zeros(9))
    assert not encoded.scales.any()
    assert not _there_and_back(name, bits, np.zeros(9)).any()
    assert not _there_and_back(name, bits, np.full(9, -0.0)).any()


@every_width
def test_a_tensor_too_small_for_float32_arithmetic_is_zero(name, bits):
    for tiny in (1e-45, 1e-40, 1.1e-38):
        c = _there_and_back(name, bits, np.array([tiny, -tiny, 0], np.float32))
        if EVERY[name].has_scale:
            assert not c.any()
        else:
            assert same_bits(c, np.array([tiny, -tiny, 0], np.float32))


@every_width
def test_the_smallest_scale_is_the_same_on_every_numpy(name, bits):
    """1.2e-38 is no float32: the one below it is zero, the one above it is kept."""
    below = np.float32(1.2e-38)
    above = np.nextafter(below, np.float32(1))
    assert float(below) < 1.2e-38 < float(above)
    if EVERY[name].has_scale:
        assert _encode(name, bits, [below]).scales.tolist() == [0]
        assert _encode(name, bits, [above]).scales.tolist() == [float(above)]


@every_width
def test_the_largest_float32_does_not_overflow(name, bits):
    for huge in (3e38, float(np.finfo(np.float32).max)):
        vector = np.array([huge, -huge, huge / 3, 0], np.float32)
        c = _there_and_back(name, bits, vector)
        assert np.isfinite(c).all()
        if EVERY[name].max_level(bits) > 1:
            assert np.allclose(c[:2], vector[:2], rtol=1e-6)


@every_width
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(name, bits, bad):
    for vector in ([bad], [1.0, bad, 2.0], [bad, 0.0, 0.0]):
        with pytest.raises(FlqError):
            _encode(name, bits, vector)
    with pytest.raises(FlqError):
        _encode(name, bits, [1.0, 2.0, bad, 0.0], (2, 2))


@every_width
def test_the_same_seed_gives_the_same_bytes(name, bits):
    vector = np.array([0.5, 0, -0.25, 0, 0, 0.1, -0.7, 0, 0.3], np.float32)
    first = codec.to_body(_encode(name, bits, vector), False)
    assert codec.to_body(_encode(name, bits, vector), False) == first


@every_width
def test_encoding_leaves_its_input_alone(name, bits):
    vector = np.array([0.5, 0, -0.25], np.float32)
    vector.flags.writeable = False
    encoded = _encode(name, bits, vector)
    encoded.levels.flags.writeable = False
    codec.decode(encoded, (3,))
    assert vector.tolist() == [0.5, 0, -0.25]


@every_width
def test_a_decoded_vector_is_the_callers_own(name, bits):
    encoded = codec.from_body(codec.to_body(_encode(name, bits, [0.5, -0.25, 0.1]), False),
                              EVERY[name], bits, (3,))
    before = encoded.levels.tolist()
    c = codec.decode(encoded, (3,))
    c += np.float32(1)
    assert encoded.levels.tolist() == before


@every_width
def test_decoding_is_elementwise(name, bits):
    """One entry alone decodes to the same bits as among others, whatever the vector instructions
    do.
    """
    vector = (rng.Stream(2, rng.INIT).uniform(67) - 0.5).astype(np.float32)
    encoded = _encode(name, bits, vector)
    scales = encoded.scales if EVERY[name].has_scale else [None]
    if EVERY[name].block_size:
        scales = blocks.decoded_scales(encoded.scales, encoded.codes, (5,))
    together = codec.decode(encoded, (67,))
    for place in range(67):
        scale = scales[place // (EVERY[name].block_size or 67)]
        alone = EVERY[name].decode(scale, encoded.levels[place:place + 1].copy(), bits)
        assert same_bits(alone, together[place:place + 1])


@every_width
@pytest.mark.parametrize("sizes", [(1,), (7, 3), (0, 5, 0), (1000, 23)])
def test_the_bits_declared_are_the_bytes_sent(name, bits, sizes):
    vector = (rng.Stream(2, rng.INIT).uniform(sum(sizes)) - 0.5).astype(np.float32)
    body = codec.to_body(_encode(name, bits, vector, sizes), False)
    scales = 32 * len(sizes) if EVERY[name].has_scale else 0
    nominal = oracle.nominal_bits(name, len(sizes), sum(sizes), bits)
    if EVERY[name].block_size:
        codes = 8 * sum(-(-size // 16) for size in sizes)
        scales, nominal = scales + 32 + codes, nominal + codes  # 32: the length of the codes
    assert len(body.data) * 8 == scales + 8 * -(-bits * sum(sizes) // 8)
    assert codec.nominal_bits(EVERY[name], bits, sizes) == nominal
    low, high = codec.body_length_range(EVERY[name], bits, sizes, False)
    assert low <= high == len(body.data) and (low == high) == (codec.num_scales(
        EVERY[name], sizes) == 1 or not EVERY[name].block_size)


@every_width
def test_empty_tensors_keep_a_scale_of_zero(name, bits):
    encoded = _encode(name, bits, [0.5, -0.25], (0, 2, 0))
    if EVERY[name].has_scale:
        assert encoded.scales[0] == encoded.scales[2] == 0 and encoded.scales[1] > 0
    assert same_bits(codec.decode(encoded, (0, 2, 0)), _there_and_back(name, bits, [0.5, -0.25]))


@pytest.mark.parametrize(
    "name, bits",
    [(name, bits) for name, bits in WIDTHS if EVERY[name].max_level(bits) < 2**bits - 1])
def test_a_level_above_the_grid_is_refused(name, bits):
    top = EVERY[name].max_level(bits)
    body = codec.to_body(_encode(name, bits, [0.5, -0.25]), False).data
    with pytest.raises(FrameError) as refusal:
        codec.from_body(Body(body[:-packing.packed_length(2, bits)]
                             + bit_stream.pack([0, top + 1], bits), False),
                        EVERY[name], bits, (2,))
    assert refusal.value.reason == "bad_level"


@every_width
def test_each_tensor_is_quantised_by_itself(name, bits):
    """A tensor's scale and levels do not depend on its neighbours (drawn signs and roundings
    apart).
    """
    first, second = np.array([0.5, -0.25, 0.1], np.float32), np.array([30, -7, 1], np.float32)
    both = _encode(name, bits, np.concatenate([first, second]), (3, 3))
    assert same_bits(
        both.scales,
        np.concatenate([_encode(name, bits, first).scales,
                        _encode(name, bits, second).scales]))
    assert both.levels[:3].tolist() == _encode(name, bits, first).levels.tolist()


@pytest.mark.parametrize("name, bits", list(make.widths()))
def test_golden_levels_are_written_and_read(name, bits):
    """On every Python and NumPy: a run that was started on one machine is continued on another."""
    assert (name, bits) in GOLDEN, "python -m tests.golden.make writes those of a new quantiser"
    record, sizes = GOLDEN[name, bits], make.LAYOUT.sizes
    encoded = codec.encode(QUANTIZERS[name], make.vector(), sizes, bits, make.draw())
    assert codec.to_body(encoded, False).data.hex() == record["body"]
    back = codec.from_body(Body(bytes.fromhex(record["body"]), False), QUANTIZERS[name], bits,
                           sizes)
    assert codec.decode(back, sizes).astype("<f4").tobytes().hex() == record["decoded"]


@pytest.mark.parametrize("record", GOLDEN_BLOCKS,
                         ids=lambda record: f"{record['quantizer']}{record['bits']}")
def test_golden_blocks_are_written_and_read(record):
    quantizer = make.blocked(record["quantizer"])
    encoded = codec.encode(quantizer, make.block_vector(), make.BLOCK_SIZES, record["bits"],
                           make.draw())
    assert codec.to_body(encoded, False).data.hex() == record["body"]
    for body in (Body(bytes.fromhex(record["body"]), False),
                 Body(bytes.fromhex(record["coded"]), record["levels_coded"])):
        back = codec.from_body(body, quantizer, record["bits"], make.BLOCK_SIZES)
        assert codec.decode(back, make.BLOCK_SIZES).astype("<f4").tobytes().hex() == record[
            "decoded"]


@pytest.mark.parametrize("name, bits",
                         [width for width, record in sorted(GOLDEN.items()) if "coded" in record])
def test_golden_entropy_coded_levels_are_read(name, bits):
    record, sizes = GOLDEN[name, bits], (17 * make.REPEATS,)
    coded = codec.from_body(Body(bytes.fromhex(record["coded"]), True), QUANTIZERS[name], bits,
                            sizes)
    assert codec.to_body(coded, False).data.hex() == record["coded_levels"]


@pytest.mark.parametrize("name", sorted(BLOCKED))
@given(vectors(max_size=16), vectors(min_size=0, max_size=16))
def test_a_tensor_of_one_block_is_quantised_as_one_without(name, first, second):
    sizes, vector = (len(first), len(second)), np.concatenate([first, second])
    plain, bits = QUANTIZERS[name.split()[0]], EVERY[name].mode.bits
    encoded = codec.encode(EVERY[name], vector, sizes, bits, _draw())
    other = codec.encode(plain, vector, sizes, bits, _draw())
    assert same_bits(encoded.scales, other.scales)
    assert set(encoded.codes.tolist()) <= {0, 255}
    if other.scales.all():  # else who draws draws for a tensor of zeros too
        assert encoded.levels.tolist() == other.levels.tolist()
        assert same_bits(codec.decode(encoded, sizes), codec.decode(other, sizes))


@pytest.mark.parametrize("name", sorted(BLOCKED))
@given(vectors(min_size=17, max_size=70))
def test_blocks_leave_no_more_than_their_own_scales_allow(name, vector):
    """The coded scale is at most 1/16 above the block's own (algorithm.md 2)."""
    bits = EVERY[name].mode.bits
    encoded = codec.encode(EVERY[name], vector, (vector.size,), bits, _draw())
    c = codec.decode(encoded, (vector.size,))
    largest = float(encoded.scales[0])
    if largest < 1e-30:
        return
    for start in range(0, vector.size, 16):
        part = vector[start:start + 16].astype(np.float64)
        bound = float(np.abs(part).max()) * 17 / 16 + largest * 9 / 16 * 2.0**-15
        worst = np.abs(part - c[start:start + 16]).max()
        assert worst <= bound * (_WORST_ERROR.get(name.split()[0], lambda bits: 1.0)(bits)
                                 + 2.0**-20)
