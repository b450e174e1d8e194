"""JSON messages of both sides: each field missing, of another type and too large, numbers that are
none, depth, and anything at all.
"""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flq.errors import ProtocolError
from flq.protocol import fields, messages
from flq.protocol.frames import RoundTerms
from flq.records import Bid, Option, Outcome

STATE = {
    "run_id": "run", "round": 3, "params_hash": "ab" * 8, "reference_hash": "cd" * 32, "pending": 3,
    "pending_hash": "ef" * 32
}
REGISTRATION = {
    "protocol": 1, "worker_id": 4, "instance": "0f" * 16, "num_samples": 100,
    "partition_hash": "cd", "shapes_hash": "ef", "params_hash": "01",
    "device": {"name": "Nano",
               "memory_mb": 4096}, "states": [STATE], "take_over": True, "quantizer_hash": "45",
    "memory_rate": 0.25
}
OPTION = {"b": 4, "bits": 1000, "gain": 0.5}
OFFER = {"round": 3, "skip": False, "options": [OPTION], "loss": 1.5, "residual_norm": 0.25}
SILENCE = {"round": 3, "skip": True, "reason": "lazy", "loss": None, "residual_norm": 0}
OUTCOME = {"round": 3, "state": "accepted", "option": 4, "reference_hash": "ab" * 32}
HEARTBEAT = {"temperature_c": -3.5}
DEVICE = {
    "host": "nano-1", "gpus": ["NVIDIA Tegra X1"], "memory_mb": 3956, "temperature_c": 48.5,
    "model": None, "on": True
}

TERMS = {
    "history_sum": 0.5, "thr_scale": 1.0, "mean_weight": 50.0, "deadline_s": 0.0, "max_skips": 100,
    "two_phase": 1
}
REGISTERED = {
    "run_id": "run", "session": "caIZphuJNjDhXCC3g_SEAA", "round": 3, "version": 3, "have": -1,
    "params_hash": "ab" * 8, "owes": "bid", "outcome": "", "reference": "reset",
    "reference_hash": "cd" * 32, "terms": TERMS, "constants_hash": "ef" * 8
}
HELLO = {"run_id": "run", "config": {"model.name": "cnn"}}
QUESTION = {"protocol": 1, "worker_id": 4}
CHANGED = {"effective_round": 4, "changed": {"model.lr": {"old": 0.5, "new": 0.25}}}
STOPPED = {"status": "stopped", "results_saved": True, "results": "results/run"}
CALLER = {"role": "viewer", "name": "bob"}
REMOVED = {"status": "removed", "worker": 3}


def parse_bid(document):
    return messages.BID.parse(document, worker=7)


PARSERS = {
    "question": (messages.QUESTION.parse, QUESTION),
    "hello": (messages.HELLO.parse, HELLO),
    "registration": (messages.REGISTRATION.parse, REGISTRATION),
    "registered": (messages.REGISTERED.parse, REGISTERED),
    "offer": (parse_bid, OFFER),
    "silence": (parse_bid, SILENCE),
    "outcome": (messages.OUTCOME.parse, OUTCOME),
    "heartbeat": (messages.HEARTBEAT.parse, HEARTBEAT),
    "alive": (messages.ALIVE.parse, {"state": "paused"}),
    "gone": (messages.GONE.parse, {"state": "left"}),
    "changed": (messages.CHANGED.parse, CHANGED),
    "steered": (messages.STEERED.parse, {"status": "running"}),
    "stopped": (messages.STOPPED.parse, STOPPED),
    "removed": (messages.WORKER_REMOVED.parse, REMOVED),
    "caller": (messages.CALLER.parse, CALLER),
}
MESSAGES = {
    "question": messages.QUESTION, "hello": messages.HELLO, "registration": messages.REGISTRATION,
    "registered": messages.REGISTERED, "offer": messages.BID, "silence": messages.BID,
    "outcome": messages.OUTCOME, "heartbeat": messages.HEARTBEAT, "alive": messages.ALIVE,
    "gone": messages.GONE, "changed": messages.CHANGED, "steered": messages.STEERED,
    "stopped": messages.STOPPED, "removed": messages.WORKER_REMOVED, "caller": messages.CALLER,
}
# What no field of that kind may be.
WRONG = {
    "natural": [[], {}, "1", None, True, -1, 1.5, 1.0, math.nan, 2**70,
                10**400], "positive": [0, -1, 1.5, "1", None, True, 2**70],
    "number": [[], {}, "1", True, math.nan, math.inf, -math.inf, 2**60,
               10**400], "norm": [[], "1", None, True, -1, -0.5, math.nan, math.inf, 10**400],
    "text": [[], {}, None, True, 1, "two\nlines", "\x1b[2J", "x" * 129,
             "\ud800"], "path": [[], None, True, 1, "two\nlines",
                                 "x" * 4097], "hex": [[], None, 1, "xy", "abc", "ab" * 33],
    "digits": [[], None, 1, "", "xy" * 8, "ab" * 7, "ab" * 9, "ab" * 31, "ab" * 33,
               "ab " * 5 + "a"], "version": [[], "1", None, True, -2, 1.5,
                                             2**32], "bit": [[], "1", None, True, -1, 2, 1.0],
    "word": [[], {}, None, 1, "", "else",
             ["run"]], "flag": [[], {}, "true", None, 0,
                                1], "list": [{}, "x", None, 1], "object": [[], "x", None, 1],
}
FIELDS = ([("registration", name, kind)
           for name, kind in (("protocol", "natural"), ("worker_id", "natural"),
                              ("num_samples", "positive"), ("instance", "text"),
                              ("partition_hash", "text"), ("shapes_hash", "text"),
                              ("params_hash", "text"), ("device", "object"), ("states", "list"),
                              ("take_over", "flag"), ("quantizer_hash", "text"),
                              ("memory_rate", "norm"))] +
          [("offer", name, kind)
           for name, kind in (("round", "natural"), ("skip", "flag"), ("options", "list"),
                              ("loss", "number"),
                              ("residual_norm", "norm"))] + [("silence", "reason", "text")] +
          [("outcome", name, kind)
           for name, kind in (("round", "natural"), ("state", "word"), ("option", "natural"),
                              ("reference_hash", "digits"))] +
          [("heartbeat", "temperature_c", "number")] + [("question", "protocol", "natural"),
                                                        ("question", "worker_id", "natural")] +
          [("hello", "run_id", "text"), ("hello", "config", "object")] +
          [("registered", name, kind)
           for name, kind in (("run_id", "text"), ("session", "text"), ("round", "natural"),
                              ("version", "natural"), ("have", "version"),
                              ("params_hash", "digits"), ("owes", "word"), ("reference", "word"),
                              ("reference_hash", "digits"), ("terms", "object"),
                              ("constants_hash", "digits"))] +
          [("alive", "state", "word"), ("gone", "state", "word"),
           ("changed", "effective_round", "natural"), ("changed", "changed", "object"),
           ("steered", "status", "word"), ("stopped", "status", "word"),
           ("stopped", "results_saved", "flag"), ("stopped", "results", "path"),
           ("removed", "status", "word"), ("removed", "worker", "natural"),
           ("caller", "role", "word"), ("caller", "name", "text")])
NESTED = ([("states", name, kind)
           for name, kind in (("run_id", "text"), ("round", "natural"), ("params_hash", "hex"),
                              ("reference_hash", "hex"), ("pending_hash", "hex"))] +
          [("options", name, kind)
           for name, kind in (("b", "positive"), ("bits", "positive"), ("gain", "norm"))])
OPTIONAL = ("device", "states", "take_over", "quantizer_hash", "memory_rate", "reason", "loss",
            "temperature_c", "constants_hash")


def refused(parse, document):
    with pytest.raises(ProtocolError) as refusal:
        parse(document)
    assert refusal.value.name == "bad_request" and "\n" not in str(refusal.value) and len(
        str(refusal.value)) < 400
    return refusal.value


def test_a_registration_is_read():
    registration = messages.REGISTRATION.parse(REGISTRATION)
    assert registration == messages.Registration(1, 4, "0f" * 16, 100, "cd", "ef", "01",
                                                 {"name": "Nano", "memory_mb": 4096},
                                                 (messages.KnownState(**STATE),), True, "45", 0.25)


def test_what_a_registration_need_not_say():
    short = {
        name: value for name, value in REGISTRATION.items()
        if name not in ("device", "states", "take_over", "quantizer_hash", "memory_rate")
    }
    registration = messages.REGISTRATION.parse(short)
    assert (registration.device, registration.states, registration.take_over,
            registration.quantizer_hash, registration.memory_rate) == ({}, (), False, "", 1.0)
    assert "memory_rate" not in messages.REGISTRATION.to_json(registration)


def test_bids_are_read_and_written():
    offer = Bid(7, 3, False, "", (Option(4, 1000, 0.5),), 1.5, 0.25)
    silence = Bid(7, 3, True, "lazy", (), None, 0.0)
    assert parse_bid(OFFER) == offer and parse_bid(SILENCE) == silence
    assert messages.BID.to_json(offer) == OFFER and messages.BID.to_json(silence) == SILENCE


def test_a_loss_that_is_not_finite_travels_as_null():
    bid = Bid(7, 3, True, "nonfinite", (), math.nan, 0.0)
    assert parse_bid(messages.parse_json(messages.to_json(messages.BID.to_json(bid)))).loss is None


def test_outcomes_and_heartbeats_are_read():
    assert messages.OUTCOME.parse(OUTCOME) == Outcome(3, "accepted", 4, "ab" * 32)
    assert messages.HEARTBEAT.parse(HEARTBEAT).temperature_c == -3.5
    assert messages.HEARTBEAT.parse({}).temperature_c is None


def test_a_registrations_answer_is_read():
    answer = messages.REGISTERED.parse(REGISTERED)
    assert answer == messages.Registered("run", "caIZphuJNjDhXCC3g_SEAA", 3, 3, -1, "ab" * 8, "bid",
                                         "", "reset", "cd" * 32,
                                         RoundTerms(0.5, 1.0, 50.0, 0.0, 100, 1), "ef" * 8)
    without = {name: value for name, value in REGISTERED.items() if name != "constants_hash"}
    assert messages.REGISTERED.parse(without).constants_hash == ""
    assert messages.REGISTERED.to_json(answer._replace(constants_hash="")) == without


@pytest.mark.parametrize("what", sorted(PARSERS))
def test_what_one_side_writes_is_what_the_other_reads(what):
    parse, document = PARSERS[what]
    written = MESSAGES[what].to_json(parse(document))
    assert written == document
    assert parse(messages.parse_json(messages.to_json(written))) == parse(document)


@pytest.mark.parametrize(
    "message", [value for value in vars(messages).values() if isinstance(value, fields.Message)],
    ids=lambda message: message.title)
def test_every_message_is_tried_here(message):
    assert any(message is tried
               for tried in MESSAGES.values()) or message in (messages.KNOWN_STATE, messages.OPTION,
                                                              messages.TERMS)


def test_a_change_may_be_nested_or_flat():
    assert messages.parse_changes({
        "model.lr": 1, "C": 2, "system": {"min_workers": 3, "quorum": "all"}
    }) == {"model.lr": 1, "C": 2, "system.min_workers": 3, "system.quorum": "all"}


def test_whom_a_registration_speaks_of_and_whether_it_has_data_is_known_before_it_is_read():
    assert messages.is_question(QUESTION) and not messages.is_question(REGISTRATION)
    assert [messages.claimed_worker(document)
            for document in (QUESTION, {}, {"worker_id": "x"})] == [4, None, "x"]


def test_fields_that_workers_of_before_send_are_no_trouble():
    assert messages.REGISTRATION.parse(dict(
        REGISTRATION, shard_hash="ab")) == messages.REGISTRATION.parse(REGISTRATION)
    assert parse_bid(dict(OFFER, clock=2)) == parse_bid(OFFER)
    assert messages.HEARTBEAT.parse(dict(HEARTBEAT, round=3, progress=0.5)).temperature_c == -3.5
    assert messages.REGISTERED.parse(dict(REGISTERED, motd="x", terms=dict(
        TERMS, motd="x"))) == messages.REGISTERED.parse(REGISTERED)


@pytest.mark.parametrize("what, name, kind", FIELDS)
def test_a_field_that_is_missing_or_cannot_be_is_named(what, name, kind):
    parse, document = PARSERS[what]
    missing = {other: value for other, value in document.items() if other != name}
    if name in OPTIONAL:
        parse(missing)
    else:
        assert name in refused(parse, missing).message
    for value in WRONG[kind]:
        assert name in refused(parse, dict(document, **{name: value})).message


@pytest.mark.parametrize("name, field, kind", NESTED)
def test_a_field_of_a_state_or_an_option_is_named_too(name, field, kind):
    parse, document = PARSERS["registration" if name == "states" else "offer"]
    item = document[name][0]
    refused(
        parse,
        dict(document,
             **{name: [{other: value for other, value in item.items() if other != field}]}))
    for value in WRONG[kind]:
        assert field in refused(parse, dict(document, **{name: [dict(item,
                                                                     **{field: value})]})).message


@pytest.mark.parametrize("name, what", [("states", "registration"), ("options", "offer")])
def test_what_is_listed_is_an_object(name, what):
    parse, document = PARSERS[what]
    for item in (None, 1, "x", [], [OPTION]):
        refused(parse, dict(document, **{name: [item]}))


@pytest.mark.parametrize("name, kind", [("history_sum", "norm"), ("thr_scale", "norm"),
                                        ("mean_weight", "norm"), ("deadline_s", "norm"),
                                        ("max_skips", "natural"), ("two_phase", "bit")])
def test_a_masters_terms_are_finite_numbers(name, kind):
    refused(
        messages.REGISTERED.parse,
        dict(REGISTERED, terms={other: value for other, value in TERMS.items() if other != name}))
    for value in WRONG[kind]:
        assert name in refused(messages.REGISTERED.parse,
                               dict(REGISTERED, terms=dict(TERMS, **{name: value}))).message


def test_the_outcome_of_a_registration_is_none_or_one_of_the_protocol():
    for outcome in ("",) + messages.VERDICTS:
        assert messages.REGISTERED.parse(dict(REGISTERED, outcome=outcome)).outcome == outcome
    for outcome in ("else", None, 1, ["open"]):
        assert "outcome" in refused(messages.REGISTERED.parse, dict(REGISTERED,
                                                                    outcome=outcome)).message


def test_lists_and_reports_have_a_largest_size():
    refused(messages.REGISTRATION.parse,
            dict(REGISTRATION, states=[STATE] * (messages.MAX_STATES + 1)))
    refused(messages.REGISTRATION.parse,
            dict(REGISTRATION, device={"name": "x" * fields.MAX_DEVICE_BYTES}))
    refused(PARSERS["offer"][0], dict(OFFER, options=[OPTION] * (messages.MAX_OPTIONS + 1)))


def test_a_device_report_is_flat_plain_and_bounded():
    assert messages.REGISTRATION.parse(dict(REGISTRATION, device=DEVICE)).device == DEVICE
    for name, value in (("model", "x" * 201), ("model", "two\nlines"), ("model", "\x1b[2J"),
                        ("model", "\ud800"), ("a\nb", 1), ("x" * 65, 1), ("deep", {"x": 1}),
                        ("deep", [[1]]), ("gpus", ["GPU"] * 17), ("gpus", [{}]),
                        ("memory_mb", math.inf), ("memory_mb", math.nan), ("memory_mb", 10**400)):
        error = refused(messages.REGISTRATION.parse, dict(REGISTRATION, device={name: value}))
        assert error.message == "the device report has a value that it cannot have"
        assert "\n" not in str(
            error)


def test_a_bid_offers_or_skips():
    refused(PARSERS["offer"][0], dict(OFFER, skip=True))
    refused(PARSERS["offer"][0], dict(OFFER, options=[]))
    refused(PARSERS["silence"][0], dict(SILENCE, skip=False))


def test_a_pending_round_may_be_none():
    registration = messages.REGISTRATION.parse(
        dict(REGISTRATION, states=[dict(STATE, pending=-1, pending_hash="")]))
    assert registration.states[0].pending == -1
    for pending in (-2, None, 1.5, 2 ** 32):
        refused(messages.REGISTRATION.parse,
                dict(REGISTRATION, states=[dict(STATE, pending=pending)]))


# --- JSON


@pytest.mark.parametrize("data", [
    b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"{'a': 1}", b'{"a": 1} {}', b'{"a": NaN}',
    b'{"a": Infinity}', b'{"a": -Infinity}', b"[" * 100000, b'{"a":' * 100000, b'{"a": ' +
    b"[" * 50000 + b"]" * 50000 + b"}", b'{"a":' * (messages.MAX_DEPTH + 1) + b"1" + b"}" *
    (messages.MAX_DEPTH + 1), b'{"a": ' + b"[" * 8 + b"]" * 8 + b"}", b"\xef\xbb\xbf{}"
], ids=lambda data: repr(data[:12]))
def test_what_is_no_shallow_json_object_is_bad_json(data):
    with pytest.raises(ProtocolError) as refusal:
        messages.parse_json(data)
    assert refusal.value.name == "bad_json" and len(str(refusal.value)) < 400


def test_json_as_deep_as_allowed_is_read():
    data = b'{"a":' * messages.MAX_DEPTH + b"1" + b"}" * messages.MAX_DEPTH
    assert messages.parse_json(data) == json.loads(data.decode("ascii"))
    assert messages.parse_json(b'{"a": [[[[[[[1]]]]]]]}') == {"a": [[[[[[[1]]]]]]]}


def test_an_empty_body_is_an_empty_object():
    assert messages.parse_json(b"") == {}


def test_what_is_written_is_compact_and_has_no_number_that_is_none():
    document = {
        "a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": math.nan, "d": "\u00e4"}, "e": None
    }
    assert messages.to_json(
        document) == b'{"a":[1.5,null,[null,null]],"b":{"c":null,"d":"\\u00e4"},"e":null}'


# --- anything at all

_ODD = st.sampled_from([10 ** 400, -0.0, "ab" * 32, "x" * 200])
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
                     _ODD)


def _nested(inner):
    return st.one_of(st.lists(inner, max_size=3),
                     st.dictionaries(st.text(max_size=4), inner, max_size=3))


_VALUES = st.recursive(_SCALARS, _nested, max_leaves=8)


@given(st.sampled_from(sorted(PARSERS)), st.data())
def test_a_message_of_anything_is_read_or_refused(what, data):
    parse, document = PARSERS[what]
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(document)), _VALUES, max_size=4))
    if what == "registered" and data.draw(st.booleans()):
        changes["terms"] = dict(
            TERMS, **data.draw(st.dictionaries(st.sampled_from(sorted(TERMS)), _VALUES,
                                               max_size=3)))
    item_fields = sorted(STATE) if what == "registration" else sorted(OPTION)
    if what in ("registration", "offer") and data.draw(st.booleans()):
        item = dict(STATE if what == "registration" else OPTION)
        item.update(data.draw(st.dictionaries(st.sampled_from(item_fields), _VALUES, max_size=3)))
        changes["states" if what == "registration" else "options"] = [item]
    try:
        parse(dict(document, **changes))
    except ProtocolError as refusal:
        assert refusal.name == "bad_request" and json.loads(
            messages.to_json(refusal.to_json()).decode("ascii"))


@given(
    st.one_of(st.binary(max_size=60), _VALUES.map(lambda value: json.dumps(value).encode("ascii"))))
def test_bytes_of_anything_are_an_object_or_refused(data):
    try:
        document = messages.parse_json(data)
    except ProtocolError as refusal:
        assert refusal.name == "bad_json"
        return
    assert isinstance(document, dict) and messages.parse_json(
        messages.to_json(document)).keys() == document.keys()
