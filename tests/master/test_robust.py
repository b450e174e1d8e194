"""A served run with a rule against bad workers: too few updates, another number of bad workers, and
references that take too much memory.
"""

import pytest

from flq.errors import ConfigError, ProtocolError
from flq.master.status import status
from flq.master.stored.audit import replay
from tests.master.hands import play_without
from tests.system.quadratic import Quadratic

SIX = ("total_workers=6", "quorum=deadline", "min_workers=2", "max_rounds=50",
       "round_deadline_s=30", "worker_timeout_s=600", "aggregation=median")


def moved(run, *hands):
    """Whether the next round made a step."""
    run.play(*hands)
    return run.service.run.history.rows()[-1].direction_norm2 > 0


def updates(run):
    """How many the rule needs, and had in the last round."""
    shown = status(run.service)
    return shown["updates_needed"], shown["updates_seen"]


def warnings(caplog):
    return [message for message in caplog.messages if "the model stays as it is" in message]


def test_a_run_with_too_few_updates_says_so_and_goes_on_when_more_come(start, caplog):
    run = start(*SIX, "bad_workers=2")
    hands = run.hands(0, 1)
    assert updates(run) == (5, None), "before the first round"
    assert not moved(run, *hands) and not moved(run, *hands)
    assert updates(run) == (5, 2)
    assert warnings(caplog) == [
        "round 0: the model stays as it is: aggregation median with 2 bad workers needs the "
        "updates of 5 workers and has those of 2; it goes on by itself when more come, or with a "
        "smaller flq_algorithm.bad_workers (PATCH /config)"]
    newcomers = run.hands(2, 3, 4)
    assert not moved(run, *hands), "they came to an open round"
    hands += newcomers
    assert moved(run, *hands) and updates(run) == (5, 5)
    hands.pop().leave()
    assert not moved(run, *hands) and len(warnings(caplog)) == 2, "each time that it begins"
    with pytest.raises(ProtocolError, match="needs more workers"):
        run.service.change({"flq_algorithm.bad_workers": 3}, "test")
    run.service.change({"flq_algorithm.bad_workers": 1}, "test")
    assert updates(run) == (3, 4)
    assert moved(run, *hands)
    model = run.service.run.model.params_hash.hex()
    run.close()
    again = start(*SIX, "bad_workers=2")
    assert again.service.run.model.params_hash.hex() == model
    assert updates(again) == (3, 4), "what was changed is still in force, and what came is known"
    again.close()
    assert replay(run.directory, Quadratic, False, lambda line: None, lambda *_: None) == model


@pytest.mark.parametrize("memory, seen", [("reference", 4), ("none", 3), ("residual", 3)])
def test_a_rule_sees_the_members_or_without_references_the_uploads_of_the_round(start, memory,
                                                                                seen):
    run = start(*SIX, "min_workers=3", "bad_workers=1", "memory=" + memory)
    hands = run.hands(0, 1, 2, 3)
    run.play(*hands)  # the last one comes to an open round
    run.play(*hands)
    play_without(run, *hands[:3])
    assert updates(run) == (3, seen)


def test_the_mean_needs_one_update_and_never_says_that_it_has_too_few(start, caplog):
    run = start("total_workers=3", "quorum=all", "max_rounds=9")
    hands = run.hands(0, 1, 2)
    assert moved(run, *hands) and not warnings(caplog)
    assert status(run.service)["aggregation"] == "mean" and updates(run) == (1, None)


def test_references_that_take_too_much_memory_are_refused_before_the_run_begins(start):
    with pytest.raises(ConfigError, match=r"at most 0 MiB \(system.references_mb\); got 1 MiB"):
        start(*SIX, "bad_workers=1", "references_mb=0")
