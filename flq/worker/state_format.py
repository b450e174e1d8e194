"""A worker's state as bytes: a header and arrays by name.

    FLQSTATE3\\n | lengths of the header (u32) and the model (u64) | header (JSON) | arrays | model
    | SHA-256 of all before the model

Everything is little-endian. The header is what the caller gives, and `arrays`: for each name, in
the order of the bytes, its dtype, its shape, and its offsets [begin, end) from the end of the
header. The arrays lie one behind another, without gaps. The last two, params and state, are the
model: its own hash was computed when it arrived and stands in the header, so it is not hashed
again.

Example: {"version": 3, ..., "arrays": {"memory": {"dtype": "<f8", "shape": [24], "offsets": [0,
192]}, "params": ...}}

Older versions knew their five arrays by position: FLQSTATE1, which held h as float32, and
FLQSTATE2. They are read, and given back under today's names.
"""

import hashlib
import json
import struct
from typing import Any, Dict, List, Tuple

import numpy as np

MAGIC = b"FLQSTATE3\n"
MODEL = ("params", "state")
DTYPES = ("<f4", "<f8", "|u1")

_LENGTHS = struct.Struct("<IQ")
_START = len(MAGIC) + _LENGTHS.size
_DIGEST_BYTES = 32
_OLDER = {
    b"FLQSTATE1\n": {"reference": "<f4", "residual": "<f4"},
    b"FLQSTATE2\n": {"reference": "<f8", "residual": "<f4"}
}
"""What each older version kept a memory in, by its name."""


def pack(header: Dict[str, Any], arrays: Dict[str, np.ndarray]) -> List[Any]:
    """The bytes in pieces, to be written one behind another. arrays: with those of MODEL as the
    last two; none is copied.
    """
    pieces, told, place = [], {}, 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        pieces.append(memoryview(array).cast("B") if array.size else b"")
        told[name] = {
            "dtype": array.dtype.str, "shape": list(array.shape),
            "offsets": [place, place + array.nbytes]
        }
        place += array.nbytes
    head = json.dumps(dict(header, arrays=told), separators=(",", ":")).encode("utf-8")
    first_of_model = len(pieces) - len(MODEL)
    hashed = [MAGIC, _LENGTHS.pack(len(head), sum(map(len, pieces[first_of_model:]))), head
              ] + pieces[:first_of_model]
    digest = hashlib.sha256()
    for piece in hashed:
        digest.update(piece)
    return hashed + pieces[first_of_model:] + [digest.digest()]


def unpack(data: bytes) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    """The header without `arrays`, and the arrays, read-only.

    Raises ValueError with what is wrong; the model's hash is not compared.
    """
    magic = data[:len(MAGIC)]
    if len(data) < _START + _DIGEST_BYTES or magic != MAGIC and magic not in _OLDER:
        raise ValueError(f"{len(data)} bytes that begin with {magic!r}")
    header_length, model_length = _LENGTHS.unpack_from(data, len(MAGIC))
    begin, model = _START + header_length, len(data) - _DIGEST_BYTES - model_length
    if begin > model:
        raise ValueError(
            f"a header of {header_length} bytes and a model of {model_length} in {len(data)} bytes")
    if hashlib.sha256(memoryview(data)[:model]).digest() != data[-_DIGEST_BYTES:]:
        raise ValueError("another SHA-256 than its own")
    header = json.loads(data[_START:begin].decode("utf-8"), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    blob = memoryview(data)[begin:-_DIGEST_BYTES]
    return _by_name(header, blob, model -
                    begin) if magic == MAGIC else _by_position(header, blob, model -
                                                               begin, _OLDER[magic])


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """A JSON object; two entries of one name are refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"two entries named {next(name for name in names if names.count(name) > 1)}")
    return found


def _by_name(header: Dict[str, Any], blob: Any,
             model: int) -> Tuple[Dict[str, Any], Dict[str, np.ndarray]]:
    told = header.pop("arrays", None)
    if not isinstance(told, dict) or tuple(told)[-len(MODEL):] != MODEL:
        raise ValueError(f"arrays that do not end with {' and '.join(MODEL)}")
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
        if offsets != [place, end] or end > len(blob) or name == MODEL[0] and place != model:
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
            _OLDER[b"FLQSTATE2\n"][header["memory"]])
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
