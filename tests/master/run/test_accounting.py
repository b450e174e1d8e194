"""Bits: what counts once, what counts for whom, and what survives a restart."""

import json

from flq.master.run.accounting import Accounting, Bits
from tests.reports.runs import round_record, worker_round


def test_bits_add_up_kind_by_kind():
    assert Bits(1, 2, 3).plus(Bits(10, 20, 30)) == Bits(11, 22, 33)
    assert Bits() == Bits(0, 0, 0)


def test_a_version_counts_once_for_every_receiver():
    accounting = Accounting()
    assert accounting.sent(0, 1, Bits(10, 12, 100)) and accounting.sent(1, 1, Bits(10, 12, 100))
    assert not accounting.sent(0, 1, Bits(10, 12, 100)), "sent again"
    assert not accounting.sent(0, 0, Bits(10, 12, 100)), "older than what it has"
    assert accounting.sent(0, 3, Bits(20, 24, 100))
    assert accounting.down == Bits(40, 48, 300) and accounting.worker_down == {0: 36, 1: 12}


def test_what_a_worker_drew_by_itself_is_free():
    accounting = Accounting()
    accounting.holds(0, 0)
    assert not accounting.sent(0, 0, Bits(10, 12, 100)) and accounting.down == Bits()
    accounting.holds(0, 4)
    accounting.holds(0, 2)
    assert not accounting.sent(0, 4, Bits(1, 1, 1)) and accounting.sent(0, 5, Bits(1, 1, 1))


def test_uploads_count_for_the_run_and_for_the_worker():
    accounting = Accounting()
    accounting.uploaded(3, Bits(10, 12, 0))
    accounting.uploaded(3, Bits(10, 14, 0))
    accounting.uploaded(4, Bits(10, 9, 0))
    assert accounting.up == Bits(30, 35, 0) and accounting.worker_up == {3: 26, 4: 9}


def test_it_is_shown_by_direction_with_the_wire():
    accounting = Accounting()
    accounting.uploaded(0, Bits(1, 2, 3))
    assert accounting.to_json((70, 80)) == {
        "up": {"nominal": 1, "payload": 2, "float32": 3, "wire": 70},
        "down": {"nominal": 0, "payload": 0, "float32": 0, "wire": 80}
    }
    assert accounting.to_json(None)["up"]["wire"] is None


def test_what_a_round_keeps_restores_the_totals():
    accounting = Accounting()
    accounting.holds(0, 0)
    accounting.sent(1, 1, Bits(10, 12, 100))
    saved = json.loads(json.dumps(accounting.save()))
    restored = Accounting()
    restored.restore(
        saved, [round_record(0), round_record(1)],
        [worker_round(0, 0), worker_round(0, 1),
         worker_round(1, 0, "skipped")])
    assert restored.down == Bits(80, 120, 2400), "the sum of the rows"
    assert restored.delivered == accounting.delivered == {0: 0, 1: 1} and restored.worker_down == {
        1: 12
    }
    assert restored.up == Bits(160, 300, 1600) and restored.worker_up == {0: 40, 1: 40}
