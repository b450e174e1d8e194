"""Events as they lie in stores, those of older versions too."""

import typing

import pytest

from flq.master.store import events
from flq.master.store.events import (
    ORDERS,
    Absent,
    DeviceNote,
    Expelled,
    Flagged,
    Join,
    KeyChange,
    Leave,
    Overweight,
    Pause,
    Remove,
    Reset,
    Resume,
    Rollback,
    Samples,
    Stop,
    changed_keys,
    from_row,
    name_of,
    to_row,
)
from flq.master.store.run_store import RunStore, StoreError

# What has always been written: a store of any version of FLQ is read.
ROWS = [
    (Join(0, 7), "join", '{"worker": 0, "num_samples": 7}'),
    (Leave(1), "leave", '{"worker": 1}'),
    (Remove(2, True), "remove", '{"worker": 2, "heals": true}'),
    (Rollback(9), "rollback", '{"round": 9}'),
    (Reset(3), "reset", '{"worker": 3}'),
    (Absent(4), "absent", '{"worker": 4}'),
    (Samples(5, 9), "samples", '{"worker": 5, "num_samples": 9}'),
    (KeyChange("model.lr", "10.0.0.9", None, 0.5), "config",
     '{"key": "model.lr", "by": "10.0.0.9", "old": null, "new": 0.5}'),
    (Pause(), "pause", "{}"),
    (Resume(), "resume", "{}"),
    (Stop("ann@10.0.0.9", 1764547200.5), "stop", '{"by": "ann@10.0.0.9", "at": 1764547200.5}'),
    (Remove(2, True, "owner@::1", 7.0), "remove",
     '{"worker": 2, "heals": true, "by": "owner@::1", "at": 7.0}'),
    (Overweight(7), "overweight", '{"worker": 7}'),
    (Expelled(7, 20), "expelled", '{"worker": 7, "until": 20}'),
    (Flagged(8, 3, "norm", 9.5, 2.5), "flagged",
     '{"worker": 8, "round": 3, "reason": "norm", "value": 9.5, "limit": 2.5}'),
    (DeviceNote(6, {"name": "nano"}), "device", '{"worker": 6, "device": {"name": "nano"}}'),
]


@pytest.mark.parametrize("event, kind, detail", ROWS)
def test_an_event_is_read_as_it_was_written(event, kind, detail):
    assert to_row(event) == (kind, detail) and from_row(kind, detail) == event


def test_an_order_is_its_operators_where_a_name_was_written():
    for by, name in (("ann@10.0.0.9", "ann"), ("10.0.0.9", None), ("", None),
                     ("owner@fe80::1 certificate " + "ab" * 32, "owner")):
        assert name_of(Pause(by)) == name
    assert name_of(Leave(1)) is None
    assert all({"by", "at"} <= set(kind.__dataclass_fields__) for kind in ORDERS)


def test_a_removal_of_an_older_version_did_not_sum_anew():
    assert from_row("remove", '{"worker": 2}') == Remove(2, heals=False)


def test_there_is_a_row_for_each_kind_of_event():
    assert {type(event) for event, _, _ in ROWS} == set(typing.get_args(events.Event))
    assert {kind for _, kind, _ in ROWS} == set(events.KINDS)


def test_events_of_two_kinds_are_never_the_same():
    assert Leave(1) != Remove(1)


def test_the_newest_change_of_a_key_counts():
    assert changed_keys([KeyChange("a", "me", 0, 1), Remove(2), KeyChange("b", "me", 0, 2),
                         KeyChange("a", "me", 1, 3)]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("kind, detail", [("promotion", '{"worker": 1}'), ("leave", '{"worker'),
                                          ("leave", "[1]"), ("join", '{"worker": 1}'),
                                          ("leave", '{"worker": 1, "when": 2}')])
def test_an_event_that_nobody_wrote_ends_with_one_line(tmp_path, kind, detail):
    store = RunStore(tmp_path / "run", {})
    store._db.execute("INSERT INTO events (round, kind, detail) VALUES (0, ?, ?)", (kind, detail))
    with pytest.raises(StoreError) as refusal:
        store.events()
    store.close()
    assert kind in str(refusal.value) and "\n" not in str(refusal.value)
