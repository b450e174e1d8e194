"""A worker's state as bytes: a header and arrays by name.

    FLQSTATE4\\n | lengths of the header (u32), the arrays (u64) and the model (u64) | header (JSON)
    | arrays | model | SHA-256 of all before the model | records of the journal (journal.py)

Everything is little-endian. The header is what the caller gives, and `arrays`: for each name, in
the order of the bytes, its dtype, its shape, and its offsets [begin, end) from the end of the
header. The arrays lie one behind another, without gaps. The last two, params and state, are the
model: its own hash was computed when it arrived and stands in the header, so it is not hashed
again.

Example: {"version": 3, ..., "arrays": {"memory": {"dtype": "<f8", "shape": [24], "offsets": [0,
192]}, "params": ...}}

The content of a record is written in the same way, without a model (`pack_record`):

    length of the header (u32) | header (JSON) | arrays

FLQSTATE3 had no journal, and told the lengths of the header and the model alone. Versions before it
knew their five arrays by position: FLQSTATE1, which held h as float32, and FLQSTATE2. They are
read, and given back under today's names.
"""

import hashlib
import json
import struct
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

MAGIC = b"FLQSTATE4\n"
MODEL = ("params", "state")
DTYPES = ("<f4", "<f8", "|u1")

_LENGTHS = struct.Struct("<IQQ")
_LENGTHS_OLDER = struct.Struct("<IQ")
_LENGTH = struct.Struct("<I")
START = len(MAGIC) + _LENGTHS.size
"""Bytes that say how long the state before the journal is."""
DIGEST_BYTES = 32
_NAMED = b"FLQSTATE3\n"
_BY_POSITION = {
    b"FLQSTATE1\n": {"reference": "<f4", "residual": "<f4"},
    b"FLQSTATE2\n": {"reference": "<f8", "residual": "<f4"}
}
"""What each of the oldest versions kept a memory in, by its name."""


def pack(header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> List[Any]:
    """The bytes in pieces, to be written one behind another, the SHA-256 as the last. arrays: with
    those of MODEL as the last two; none is copied.
    """
    head, pieces = _pieces(header, arrays)
    first_of_model = len(pieces) - len(MODEL)
    lengths = _LENGTHS.pack(len(head), sum(map(len, pieces[:first_of_model])),
                            sum(map(len, pieces[first_of_model:])))
    hashed = [MAGIC, lengths, head] + pieces[:first_of_model]
    digest = hashlib.sha256()
    for piece in hashed:
        digest.update(piece)
    return hashed + pieces[first_of_model:] + [digest.digest()]


def length_of(start: bytes) -> Optional[int]:
    """Bytes of the state before the journal, from the first START of a file; None for all of them,
    where it has no journal or is no state.
    """
    if len(start) < START or start[:len(MAGIC)] != MAGIC:
        return None
    header, arrays, model = _LENGTHS.unpack_from(start, len(MAGIC))
    return START + int(header + arrays + model) + DIGEST_BYTES


def unpack(data: bytes) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """The header without `arrays`, and the arrays, read-only; without a journal.

    Raises ValueError with what is wrong; the model's hash is not compared.
    """
    magic = data[:len(MAGIC)]
    if len(data) < START + DIGEST_BYTES or not (magic in (MAGIC, _NAMED) or magic in _BY_POSITION):
        raise ValueError(f"{len(data)} bytes that begin with {magic!r}")
    begin, model = _begins(data, magic)
    if hashlib.sha256(memoryview(data)[:model]).digest() != data[-DIGEST_BYTES:]:
        raise ValueError("another SHA-256 than its own")
    before = _LENGTHS if magic == MAGIC else _LENGTHS_OLDER
    header = _json(data[len(MAGIC) + before.size:begin])
    blob = memoryview(data)[begin:-DIGEST_BYTES]
    if magic in _BY_POSITION:
        return _by_position(header, blob, model - begin, _BY_POSITION[magic])
    told = header.get("arrays")
    if not isinstance(told, dict) or tuple(told)[-len(MODEL):] != MODEL:
        raise ValueError(f"arrays that do not end with {' and '.join(MODEL)}")
    return _by_name(header, blob, model - begin)


def pack_record(header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> List[Any]:
    """The content of a record in pieces; no array is copied."""
    head, pieces = _pieces(header, arrays)
    return [_LENGTH.pack(len(head)), head] + pieces


def unpack_record(data: bytes) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """The header without `arrays`, and the arrays, read-only. Raises ValueError."""
    if len(data) < _LENGTH.size:
        raise ValueError(f"a record of {len(data)} bytes")
    begin = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if begin > len(data):
        raise ValueError(f"a header of {begin - _LENGTH.size} bytes in a record of {len(data)}")
    return _by_name(_json(data[_LENGTH.size:begin]), memoryview(data)[begin:])


def _pieces(header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> Tuple[bytes, List[Any]]:
    """The header as JSON, and the bytes of each array."""
    pieces, told, place = [], {}, 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        pieces.append(memoryview(array).cast("B") if array.size else b"")
        told[name] = {
            "dtype": array.dtype.str, "shape": list(array.shape),
            "offsets": [place, place + array.nbytes]
        }
        place += array.nbytes
    return json.dumps(dict(header, arrays=told), separators=(",", ":")).encode("utf-8"), pieces


def _begins(data: bytes, magic: bytes) -> Tuple[int, int]:
    """Where the arrays and the model begin. Raises ValueError where the lengths do not add up."""
    place = len(MAGIC)
    if magic == MAGIC:
        header, arrays, model = _LENGTHS.unpack_from(data, place)
        begin = START + header
        if begin + arrays + model + DIGEST_BYTES != len(data):
            raise ValueError(f"a header of {header} bytes, arrays of {arrays} and a model of "
                             f"{model} in {len(data)} bytes")
        return begin, begin + arrays
    header, model = _LENGTHS_OLDER.unpack_from(data, place)
    begin = place + _LENGTHS_OLDER.size + header
    if begin > len(data) - DIGEST_BYTES - model:
        raise ValueError(f"a header of {header} bytes and a model of {model} in {len(data)} bytes")
    return begin, len(data) - DIGEST_BYTES - model


def _json(data: bytes) -> Dict[str, Any]:
    header = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A JSON object; two entries of one name are refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"two entries named {next(name for name in names if names.count(name) > 1)}")
    return found


def _by_name(header: Dict[str, Any], blob: Any,
             model: Optional[int] = None) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """model: where it begins in the blob, None where there is none."""
    told = header.pop("arrays", None)
    if not isinstance(told, dict):
        raise ValueError("no arrays by name")
    arrays, place = {}, 0
    for name, entry in told.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "offsets"}:
            raise ValueError(f"array {name} without dtype, shape and offsets alone")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["offsets"]
        if dtype not in DTYPES:
            raise ValueError(f"array {name} of dtype {dtype}")
        if not isinstance(shape, list) or not all(
                type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"array {name} of shape {shape}")
        end = place + np.dtype(dtype).itemsize * _product(shape)
        if offsets != [place, end] or end > len(blob) or (name == MODEL[0] and
                                                                  place != model):
            raise ValueError(
                f"array {name} of {end - place} bytes at {offsets}, the one before ends at {place} "
                f"of {len(blob)}"
            )
        arrays[name] = np.frombuffer(blob[place:end], dtype).reshape(shape)
        place = end
    if place != len(blob):
        raise ValueError(f"{len(blob) - place} bytes behind the arrays")
    return header, arrays


def _by_position(header: Dict[str, Any], blob: Any, model: int,
                 memory_dtypes: Dict[str, str]) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """The memory, the body and the non-trainable values of an unsettled proposal, params, state."""
    lengths, proposal = header.pop("lengths"), header["proposal"]
    if len(lengths) != 5 or min(lengths) < 0 or sum(
            lengths[:3]) != model or sum(lengths) != len(blob):
        raise ValueError(f"arrays of {lengths} bytes in {len(blob)}, the model behind {model}")
    ends = [sum(lengths[:count + 1]) for count in range(5)]
    memory, body, values, params, state = (blob[end - length:end]
                                           for end, length in zip(ends, lengths))
    arrays = {}
    if header["memory"] in memory_dtypes:
        # What was float32 goes on as it is, in the dtype of FLQSTATE2.
        arrays["memory"] = np.frombuffer(memory, memory_dtypes[header["memory"]]).astype(
            _BY_POSITION[b"FLQSTATE2\n"][header["memory"]])
    if proposal is not None:
        if not proposal.pop("silent"):
            arrays["proposal.body"] = np.frombuffer(body, np.uint8)
        arrays["proposal.state"] = np.frombuffer(values, "<f4")
    arrays.update(params=np.frombuffer(params, "<f4"), state=np.frombuffer(state, "<f4"))
    return header, arrays


def _product(shape: List[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
