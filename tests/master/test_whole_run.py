"""The counts of a run are those of the whole run: rows add up to the totals, whoever was started
again, and a finished run is closed.
"""

import pytest

from flq.algorithm.round import NonFiniteError
from flq.errors import ProtocolError
from flq.master.status import status
from flq.master.store.events import KeyChange, Leave, Pause, Remove, Resume
from flq.master.store.results import read_run, run_of
from flq.master.store.run_store import RunStore, StoreError
from flq.protocol import round_machine as machine
from flq.reports.run_files import DIRECTIONS, KINDS, is_written, write_run
from flq.simulation.run import simulate
from tests.master.hands import PATIENCE_S
from tests.master.test_service import ALL, DEADLINE, Gate, block, check_sums, refused

WIRED = (*ALL, "max_rounds=4", "eval_every=1")


class Wire:
    """What the server's counter is: the bits of the whole run, that grow as the test says."""

    def __init__(self):
        self.bits = [0, 0]

    def __call__(self):
        return tuple(self.bits)

    def travel(self, up, down):
        self.bits[0] += up
        self.bits[1] += down


def totals(run):
    """As /status shows them."""
    return status(run.service)["bits"]


def sums(rows):
    columns = {(direction, kind): [record[f"{kind}_bits_{direction}"] for record in rows]
               for direction in DIRECTIONS for kind in KINDS}
    return {
        direction: {
            kind: None if None in columns[direction, kind] else sum(columns[direction, kind])
            for kind in KINDS
        } for direction in DIRECTIONS
    }


def come(run, *workers, like=None):
    """All of these are there when the round opens. No operator did this: nothing is stored."""
    with run.service.locked() as unpaused:
        unpaused.pause(run.service.now())
    hands = [run.hand(worker, like=like[worker] if like else None) for worker in workers]
    with run.service.locked() as paused:
        paused.resume(run.service.now())
    return hands


def check(run):
    """Rows, /status, the store and the files agree."""
    run.service.settle()
    stored = run_of(run.store)
    assert stored.rounds == [record.to_json() for record in run.service.run.history.rows()]
    assert totals(run) == sums(stored.rounds) == stored.summary["bits"]
    return stored


def play(run, hands, rounds, wire=None):
    for _ in range(rounds):
        if wire is not None:
            wire.travel(1000, 400)
        run.play(*hands)


def test_wire_bits_go_on_where_the_last_master_ended(start):
    wire = Wire()
    run = start(*WIRED, wire=wire)
    hands = come(run, 0, 1, 2)
    play(run, hands, 2, wire)
    # after the last round: stored by nobody when the master is killed, but the counter's file knows
    wire.travel(30, 20)
    run.close()
    again = start(*WIRED, wire=wire)
    assert totals(again)["up"]["wire"] == 2030 and totals(again)["down"]["wire"] == 820
    hands = come(again, 0, 1, 2, like=hands)
    play(again, hands, 2, wire)
    assert again.service.wait_for_end(PATIENCE_S)
    wire.travel(5, 5)
    stored = check(again)
    assert [record["wire_bits_up"] for record in stored.rounds] == [1000, 1000, 1030, 1005]
    assert stored.summary["bits"]["up"]["wire"] == 4035 and stored.summary["phase"] == "FINISHED"


@pytest.mark.parametrize("rounds", [2, 4])
def test_a_run_that_was_simulated_in_part_has_no_wire_bits(start, rounds):
    simulated = start(*WIRED)
    hands = come(simulated, 0, 1, 2)
    play(simulated, hands, rounds)
    if rounds == 4:
        assert simulated.service.wait_for_end(PATIENCE_S)
    check(simulated)
    simulated.close()
    wire = Wire()
    run = start(*WIRED, wire=wire)
    wire.travel(500, 500)
    if rounds < 4:
        play(run, come(run, 0, 1, 2, like=hands), 4 - rounds, wire)
        assert run.service.wait_for_end(PATIENCE_S)
        wire.travel(5, 5)
    stored = check(run)
    for direction in DIRECTIONS:
        assert totals(
            run)[direction]["wire"] is None and stored.summary["bits"][direction]["wire"] is None


def test_a_finished_run_that_is_served_again_changes_no_byte(start):
    wire = Wire()
    run = start(*WIRED, wire=wire)
    hands = come(run, 0, 1, 2)
    play(run, hands, 4, wire)
    for hand in hands[:2]:
        hand.fetch()
    assert run.service.wait_for_end(PATIENCE_S)
    stored = check(run)
    write_run(run.directory, stored)
    run.close()
    again = start(*WIRED, wire=wire)
    wire.travel(7000, 7000)
    refused("finished", again.hand, 0)
    refused("finished", again.hand, 2)
    again.service.settle()
    assert run_of(again.store) == stored and is_written(again.directory, stored)
    assert totals(again) == stored.summary["bits"], "and /status shows what the results say"
    assert read_run(again.directory) == stored


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_delivered_after_the_last_round_is_stored(start, killed):
    """Who has the last model ends: nobody would tell the next master of it."""
    run = start(*WIRED)
    hands = come(run, 0, 1, 2)
    play(run, hands, 4)
    before = run.service.run.history.rows()[3].payload_bits_down
    for hand in hands:
        assert hand.fetch()[0].final
    assert run.service.wait_for_end(PATIENCE_S)
    if not killed:
        check(run)
    told, last = totals(run), run.service.run.history.rows()[3].payload_bits_down
    assert before == 0 < last == 3 * (last // 3)
    run.close()
    assert read_run(run.directory).summary["phase"] == "FINISHED"
    again = start(*WIRED)
    assert again.service.run.history.rows()[3].payload_bits_down == last
    assert totals(again) == told and check(again).summary["phase"] == "FINISHED"


def test_a_finished_run_that_is_served_again_misses_only_who_missed_its_end(start):
    run = start(*DEADLINE, "max_rounds=3", "min_workers=2")
    hands = come(run, 0, 1, 2)
    play(run, hands, 2)
    for hand in hands[:2]:
        hand.fetch()
        hand.train()
        hand.upload()
    run.advance(30.0)
    run.wait_for_round(3)
    run.close()
    shown = status(start(*DEADLINE, "max_rounds=3", "min_workers=2").service)["worker_status"]
    assert [shown[worker]["state"] for worker in "012"] == ["done", "done", "away"]


@pytest.mark.parametrize("who", ["master", "worker"])
def test_who_went_before_the_last_model_was_sent_is_sent_it_as_it_would_have_been(start, who):
    whole, run = start(*WIRED, name="whole"), start(*WIRED)
    for played in (whole, run):
        hands = come(played, 0, 1, 2)
        play(played, hands, 4)
        assert hands[0].fetch()[0].final
        if played is run and who == "master":
            run.close()
            run = start(*WIRED)
            hands[1:] = [run.hand(worker, like=hands[worker]) for worker in (1, 2)]
            refused("finished", run.hand, 0, like=hands[0])
        elif played is run:
            hands[2] = run.hand(2, like=hands[2])
        for hand in hands[1:]:
            assert hand.fetch()[0].final
    refused("finished", run.hand, 1, like=hands[1])
    refused("finished", run.hand, 2)
    assert totals(run) == totals(whole)
    assert run.service.wait_for_end(PATIENCE_S)
    check(run)


def test_a_run_that_is_interrupted_before_the_last_model_was_sent_is_not_closed_yet(start):
    whole, run = start(*WIRED, name="whole"), start(*WIRED)
    for played in (whole, run):
        hands = come(played, 0, 1, 2)
        play(played, hands, 4)
        assert played.service.wait_for_end(PATIENCE_S)
        for hand in hands[:1] if played is run else hands:
            assert hand.fetch()[0].final
    run.service.halt()
    run.service.settle(interrupted=True)
    assert run_of(run.store).summary["phase"] == "FINISHED"
    run.close()
    run = start(*WIRED)
    for worker in (1, 2):
        assert run.hand(worker, like=hands[worker]).fetch()[0].final
    assert totals(run) == totals(whole)
    run.service.settle(interrupted=True)
    told = run_of(run.store)
    run.close()
    run = start(*WIRED)
    assert run.service.run.history.over and run_of(run.store) == told
    refused("finished", run.hand, 1, like=hands[1])


@pytest.mark.parametrize("interrupted", [True, False])
def test_rows_sum_to_the_total_after_restarts_with_stragglers(start, interrupted):
    """Worker 3 is away for two rounds and two masters, and comes back with a version that no round
    counted.
    """
    run = start(*DEADLINE)
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 2)
    hands[3].fetch()
    for round_ in (2, 3):
        for hand in hands[:3]:
            hand.train()
            hand.upload()
        run.advance(31)
        run.wait_for_round(round_ + 1)
        for hand in hands[:3]:
            hand.settle()
        if interrupted:
            run.service.settle()
        run.close()
        run = start(*DEADLINE)
        hands[:3] = come(run, 0, 1, 2, like=hands)
    run.hand(3, like=hands[3])
    play(run, hands[:3], 1)
    check(run)


def late(run, hands):
    """One round that closes without hands[1], whose upload comes after it."""
    round_ = run.state.round
    for hand in hands:
        hand.train()
    for hand in hands:
        if hand.worker != 1:
            hand.upload()
    run.advance(31)
    run.wait_for_round(round_ + 1)
    assert hands[1].upload().verdict == "late"
    for hand in hands:
        hand.settle()


@pytest.mark.parametrize("more", [0, 1])
def test_late_marks_survive_the_master(start, more):
    """Also one that is killed before another round has closed: the worker was told, and asks no
    more.
    """
    run = start(*DEADLINE)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    late(run, hands)
    assert run.service.run.history.row(1).late == (1,)
    play(run, hands, more)
    run.close()
    assert read_run(run.directory).summary["phase"] == "UNFINISHED"
    again = start(*DEADLINE)
    assert again.service.run.history.row(1).late == (1,) and status(
        again.service)["worker_status"]["1"]["late"] == 1
    assert run_of(again.store).summary["late"] == 1


def test_a_late_mark_that_comes_while_a_round_is_being_closed_is_kept(start):
    """That round was begun with the row as it was before, and is stored after the mark."""
    run = start(*DEADLINE, store=Gate)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    for hand in hands:
        hand.train()
    for hand in (hands[0], hands[2]):
        hand.upload()
    run.advance(31)
    run.wait_for_round(2)
    for hand in (hands[0], hands[2]):
        hand.settle()
    run.store.held = True
    for hand in (hands[0], hands[2]):
        hand.train()
        hand.upload()
    run.advance(31)
    assert run.store.reached.wait(PATIENCE_S)
    assert hands[1].upload().verdict == "late"
    let_go(run)
    run.wait_for_round(3)
    assert run.service.run.history.row(1).late == (1,)
    run.close()
    again = start(*DEADLINE)
    assert again.service.run.history.row(1).late == (1,)
    check(again)


def test_who_is_absent_is_missing_in_every_round_until_it_leaves_or_is_removed(start):
    run = start(*DEADLINE, "worker_timeout_s=60", "absent_rounds=2", "round_deadline_s=1000")
    hands = come(run, 0, 1, 2, 3)
    play(run, hands, 1)
    for _ in range(3):  # worker 3 says nothing any more
        run.advance(25)
        for hand in hands[:3]:
            run.service.heartbeat(hand.session)
    run.wait(lambda state: 3 not in state.present, "worker 3 is away")
    for round_ in range(1, 6):
        assert run.play(*hands[:3]).missing == (3,), round_
    assert (3 not in run.service.run.model.members
            ), "its reference has left the average, and it is missing still"
    assert status(run.service)["worker_status"]["3"]["missing"] == 5
    run.service.leave(hands[2].session)
    assert run.play(*hands[:2]).missing == (3,), "who said goodbye is not"
    run.close()
    again = start(*DEADLINE, "worker_timeout_s=60", "absent_rounds=2", "round_deadline_s=1000")
    hands[:2] = come(again, 0, 1, like=hands)
    assert again.play(*hands[:2]).missing == (3,)
    again.hand(2)
    again.service.remove(3)
    for hand in hands[:2]:
        hand.train()
        hand.upload()
    again.advance(1001)
    again.wait_for_round(9)
    assert again.service.run.history.row(8).missing == (
        2,), "it came back, and worker 3 was removed"
    assert status(again.service)["worker_status"]["3"]["missing"] == 7


def test_a_newcomer_is_not_missing_in_the_round_that_it_came_into(start):
    run = start(*DEADLINE)
    hands = come(run, 0, 1)
    for hand in hands:
        hand.train()
    hands[0].upload()
    run.hand(2)
    hands[1].upload()
    run.wait_for_round(1)
    assert run.service.run.history.row(0).missing == ()


# --- what an operator was told stands


def test_a_change_that_was_answered_survives_the_master(start):
    run = start(*ALL)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    assert run.service.change({"lr": 0.25, "max_rounds": 3}, "test").effective_round == 1
    run.close()
    again = start(*ALL)
    assert again.service.run.config.model.lr == 0.25 and again.state.settings.max_rounds == 3
    hands = come(again, 0, 1, 2, like=hands)
    play(again, hands, 2)
    assert again.state.phase == machine.FINISHED and [
        record.server_lr for record in again.service.run.history.rows()
    ][1:] == [0.25, 0.25]
    events = [
        event for stored in again.store.rounds() for event in stored.events
        if isinstance(event, KeyChange)
    ]
    assert len(events) == 2, "once"


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_pause_that_was_answered_survives_the_master(start, rounds):
    run = start(*ALL)
    hands = come(run, 0, 1, 2)
    play(run, hands, rounds)
    for order in (run.service.pause, run.service.pause, run.service.resume, run.service.resume,
                  run.service.pause):
        order()
    assert [event for event in run.store.events() if isinstance(event, (Pause, Resume))
            ] == [Pause(), Resume(), Pause()], "what was so already is no news"
    run.close()
    again = start(*ALL)
    assert again.state.paused and again.state.error is None and status(again.service)["paused"]
    hands = [again.hand(worker, like=hands[worker]) for worker in range(3)]
    for hand in hands:
        assert again.service.heartbeat(hand.session) == "paused"
    again.advance(50.0)
    assert again.state.phase == machine.WAITING and again.state.round == rounds
    again.service.resume()
    play(again, hands, 1)
    assert again.service.run.history.row(rounds).round_time_s < 50.0
    again.close()
    assert not start(*ALL).state.paused


def test_a_pause_with_an_error_is_tried_again_by_the_next_master(start):
    settings = ("total_workers=1", "quorum=all", "max_rounds=5", "lr=1e6", "max_norm_ratio=0")
    run = start(*settings)
    hand = run.hand(0)
    hand.train(1e35)
    hand.upload()
    assert run.wait(lambda state: state.paused, "it pauses").error
    run.close()
    assert not start(*settings).state.paused


def test_a_paused_run_that_is_simulated_to_its_end_goes_on(start):
    run = start(*ALL)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    run.service.pause()
    run.close()
    _, played = simulate(run.config, str(run.directory), run.learner, resume=True)
    assert played.summary["rounds"] == run.config.system.max_rounds


@pytest.mark.parametrize("settings", [ALL, DEADLINE])
def test_a_removal_that_was_answered_survives_the_master(start, settings):
    whole = start(*settings, name="whole")
    cut = start(*settings, name="cut")
    models = []
    for run in (whole, cut):
        hands = come(run, 0, 1, 2)
        play(run, hands, 2)
        run.service.remove(1)
        if run is cut:
            run.close()
            run = start(*settings, name="cut")
            assert run.state.removed == {1} and run.service.run.config == run.config
            hands = come(run, 0, 2, like=hands)
            refused("removed", run.hand, 1)
        else:
            hands = [hands[0], hands[2]]
        play(run, hands, 2)
        models.append(run.service.run.model)
    assert models[0].params_hash == models[
        1].params_hash and models[0].members == models[1].members == (0, 2)
    assert (models[0].reference_sum == models[1].reference_sum).all()


@pytest.mark.parametrize("rounds", [0, 2])
@pytest.mark.parametrize("before, after", [("sel_clients=0", 2), ("sel_clients=2", 0)])
def test_the_open_round_has_the_phases_that_its_workers_were_told_also_for_the_next_master(
        start, rounds, before, after):
    """A worker with the update of that round would send it as it was told for ever, or its bid
    would be taken for all it has.
    """
    run = start(*ALL, before)
    hands = come(run, 0, 1, 2)
    play(run, hands, rounds)
    two_phase = run.state.two_phase
    assert two_phase is (after == 0)
    run.service.change({"sel_clients": after}, "test")
    run.close()
    again = start(*ALL, before)
    hands = come(again, 0, 1, 2, like=hands)
    assert again.state.two_phase is two_phase and [bool(hand.terms.two_phase)
                                                   for hand in hands] == 3 * [two_phase]
    play(again, hands, 1)
    assert again.state.two_phase is not two_phase and again.service.run.history.row(
        rounds).missing == ()
    play(again, hands, 1)


def test_a_removal_before_the_first_round_survives_the_master(start):
    run = start(*ALL)
    come(run, 0, 1, 2)
    run.service.remove(2)
    run.close()
    assert start(*ALL).state.removed == {2}


@pytest.mark.parametrize(
    "act",
    [lambda service: service.change({"lr": 0.25}, "test"), lambda service: service.remove(1),
     lambda service: service.pause()], ids=["change", "remove", "pause"])
def test_what_cannot_be_stored_is_refused_and_changes_nothing(start, act):
    class Full(RunStore):
        def add_events(self, round_, events):
            self._db.execute(
                f"PRAGMA max_page_count={self._db.execute('PRAGMA page_count').fetchone()[0]}")
            super().add_events(round_, [*events, KeyChange("padding", "x" * 10**6, None, None)])

    run = start(*ALL, store=Full)
    come(run, 0, 1, 2)
    before = run.service.run.config, run.state, run.accounts
    with pytest.raises(Exception, match="nothing was changed"):
        act(run.service)
    assert (run.service.run.config, run.state, run.accounts) == before and run.store.events() == []


def test_nothing_can_be_changed_when_the_run_is_over(start):
    run = start(*ALL, "max_rounds=2")
    play(run, come(run, 0, 1, 2), 2)
    for changes in ({"max_rounds": 9}, {"lr": 0.5}):
        error = refused("finished", run.service.change, changes, "test")
        assert "the run is over after 2 rounds" in str(error)
    assert "the run is over" in str(refused("finished", run.service.remove,
                                            1)), "it would be forgotten by the next start"
    assert run.service.run.config.system.max_rounds == 2 and run.store.events(
        2) == [] and not run.state.removed


def held(run, hands):
    """The round has its answers and is being closed."""
    run.store.held = True
    for hand in hands:
        hand.train()
        hand.upload()
    assert run.store.reached.wait(PATIENCE_S)


def let_go(run):
    run.store.held = False
    run.store.go.set()


def test_a_change_while_a_round_is_being_closed_counts_from_the_next_one(start):
    run = start(*ALL, store=Gate)
    hands = come(run, 0, 1, 2)
    held(run, hands)
    assert run.service.change({"lr": 0.25}, "test").effective_round == 1
    error = refused("bad_value", run.service.change, {"max_rounds": 1}, "test")
    assert error.expected == "more than 1"
    run.service.change({"max_rounds": 2}, "test")
    let_go(run)
    run.wait_for_round(1)
    for hand in hands:
        hand.settle()
    play(run, hands, 1)
    assert [record.server_lr == 0.25 for record in run.service.run.history.rows()] == [False, True]
    assert run.state.phase == machine.FINISHED
    assert hands[0].fetch()[-1].final, "and everybody hears that the run is over"
    run.close()
    again = start(*ALL)
    assert again.state.phase == machine.FINISHED, "a restart does not play on"


@pytest.mark.parametrize("phase", ["WAITING", "BIDDING", "UPLOADING", "AGGREGATING", "BLOCKED"])
def test_a_run_that_is_made_shorter_ends_where_it_was_told_in_every_phase(start, phase):
    settings = (*ALL, "max_rounds=9", "sel_clients=2" if phase == "UPLOADING" else "sel_clients=0")
    run = start(*settings, store=Gate)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    if phase == "WAITING":
        run.close()
        run = start(*settings)
    elif phase == "UPLOADING":
        for hand in hands:
            hand.train()
            hand.bid()
    elif phase == "AGGREGATING":
        held(run, hands)
    elif phase == "BLOCKED":
        block(run, hands)
    assert run.state.phase == phase
    last = 2 if phase == "AGGREGATING" else 1
    error = refused("bad_value", run.service.change, {"max_rounds": last}, "test")
    assert error.expected == f"more than {last}"
    assert run.service.change({"max_rounds": last + 1}, "test").effective_round == last
    if phase == "WAITING":
        hands = come(run, 0, 1, 2, like=hands)
        play(run, hands, 1)
    elif phase == "BIDDING":
        play(run, hands, 1)
    elif phase == "UPLOADING":
        for hand in hands:
            if machine.owes(run.state, hand.worker) == "upload":
                hand.upload()
    elif phase == "AGGREGATING":
        let_go(run)
        run.wait_for_round(2)
        for hand in hands:
            hand.settle()
        play(run, hands, 1)
    else:
        run.store.full = False
        run.advance(machine.BLOCKED_RETRY_S)
    run.wait(lambda state: state.phase == machine.FINISHED, "the run is over")
    assert len(run.service.run.history) == last + 1 and hands[0].fetch()[-1].final
    run.close()
    assert start(*settings).state.phase == machine.FINISHED


class Dying(Gate):
    """A store of a process that is killed before the round that it is closing is stored."""

    def commit_round(self, commit):
        if self.held:
            self.reached.set()
            assert self.go.wait(PATIENCE_S)
            raise StoreError("killed")
        super().commit_round(commit)


@pytest.mark.parametrize("settings", [ALL, (*ALL, "max_rounds=4")])
def test_a_change_for_the_next_round_counts_from_there_when_the_master_dies_before(start, settings):
    """Round 1 is being closed: the operator is told that round 2 is the first with the new rate,
    and so it is.
    """
    models = []
    for name in ("whole", "cut"):
        run = start(*settings, name=name, store=Dying)
        hands = come(run, 0, 1, 2)
        play(run, hands, 1)
        if name == "cut":
            held(run, hands)
            assert run.service.change({"lr": 0.25}, "test").effective_round == 2
            let_go(run)
            run.close()
            run = start(*settings, name=name)
            assert run.service.run.config.model.lr is None
            for hand in hands:
                hand.proposal = None
            hands = come(run, 0, 1, 2, like=hands)
            play(run, hands, 1)
        else:
            play(run, hands, 1)
            assert run.service.change({"lr": 0.25}, "test").effective_round == 2
        assert run.service.run.config.model.lr == 0.25
        play(run, hands, 2)
        models.append([(record.server_lr, record.params_hash)
                       for record in run.service.run.history.rows()])
        run.close()
    assert models[0] == models[1] and [lr == 0.25
                                       for lr, _ in models[0]] == [False, False, True, True]
    replayed = start(*settings, name="cut")
    assert replayed.service.run.model.params_hash.hex() == models[0][-1][1]


@pytest.mark.parametrize("again", [False, True])
def test_a_change_for_the_next_round_counts_from_there_when_the_one_being_closed_finds_no_room(
        start, again):
    run = start(*ALL, "max_rounds=9", store=Gate)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    held(run, hands)
    assert run.service.change({"lr": 0.25, "max_rounds": 4}, "test").effective_round == 2
    run.store.full = True
    let_go(run)
    run.wait(lambda state: state.phase == machine.BLOCKED, "it is blocked")
    assert run.service.run.config.model.lr is None and run.state.settings.max_rounds == 9
    if again:
        assert run.service.change({"lr": 0.125}, "test").effective_round == 1
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(2)
    for hand in hands:
        hand.settle()
    play(run, hands, 2)
    assert run.state.phase == machine.FINISHED
    rates = [record.server_lr for record in run.service.run.history.rows()]
    assert rates[1:] == (3 * [0.125] if again else [rates[0], 0.25, 0.25])
    hash_ = run.service.run.model.params_hash
    run.close()
    assert start(*ALL, "max_rounds=9").service.run.model.params_hash == hash_


@pytest.mark.parametrize("closing", [False, True])
def test_the_newest_change_of_a_key_wins_over_an_older_one_that_counts_from_a_later_round(
        start, closing):
    """Round 1 is being closed: 0.25 counts from round 2. The master dies, and while round 1 is open
    again, or being closed again, 0.125 is asked for."""
    run = start(*ALL, store=Dying)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    held(run, hands)
    assert run.service.change({"lr": 0.25}, "test").effective_round == 2
    let_go(run)
    run.close()
    run = start(*ALL, store=Gate)
    for hand in hands:
        hand.proposal = None
    hands = come(run, 0, 1, 2, like=hands)
    if closing:
        held(run, hands)
    assert run.service.change({"lr": 0.125}, "test").effective_round == 1 + closing
    if closing:
        let_go(run)
        run.wait_for_round(2)
        for hand in hands:
            hand.settle()
    else:
        play(run, hands, 1)
    play(run, hands, 1)
    assert [record.server_lr == 0.125
            for record in run.service.run.history.rows()] == [False, not closing, True]
    hash_ = run.service.run.model.params_hash
    run.close()
    again = start(*ALL).service.run
    assert again.model.params_hash == hash_ and again.config.model.lr == 0.125


def test_a_removal_stands_when_the_master_dies_while_a_round_is_being_closed(start):
    run = start(*ALL, store=Dying)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    held(run, hands)
    run.service.remove(1)
    assert run.store.events(2) == [Remove(1, True)]
    let_go(run)
    run.close()
    run = start(*ALL)
    assert run.state.removed == {
        1
    }, "it was told, and would not come back to the round that is open again"
    for hand in hands:
        hand.proposal = None
    hands = come(run, 0, 2, like=hands)
    play(run, hands, 2)
    hash_ = run.service.run.model.params_hash
    assert run.service.run.model.members == (0, 2)
    run.close()
    assert start(*ALL).service.run.model.params_hash == hash_


@pytest.mark.parametrize(
    "act",
    [lambda run, hand: run.service.remove(1), lambda run, hand: run.service.leave(hand.session)],
    ids=["removed", "left"])
def test_who_goes_while_the_round_that_makes_it_a_member_is_being_closed_departs_with_the_next_one(
        start, act):
    """The next master computes it so from the events of that round."""
    run = start(*DEADLINE, store=Gate)
    hands = come(run, 0, 1, 2)
    held(run, hands)
    act(run, hands[1])
    let_go(run)
    run.wait_for_round(1)
    assert run.service.run.model.members == (0, 1, 2)
    hands = [hands[0], hands[2]]
    for hand in hands:
        hand.settle()
    play(run, hands, 2)
    check_sums(run, hands)
    hash_ = run.service.run.model.params_hash
    run.close()
    assert start(*DEADLINE).service.run.model.params_hash == hash_


@pytest.mark.parametrize(
    "act",
    [lambda run, hand: run.service.remove(1), lambda run, hand: run.service.leave(hand.session)],
    ids=["removed", "left"])
def test_who_goes_while_the_disk_is_full_departs_with_the_round_after_the_one_that_waits(
        start, act):
    """Its answer stands.

    Departing with the same round it would have left all but that answer, under a chain that says
    the whole.
    """
    run = start(*DEADLINE, store=Gate)
    hands = come(run, 0, 1, 2)
    play(run, hands, 1)
    block(run, hands)
    act(run, hands[1])
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(2)
    assert run.accounts[1].epoch == 0 and [
        event for event in run.store.events(1, 2) if isinstance(event, (Leave, Remove))
    ] == []
    for hand in (hands[0], hands[2]):
        hand.settle()
    play(run, [hands[0], hands[2]], 1)
    assert run.accounts[1].epoch == 1
    hands[1].departs()
    check_sums(run, [hands[0], hands[2]])
    hash_ = run.service.run.model.params_hash
    run.close()
    assert start(*DEADLINE).service.run.model.params_hash == hash_


class Failing(Gate):
    """A store of a round that cannot be computed, while `full`."""

    def commit_round(self, commit):
        try:
            super().commit_round(commit)
        except StoreError:
            raise NonFiniteError("not finite")


@pytest.mark.parametrize("rounds, lost", [(1, False), (1, True), (0, False)],
                         ids=["left", "lost its state", "left before its first round"])
def test_the_answer_of_who_goes_while_the_round_is_being_closed_does_not_count_when_that_fails(
        start, rounds, lost):
    run = start(*DEADLINE, store=Failing)
    hands = come(run, 0, 1, 2)
    play(run, hands, rounds)
    held(run, hands)
    if lost:
        back = run.hand(1)
    else:
        run.service.leave(hands[1].session)
    run.store.full = True
    let_go(run)
    run.wait(lambda state: state.paused, "it pauses")
    run.store.full = False
    assert run.state.uploaded == {0, 2}
    run.service.resume()
    if lost:
        back.fetch()
        back.train()
        back.upload()
    run.wait_for_round(rounds + 1)
    for hand in (hands[0], hands[2]):
        hand.settle()
    if lost:
        back.settle()
    else:
        back = run.hand(1, like=hands[1])
        play(run, [hands[0], hands[2]], 1)  # the round that was open when it came back
    if rounds:
        hands[1].departs()
    hands[1] = back
    play(run, hands, 1)
    check_sums(run, hands)
    hash_ = run.service.run.model.params_hash
    run.close()
    assert start(*DEADLINE).service.run.model.params_hash == hash_


def test_the_round_that_is_the_last_one_cannot_be_followed_by_another_once_it_is_being_closed(
        start):
    run = start(*ALL, "max_rounds=1", store=Gate)
    held(run, come(run, 0, 1, 2))
    refused("finished", run.service.change, {"max_rounds": 5}, "test")
    let_go(run)
    run.wait(lambda state: state.phase == machine.FINISHED, "the run is over")


def test_a_change_while_the_disk_is_full_counts_for_the_round_that_waits(start):
    run = start(*ALL, store=Gate)
    block(run, come(run, 0, 1, 2))
    assert run.service.change({"lr": 0.25}, "test").effective_round == 0
    run.store.full = False
    run.advance(machine.BLOCKED_RETRY_S)
    run.wait_for_round(1)
    assert run.service.run.history.row(0).server_lr == 0.25
    assert len([
        event for stored in run.store.rounds() for event in stored.events
        if isinstance(event, KeyChange)
    ]) == 1


def test_a_budget_that_no_upload_can_meet_is_refused_at_run_time_too(start):
    settings = (*ALL, "sel_clients=2", "entropy_coding=false")
    run = start(*settings)
    error = refused("bad_value", run.service.change, {"up_budget_bits": 10}, "test")
    assert "below one upload of this model" in str(error)
    with pytest.raises(Exception, match="below one upload of this model"):
        start(*settings, "up_budget_bits=10", name="other")


def test_every_cure_that_a_stopped_round_names_can_be_applied(start):
    """The hints of a pause name keys; those that PATCH takes are named as such, the others with a
    new run.
    """
    run = start("total_workers=1", "quorum=all", "max_rounds=5", "lr=1e6",
                "max_norm_ratio=0")
    hand = run.hand(0)
    hand.train(1e35)
    hand.upload()
    error = run.wait(lambda state: state.paused, "it pauses").error
    assert "PATCH /config" in error and "model.lr" in error and "flq_algorithm.clip_global" in error
    assert "local_lr" not in error
    run.service.change({"model.lr": 0.001, "flq_algorithm.clip_global": 1.0}, "test")
    run.service.resume()
    run.wait_for_round(1)
    with pytest.raises(ProtocolError):
        run.service.change({"model.local_lr": 0.1}, "test")
