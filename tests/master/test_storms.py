"""Workers and master together over a network that loses, repeats and delays, while either side
crashes (protocol.md 3 and 4).

Both sides are the real ones (tests/master/network.py): what is compared at the end is what they
hold and what is stored. The same worlds are drawn each time; FLQ_STORMS draws more of them.
"""

import functools
import logging
import random

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from flq import config
from flq.algorithm import round as algorithm
from flq.algorithm import uplink
from flq.compression import codec
from flq.master.run.closing import rebuild_reference
from flq.master.run.recovery import Replayer
from flq.master.status import snapshot
from flq.master.store.events import KeyChange, Pause, Remove, Resume
from flq.master.store.results import run_of
from flq.protocol import frames
from flq.protocol.frames import UPLOAD_KIND, Expected
from tests.master.network import PLACES, RUN_ID, Master, Worker, World
from tests.master.test_whole_run import sums
from tests.protocol.storms import number_of

TROUBLE_S = 120.0
WORKERS = 3
ALL, DEADLINE = ("quorum=all",), ("quorum=deadline", "min_workers=1")
LATE = (*DEADLINE, "late_updates=apply")
MEMORIES = (("memory=reference",), ("memory=reference", "memory_rate=0.3"),
            ("memory=reference", "thr_scale=1"), ("memory=residual",), ("memory=none",))
HISTORY = ("downlink=rd", "b_down=16", "entropy_coding_down=context")
HISTORY_UP = ("mode=rd", "b_up=16", "entropy_coding=context")
"""16 bits: so that even 8 weights are shorter when they are coded."""
FLOAT32_DOWN = ("b_down=0",)
BUDGETS = (("sel_clients=2",), ("sel_clients=1",), ("up_budget_bits=300",))
PATCHES = (("model.lr", (0.05, 0.2, 0.5)), ("clip_global", (0.5, 5.0)), ("max_rounds", (3, 4, 6,
                                                                                        7)))
# the open round may keep what it was opened with
FREE_PATCHES = (*PATCHES, ("thr_scale", (0.0, 1.0)), ("sel_clients", (0, 1, 2)))


@pytest.fixture(autouse=True)
def _silence():
    """Thousands of worlds have nothing to say of each retry."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@functools.lru_cache(maxsize=None)
def config_of(*settings):
    return config.load(None, [
        "mode=laq", f"total_workers={WORKERS}", "worker_timeout_s=30", "absent_rounds=1000",
        "eval_every=2", "warmup=2", *settings
    ]).config


def world_of(seed, settings, loss=0.0, crashes=0, lose_files=False, acts=0, patches=PATCHES,
             schedule=None):
    """A run to its end: (master, workers). acts: of the operator."""
    dice = random.Random(seed)
    world = World(dice, loss, TROUBLE_S)
    master = Master(world, config_of(*settings), schedule)
    crew = [Worker(world, master, worker) for worker in range(WORKERS)]
    blows = [functools.partial(crash, dice, master, crew, lose_files)
             ] * crashes + [functools.partial(act, dice, master, patches)] * acts
    for blow in blows:
        place = dice.choice(PLACES[:-1])
        planned = functools.partial(master.plan, place, blow)
        world.later(dice.random() * TROUBLE_S / 4, planned if dice.random() < 0.4 else blow)
    world.run(lambda: master.finished and all(worker.exits for worker in crew))
    return master, crew


def crash(dice, master, crew, lose_files):
    victim = dice.choice([master, *crew])
    if victim is not master and dice.random() < 0.4:
        victim.leave()
    elif victim is not master:
        victim.crash(lose_files and dice.random() < 0.5)
    else:
        master.crash()


def act(dice, master, patches):
    what = dice.choice(["change", "change", "pause", "remove"])
    if dice.random() < 0.3:
        master.plan("events", master.crash)
    if what == "change":
        key, values = dice.choice(patches)
        master.change({key: dice.choice(values)})
    elif what == "pause":
        master.pause(dice.random() * 20.0)
    elif dice.random() < 0.5:
        master.remove(WORKERS - 1)


KINDS = {
    "all, one phase": (ALL, False), "all, two phases": (ALL, True),
    "deadline, one phase": (DEADLINE, False), "deadline, two phases": (DEADLINE, True),
    "deadline, late updates": (LATE, False)
}


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.settings(max_examples=number_of(200))
@hypothesis.given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
                  crashes=st.integers(0, 8), lose_files=st.booleans(),
                  deadline=st.sampled_from(["15", "null"]), memory=st.sampled_from(MEMORIES),
                  budget=st.sampled_from(BUDGETS), acts=st.integers(0, 4),
                  history=st.sampled_from([(), HISTORY, FLOAT32_DOWN]),
                  history_up=st.sampled_from([(), HISTORY_UP]), cohorts=st.integers(1, WORKERS))
def test_every_run_ends_and_both_sides_agree(kind, seed, loss, crashes, lose_files, deadline,
                                             memory, budget, acts, history, history_up,
                                             cohorts):
    quorum, two_phase = KINDS[kind]
    settings = (*quorum, "max_rounds=5", *history, *history_up,
                *((f"cohorts={cohorts}",) if cohorts > 1 else ()),
                *(memory if quorum is not LATE or "memory=reference" in memory else MEMORIES[0]),
                *(budget if two_phase else
                  ()), *((f"round_deadline_s={deadline}",) if quorum is not ALL else ()))
    master, crew = world_of(seed, settings, loss, crashes, lose_files, acts,
                            PATCHES if quorum is ALL else FREE_PATCHES)
    check_store(master)
    check_workers(master, crew)
    if quorum is ALL:
        assert all(
            answers_of(record) >= turn_of(record, cohorts) - master.removed
            for record in records_of(master))
    assert all(answers_of(record) <= turn_of(record, cohorts) for record in records_of(master))
    lost = any(worker.lost or worker.left and quorum is not ALL for worker in crew)
    if not lost:
        check_nothing_was_lost(master, quorum)
    # A removal in the middle of a round may take a worker that had been granted an upload.
    if quorum is ALL and not lost and not (two_phase and master.removed):
        check_calm(master, settings)


def records_of(master):
    return master.run.history.rows()


def answers_of(record):
    return {*record.selected, *record.skipped, *record.refused, *record.missing}


def turn_of(record, cohorts):
    return {worker for worker in range(WORKERS) if (worker - record.round) % cohorts == 0}


def states_of(master):
    """{(round, worker): row} as stored."""
    return {(row["round"], row["worker"]): row for row in master.store.worker_rounds()}


def check_workers(master, crew):
    """Each worker ended as it should, settled what was stored, and holds what the master holds."""
    run, states = master.run, states_of(master)
    accepted = [(worker, round_ - row["staleness"]) for (round_, worker), row in states.items()
                if row["state"] == "accepted"]
    assert len(set(accepted)) == len(accepted), "an upload is committed once"
    for worker in crew:
        assert len(worker.exits) == 1 and (not worker.exits[0].refused
                                           or worker.worker in master.removed)
        for round_, was_accepted in worker.settled:
            assert was_accepted == ((worker.worker, round_)
                                    in accepted), "what a worker settled is what was stored"
        # Who was told that the run is over before it heard the last verdict keeps its proposal. A
        # reset is agreed on with one master process: whose file was lost, or who had left, and who
        # came back too late for the last one was never told.
        told = not (worker.lost or worker.left) or worker.process.session in master.tokens
        # Who left and came back while its last answer was being stored leaves the average with a
        # later round, of other cohorts: it would hear of that in its next turn.
        last_turn = max((record.round for record in records_of(master)
                         if worker.worker in turn_of(record, run.config.system.cohorts)),
                        default=-1)
        left_later = master.store.last_leaves().get(worker.worker, -1) > last_turn
        if (not told or left_later or worker.worker in master.removed
                or worker.worker not in run.model.accounts):
            continue
        account = run.members.account(worker.worker)
        held = [
            future for future in worker.futures if future.reference_hash == account.reference_hash
        ]
        assert held, "both chains agree"
        assert same_activity(held[0].activity, uplink.history(uplink_of(master)[1],
                                                              account.activity))
        if run.config.flq_algorithm.memory == "reference":
            reference = reference_of(master, worker.worker, account)
            assert (held[0].memory == (0.0 if reference is None else reference)).all()
        version = worker.process._version
        if version > 0:
            made = records_of(master)[version - 1].params_hash
            assert worker.process._hash.hex() == made, "it holds what its round was begun with"
            assert (worker.worker - version) % run.config.system.cohorts == 0
        if version == run.model.version:
            assert same_activity(worker.process._activity, run.model.activity)


def same_activity(first, second):
    return first is second is None or first.tolist() == second.tolist()


def reference_of(master, worker, account):
    """g_m as the master has it, None where there is none."""
    expected, settings = uplink_of(master)
    return rebuild_reference(master.store, worker, account, expected, settings)


def uplink_of(master):
    settings = uplink.settings_from(master.config, master.learner.layout)
    return Expected(RUN_ID, master.learner.layout, settings.sizes), settings


def check_store(master):
    """The run is whole, its sums are right, and it can be computed again."""
    run, store, model, layout = master.run, master.store, master.run.model, master.learner.layout
    records = records_of(master)
    assert run.is_over and len(records) == run.config.system.max_rounds == model.version
    for record in records:
        lr = master.in_force(record.round).get("model.lr")
        assert lr is None or record.server_lr in (
            lr, 0.0), f"round {record.round} was closed with what was in force"
    ending, changed = run.ending()
    store.add_ending(ending, changed)
    run.ended(ending, changed)
    stored = run_of(store)
    assert stored.rounds == [record.to_json() for record in records_of(master)]
    assert snapshot(run, master.world.now)["bits"] == sums(stored.rounds) == stored.summary["bits"]

    expected, settings = uplink_of(master)
    first = algorithm.initial_state(master.config, layout, *master.learner.initial())
    replayed = Replayer(RUN_ID, store, layout, settings).recover(master.config, first,
                                                                 checkpoints=False).model
    assert replayed.params_hash == model.params_hash and (replayed.params == model.params).all()
    assert same_activity(replayed.activity, model.activity)
    for worker, account in model.accounts.items():
        assert same_activity(replayed.accounts[worker].activity, account.activity)
    assert len(replayed.waiting) == len(model.waiting) == run.config.system.cohorts - 1
    for one, other in zip(replayed.waiting, model.waiting):
        assert (one.broadcast == other.broadcast).all()
        assert same_activity(one.activity, other.activity)
    if model.robust is not None:
        assert (replayed.robust.center == model.robust.center).all()
        assert sorted(model.robust.references) == sorted(replayed.robust.references) == list(
            model.members)
        for worker, reference in model.robust.references.items():
            assert (replayed.robust.references[worker] == reference).all()
            assert (reference == reference_of(master, worker, model.accounts[worker])).all()
    elif run.config.flq_algorithm.memory == "reference":
        assert (replayed.reference_sum == model.reference_sum).all()
        check_sum(store, model, expected, settings)


def check_sum(store, model, expected, settings):
    """A / a = sum n_m g_m up to the bound of algorithm.md 3."""
    held, histories, largest = {}, {}, 0.0
    for stored in store.rounds():
        for answer in stored.answers:
            if answer.frame is not None:
                key = answer.row.worker, answer.epoch
                history = histories.get(key, uplink.history(settings, None))
                encoded = frames.unpack(answer.frame, UPLOAD_KIND,
                                        expected._replace(activity=history)).encoded
                histories[key] = codec.next_activity(history, encoded)
                c = codec.decode(encoded, settings.sizes)
                held[key] = held.get(key, 0.0) + c.astype(np.float64)
                largest = max(largest, np.abs(c).max(), np.abs(held[key]).max())
    total = sum(model.accounts[worker].weight * held[worker, model.accounts[worker].epoch]
                for worker in model.members)
    weight = sum(account.weight for account in model.accounts.values())
    bound = (WORKERS + 2) * model.version * 2.0 ** -53 * weight * largest
    assert np.abs(model.reference_sum - total).max() <= bound


def check_nothing_was_lost(master, quorum):
    """Nothing is lost that nobody lost."""
    run = master.run
    assert all(account.epoch == 0 for worker, account in run.model.accounts.items()
               if worker not in master.removed)
    assert run.members.departing <= master.removed
    if quorum is ALL:
        assert all(not record.missing and not record.late for record in records_of(master))


def check_calm(master, settings):
    """The model and the history are those of the same run without any trouble."""
    events = tuple((round_, event) for round_ in range(len(records_of(master)))
                   for event in master.store.events(round_, round_ + 1)
                   if isinstance(event, (KeyChange, Remove)))
    rows, *others = bare(master, events)
    calm_rows, *calm_others = calm_history(settings, events)
    assert len(rows) == len(calm_rows) and others == calm_others
    for row, calm_row in zip(rows, calm_rows):
        # A test that waited while checkpoints were written may be older than all that are kept:
        # nobody makes up for it.
        untested = {"accuracy", "loss"} if row["accuracy"] is None and master.checkpoints else set()
        assert {name: row[name] for name in set(row) - untested
                } == {name: calm_row[name] for name in set(calm_row) - untested}


@functools.lru_cache(maxsize=None)
def calm_history(settings, events):
    schedule = {}
    for round_, event in events:
        schedule.setdefault(round_, []).append(event)
    master, _ = world_of(0, settings, schedule=schedule)
    return bare(master, events)


def bare(master, events):
    """The rows of the history as every such run has them."""
    rows = [record.to_json() for record in records_of(master)]
    for row in rows:
        for name in ("round_time_s", "closed_at"):
            del row[name]
        # Who came back when the run was over has not been sent its last model, who was removed
        # perhaps not that of its last round.
        if row is rows[-1] or any(isinstance(event, Remove) for _, event in events):
            for name in ("nominal_bits_down", "payload_bits_down", "float32_bits_down"):
                del row[name]
    return rows, master.store.worker_rounds(), master.run.model.params_hash


# --- so that the storms above are about something


def late_updates(master):
    return [
        row for row in master.store.worker_rounds()
        if row["staleness"] and row["state"] == "accepted"
    ]


def beside_history(master):
    return [
        answer for stored in master.store.rounds() for answer in stored.answers
        if answer.frame is not None
        and frames.unpack_head(answer.frame, UPLOAD_KIND, uplink_of(master)[0]).header.flags
        & frames.HISTORY
    ]


def test_the_storms_code_uploads_beside_their_history():
    """Also in a later epoch, whose history is another one."""
    worlds = [
        world_of(seed, (*DEADLINE, *HISTORY_UP, "max_rounds=5"), 0.1, 4, True) for seed in range(20)
    ]
    coded = [answer for master, _ in worlds for answer in beside_history(master)]
    assert len(coded) > 100 and len([answer for answer in coded if answer.epoch]) > 10


def test_the_storms_apply_late_updates():
    worlds = [
        world_of(seed, (*LATE, "max_rounds=5", "round_deadline_s=15"), 0.1, 2) for seed in range(20)
    ]
    assert sum(len(late_updates(master)) for master, _ in worlds) > 5
    for master, crew in worlds:
        if not any(worker.left for worker in crew):
            check_nothing_was_lost(master, LATE)


@pytest.mark.parametrize("quorum", [DEADLINE, LATE])
def test_the_storms_leave_workers_out_and_take_them_in_again(quorum):
    worlds = [
        world_of(seed, (*quorum, "max_rounds=20", "round_deadline_s=15"), 0.3) for seed in range(40)
    ]
    back = [
        1 for master, _ in worlds if master.left_out and not records_of(master)[-1].missing
        and len(records_of(master)[-1].selected) == WORKERS
    ]
    assert sum(master.left_out for master, _ in worlds) > 3 and len(back) > 1
    for master, _ in worlds:
        check_nothing_was_lost(master, quorum)


def test_the_storms_kill_masters_where_it_could_be_the_wrong_place_and_change_what_is_in_force():
    worlds = [world_of(seed, (*ALL, "max_rounds=5"), 0.3, 8, acts=4) for seed in range(40)]
    deaths = [place for master, _ in worlds for place in master.deaths]
    assert min(deaths.count(place) for place in PLACES) > 0 and len(deaths) > 20
    told = [item for master, _ in worlds for item in master.told]
    assert {type(item.event) for item in told} == {KeyChange, Remove, Pause, Resume}
    assert sum(item.round > 0 for item in told) > 10


def test_the_storms_play_in_turns_and_pass_over_cohorts_that_do_not_come():
    worlds = [
        world_of(seed, (*DEADLINE, "max_rounds=9", "round_deadline_s=15", cohorts), 0.3, 4)
        for seed in range(20) for cohorts in ("cohorts=2", "cohorts=3")
    ]
    passed = played = 0
    for master, crew in worlds:
        check_store(master)
        check_workers(master, crew)
        for record in records_of(master):
            passed += not answers_of(record) - set(record.missing)
            played += record.rho > 1 and len(record.selected) < record.members
    assert passed > 3 and played > 100


@pytest.mark.parametrize("rule", ["median", "centered_clipping"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_rule_the_master_holds_the_workers_references(kind, rule):
    quorum, two_phase = KINDS[kind]
    settings = (*quorum, "max_rounds=5", f"aggregation={rule}", "memory_rate=0.4",
                *(("sel_clients=2",) if two_phase else ()),
                *(("round_deadline_s=15",) if quorum is not ALL else ()))
    for seed in range(15):
        master, crew = world_of(seed, settings, 0.1, 4, True, 2,
                                PATCHES if quorum is ALL else FREE_PATCHES)
        check_store(master)
        check_workers(master, crew)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("cohorts", [2, 3])
def test_without_trouble_every_worker_plays_its_own_turns(memory, cohorts):
    master, crew = world_of(1, (*ALL, "max_rounds=7", f"cohorts={cohorts}", *memory))
    for record in records_of(master):
        assert answers_of(record) == turn_of(record, cohorts) and not record.missing
    for worker in crew:
        turns = [round_ for round_ in range(7) if (worker.worker - round_) % cohorts == 0]
        settled = [round_ for round_, _ in worker.settled]
        # The last model goes to the cohort that would play next: the others end before they settle.
        is_next = (worker.worker - 7) % cohorts == 0
        assert settled == (turns if is_next else turns[:-1])
    check_store(master)
    check_workers(master, crew)


def test_the_storms_skip_refuse_and_reset():
    worlds = [
        world_of(seed, (*ALL, "max_rounds=5", "thr_scale=1", "sel_clients=1"), 0.1, 6,
                 lose_files=True) for seed in range(40)
    ]
    states = {row["state"] for master, _ in worlds for row in master.store.worker_rounds()}
    assert states >= {"accepted", "skipped", "refused"}
    assert any(account.epoch for master, _ in worlds
               for account in master.run.model.accounts.values())


def test_the_storms_code_beside_a_history_and_lose_it():
    worlds = [
        world_of(seed, (*ALL, *HISTORY, "max_rounds=5"), 0.1, 6, lose_files=True)
        for seed in range(40)
    ]
    beside = [frame for master, _ in worlds for frame in master.store.broadcasts()
              if frames.unpack_head(frame, frames.BROADCAST_KIND, uplink_of(master)[0]).header.flags
              & frames.HISTORY]
    assert len(beside) > 50 and sum(worker.lost for _, crew in worlds for worker in crew) > 10
    for master, crew in worlds:
        check_store(master)
        check_workers(master, crew)


def test_without_trouble_a_run_is_what_its_machines_say():
    master, crew = world_of(1, (*ALL, "max_rounds=5"))
    assert [record.selected for record in records_of(master)] == [tuple(range(WORKERS))] * 5
    assert [worker.settled for worker in crew] == [[(round_, True)
                                                    for round_ in range(5)]] * WORKERS
    assert master.boots == 1
    check_store(master)
    check_workers(master, crew)
    check_nothing_was_lost(master, ALL)
