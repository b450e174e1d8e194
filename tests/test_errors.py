"""Errors: one line each, and one list of protocol errors that the documentation repeats."""

import os
import re

import pytest

from flq.errors import (
    ERROR_KINDS,
    ConfigError,
    DataError,
    FlqError,
    FrameError,
    ProtocolError,
    UnreachableError,
)

PROTOCOL_PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs",
                             "protocol.md")
ACTIONS = {"retry", "settle", "register", "finish", "exit"}


def test_an_error_is_one_line_of_what_was_wanted_what_came_and_what_to_do():
    error = FlqError("the vector is short", 17, 16, "send all of it")
    assert str(error) == "the vector is short; expected 17; got 16; send all of it"
    assert (error.message, error.expected, error.got, error.hint) == ("the vector is short", 17, 16,
                                                                      "send all of it")
    assert str(FlqError("short")) == "short"
    assert str(FlqError("short", expected=0, got=0)) == "short; expected 0; got 0"


def test_exit_codes_are_the_documented_ones():
    assert [
        kind.exit_code
        for kind in (FlqError, ConfigError, ProtocolError, DataError, UnreachableError)
    ] == [1, 2, 3, 4, 75]


@pytest.mark.parametrize("name", sorted(ERROR_KINDS))
def test_every_kind_has_a_status_and_an_action(name):
    kind = ERROR_KINDS[name]
    assert 400 <= kind.status <= 599 and kind.action in ACTIONS and kind.meaning
    error = ProtocolError(name, "what happened", retry_after_s=2.0)
    assert error.kind is kind and error.retry_after_s == 2.0


def test_a_worker_never_gives_up_on_what_passes():
    """408, 429 and 5xx are of the moment; everything else stays as it is."""
    assert all((kind.action == "retry") == (kind.status in (408, 429) or kind.status >= 500)
               for kind in ERROR_KINDS.values())
    assert all((kind.action == "finish") <= (kind.status == 410) for kind in ERROR_KINDS.values())


def test_a_refusal_travels_as_five_fields():
    error = ProtocolError("wrong_option", "not that one", {"b": 4}, {"b": 8}, "send b = 4")
    assert error.to_json() == {
        "error": "wrong_option", "message": "not that one", "expected": {"b": 4}, "got": {"b": 8},
        "hint": "send b = 4"
    }


def test_an_unknown_name_is_no_error_of_the_protocol():
    with pytest.raises(KeyError):
        ProtocolError("no_such_error", "")


def test_a_frame_error_names_its_reason():
    error = FrameError("bad_crc", "the frame was damaged", "00", "01")
    assert error.reason == "bad_crc" and error.name == "bad_frame" and error.kind.status == 422
    assert str(error).startswith("bad_crc: the frame was damaged; expected 00; got 01; ")


def test_the_documented_table_of_errors_is_the_one_list():
    if not os.path.exists(PROTOCOL_PAGE):
        pytest.skip("docs/protocol.md does not exist yet")
    with open(PROTOCOL_PAGE, encoding="utf-8") as file:
        text = file.read()
    header = "| error | status | worker does | meaning |\n"
    assert header in text
    # [0] is |---|---|
    rows = text[text.index(header) + len(header):].split("\n\n")[0].splitlines()[1:]
    documented = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert [row[0].strip("`") for row in documented] == list(ERROR_KINDS)
    assert [row[1:] for row in documented] == [[str(kind.status), kind.action, kind.meaning]
                                               for kind in ERROR_KINDS.values()]
