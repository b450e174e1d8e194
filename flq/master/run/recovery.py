"""A run out of its store: the last checkpoint, then the rounds after it, computed again
(protocol.md 4).

The same computation serves a master that starts again and `python -m flq replay`, which starts at
round 0 and compares every round with what the store says happened.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from flq import config as configuration
from flq.algorithm import bounds, mending, sketch, uplink
from flq.algorithm import round as rounds
from flq.algorithm.averaging import Average
from flq.algorithm.bounds import Observed
from flq.algorithm.model_state import Account, Answers, Closed, ModelState, Upload, Waiting
from flq.algorithm.robust import Kept
from flq.algorithm.server_optimizers import OptimizerState
from flq.algorithm.uplink import UplinkSettings
from flq.compression import codec
from flq.compression.identity import FEDAVG
from flq.learning.interface import Learner
from flq.master.run.closing import compute, stored_upload
from flq.master.store.events import (
    DEPARTURES,
    Event,
    Join,
    KeyChange,
    Pause,
    Remove,
    Resume,
    Rollback,
)
from flq.master.store.run_store import RunStore, StoredRound, StoredRows, StoreError
from flq.parameters import Layout
from flq.protocol.frames import Expected
from flq.settings import Config


class Recovered(NamedTuple):
    """Where a run stands. config: with the changes of its events. removed: workers that the
    operator took out. untested: the models that were asked for, by round."""

    model: ModelState
    config: Config
    removed: frozenset[int]
    untested: dict[int, ModelState]


class Replayer:
    """Computes stored rounds again."""

    def __init__(self, run_id: str, store: RunStore, layout: Layout,
                 settings: UplinkSettings) -> None:
        self._run_id, self._store, self._settings = run_id, store, settings
        self._expected = Expected(run_id, layout, settings.sizes, settings.quantizer)

    def recover(self, config: Config, start: ModelState, checkpoints: bool = True,
                untested: Sequence[int] = (),
                compare: Callable[[StoredRound, Closed], None] | None = None,
                until: int | None = None) -> Recovered:
        """The state after the last stored round. Raises StoreError when a round does not give the
        hash that was stored.

        start: version 0. checkpoints False computes every round, after a compaction those since
        then. compare is called for each computed round. untested: rounds whose models are kept
        where they are computed; one of the kept checkpoints that is not newer than the first of
        them comes before the others. until: the version to stop at.
        """
        given, model, first = config, start, self._store.compacted()
        removed: frozenset[int] = frozenset()
        if checkpoints or first:
            usable = [row for row in self._store.checkpoints() if checkpoints or row[0] == first]
            usable = [row for row in usable if until is None or row[0] <= until]
            usable.sort(key=lambda row: bool(untested) and row[0] > min(untested) + 1)
            model = next((found for found in map(self._load, usable) if found is not None), start)
        if model.version < first:
            raise StoreError(f"no checkpoint of {self._store.path} is whole, and it was compacted",
                             f"the checkpoint of version {first}",
                             hint="a backup can take its place")
        models = {model.version - 1: model} if model.version - 1 in untested else {}
        for event in self._store.events(0, model.version):
            config, removed = apply_event(config, removed, event)
        for stored in self._store.rounds(model.version):
            if stored.record.round == until:
                break
            for event in stored.events:
                config, removed = apply_event(config, removed, event)
            back = next((event for event in stored.events if isinstance(event, Rollback)), None)
            if back is None:
                closed = self._replay(model, stored, config)
            else:
                target = self.recover(given, start, checkpoints, until=back.round).model
                closed = self._rolled_back(model, target, config)
            if closed.model.params_hash.hex() != stored.record.params_hash:
                raise StoreError(
                    f"round {stored.record.round} of {self._store.path} gives another model than "
                    "it did",
                    stored.record.params_hash, closed.model.params_hash.hex(),
                    "the store is damaged, or was written by another version of FLQ")
            if compare is not None:
                compare(stored, closed)
            model = closed.model
            if stored.record.round in untested:
                models[stored.record.round] = model
        # The operator was told what is in force in the open round, and who is out of the run.
        for event in self._store.events(model.version, model.version + 1):
            config, removed = apply_event(config, removed, event)
        return Recovered(model, config, removed, models)

    def _rolled_back(self, model: ModelState, target: ModelState, config: Config) -> Closed:
        """A round that took the model back to an earlier one; it broadcast nothing."""
        new = mending.rolled_back(model, target, self._run_id)
        nothing = codec.Encoded(FEDAVG, 32, np.zeros(0, np.float32), np.zeros(0, np.uint32))
        return Closed(new, nothing, None, 1.0, 0.0, 0.0,
                      rounds.history_sum(config.lazy_selection, new))

    def _replay(self, model: ModelState, stored: StoredRound, config: Config) -> Closed:
        uniform = config.flq_algorithm.weighting == "uniform"
        departing, heals = set(), False
        for event in stored.events:
            if isinstance(event, Join):
                model = rounds.open_account(model, self._run_id, event.worker, event.num_samples,
                                            uniform)
            # who was removed may never have been one
            elif isinstance(event, DEPARTURES) and event.worker in model.members:
                departing.add(event.worker)
                heals |= isinstance(event, Remove) and event.heals
        kept = {
            worker: account.activity for worker, account in model.accounts.items()
            if worker not in departing
        }
        return compute(self._store, self._run_id, model, departing, stored.events,
                       self._answers(stored, kept, model.observed), config, self._expected,
                       self._settings, heals)

    def _answers(self, stored: StoredRound, kept: dict[int, np.ndarray | None],
                 observed: Observed | None) -> Answers:
        """kept: the activity of each worker whose reference stays."""
        uploads, refused = [], []
        for answer in stored.answers:
            if answer.row.state == "accepted":
                if answer.frame is None:
                    raise StoreError(
                        f"round {stored.record.round}: the upload of worker {answer.row.worker} is "
                        "not in the store",
                        hint="a backup can take its place")
                history = uplink.history(self._settings, kept.get(answer.row.worker))
                frame = stored_upload(self._store, answer.frame,
                                      self._expected._replace(activity=history))
                innovation = codec.decode(frame.encoded, self._settings.sizes)
                measure = None if observed is None else bounds.measure(
                    observed.key, self._settings.memory, innovation, frame.non_trainable)
                uploads.append(
                    Upload(answer.row.worker, innovation, frame.non_trainable,
                           answer.reference_hash, answer.row.gain,
                           codec.next_activity(history, frame.encoded), measure))
            elif answer.row.state == "refused":
                refused.append((answer.row.worker, answer.row.gain))
        return Answers(tuple(uploads), stored.record.skipped, tuple(refused), stored.record.missing)

    def _load(self, row: tuple[int, bytes, bytes]) -> ModelState | None:
        _, digest, data = row
        if hashlib.sha256(data).digest() != digest:
            return None
        model = unpack_checkpoint(data)
        # older versions observed nothing: their members' references count from here on
        return model if model.observed is not None else model._replace(
            observed=_nothing_observed(self._store))


def first_model(config: Config, learner: Learner, store: RunStore) -> ModelState:
    """Version 0 of a run, with what its uploads are measured by."""
    first = rounds.initial_state(config, learner.layout, *learner.initial())
    return first._replace(observed=_nothing_observed(store))


def _nothing_observed(store: RunStore) -> Observed:
    return bounds.first_observed(store.sketch_key(sketch.KEY_BYTES))


def changed_config(config: Config, store: RunStore) -> Config:
    """What a run was started with, and what its operators changed since."""
    for event in store.events():
        config, _ = apply_event(config, frozenset(), event)
    return config


def is_paused(store: StoredRows) -> bool:
    """Whether the run's operator paused it and did not resume it."""
    orders = [event for event in store.events() if isinstance(event, (Pause, Resume))]
    return isinstance(orders[-1], Pause) if orders else False


def apply_event(config: Config, removed: frozenset[int],
                event: Event) -> tuple[Config, frozenset[int]]:
    """The configuration and the removed workers after what an operator did."""
    if isinstance(event, KeyChange):
        config = configuration.change(config, event.key, event.new)
    elif isinstance(event, Remove):
        removed |= {event.worker}
    return config, removed


def pack_checkpoint(model: ModelState) -> tuple[bytes, bytes]:
    """A checkpoint: (SHA-256, data). Arrays as npz, everything else as JSON in it."""
    optimizer = model.optimizer
    accounts = {}
    for worker, account in model.accounts.items():
        accounts[worker] = dict(account._asdict(), reference_hash=account.reference_hash.hex())
        del accounts[worker]["activity"]
    about = {"version": model.version, "params_hash": model.params_hash.hex(), "norms": model.norms,
             "powers": (optimizer.power1, optimizer.power2), "accounts": accounts}
    arrays: dict[str, Any] = {
        name: vector for name, vector in (("vector0", optimizer.m), ("vector1", optimizer.s))
        if vector.size
    }
    if model.reference_sum is not None:
        arrays["reference_sum"] = model.reference_sum
    if model.activity is not None:
        arrays["activity"] = model.activity
    if model.observed is not None:
        observed = model.observed
        about["observed"] = {
            "key": observed.key.hex(), "recent": observed.recent, "states": observed.states,
            "largest": observed.largest, "workers": sorted(observed.sketches)
        }
        arrays["sketches"] = np.array(
            [observed.sketches[worker] for worker in sorted(observed.sketches)], np.float64)
    for place, waiting in enumerate(model.waiting):
        arrays[f"waiting{place}"] = waiting.broadcast
        if waiting.activity is not None:
            arrays[f"waiting{place}_activity"] = waiting.activity
    if model.robust is not None:
        arrays["center"] = model.robust.center
        for worker, reference in model.robust.references.items():
            arrays[f"reference_of_{worker}"] = reference
    if model.average is not None:
        arrays.update(average=model.average.params, average_state=model.average.non_trainable)
    for worker, account in model.accounts.items():
        if account.activity is not None:
            arrays[f"activity_of_{worker}"] = account.activity
    file = io.BytesIO()
    arrays.update(about=np.frombuffer(json.dumps(about).encode("utf-8"), np.uint8),
                  params=model.params, broadcast=model.broadcast, state=model.non_trainable)
    np.savez(file, **arrays)
    data = file.getvalue()
    return hashlib.sha256(data).digest(), data


def unpack_checkpoint(data: bytes) -> ModelState:
    """What pack_checkpoint packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes().decode("utf-8"))
        # What sgd and momentum kept was once stored without powers.
        power1, power2 = about["powers"] or (1.0, 1.0)
        vectors = {
            name: arrays[stored] for name, stored in (("m", "vector0"), ("s", "vector1"))
            if stored in arrays.files
        }
        optimizer = OptimizerState(power1=power1, power2=power2, **vectors)
        reference_sum = arrays["reference_sum"] if "reference_sum" in arrays.files else None

        def activity(name: str) -> np.ndarray | None:
            return arrays[name] if name in arrays.files else None

        number = sum(name[len("waiting"):].isdecimal() for name in arrays.files)
        waiting = tuple(
            Waiting(arrays[f"waiting{place}"], activity(f"waiting{place}_activity"))
            for place in range(number))
        average = Average(arrays["average"],
                          arrays["average_state"]) if "average" in arrays.files else None
        accounts = {
            int(worker): Account(
                **dict(told, reference_hash=bytes.fromhex(told["reference_hash"]),
                       activity=activity(f"activity_of_{worker}")))
            for worker, told in about["accounts"].items()
        }
        kept = Kept({
            int(name[len("reference_of_"):]): arrays[name]
            for name in arrays.files if name.startswith("reference_of_")
        }, arrays["center"]) if "center" in arrays.files else None
        observed, told = None, about.get("observed")
        if told is not None:
            observed = Observed(bytes.fromhex(told["key"]),
                                dict(zip(told["workers"], arrays["sketches"])),
                                tuple(map(tuple, told["recent"])),
                                tuple(map(tuple, told["states"])), told["largest"])
        return ModelState(about["version"], arrays["params"], arrays["broadcast"], arrays["state"],
                          bytes.fromhex(about["params_hash"]), optimizer, reference_sum,
                          tuple(about["norms"]), accounts,
                          activity("activity"), waiting, average, observed, kept)
