"""Writes the golden files: quantised levels (levels.json), scales of blocks (blocks.json), levels
coded beside a history (contexts.json), frames (frames.json), the attacks on frames, and models
after some rounds (models.json).

    python -m tests.golden.make

Run it once when a quantiser or a memory is added, or when the frame format gets a new version
number, and read the difference before it is committed: whatever changed here makes old runs
unreadable, and another model means that a stored round does not come out again as it did. The files
hold uncompressed levels, which are the same on every machine; the entropy coded bodies and frames
among them are only ever read, as zlib builds differ. checkpoints.json and states.json are not
written here: older versions packed those states, and runs and workers hold such ones
(test_recovery.py, test_state_journal.py).
"""

import json
import os
import struct
import zlib

import numpy as np

from flq import config, rng
from flq.algorithm import play
from flq.compression import QUANTIZERS, codec, contexts
from flq.modes import MODES, WITH_REFERENCES
from flq.parameters import Layout
from flq.protocol import frames
from flq.records import LocalResult

HERE = os.path.dirname(os.path.abspath(__file__))
ATTACKS = os.path.join(os.path.dirname(HERE), "protocol", "attacks")

RUN_ID = "golden-run"
LAYOUT = Layout(((3, 4), (5,)), ((2,),))
EXPECTED = frames.Expected(RUN_ID, LAYOUT, LAYOUT.sizes)
NON_TRAINABLE = np.array([0.25, -3.5], np.float32)
PARAMS_HASH = bytes(range(8))
REFERENCE_HASH = bytes(range(32))
REPEATS = 12
ROUNDS = 6
MODEL_KEYS = ({}, {"server_optimizer": "momentum", "weighting": "uniform", "b_down": 32},
              {"server_optimizer": "adam", "thr_scale": 0.5, "clip_global": 1.0})
LATER_KEYS = ({"mode": "bin", "memory_rate": 0.1}, {"mode": "rd", "memory_rate": 0.3},
              {"mode": "rd", "memory_rate": 1.0, "rd_target_bits": 3.0, "downlink": "rd",
               "rd_target_bits_down": 4.0},
              {"mode": "laq", "radius": "block", "block_size": 16, "radius_down": "block",
               "block_size_down": 16}, {"mode": "laq", "entropy_coding_down": "context"},
              {"mode": "rd", "memory_rate": 0.3, "entropy_coding": "context"},
              {"mode": "laq", "aggregation": "median"},
              {"mode": "rd", "memory_rate": 0.3, "aggregation": "trimmed_mean"},
              {"mode": "laq", "aggregation": "krum", "bad_workers": 0},
              {"mode": "laq", "aggregation": "centered_clipping", "server_optimizer": "momentum"},
              {"mode": "bbit", "memory": "residual", "aggregation": "trimmed_mean", "quorum":
                  "all"},
              {"mode": "qsgd", "aggregation": "centered_clipping", "quorum": "all"})
UPLOAD_TERMS = frames.UploadTerms(gain=1.5, loss=2.25, residual_norm=0.125, clock=3)
ROUND_TERMS = frames.RoundTerms(history_sum=0.5, thr_scale=1.0, mean_weight=12.5, deadline_s=30.0,
                                max_skips=100, two_phase=1)


def vector():
    """float32[17] with a zero, whose tensors have the radii 1 and 0.5."""
    values = (rng.Stream(7, rng.INIT).uniform(17) - 0.5).astype(np.float32)
    values[2], values[5], values[14] = 1.0, 0.0, -0.5
    return values


def draw():
    """The uniforms of qsgd and bin."""
    return rng.Stream(7, rng.UPLINK, 1, 2).uniform


def widths():
    """(name, bits) of every golden body."""
    for name, quantizer in sorted(QUANTIZERS.items()):
        for bits in range(quantizer.min_bits, quantizer.max_bits + 1):
            yield name, bits


def levels():
    """One record for every quantiser and width. coded: the entropy coded body of REPEATS vectors,
    where that is smaller.
    """
    for name, bits in widths():
        encoded = codec.encode(QUANTIZERS[name], vector(), LAYOUT.sizes, bits, draw())
        record = {"quantizer": name, "bits": bits, "body": codec.to_body(encoded, False).data.hex(),
                  "decoded": codec.decode(encoded, LAYOUT.sizes).astype("<f4").tobytes().hex()}
        repeated = codec.encode(QUANTIZERS[name], np.tile(vector(), REPEATS), (17 * REPEATS,),
                                bits, draw())
        coded = codec.to_body(repeated, True)
        if coded.coded:
            record["coded"] = coded.data.hex()
            record["coded_levels"] = codec.to_body(repeated, False).data.hex()
        yield record


BLOCK, BLOCK_SIZES = 16, (700, 0, 5)


def blocked(name):
    """The quantiser with scales of blocks of 16."""
    return QUANTIZERS[name]._replace(block_size=BLOCK)


def block_vector():
    """float32[705] whose blocks have scales from 1 down to 2^-17, and one of zeros."""
    values = (rng.Stream(7, rng.INIT).uniform(705) - 0.5).astype(np.float32)
    values *= np.float32(2) ** -(np.arange(705) // 16 * 5 % 18).astype(np.float32)
    values[32:48] = 0
    return values


def block_levels():
    """One record for every quantiser with blocks, at its smallest width, at 4 bits and at 9. coded:
    the body with whatever is smaller coded, levels_coded: whether the levels are.
    """
    for name, quantizer in sorted(QUANTIZERS.items()):
        widths_ = {quantizer.min_bits, 4, 9} if quantizer.by_scale else ()
        for bits in sorted(bits for bits in widths_ if bits <= quantizer.max_bits):
            encoded = codec.encode(blocked(name), block_vector(), BLOCK_SIZES, bits, draw())
            coded = codec.to_body(encoded, True)
            yield {
                "quantizer": name, "bits": bits, "body": codec.to_body(encoded, False).data.hex(),
                "decoded": codec.decode(encoded, BLOCK_SIZES).astype("<f4").tobytes().hex(),
                "coded": coded.data.hex(), "levels_coded": coded.coded
            }


def frame(kind, name, bits, keyframe=False, entropy_coding=False, layout=LAYOUT, values=None,
          non_trainable=NON_TRAINABLE, block_size=0):
    """One frame of the golden run."""
    values = vector() if values is None else values
    quantizer = QUANTIZERS[name]._replace(block_size=block_size)
    body = codec.to_body(codec.encode(quantizer, values, layout.sizes, bits, draw()),
                         entropy_coding)
    expected = EXPECTED._replace(layout=layout, upload_sizes=layout.sizes)
    content = frames.Content(quantizer, bits, body, non_trainable)
    if kind == frames.UPLOAD_KIND:
        return frames.pack(content, frames.Place(6, 6, PARAMS_HASH, 4, REFERENCE_HASH),
                           UPLOAD_TERMS, expected)
    return frames.pack(content, frames.Place(6, 0 if keyframe else 5, PARAMS_HASH,
                                             keyframe=keyframe), ROUND_TERMS, expected)


def good_frames():
    """(name, kind, quantiser, bits, keyframe, bytes)."""
    upload, broadcast = frames.UPLOAD_KIND, frames.BROADCAST_KIND
    for kind, name, bits, keyframe in [(upload, "fedavg", 32, False), (upload, "laq", 4, False),
                                       (upload, "laq", 9, False), (upload, "bbit", 3, False),
                                       (upload, "bin", 1, False), (upload, "qsgd", 5, False),
                                       (upload, "rd", 8, False), (broadcast, "fedavg", 32, True),
                                       (broadcast, "laq", 4, False)]:
        label = f"{'upload' if kind == upload else 'broadcast'}_{name}{bits}"
        label += "_keyframe" if keyframe else ""
        yield label, kind, name, bits, keyframe, frame(kind, name, bits, keyframe)


def block_frames():
    """The same with scales of blocks."""
    for kind, name, bits in [(frames.UPLOAD_KIND, "laq", 4), (frames.UPLOAD_KIND, "bin", 1),
                             (frames.UPLOAD_KIND, "qsgd", 5), (frames.BROADCAST_KIND, "bbit", 3)]:
        label = f"{'upload' if kind == frames.UPLOAD_KIND else 'broadcast'}_{name}{bits}_block"
        yield label, kind, name, bits, False, frame(kind, name, bits, block_size=BLOCK)


def beside_history():
    """Streams of contexts.py, which are the same on every machine, and a frame that holds one."""
    for bits, top in [(1, 1), (2, 2), (3, 6), (4, 15), (8, 254), (9, 511), (16, 65534)]:
        activity, dtype = contexts.initial_activity(1100), np.uint8 if bits <= 8 else np.uint16
        for round_ in range(3):
            uniform = rng.Stream(8, rng.INIT, bits, round_).uniform(1100)
            steps = (uniform - 0.5) * (np.arange(1100) % 50) * min(0.1, top / 60)
            levels_ = np.clip(np.floor(steps + top / 2 + 0.5), 0, top).astype(dtype)
            if round_ < 2:
                activity = contexts.next_activity(activity, levels_, top)
        levels_[7] = min(top, top // 2 + 1000)
        yield {"bits": bits, "max_level": top, "activity": activity.tobytes().hex(),
               "levels": levels_.astype("<u2").tobytes().hex(),
               "stream": contexts.compress(levels_, bits, top, activity).hex()}


WIDE = Layout(((40, 17),), ())


def frame_beside_history(activity=None):
    """(a difference beside a history, what its receiver expects)."""
    activity = contexts.initial_activity(680) if activity is None else activity
    expected = EXPECTED._replace(layout=WIDE, upload_sizes=WIDE.sizes, activity=activity)
    encoded = codec.encode(QUANTIZERS["rd"], np.tile(vector(), 40), WIDE.sizes, 8, draw())
    content = frames.Content(QUANTIZERS["rd"], 8, codec.to_body(encoded, False, activity),
                             np.zeros(0, np.float32))
    return frames.pack(content, frames.Place(6, 5, PARAMS_HASH), ROUND_TERMS, expected), expected


def upload_beside_history():
    """The same from a worker: (an upload, what the master expects)."""
    _, expected = frame_beside_history()
    activity = (np.arange(680) % 40).astype(np.uint8)
    expected = expected._replace(activity=activity)
    encoded = codec.encode(QUANTIZERS["rd"], np.tile(vector(), 40), WIDE.sizes, 8, draw())
    content = frames.Content(QUANTIZERS["rd"], 8, codec.to_body(encoded, False, activity),
                             np.zeros(0, np.float32))
    place = frames.Place(6, 6, PARAMS_HASH, 4, REFERENCE_HASH)
    return frames.pack(content, place, UPLOAD_TERMS, expected), expected


COMMON_CODES = "<" + "".join(code for _, code, _ in frames.COMMON)
COMMON_NAMES = [name for name, _, _ in frames.COMMON]


def forge(data, side, payload=None, terms=None, **fields):
    """A frame with header fields, terms or the payload replaced, and a CRC that agrees with them.
    side: the kind that data is.
    """
    start = frames.header_length(side)
    common = dict(zip(COMMON_NAMES, struct.unpack_from(COMMON_CODES, data)))
    if payload is not None:
        common["payload_length"] = len(payload)
    payload = data[start:] if payload is None else payload
    common.update(fields)
    own = frames.UPLOAD if side == frames.UPLOAD_KIND else frames.BROADCAST
    codes = "<" + "".join(code for _, code, _ in own)
    values = dict(
        zip([name for name, _, _ in own],
            struct.unpack_from(codes, data, struct.calcsize(COMMON_CODES))))
    values.update(terms or {})
    head = (struct.pack(COMMON_CODES, *[common[name] for name in COMMON_NAMES])
            + struct.pack(codes, *[values[name] for name, _, _ in own]))
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def attacks():
    """(kind, reason, what, bytes): every frame is wrong in one way, and has a CRC that agrees
    unless that is the way.
    """
    upload, broadcast = frames.UPLOAD_KIND, frames.BROADCAST_KIND
    laq, bbit, float32 = frame(upload, "laq", 4), frame(upload, "bbit",
                                                        3), frame(upload, "fedavg", 32)
    model = frame(broadcast, "laq", 4)
    start = frames.header_length(upload)
    payload = laq[start:]
    block = frame(upload, "laq", 4, block_size=BLOCK)
    block_payload = block[start:]
    nan, inf = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))

    yield upload, "frame_short", "nothing", b""
    yield upload, "frame_short", "only_the_magic", laq[:4]
    yield upload, "frame_short", "half_a_header", laq[:start // 2]
    yield upload, "frame_short", "header_without_its_last_byte", laq[:start - 1]
    yield upload, "frame_short", "header_alone", laq[:start]
    yield upload, "frame_short", "payload_without_its_last_byte", laq[:-1]
    yield upload, "frame_long", "one_byte_more", laq + b"\0"
    yield upload, "frame_long", "sent_twice", laq + laq
    yield upload, "bad_magic", "http", b"HTTP" + laq[4:]
    yield upload, "bad_magic", "pickle", b"\x80\x04\x95\x00" + laq[4:]
    yield upload, "bad_magic", "next_format", forge(laq, upload, magic=b"FLQ2")
    yield upload, "bad_version", "next_version", forge(laq, upload,
                                                       frame_version=frames.FRAME_VERSION + 1)
    yield upload, "bad_version", "version_zero", forge(laq, upload, frame_version=0)
    yield upload, "bad_kind", "broadcast_where_an_upload_belongs", model
    yield broadcast, "bad_kind", "upload_where_a_broadcast_belongs", laq
    yield upload, "bad_kind", "unknown", forge(laq, upload, kind=9)
    yield upload, "bad_quantizer", "unknown", forge(laq, upload, quantizer=200)
    yield upload, "bad_bits", "laq_of_one_bit", forge(laq, upload, bits=1)
    yield upload, "bad_bits", "laq_of_seventeen_bits", forge(laq, upload, bits=17)
    yield upload, "bad_bits", "laq_of_no_bits", forge(laq, upload, bits=0)
    yield upload, "bad_bits", "sign_of_two_bits", forge(frame(upload, "bin", 1), upload, bits=2)
    yield upload, "bad_flags", "unknown_flag", forge(laq, upload, flags=4)
    yield upload, "bad_flags", "all_flags", forge(laq, upload, flags=0xffff)
    yield upload, "bad_flags", "keyframe_from_a_worker", forge(laq, upload, flags=frames.KEYFRAME)
    yield upload, "bad_flags", "coded_float32", forge(float32, upload, flags=frames.CODED)
    yield upload, "bad_flags", "history_that_nobody_keeps", forge(
        laq, upload, flags=frames.CODED | frames.HISTORY)
    yield upload, "bad_flags", "history_of_plain_levels", forge(laq, upload, flags=frames.HISTORY)
    yield broadcast, "bad_flags", "history_of_plain_levels", forge(model, broadcast,
                                                                   flags=frames.HISTORY)
    yield broadcast, "bad_flags", "history_that_nobody_keeps", forge(
        model, broadcast, flags=frames.CODED | frames.HISTORY)
    yield broadcast, "bad_flags", "keyframe_with_a_history_that_nobody_keeps", forge(
        frame(broadcast, "fedavg", 32, keyframe=True), broadcast,
        payload=frame(broadcast, "fedavg", 32, keyframe=True)[frames.header_length(broadcast):-8]
        + contexts.activity_to_bytes(contexts.initial_activity(17)) + bytes(8),
        flags=frames.KEYFRAME | frames.HISTORY)
    yield upload, "other_run", "another_run", forge(laq, upload, run=frames.run_hash("another-run"))
    yield broadcast, "other_run", "another_run", forge(model, broadcast,
                                                       run=frames.run_hash("another-run"))
    yield upload, "other_shapes", "a_transposed_kernel", frame(
        upload, "laq", 4, layout=Layout(((4, 3), (5,)), ((2,),)))
    yield upload, "other_shapes", "zeros", forge(laq, upload, shapes_hash=bytes(8))
    yield upload, "bad_count", "more_parameters", forge(laq, upload, num_params=18)
    yield upload, "bad_count", "parameters_beyond_memory", forge(laq, upload, num_params=2**64 - 1)
    yield upload, "bad_count", "more_tensors", forge(laq, upload, num_tensors=3)
    yield upload, "bad_count", "no_scales", forge(laq, upload, num_scales=0)
    yield upload, "bad_count", "scales_of_float32", forge(float32, upload, num_scales=2)
    yield upload, "bad_count", "more_values", forge(laq, upload, num_state=3)
    yield upload, "bad_length", "beyond_memory", forge(laq, upload, payload_length=2 ** 63)
    yield upload, "bad_length", "a_byte_short", forge(laq, upload, payload=payload[:-1])
    yield upload, "bad_length", "a_byte_long", forge(laq, upload, payload=payload + b"\0")
    yield upload, "bad_length", "empty", forge(laq, upload, payload=b"")
    yield upload, "bad_length", "width_of_another_frame", forge(laq, upload, bits=5)
    yield upload, "bad_crc", "flipped_payload_bit", laq[:-1] + bytes([laq[-1] ^ 1])
    yield upload, "bad_crc", "flipped_gain_bit", _flip(laq, struct.calcsize(COMMON_CODES))
    yield upload, "bad_crc", "flipped_checksum_bit", _flip(laq, start - 1)
    yield upload, "dirty_padding", "highest_bit", forge(
        laq, upload, payload=payload[:16] + bytes([payload[16] | 0x80]) + payload[17:])
    yield upload, "bad_scale", "nan", forge(laq, upload, payload=nan + payload[4:])
    yield upload, "bad_scale", "infinite", forge(laq, upload,
                                                 payload=payload[:4] + inf + payload[8:])
    yield upload, "bad_scale", "negative", forge(laq, upload,
                                                 payload=struct.pack("<f", -1.0) + payload[4:])
    yield broadcast, "bad_scale", "nan", forge(
        model, broadcast, payload=nan + model[frames.header_length(broadcast) + 4:])
    yield upload, "bad_value", "nan", forge(float32, upload, payload=nan + float32[start + 4:])
    yield upload, "bad_value", "infinite", forge(float32, upload,
                                                 payload=float32[start:-12] + inf + float32[-8:])
    yield upload, "bad_state", "nan", forge(laq, upload, payload=payload[:-4] + nan)
    yield upload, "bad_state", "infinite", forge(laq, upload,
                                                 payload=payload[:-8] + inf + payload[-4:])
    yield upload, "bad_level", "unused_code_of_bbit", forge(
        bbit, upload, payload=bbit[start:start + 8] + b"\x07" + bbit[start + 9:])
    for name in ("gain", "residual_norm"):
        yield upload, "bad_terms", name + "_nan", forge(laq, upload, terms={name: float("nan")})
        yield upload, "bad_terms", name + "_negative", forge(laq, upload, terms={name: -1.0})
    yield upload, "bad_terms", "loss_infinite", forge(laq, upload, terms={"loss": float("inf")})
    for name in ("history_sum", "thr_scale", "mean_weight", "deadline_s"):
        yield broadcast, "bad_terms", name + "_nan", forge(model, broadcast,
                                                           terms={name: float("nan")})
        yield broadcast, "bad_terms", name + "_negative", forge(model, broadcast,
                                                                terms={name: -1.0})
    yield broadcast, "bad_terms", "two_phase_unknown", forge(model, broadcast,
                                                             terms={"two_phase": 2})
    sixteen = 4 << frames.BLOCK_SHIFT
    yield upload, "bad_flags", "blocks_of_8_weights", forge(block, upload,
                                                            flags=3 << frames.BLOCK_SHIFT)
    yield upload, "bad_flags", "blocks_of_8192_weights", forge(block, upload,
                                                               flags=13 << frames.BLOCK_SHIFT)
    yield upload, "bad_flags", "blocks_of_float32", forge(float32, upload, flags=sixteen)
    yield upload, "bad_flags", "blocks_of_rd", forge(frame(upload, "rd", 8), upload, flags=sixteen)
    yield broadcast, "bad_flags", "keyframe_in_blocks", forge(
        frame(broadcast, "fedavg", 32, keyframe=True), broadcast, flags=frames.KEYFRAME | sixteen)
    yield upload, "bad_count", "more_blocks", forge(block, upload, num_scales=3)
    yield upload, "bad_count", "blocks_beyond_memory", forge(block, upload, num_scales=2 ** 32 - 1)
    yield upload, "bad_length", "blocks_without_codes", forge(laq, upload, flags=sixteen)
    yield upload, "bad_length", "block_a_byte_long", forge(block, upload,
                                                           payload=block_payload + b"\0")
    yield upload, "bad_scale", "nan_of_blocks", forge(block, upload,
                                                      payload=nan + block_payload[4:])
    for what, length in (("no_codes", 0), ("more_codes_than_blocks", 3),
                         ("codes_beyond_memory", 2 ** 32 - 1)):
        yield upload, "bad_coding", what, forge(
            block, upload,
            payload=block_payload[:8] + struct.pack("<I", length) + block_payload[12:])
    yield upload, "bad_coding", "codes_that_are_no_stream", forge(
        block, upload, payload=block_payload[:8] + struct.pack("<I", 1) + block_payload[13:])
    for what, stream in (("no_check", b"\1\2\3"), ("another_check", b"\0\0\0\0\1\1\1\1")):
        for side, good in ((broadcast, model), (upload, laq)):
            yield side, "other_history", what, forge(
                good, side, payload=payload[:8] + stream + payload[-8:],
                flags=frames.CODED | frames.HISTORY)
    for what, stream in (("not_zlib", b"\1\2\3\4\5\6\7\x08"), ("truncated", zlib.compress(
            bytes(9))[:8])):
        yield upload, "bad_coding", what, forge(laq, upload,
                                                payload=payload[:8] + stream + payload[-8:],
                                                flags=frames.CODED)


def models():
    """(configuration, hashes of the models of ROUNDS rounds) with every mode and memory.

    The keys that came later have the values at which they change nothing, whatever their defaults
    are: stored runs have them so.
    """
    for name, row in MODES.items():
        for memory in row.memories:
            for more in MODEL_KEYS:
                keys = dict(more, mode=name, memory=memory)
                if "thr_scale" in keys and memory not in WITH_REFERENCES:
                    continue
                yield keys, list(_hashes(config.build(dict(keys, memory_rate=1.0))))
    for keys in LATER_KEYS:
        yield keys, list(_hashes(config.build(keys)))


def _hashes(settings):
    """Workers pull towards vectors of their own, each less and less."""
    draw = np.random.RandomState(4)
    start, *targets = draw.standard_normal((4, LAYOUT.num_params)).astype(np.float32)
    position = play.begin(RUN_ID, settings, LAYOUT, start,
                          np.zeros(LAYOUT.num_non_trainable, np.float32), (100, 110, 120))
    for _ in range(ROUNDS):
        model = position.model
        updates = [model.broadcast - target for target in targets]
        results = [
            LocalResult(update, model.non_trainable + np.float32(1), 1.0, 1) for update in updates
        ]
        position = play.play_round(position, results, settings, LAYOUT, lambda samples: 5).position
        yield position.model.params_hash.hex()


def _flip(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


def main():
    _write(os.path.join(HERE, "levels.json"), json.dumps(list(levels()), indent=1) + "\n")
    _write(os.path.join(HERE, "blocks.json"), json.dumps(list(block_levels()), indent=1) + "\n")
    beside = {"streams": list(beside_history()), "frame": frame_beside_history()[0].hex(),
              "upload": upload_beside_history()[0].hex()}
    _write(os.path.join(HERE, "contexts.json"), json.dumps(beside, indent=1) + "\n")
    records = [{
        "name": label, "kind": kind, "quantizer": name, "bits": bits, "keyframe": keyframe,
        "frame": data.hex()
    } for label, kind, name, bits, keyframe, data in good_frames()]
    records += [{
        "name": label, "kind": kind, "quantizer": name, "bits": bits, "keyframe": keyframe,
        "block_size": BLOCK, "frame": data.hex()
    } for label, kind, name, bits, keyframe, data in block_frames()]
    _write(os.path.join(HERE, "frames.json"), json.dumps(records, indent=1) + "\n")
    _write(os.path.join(HERE, "models.json"),
           "[\n" + ",\n".join(map(json.dumps, models())) + "\n]\n")
    for kind, reason, what, data in attacks():
        side = "upload" if kind == frames.UPLOAD_KIND else "broadcast"
        _write(os.path.join(ATTACKS, f"{side}.{reason}.{what}.hex"), data.hex() + "\n")


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
