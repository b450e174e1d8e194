"""A state as bytes: named arrays come back, nothing is copied, and what no writer makes is refused.
"""

import json

import numpy as np
import pytest

from flq.worker import state_format
from tests.worker.older_states import envelope

MEMORY, PARAMS, STATE = np.arange(3) / 7, np.arange(4, dtype=np.float32), np.arange(
    2, dtype=np.float32)
ENTRIES = [("memory", {"dtype": "<f8", "shape": [3], "offsets": [0, 24]}),
           ("params", {"dtype": "<f4", "shape": [4], "offsets": [24, 40]}),
           ("state", {"dtype": "<f4", "shape": [2], "offsets": [40, 48]})]


def written(header, arrays):
    return b"".join(bytes(piece) for piece in state_format.pack(header, arrays))


def listed(*entries):
    return "{{{}}}".format(",".join('"{}":{}'.format(name, json.dumps(entry, separators=(",", ":")))
                                    for name, entry in entries))


def changed(name, **values):
    return listed(*[(other, dict(entry, **values) if other == name else entry)
                    for other, entry in ENTRIES])


GOOD = listed(*ENTRIES)
HASHED, MODEL = MEMORY.tobytes(), PARAMS.tobytes() + STATE.tobytes()


def forged(arrays=GOOD, head=None, hashed=HASHED, model=MODEL):
    """A file with a right SHA-256 whatever is in it. arrays: the text of that entry of the header.
    """
    head = f'{{"version":3,"arrays":{arrays}}}'.encode("ascii") if head is None else head
    return envelope(state_format.MAGIC, head, [hashed], [model])


@pytest.mark.parametrize("arrays", [{"memory": MEMORY, "params": PARAMS, "state": STATE}, {
    "bytes": np.arange(5, dtype=np.uint8), "square": np.ones(
        (2, 3)), "params": PARAMS, "state": STATE
}, {"nothing": np.zeros(0), "params": PARAMS, "state": np.zeros(0, np.float32)}, {
    "none": np.zeros(
        (0, 3), np.float32), "params": np.zeros(0, np.float32), "state": np.zeros(0, np.float32)
}, ])
def test_arrays_of_any_name_come_back(arrays):
    header, found = state_format.unpack(written({"version": 3, "who": "me"}, arrays))
    assert header == {"version": 3, "who": "me"} and list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape and found[
            name].tobytes() == array.tobytes()


def test_what_is_written_is_what_the_description_says():
    assert written({"version": 3}, {"memory": MEMORY, "params": PARAMS, "state": STATE}) == forged()
    assert state_format.unpack(forged())[0] == {"version": 3}


def test_a_big_endian_or_strided_array_is_written_little_endian_and_in_one_piece():
    arrays = {"memory": MEMORY.astype(">f8"), "params": np.repeat(PARAMS, 2)[::2], "state": STATE}
    assert written({"version": 3},
                   arrays) == written({"version": 3},
                                      {"memory": MEMORY, "params": PARAMS, "state": STATE})


def test_no_array_is_copied_to_be_written():
    pieces = state_format.pack({}, {"memory": MEMORY, "params": PARAMS, "state": STATE})
    views = [np.frombuffer(piece, np.uint8) for piece in pieces]
    for array in (MEMORY, PARAMS, STATE):
        assert any(np.shares_memory(array, view) for view in views)


def test_a_state_says_how_long_it_is_before_its_journal():
    assert state_format.length_of(forged()[:state_format.START]) == len(forged())
    assert state_format.length_of(forged() + b"journal") == len(forged())
    for data in (b"", forged()[:state_format.START - 1], b"FLQSTATE3" + forged()[9:]):
        assert state_format.length_of(data) is None


def test_the_file_of_the_version_before_is_read():
    head = f'{{"version":3,"arrays":{GOOD}}}'.encode("ascii")
    header, found = state_format.unpack(envelope(b"FLQSTATE3\n", head, [HASHED], [MODEL]))
    assert header == {"version": 3} and found["memory"].tolist() == MEMORY.tolist()
    assert found["params"].tolist() == PARAMS.tolist()


def test_the_content_of_a_record_comes_back():
    arrays = {"memory": MEMORY, "nothing": np.zeros(0), "body": np.arange(5, dtype=np.uint8)}
    data = b"".join(bytes(piece) for piece in state_format.pack_record({"version": 4}, arrays))
    header, found = state_format.unpack_record(data)
    assert header == {"version": 4} and list(found) == list(arrays)
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())


@pytest.mark.parametrize("data, said", [
    (b"abc", "a record of 3 bytes"), (b"\x09\0\0\0{}", "a header of 9 bytes in a record of 6"),
    (b"\x02\0\0\0{}", "no arrays by name"), (b"\x02\0\0\0[]", "a header that is no object"),
    (b'\x0d\0\0\0{"arrays":{}}more', "4 bytes behind the arrays"),
])
def test_a_content_that_no_writer_makes_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        state_format.unpack_record(data)


@pytest.mark.parametrize(
    "data, said",
    [(b"", "0 bytes that begin with"), (b"FLQSTATE5\n" + bytes(60), "begin with b'FLQSTATE5"),
     (forged()[:-1], "a header of"), (forged() + b"x", "a header of"),
     (forged()[:30] + b"x" + forged()[31:], "another SHA-256"),
     (state_format.MAGIC + b"\xff" * 4 + bytes(60), "a header of 4294967295 bytes"),
     (state_format.MAGIC + bytes(12) + b"\xff" * 8 + bytes(60),
      "a model of 18446744073709551615"),
     (forged(head=b"{"), "Expecting property name"), (forged(head=b"\xff\xfe"), "can't decode"),
     (forged(head=b"[3]"), "a header that is no object"),
     (forged(head=b'{"version":3}'), "arrays that do not end with params and state"),
     (forged('7'), "arrays that do not end with params and state"),
     (forged('[["memory"]]'), "arrays that do not end with params and state"),
     (forged(listed(*ENTRIES[:2])), "arrays that do not end with params and state"),
     (forged(listed(ENTRIES[0], ENTRIES[2],
                    ENTRIES[1])), "arrays that do not end with params and state"),
     (forged(listed(ENTRIES[0], *ENTRIES)), "two entries named memory"),
     (forged(head=b'{"version":3,"version":4,"arrays":{}}'), "two entries named version"),
     (forged(changed("memory", more=1)), "without dtype, shape and offsets alone"),
     (forged(listed(("memory", [0, 24]), *ENTRIES[1:])), "without dtype, shape and offsets alone"),
     (forged(changed("memory", dtype="<f2")), "array memory of dtype <f2"),
     (forged(changed("memory", dtype="|O")), "array memory of dtype |O"),
     (forged(changed("memory", dtype=">f8")), "array memory of dtype >f8"),
     (forged(changed("memory", dtype=["<f8"])), "array memory of dtype"),
     (forged(changed("memory", shape=[-3])), "array memory of shape [-3]"),
     (forged(changed("memory", shape=[3.0])), "array memory of shape [3.0]"),
     (forged(changed("memory", shape=[True])), "array memory of shape [True]"),
     (forged(changed("memory", shape=3)), "array memory of shape 3"),
     (forged(changed("memory", shape=[4])), "array memory of 32 bytes at [0, 24]"),
     (forged(changed("memory", shape=[2**70, 2**70])), "bytes at [0, 24]"),
     (forged(changed("params", offsets=[16, 32])),
      "array params of 16 bytes at [16, 32], the one before ends at 24 of 48"),
     (forged(changed("params", offsets=[32, 48])),
      "array params of 16 bytes at [32, 48], the one before ends at 24 of 48"),
     (forged(changed("memory", offsets=[-8, 16])), "array memory of 24 bytes at [-8, 16]"),
     (forged(changed("memory", offsets="0-24")), "array memory of 24 bytes at 0-24"),
     (forged(changed("state", shape=[4], offsets=[40, 56])),
      "array state of 16 bytes at [40, 56], the one before ends at 40 of 48"),
     (forged(changed("state", shape=[1], offsets=[40, 44])), "4 bytes behind the arrays"),
     (forged(hashed=MEMORY.tobytes() + PARAMS.tobytes(),
             model=STATE.tobytes()), "array params of 16 bytes at [24, 40]"),
     (envelope(b"FLQSTATE3\n", b"{}", [HASHED], [MODEL])[:-1], "another SHA-256"), ])
def test_what_no_writer_makes_is_refused(data, said):
    with pytest.raises(ValueError) as refusal:
        state_format.unpack(data)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)
