"""docs/protocol.md says what the code says: header fields, reasons, messages and records, word for word or name for name."""

import os
import struct

import pytest

from flq.protocol import frames, messages
from flq.protocol.round_machine import PHASES
from flq.records import Option, Outcome, RoundRecord
from tests.markdown import column, table

PAGE = "protocol.md"
ATTACKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks")
TYPES = {"B": "uint8", "H": "uint16", "I": "uint32", "Q": "uint64", "d": "float64"}
COMMON_LENGTH = struct.calcsize("<" + "".join(code for _, code, _ in frames.COMMON))


@pytest.mark.parametrize("name, fields, start", [
    ("common", frames.COMMON, 0), ("broadcast", frames.BROADCAST, COMMON_LENGTH), ("upload", frames.UPLOAD, COMMON_LENGTH)])
def test_the_tables_of_the_header_are_those_of_the_code(name, fields, start):
    rows = []
    for field, code, meaning in fields:
        rows.append([str(start), field, TYPES.get(code) or code[:-1] + " bytes", meaning])
        start += struct.calcsize("<" + code)
    assert table(PAGE, name) == rows


def test_the_reasons_of_a_bad_frame_are_those_of_the_attacks():
    assert sorted(column(PAGE, "reasons")) == sorted({name.split(".")[1] for name in os.listdir(ATTACKS)})


@pytest.mark.parametrize("name, record, renamed", [
    ("registration", messages.Registration, {"worker": "worker_id"}),
    ("states", messages.KnownState, {}),
    ("option", Option, {}),
    ("outcome", Outcome, {}),
    ("round record", RoundRecord, {}),
])
def test_every_field_of_a_message_is_documented(name, record, renamed):
    assert column(PAGE, name) == [renamed.get(field, field) for field in record._fields]


def test_every_field_of_a_bid_is_documented():
    bid = {"round": 3, "skip": True, "reason": "lazy", "options": [], "loss": None, "residual_norm": 0.0}
    parsed = messages.parse_bid(bid, 5)
    assert column(PAGE, "bid") == list(bid)
    assert set(parsed._fields) - {"worker"} == set(bid)  # the worker is the session's


def test_every_phase_is_documented():
    assert column(PAGE, "phases") == list(PHASES)
