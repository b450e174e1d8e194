"""Cohorts on the master, moved by hand: who is sent what, who is missing, who departs, and what a
master that starts again knows (algorithm.md 1, Cohorts; protocol.md 3).
"""

import numpy as np
import pytest

from flq.algorithm import downlink
from flq.master.run.recovery import Replayer, pack_checkpoint, unpack_checkpoint
from flq.master.status import status
from flq.protocol import round_machine as machine
from tests.master.hands import PATIENCE_S, Hand, play_without
from tests.master.test_service import check_sums, refused
from tests.vectors import same_bits

HALVES = ("total_workers=4", "quorum=all", "max_rounds=20", "cohorts=2")
THIRDS = ("total_workers=5", "quorum=all", "max_rounds=20", "cohorts=3")
DEADLINE = ("total_workers=4", "quorum=deadline", "max_rounds=50", "round_deadline_s=30",
            "worker_timeout_s=600", "cohorts=2")


def turn(run, hands):
    """The hands whose turn the open round is."""
    number, round_ = run.config.system.cohorts, run.state.round
    return [hand for hand in hands if (hand.worker - round_) % number == 0]


def play(run, hands, rounds=1):
    return [run.play(*turn(run, hands)) for _ in range(rounds)]


def come(run, *workers):
    """All of these are there when the round opens."""
    run.service.pause()
    hands = run.hands(*workers)
    run.service.resume()
    return hands


def test_each_cohort_has_a_chain_of_its_own(start):
    run = start(*THIRDS, "b_down=4", "downlink=laq")
    hands = run.hands(0, 1, 2, 3, 4)
    held = {cohort: run.learner.initial()[0] for cohort in range(3)}
    settings = downlink.settings_from(run.config, run.learner.layout)
    for round_ in range(7):
        mine = turn(run, hands)
        assert [hand.worker for hand in mine] == [w for w in range(5) if w % 3 == round_ % 3]
        for hand in hands:
            came = hand.fetch()
            if hand not in mine:
                assert came is None, "who waits is sent nothing"
            elif round_:
                (frame,) = came
                assert (frame.header.round, frame.header.base) == (round_, max(0, round_ - 3))
            assert hand not in mine or same_bits(hand.params, held[round_ % 3])
        (record,) = play(run, hands)
        assert record.selected == tuple(hand.worker for hand in mine)
        assert (record.cohort, record.missing) == (round_ % 3, ())
        model, cohort = run.service.run.model, (round_ + 1) % 3
        _, held[cohort] = downlink.encode(model.params, held[cohort], round_, settings)
        assert same_bits(model.broadcast, held[cohort])
        assert [same_bits(waiting.broadcast, held[(round_ + 2 + place) % 3])
                for place, waiting in enumerate(model.waiting)] == [True, True]
        members = [hand for hand in hands if hand.worker in model.members]
        assert len(members) == min(5, len([w for w in range(5) if w % 3 <= round_]))
        check_sums(run, members)
    assert not same_bits(held[0], held[1]) and not same_bits(held[1], held[2])


def test_each_version_counts_for_the_receivers_of_its_cohort(start):
    run = start(*THIRDS, "b_down=4", "entropy_coding_down=false", "downlink=laq")
    hands = run.hands(0, 1, 2, 3, 4)
    records = play(run, hands, 5)
    assert [record.float32_bits_up for record in records] == [32 * 40 * n for n in (2, 2, 1, 2, 2)]
    bits = [record.payload_bits_down for record in run.service.run.history.rows()]
    assert bits == [2 * 288, 288, 2 * 288, 2 * 288, 0]  # of versions 1 to 5
    assert run.service.run.history.accounting.down.float32 == 7 * 32 * 40
    assert run.service.run.history.accounting.worker_down == {0: 288, 1: 2 * 288, 2: 288, 3: 288,
                                                              4: 2 * 288}


def test_who_waits_may_answer_nothing(start):
    run = start(*HALVES)
    hands = run.hands(0, 1, 2, 3)
    answer = Hand(run, 1, instance=hands[1].instance)
    document = answer.register()
    assert (document["owes"], document["have"], document["round"]) == ("nothing", 0, 0)
    answer.train()
    refused("not_participant", answer.upload)
    answer.proposal = None
    (record,) = play(run, hands)
    assert record.selected == (0, 2)
    assert answer.fetch()[0].header.round == 1


def test_who_missed_turns_gets_the_differences_of_its_own_chain_or_a_keyframe(start):
    run = start(*DEADLINE, "b_down=4", "entropy_coding_down=false", "downlink=laq")
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 4)
    for _ in range(2):  # worker 3 misses rounds 5 and 7
        play(run, hands)
        play_without(run, hands[1])
    play(run, hands)
    frames = hands[3].fetch()
    assert [(frame.header.base, frame.header.round) for frame in frames] == [(3, 5), (5, 7), (7, 9)]
    assert frames[-1].header.params_hash == run.service.run.model.params_hash
    hands[1].version, hands[1].params = 8, hands[0].params  # what another cohort holds
    (frame,) = hands[1].fetch()
    assert frame.keyframe and frame.header.round == 9


def test_missing_and_absent_count_turns(start):
    run = start(*DEADLINE, "absent_rounds=2")
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 3)
    assert play_without(run, hands[1]).missing == (3,)
    play(run, hands)
    assert run.accounts[3].absent == 1 and run.service.run.model.members == (0, 1, 2, 3)
    assert play_without(run, hands[1]).missing == (3,)
    assert run.accounts[3].absent == 2 and run.accounts[3].clock == 2
    (record,) = play(run, hands)  # a round of the other cohort, with which it departs
    assert record.missing == () and record.members == 3
    hands[3].departs()
    check_sums(run, hands[:3])
    assert status(run.service)["worker_status"]["3"]["missing"] == 2


@pytest.mark.parametrize("how", ["leave", "remove"])
def test_who_goes_while_it_waits_takes_its_reference_along(start, how):
    run = start(*DEADLINE)
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 4)
    if how == "leave":
        hands[3].leave()
    else:
        run.service.remove(3)
        hands[3].departs()
    (record,) = play(run, hands)
    assert record.selected == (0, 2) and record.members == 3
    check_sums(run, hands[:3])
    assert run.play(hands[1]).missing == ()
    check_sums(run, hands[:3])
    if how == "leave":
        hands[3].register()
        play(run, hands, 2)
        check_sums(run, hands)


def test_a_turn_that_nobody_takes_is_a_step_along_what_is_remembered(start):
    run = start(*DEADLINE, "lr=0.5", "server_optimizer=sgd")
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 4)
    hands[0].leave()
    hands[2].leave()
    before = run.service.run.model
    run.wait(lambda state: state.phase == machine.WAITING, "nobody of the cohort is there")
    run.advance(30.0)
    run.wait_for_round(5)
    record = run.service.run.history.rows()[4]
    assert record.selected == record.missing == () and (record.rho, record.members) == (1.0, 2)
    sums = before.reference_sum - sum(hand.weight * hand.uplink.memory for hand in hands[::2])
    weight = sum(hand.weight for hand in hands[1::2])
    step = np.float32(0.5) * (sums / weight).astype(np.float32)
    np.testing.assert_allclose(run.service.run.model.params, before.params - step, rtol=1e-5)
    check_sums(run, hands[1::2])
    hands[0].register()
    play(run, hands[:2] + hands[3:], 2)
    check_sums(run, hands[:2] + hands[3:])


def test_with_quorum_all_the_turns_of_a_cohort_that_was_removed_pass(start):
    run = start(*HALVES)
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 2)
    for hand in hands[::2]:
        run.service.remove(hand.worker)
        hand.departs()
    run.wait_for_round(3)
    (record,) = play(run, hands[1::2])
    assert record.selected == (1, 3) and run.wait_for_round(5)
    check_sums(run, hands[1::2])
    assert [len(row.selected) for row in run.service.run.history.rows()] == [2, 2, 0, 2, 0]


def test_a_late_update_is_taken_in_the_workers_own_turn(start):
    run = start(*DEADLINE, "late_updates=apply")
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 3)
    hands[3].train()
    play_without(run, hands[1])
    assert hands[3].ask().verdict == "open", "it is the turn of the others"
    assert hands[3].upload().verdict == "open"
    (record,) = play(run, hands)
    assert record.selected == (0, 2)
    assert hands[3].ask(PATIENCE_S).verdict == "granted" and hands[3].upload().verdict == "open"
    hands[1].train()
    hands[1].upload()
    run.wait_for_round(6)
    assert [hand.settle().verdict for hand in (hands[1], hands[3])] == ["accepted", "accepted"]
    check_sums(run, hands)
    rows = [row for row in run.store.worker_rounds() if row["worker"] == 3]
    assert [(row["round"], row["state"], row["staleness"]) for row in rows] == [
        (1, "accepted", 0), (3, "missing", 0), (5, "accepted", 2)]
    assert run.service.run.history.rows()[3].late == (3,)
    play(run, hands, 2)
    check_sums(run, hands)


def test_clocks_and_budgets_are_those_of_the_cohort(start):
    run = start(*HALVES, "sel_clients=1", "C=2")
    hands = run.hands(0, 1, 2, 3)
    records = play(run, hands, 12)
    for record in records:
        assert len(record.selected) == len(record.refused) == 1
        assert {worker % 2 for worker in record.selected + record.refused} == {record.cohort}
    selected = [[record.selected[0] for record in records if record.cohort == cohort]
                for cohort in range(2)]
    for chosen in selected:  # nobody is refused for more than C of its own turns in a row
        assert all(len(set(chosen[turn:turn + 3])) == 2 for turn in range(len(chosen) - 2))
    check_sums(run, hands)


def test_the_last_model_goes_to_the_cohort_that_would_play_next_and_is_tested(start):
    run = start(*HALVES[:2], "max_rounds=3", "cohorts=2")
    hands = run.hands(0, 1, 2, 3)
    play(run, hands, 3)
    assert run.state.phase == machine.FINISHED and run.service.wait_for_end(PATIENCE_S)
    last, model = run.service.run.history.rows()[2], run.service.run.model
    assert last.accuracy == run.learner.evaluate(*model.result).accuracy
    for hand in hands[::2]:
        refused("finished", hand.fetch)
    for hand in hands[1::2]:
        (frame,) = hand.fetch()
        assert frame.final and frame.header.base == 1 and same_bits(hand.params, model.broadcast)
        refused("finished", hand.fetch)
    shown = status(run.service)
    assert shown["cohorts"] == 2
    assert [worker["cohort"] for worker in shown["worker_status"].values()] == [0, 1, 0, 1]


def test_the_status_says_whose_turn_it_is(start):
    run = start(*HALVES)
    hands = run.hands(0, 1, 2, 3)
    for cohort in (0, 1, 0):
        shown = status(run.service)
        assert shown["cohort"] == cohort
        states = [worker["state"] for worker in shown["worker_status"].values()]
        assert states == [("waiting", "training")[worker % 2 == cohort] for worker in range(4)]
        play(run, hands)


def held(model):
    """What the cohorts hold whose turn it is not."""
    return [waiting.broadcast for waiting in model.waiting] + [
        waiting.activity for waiting in model.waiting if waiting.activity is not None]


@pytest.mark.parametrize("settings", [
    THIRDS, (*THIRDS, "sel_clients=1"), (*THIRDS, "downlink=rd", "entropy_coding_down=context"),
    (*THIRDS, "mode=bbit", "b_down=0"),
    (*THIRDS, "server_optimizer=adam", "thr_scale=1")
])
def test_a_run_that_starts_again_after_every_round_is_the_run_that_never_did(start, settings):
    whole = start(*settings, name="whole")
    play(whole, whole.hands(0, 1, 2, 3, 4), 8)
    run, hands = start(*settings, name="cut"), None
    for _ in range(8):
        hands = [run.hand(worker, like=None if hands is None else hands[worker])
                 for worker in range(5)]
        play(run, hands)
        run.close()
        run = start(*settings, name="cut")
    one, other = run.service.run.model, whole.service.run.model
    assert one.params_hash == other.params_hash and run.accounts == whole.accounts
    assert len(one.waiting) == 2
    for left, right in zip((one.params, one.broadcast, *held(one)),
                           (other.params, other.broadcast, *held(other))):
        assert same_bits(left, right)
    unmeasured = {"round_time_s": 0.0, "closed_at": 0.0, "accuracy": None, "loss": None}
    for left, right in zip(run.service.run.history.rows(), whole.service.run.history.rows()):
        assert left._replace(**unmeasured) == right._replace(**unmeasured)
    assert run.service.run.history.accounting.to_json(
        None) == whole.service.run.history.accounting.to_json(None)


def test_a_master_that_starts_again_knows_what_every_cohort_holds(start):
    run = start(*THIRDS)
    hands = run.hands(0, 1, 2, 3, 4)
    play(run, hands, 7)
    run.close()
    again = start(*THIRDS)
    for hand in hands:
        document = Hand(again, hand.worker, like=hand).registration()
        registered = again.hand(hand.worker, like=hand)
        (state,) = document["states"]
        assert state["round"] == hand.version > 0
        assert Hand(again, hand.worker, like=registered).register()["have"] == hand.version
    lied = Hand(again, 0, like=hands[0])
    lied.version = 5  # a version of another cohort, whose hash it does not have either
    assert lied.register()["have"] == -1


@pytest.mark.parametrize("settings", [
    THIRDS, (*THIRDS, "downlink=rd", "entropy_coding_down=context")
])
def test_a_state_with_cohorts_is_unpacked_as_it_was_packed_and_recovered_from(start, settings):
    run = start(*settings)
    hands = run.hands(0, 1, 2, 3, 4)
    play(run, hands, 4)
    middle = run.service.run.model
    play(run, hands, 4)
    model = run.service.run.model
    unpacked = unpack_checkpoint(pack_checkpoint(middle)[1])
    assert len(held(unpacked)) == len(held(middle)) == (4 if "downlink=rd" in settings else 2)
    assert all(same_bits(*pair) for pair in zip(held(unpacked), held(middle)))
    run.close()
    again = start(*settings)
    again.store.add_checkpoint(middle.version, *pack_checkpoint(middle))
    replayer = Replayer("run-1", again.store, again.learner.layout, again.service.run.settings)
    first = unpacked._replace(version=0)  # not what it starts from
    found = replayer.recover(again.config, first).model
    assert found.params_hash == model.params_hash
    assert all(same_bits(*pair) for pair in zip(held(found), held(model)))
