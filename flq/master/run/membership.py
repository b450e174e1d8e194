"""Who takes part in a run: accounts as the open round sees them, who departs with it, who has left,
and what is to be written down.
"""

from __future__ import annotations

import collections
import logging
from typing import Any

from flq.algorithm import bounds
from flq.algorithm import round as rounds
from flq.algorithm.model_state import Account, ModelState
from flq.master.run.closing import new_sizes
from flq.master.store.events import (
    Absent,
    DeviceNote,
    Event,
    Expelled,
    Join,
    Leave,
    Overweight,
    Remove,
    Reset,
    Samples,
)
from flq.master.store.run_store import StoredRows

_MOST_NOTES, _NOTES_WINDOW_S = 5, 60.0  # device reports of a worker that are stored
_log = logging.getLogger("flq.master")


class Membership:
    """model: the state after the newest closed round, with an account for everybody who registered
    since.

    events: what happened since and is stored with the next round. departing: whose reference leaves
    the average with it. standing: both as they were when the open round had its answers, and
    whether the average is summed anew.
    devices: what workers said of their machines.
    """

    def __init__(self, run_id: str, model: ModelState, uniform: bool) -> None:
        self.model = model
        self.events: list[Event] = []
        self._sizes: dict[int, int] = {}  # new_sizes of the events: every request asks for one
        self.departing: set[int] = set()
        self.healing: set[int] = set()  # of those who depart, whom the operator removed
        self.standing: tuple[tuple[int, ...], tuple[Event, ...], bool] = ((), (), False)
        self.devices: dict[int, dict[str, Any]] = {}
        self._noted: dict[int, dict[str, Any]] = {}  # as they are written down
        self._noted_at: dict[int, collections.deque[float]] = {}
        self._run_id, self._uniform = run_id, uniform
        self._left: set[int] = set()  # who said goodbye and did not come back
        self._removed: set[int] = set()  # by the operator, through this master

    def restore(self, store: StoredRows) -> None:
        """What the store knows beside the model; its events of the open round were answered by the
        last master already.
        """
        self.devices.update((event.worker, event.device) for event in store.events()
                            if isinstance(event, DeviceNote))
        self._noted.update(self.devices)
        ending = store.ending()
        if ending is not None:
            self.devices.update((int(worker), device) for worker, device in ending.devices.items())
        removals = [
            event for event in store.events(self.model.version)
            if isinstance(event, Remove) and self.is_member(event.worker)
        ]
        self.departing = {event.worker for event in removals}
        self.healing = {event.worker for event in removals if event.heals}
        last = store.last_rounds()
        self._left = {
            worker for worker, round_ in store.last_leaves().items()
            if last.get(worker, -1) < round_
        }

    def is_member(self, worker: int) -> bool:
        return worker in self.model.members

    def account(self, worker: int) -> Account:
        """The worker's account as the open round sees it: a departure and another number of samples
        take effect when it closes.
        """
        account = self.model.accounts[worker]
        if worker in self.departing:
            account = rounds.departed(self._run_id, worker, account)
        size = self._sizes.get(worker)
        return account if size is None else rounds.resized(account, size, self._uniform)

    def come(self, worker: int, num_samples: int) -> Account:
        """The account of a worker that registers; opens one for a newcomer."""
        if worker not in self.model.accounts:
            self.model = rounds.open_account(self.model, self._run_id, worker, num_samples,
                                             self._uniform)
            self.events.append(Join(worker, num_samples))
        self._left.discard(worker)
        return self.account(worker)

    def reset(self, worker: int, num_samples: int | None = None) -> Account:
        """The worker's reference is 0 from the open round on. num_samples: so many from then on,
        None where that did not change.
        """
        if self.model.accounts[worker].member or worker in self.departing:
            self.depart(Reset(worker))
        if num_samples is not None:
            self.events.append(Samples(worker, num_samples))
            self._sizes[worker] = num_samples
        return self.account(worker)

    def leave(self, worker: int) -> None:
        """It said goodbye: nobody waits for it any more."""
        self.depart(Leave(worker))
        self._left.add(worker)

    def remove(self, worker: int, answers_stand: bool) -> None:
        """The operator took it out, and that is stored already: with the open round, or where its
        answers stand with the next one.
        """
        self._removed.add(worker)
        if self.is_member(worker) and not answers_stand:
            self.departing.add(worker)
            self.healing.add(worker)

    def depart(self, event: Leave | Reset | Absent | Overweight | Expelled) -> None:
        """A worker's reference leaves the average with the open round."""
        if self.is_member(event.worker) and event.worker not in self.departing:
            self.departing.add(event.worker)
        # a goodbye is written down in any case: it says who is not missing
        elif not isinstance(event, Leave):
            return
        self.events.append(event)

    def note_device(self, worker: int, device: dict[str, Any], now: float) -> None:
        """Written down with the next round that closes, once for each machine: a temperature alone
        is no news. Of a worker that has another machine again and again only some are; now: seconds
        of a monotonic clock.
        """
        self.devices[worker] = device
        known = self._noted.get(worker, {})
        if {**known, "temperature_c": None} == {**device, "temperature_c": None}:
            return
        moments = self._noted_at.setdefault(worker, collections.deque(maxlen=_MOST_NOTES))
        if len(moments) == _MOST_NOTES and now - moments[0] < _NOTES_WINDOW_S:
            return  # its next registration tells it again
        moments.append(now)
        self._noted[worker] = device
        self.events.append(DeviceNote(worker, device))

    def awaited(self) -> set[int]:
        """Who should answer the open round: all that ever registered, but for newcomers and for who
        left.
        """
        newcomers = {event.worker for event in self.events if isinstance(event, Join)}
        return set(self.model.accounts) - newcomers - self._left

    def stand(self) -> None:
        """The open round has its answers: what happens from now on counts from the next one."""
        self.standing = tuple(sorted(self.departing)), tuple(self.events), bool(self.healing)

    def gone_since(self) -> list[int]:
        """Whose answer to the open round does not continue what it will hold: who left or came back
        with less since the answers stood.
        """
        since = self.events[len(self.standing[1]):]
        return sorted({
            event.worker for event in since if isinstance(event, (Leave, Reset, Samples))
        })

    def adopt(self, model: ModelState, departed: tuple[int, ...], num_events: int,
              absent_rounds: int | None, max_share: float | None = None) -> None:
        """A round was stored with the first num_events events. absent_rounds: after so many without
        an answer a member departs. max_share: of all weight, with more it departs too.
        """
        # Workers that registered meanwhile have accounts that the closed round did not see.
        accounts = {
            worker: model.accounts.get(worker, account)
            for worker, account in self.model.accounts.items()
        }
        self.model = model._replace(accounts=accounts)
        self.departing -= set(departed)
        self.healing -= set(departed)
        self.events = self.events[num_events:]
        self._sizes = new_sizes(self.events)
        # Who went while the answers stood may have become a member with them.
        gone = self._removed | {event.worker for event in self.events if isinstance(event, Leave)}
        self.departing |= {worker for worker in gone if self.is_member(worker)}
        self.healing |= {worker for worker in self._removed if self.is_member(worker)}
        for worker in self._sizes:
            # where it became a member with this round, it did so with its old weight
            self.depart(Reset(worker))
        if max_share is not None:
            weights = {worker: self.model.accounts[worker].weight for worker in self.model.members}
            for worker in bounds.too_heavy(weights, max_share):
                _log.warning("worker %d has more than %g of all samples: its reference leaves the "
                             "average", worker, max_share)
                self.depart(Overweight(worker))
        if absent_rounds is None:
            return
        for worker in self.model.members:
            if self.model.accounts[worker].absent >= absent_rounds:
                _log.info("worker %d was absent for %d rounds: its reference leaves the average",
                          worker, absent_rounds)
                self.depart(Absent(worker))
