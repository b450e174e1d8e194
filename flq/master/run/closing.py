"""What the driver does with a round that has its answers: compute it, write it down, before anybody
hears of it.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Iterable, NamedTuple

import numpy as np

from flq.algorithm import bounds, cohorts, downlink, mending, robust, uplink
from flq.algorithm import round as rounds
from flq.algorithm.model_state import Account, Answers, Closed, Departure, ModelState
from flq.algorithm.round import NonFiniteError
from flq.algorithm.uplink import UplinkSettings
from flq.compression import codec
from flq.errors import FrameError
from flq.learning.batches import local_steps_of
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.checks import Received
from flq.master.store.events import Event, Flagged, Samples
from flq.master.store.run_store import (
    Answer,
    RoundCommit,
    RunStore,
    StoredRows,
    StoreError,
)
from flq.protocol import frames
from flq.protocol import round_machine as machine
from flq.protocol.frames import UPLOAD_KIND, Expected, Frame, RoundTerms
from flq.records import RoundRecord, WorkerRound
from flq.settings import Config

_log = logging.getLogger("flq.master")


class OpenRound(NamedTuple):
    """Everything that a round's result depends on, taken under the service's lock. flagged: whose
    answers are not taken; effect and received are without their uploads."""

    effect: machine.Aggregate
    state: machine.RoundState
    model: ModelState
    config: Config
    received: dict[int, Received]
    departing: tuple[int, ...]
    events: tuple[Event, ...]
    heals: bool = False
    flagged: tuple[Flagged, ...] = ()


class Measured(NamedTuple):
    """What the service measured while the round was open; wire is None where there is none.
    accounting, changed: see RoundCommit.
    """

    seconds: float
    closed_at: float
    wire_up: int | None
    wire_down: int | None
    nominal_down: int
    payload_down: int
    float32_down: int
    accounting: dict[str, Any]
    changed: tuple[RoundRecord, ...] = ()


class Stored(NamedTuple):
    """A round that is on disk: what the service adopts."""

    model: ModelState
    terms: RoundTerms
    record: RoundRecord
    rows: tuple[WorkerRound, ...]


class RoundCloser:
    """Closes the rounds of one run.

    start: what it begins runs beside the driver's thread. The broadcast is coded so, while the
    model's hash is computed: they take about as long, and all workers wait.
    """

    def __init__(self, run_id: str, config: Config, store: RunStore, broadcasts: Broadcasts,
                 settings: UplinkSettings, expected: Expected,
                 start: rounds.Start = rounds.at_once) -> None:
        self._start = start
        self._run_id, self._store, self._broadcasts = run_id, store, broadcasts
        self._settings, self._expected = settings, expected
        self._downlink = downlink.settings_from(config, expected.layout)
        self._told_short = False

    def close(self, opened: OpenRound, measured: Measured) -> Stored:
        """Compute the round and commit it.

        Raises NonFiniteError or StoreError, and nothing has changed then.
        """
        state, config = opened.state, opened.config
        _require_convergence(opened)
        coding: list[Callable[[], codec.Body]] = []

        def code(encoded: codec.Encoded, history: np.ndarray | None) -> None:
            coding.append(
                self._start(codec.to_body, encoded, self._downlink.entropy_coding, history))

        closed = compute(self._store, self._run_id, opened.model, opened.departing, opened.events,
                         self._answers(opened), config, self._expected, self._settings,
                         opened.heals, code, self._start)
        new = closed.model
        terms = round_terms(config, new, state)
        final = state.stopping or new.version >= config.system.max_rounds
        body = coding[0]()
        # A frame made for a round that is then not stored is made anew with the round.
        data = self._broadcasts.add(opened.model, new, closed.encoded, body, terms, final)
        record = self._record(opened, measured, closed)
        rows = self._rows(opened, new)
        self._store.commit_round(
            RoundCommit(record, rows, opened.events + opened.flagged, measured.accounting, data,
                        measured.changed))
        self._tell_short(opened, new)
        return Stored(new, terms, record, tuple(answer.row for answer in rows))

    def _tell_short(self, opened: OpenRound, new: ModelState) -> None:
        """Say once that a rule against bad workers makes no step because it has too few updates."""
        algorithm, effect = opened.config.flq_algorithm, opened.effect
        needed = robust.fewest(algorithm)
        seen = robust.sees(self._settings.memory, len(new.members), len(effect.selected))
        short = new.robust is not None and seen < needed
        if short and not self._told_short:
            _log.warning(
                "round %d: the model stays as it is: aggregation %s with %d bad workers needs the "
                "updates of %d workers and has those of %d; it goes on by itself when more come, "
                "or with a smaller flq_algorithm.bad_workers (PATCH /config)", effect.round,
                algorithm.aggregation, algorithm.bad_workers, needed, seen)
        self._told_short = short

    def _answers(self, opened: OpenRound) -> Answers:
        effect = opened.effect
        refused = tuple(
            (worker, opened.state.bids[worker].options[0].gain) for worker in effect.refused)
        return Answers(tuple(opened.received[worker].upload for worker in effect.selected),
                       effect.skipped, refused, effect.missing)

    def _record(self, opened: OpenRound, measured: Measured, closed: Closed) -> RoundRecord:
        effect, received = opened.effect, [
            opened.received[worker] for worker in opened.effect.selected
        ]
        untold = {item.worker for item in opened.flagged}
        losses = [
            bid.loss for worker, bid in sorted(opened.state.bids.items())
            if bid.loss is not None and worker not in untold
        ]
        turn = sum(machine.is_turn(opened.state, worker) for worker in closed.model.members)
        return RoundRecord(round=effect.round, version=effect.round + 1, accuracy=None, loss=None,
                           train_loss=sum(losses) / len(losses) if losses else None,
                           selected=effect.selected, skipped=effect.skipped, refused=effect.refused,
                           missing=effect.missing, late=(), members=len(
                               closed.model.members), nominal_bits_up=sum(
                               item.nominal_bits for item in received), payload_bits_up=sum(
                                   item.option.bits for item in received),
                           wire_bits_up=measured.wire_up, nominal_bits_down=measured.nominal_down,
                           payload_bits_down=measured.payload_down,
                           wire_bits_down=measured.wire_down,
                           float32_bits_up=32 * self._expected.layout.num_params * turn,
                           float32_bits_down=measured.float32_down, round_time_s=measured.seconds,
                           server_lr=closed.server_lr, rho=closed.rho,
                           direction_norm2=closed.direction_norm2, history_sum=closed.history_sum,
                           params_hash=closed.model.params_hash.hex(), closed_at=measured.closed_at,
                           cohort=cohorts.cohort_of(effect.round, opened.config.system.cohorts))

    def _rows(self, opened: OpenRound, new: ModelState) -> tuple[Answer, ...]:
        effect, rows = opened.effect, []
        answers = {
            "accepted": effect.selected, "skipped": effect.skipped, "refused": effect.refused,
            "missing": effect.missing
        }
        for verdict, workers in answers.items():
            for worker in workers:
                account, bid = new.accounts.get(worker), opened.state.bids.get(worker)
                upload = opened.received[worker] if verdict == "accepted" else None
                if account is None:
                    continue  # quorum all: an id that never registered
                option = bid.options[0] if bid is not None and bid.options else None
                row = WorkerRound(
                    round=effect.round, worker=worker, state=verdict, b=option.b if option else 0,
                    payload_bits=upload.option.bits if upload is not None else 0,
                    gain=option.gain if option else 0.0, loss=bid.loss if bid is not None else None,
                    clock=account.clock, num_samples=account.num_samples,
                    staleness=upload.staleness if upload is not None else 0,
                    residual_norm=bid.residual_norm if bid is not None else None)
                rows.append(
                    Answer(row, account.epoch, account.reference_hash,
                           upload.frame if upload is not None else None))
        return tuple(sorted(rows, key=lambda answer: answer.row.worker))


def _require_convergence(opened: OpenRound) -> None:
    """Raises NonFiniteError where all updates of a round are too long, and come from the only
    member or from at least half of those whose turn it is: then it is the run that went astray,
    not a worker.
    """
    far = [item for item in opened.flagged if item.reason in (bounds.NORM, bounds.STATE)]
    members = opened.model.members
    turn = sum(machine.is_turn(opened.state, worker) for worker in members)
    # One worker of several must not be able to pause the run.
    several = len(far) > 1 and 2 * len(far) >= turn
    alone = tuple(item.worker for item in far) == members
    if far and not opened.effect.selected and (several or alone):
        raise NonFiniteError(
            f"the run diverges: every update of round {opened.effect.round} is too long",
            f"at most {far[0].limit:.3g}", f"{far[0].value:.3g}",
            "lower model.lr with PATCH /config, end the master, and go back to an earlier round: "
            "python -m flq rollback")


def compute(store: StoredRows, run_id: str, model: ModelState, departing: Iterable[int],
            events: Iterable[Event], answers: Answers, config: Config, expected: Expected,
            settings: UplinkSettings, heals: bool = False,
            on_encoded: rounds.OnEncoded = lambda encoded, history: None,
            start: rounds.Start = rounds.at_once) -> Closed:
    """A round, live and when it is computed again: departures, other numbers of samples, then its
    answers (algorithm.md 1 and 3).

    model: every worker that answers has an account. departing: members whose references leave the
    average first. heals: what remains is not what subtraction leaves of the sum, but the sum of the
    references of those who remain, each from its stored uploads. on_encoded, start: see
    rounds.close_round. Raises NonFiniteError.
    """
    has_sum = model.reference_sum is not None
    departures = [
        Departure(worker, rebuild_reference(store, worker, model.accounts[worker], expected,
                                            settings) if has_sum else None)
        for worker in departing
    ]
    base = rounds.depart(model, run_id, departures)
    if heals and has_sum:
        base = mending.summed_anew(base, {
            worker: rebuild_reference(store, worker, base.accounts[worker], expected, settings,
                                      model.version)
            for worker in base.members
        })
    base = rounds.resize(base, new_sizes(events), config.flq_algorithm.weighting == "uniform")
    return rounds.close_round(base, answers, config, expected.layout,
                              lambda n: local_steps_of(config, n), on_encoded, start)


def rebuild_reference(store: StoredRows, worker: int, account: Account, expected: Expected,
                      settings: UplinkSettings, before: int = 2**62) -> np.ndarray | None:
    """g_m = h_m / a: the sum of what a member committed in its epoch before a round, on top of what
    a compaction kept.

    float64[p]; float32[p] where the run was begun by a version that summed so, as its rounds must
    come out again as they did. None where the master sums no references.
    """
    if not account.member or not settings.memory.has_reference_sum:
        return None
    kept, length = store.reference(worker, account.epoch), expected.layout.num_params
    reference = np.zeros(length, store.meta().get("references", np.float32))
    history = uplink.history(settings, None)
    if kept is not None:
        data, activity = unpack_reference(kept, length)
        reference[:] = data
        history = uplink.history(settings, activity)
    for frame in store.frames_of(worker, account.epoch, before):
        encoded = stored_upload(store, frame, expected._replace(activity=history)).encoded
        reference, _ = settings.memory.commit(reference, codec.decode(encoded, settings.sizes))
        history = codec.next_activity(history, encoded)
    return reference


def pack_reference(reference: np.ndarray, activity: np.ndarray | None) -> bytes:
    """g_m as a compaction keeps it, little-endian; where a history is kept, the activity of the
    uploads that it is the sum of follows.
    """
    data = reference.astype(reference.dtype.newbyteorder("<")).tobytes()
    return data if activity is None else data + activity.tobytes()


def unpack_reference(data: bytes, length: int) -> tuple[np.ndarray, np.ndarray | None]:
    """What pack_reference packed, of `length` parameters: 4 bytes of each in a run of an older
    version, else 8, and 1 of the history.
    """
    if len(data) == 4 * length:
        return np.frombuffer(data, "<f4"), None
    activity = np.frombuffer(data, np.uint8, offset=8 * length)
    return np.frombuffer(data, "<f8", length), activity if activity.size else None


def stored_upload(store: StoredRows, data: bytes, expected: Expected) -> Frame:
    """The upload in bytes of the store. Raises StoreError where they are damaged."""
    try:
        return frames.unpack(data, UPLOAD_KIND, expected)
    except FrameError as error:
        raise StoreError(f"an upload in {store.path} is damaged", error.expected,
                         f"{error.got}, {error.message}", "a backup can take its place")


def new_sizes(events: Iterable[Event]) -> dict[int, int]:
    """The workers that came back with another number of samples, and how many they have from this
    round on.
    """
    return {
        event.worker: event.num_samples for event in events if isinstance(event, Samples)
    }


def round_terms(config: Config, model: ModelState, state: machine.RoundState) -> RoundTerms:
    """What the broadcast of this model tells a worker of the round it opens."""
    budget, lazy = config.budget_selection, config.lazy_selection
    two_phase = bool(budget.sel_clients or budget.up_budget_bits)
    return RoundTerms(history_sum=rounds.history_sum(lazy, model), thr_scale=lazy.thr_scale,
                      mean_weight=model.mean_weight, deadline_s=machine.deadline_s(state),
                      max_skips=lazy.C, two_phase=int(two_phase))
