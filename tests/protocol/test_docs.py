"""docs/protocol.md says what the code says: header fields, reasons, messages and records, word for
word or name for name.
"""

import os
import struct

import pytest

from flq.errors import ProtocolError
from flq.protocol import frames, messages
from flq.protocol.round_machine import PHASES
from flq.records import RoundRecord
from tests.markdown import DOCS, column, table

PAGE = "protocol.md"
ATTACKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks")
TYPES = {"B": "uint8", "H": "uint16", "I": "uint32", "Q": "uint64", "d": "float64"}
COMMON_LENGTH = struct.calcsize("<" + "".join(code for _, code, _ in frames.COMMON))


@pytest.mark.parametrize("name, fields, start", [("common", frames.COMMON, 0),
                                                 ("broadcast", frames.BROADCAST, COMMON_LENGTH),
                                                 ("upload", frames.UPLOAD, COMMON_LENGTH)])
def test_the_tables_of_the_header_are_those_of_the_code(name, fields, start):
    rows = []
    for field, code, meaning in fields:
        rows.append([str(start), field, TYPES.get(code) or code[:-1] + " bytes", meaning])
        start += struct.calcsize("<" + code)
    assert table(PAGE, name) == rows


def test_the_reasons_of_a_bad_frame_are_those_of_the_attacks():
    assert sorted(column(PAGE,
                         "reasons")) == sorted({name.split(".")[1] for name in os.listdir(ATTACKS)})


@pytest.mark.parametrize("name, message",
                         [("question", messages.QUESTION), ("hello", messages.HELLO),
                          ("registration", messages.REGISTRATION), ("states", messages.KNOWN_STATE),
                          ("registered", messages.REGISTERED), ("bid", messages.BID),
                          ("option", messages.OPTION), ("outcome", messages.OUTCOME),
                          ("heartbeat", messages.HEARTBEAT), ("alive", messages.ALIVE),
                          ("gone", messages.GONE), ("changed", messages.CHANGED),
                          ("steered", messages.STEERED), ("stopped", messages.STOPPED),
                          ("removed", messages.WORKER_REMOVED)])
def test_every_field_of_a_message_is_documented_with_its_type(name, message):
    assert [tuple(row[:2]) for row in table(PAGE, name)] == message.fields


def test_the_terms_of_a_registration_are_the_broadcasts_own_fields():
    assert [name for name, _ in messages.TERMS.fields] == column(PAGE, "broadcast", 1)


def test_every_field_of_a_round_record_is_documented():
    assert column(PAGE, "round record") == list(RoundRecord._fields)


def test_the_fields_of_an_error_are_documented():
    with open(os.path.join(DOCS, PAGE), encoding="utf-8") as file:
        assert f"`{{{', '.join(ProtocolError.FIELDS)}}}`" in file.read()


def test_every_phase_is_documented():
    assert column(PAGE, "phases") == list(PHASES)
