"""Records behind a state: whole ones come back, a last one that is not whole never was, and damage
before the last is found.
"""

import hashlib
import io
import struct

import pytest

from flq.worker import journal

BASE = b"the state before"
CONTENTS = [b"", b"one", bytes(300), b"FLQR inside"]


def written(contents, first=0):
    return [
        b"".join(journal.pack(number, [content[:2], content[2:]]))
        for number, content in enumerate(contents, first)
    ]


def read(data):
    return list(journal.records(io.BytesIO(data), len(BASE)))


def test_records_come_back_with_where_they_end():
    pieces = written(CONTENTS)
    found = read(BASE + b"".join(pieces))
    assert [content for content, _ in found] == CONTENTS
    ends = [len(BASE) + sum(map(len, pieces[:count])) for count in range(1, 5)]
    assert [end for _, end in found] == ends
    assert read(BASE) == []


def test_a_record_is_what_its_description_says():
    hashed = b"FLQR" + struct.pack("<IQ", 7, 5) + b"abcde"
    assert b"".join(journal.pack(7, [b"ab", b"cde"])) == hashed + hashlib.sha256(hashed).digest()


def test_a_tail_of_any_length_is_cut_at_the_last_whole_record():
    data, last = b"".join(written(CONTENTS[:-1])), written(CONTENTS[-1:], 3)[0]
    for length in range(len(last)):
        torn = last[:length]
        assert [content for content, _ in read(BASE + data + torn)] == CONTENTS[:-1]
        # a file that is as long as it should be, with blocks that were not written yet
        for filled in (torn + bytes(len(last) - length), bytes(length) + last[length:]):
            if filled != last:
                assert [content for content, _ in read(BASE + data + filled)] == CONTENTS[:-1]


def test_a_changed_byte_before_the_last_record_is_damage_and_in_it_a_torn_one():
    pieces = written(CONTENTS)
    last, data = len(BASE) + sum(map(len, pieces[:-1])), BASE + b"".join(pieces)
    for place in range(len(BASE), len(data)):
        changed = data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:]
        if place >= last:
            assert [content for content, _ in read(changed)] == CONTENTS[:-1]
        else:
            with pytest.raises(ValueError, match="is not whole, and one behind it is"):
                read(changed)


@pytest.mark.parametrize("order, whole", [((1, 0, 2), None), ((0, 2), None), ((0, 0), None),
                                          ((1,), None), ((0, 1), 2)])
def test_records_of_another_order_are_damage(order, whole):
    pieces = written(CONTENTS)
    data = BASE + b"".join(pieces[number] for number in order)
    if whole is None:
        with pytest.raises(ValueError):
            read(data)
    else:
        assert len(read(data)) == whole


def test_a_length_that_was_damaged_allocates_nothing():
    head = b"FLQR" + struct.pack("<IQ", 0, 2**63)
    assert read(BASE + head + bytes(100)) == []
