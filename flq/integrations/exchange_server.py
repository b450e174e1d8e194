"""A server's end of an exchange: the model, what each node holds of it, and the rounds
(docs/engines.md).

    server = Server(config, first arrays, run)
    fields = server.open(node)                          # for each node that is asked
    server.receive({node: (fields, num_samples), ...})  # what they answered
    server.close(asked nodes)                           # or with the step of another strategy

A node is an engine's id, a worker the number that its draws and sums go by.
"""

from __future__ import annotations

import logging
from typing import Iterable, Mapping, NamedTuple

import numpy as np

from flq.algorithm import downlink, memories, uplink
from flq.algorithm import round as rounds
from flq.algorithm.averaging import Average, average_after
from flq.algorithm.lazy import NEVER_COMMITTED
from flq.algorithm.model_state import Account, Answers, Closed, Departure, ModelState, Upload
from flq.compression import codec
from flq.errors import FlqError, ProtocolError
from flq.integrations.exchange import (
    ANSWERED,
    LOST,
    SKIPPED,
    TESTED,
    Arrays,
    Fields,
    about,
    field,
    fixed_of,
    form_of,
)
from flq.integrations.exchange_node import Answer, chain_id
from flq.learning.batches import local_steps_of
from flq.master.run.broadcasts import Broadcasts
from flq.master.run.checks import check_upload
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import UPLOAD_KIND, Expected, RoundTerms
from flq.settings import Config

_log = logging.getLogger("flq.exchange")

FIRST_GIVEN_NUMBER = 65536  # of nodes without a number of their own, which are below


class _Known(NamedTuple):
    """What the server knows of a node: the version that it said it holds, -1 for none. worker: None
    until it said its number.
    """

    given: int
    version: int = -1
    params_hash: bytes = b""
    worker: int | None = None


class Server:
    """One run. moving: patterns of the names of arrays that travel in float32 and are averaged.

    Raises ConfigError and DataError for a model that cannot travel.
    """

    def __init__(self, config: Config, first: Arrays, run: str, moving: Iterable[str]) -> None:
        self.config, self.run = config, run
        self.form = form_of(first, tuple(moving))
        layout = self.form.layout
        self._fixed, self._about = fixed_of(self.form, first), about(config, self.form)
        self._settings = uplink.settings_from(config, layout)
        self._down = downlink.settings_from(config, layout)
        self._expected = Expected(run, layout, self._settings.sizes, self._settings.quantizer)
        self._memory = memories.configured(config.flq_algorithm)
        self._uniform = config.flq_algorithm.weighting == "uniform"
        self._broadcasts = Broadcasts(self._expected)
        self.model = rounds.initial_state(config, layout, *self.form.split(first))
        self._nodes: dict[int, _Known] = {}
        self._owner: dict[int, int] = {}  # worker -> node
        # g_m of members, where v is made around them: a departure takes it out of the sum
        self._references: dict[int, np.ndarray] = {}
        self._uploads: dict[int, Upload] = {}
        self._skipped: set[int] = set()

    def arrays(self) -> dict[str, np.ndarray]:
        """The model that the run keeps: that of the nodes, theta_hat, or with model.averaging the
        average.
        """
        return self.form.join(*self.model.result, self._fixed)

    def true_arrays(self) -> dict[str, np.ndarray]:
        """theta: what another's step starts from."""
        return self.form.join(self.model.params, self.model.non_trainable, self._fixed)

    # --- to a node

    def knows(self, node: int) -> bool:
        """Whether anything was sent to this node before."""
        return node in self._nodes

    def open(self, node: int, key: str, number: int | None = None) -> Answer:
        """The fields that bring a node to the open round's model. number: what it is called by
        where it has none of its own; the next free one where nothing is said.
        """
        given = FIRST_GIVEN_NUMBER + len(self._nodes) if number is None else number
        known = self._nodes.setdefault(node, _Known(given))
        model, fields = self.model, Answer()
        account = self._account(node)
        if known.version < 0:
            fields = {"about": self._about, "fixed": self._fixed}
        data = b""
        if (known.version, known.params_hash) != (model.version, model.params_hash):
            data = self._broadcasts.deliver(model, known.version, known.params_hash,
                                            self._terms(), False).data
        return dict(
            fields, run=self.run, key=key, frames=data, params_hash=model.params_hash,
            worker=known.given, reference=account.reference_hash if account else b"",
            epoch=account.epoch if account else -1,
            fresh=int(account is not None and account.clock == NEVER_COMMITTED))

    def _terms(self) -> RoundTerms:
        lazy = self.config.lazy_selection
        return RoundTerms(rounds.history_sum(lazy, self.model), lazy.thr_scale,
                          self.model.mean_weight, 0.0, lazy.C, 0)

    def _account(self, node: int) -> Account | None:
        worker = self._nodes[node].worker
        return None if worker is None else self.model.accounts[worker]

    # --- from nodes

    def receive(self, answers: Mapping[int, tuple[Fields, int]]) -> dict[int, np.ndarray]:
        """What the nodes of one round answered, (fields, num_samples) by node -> the update that
        each stands for, u_m = h_m + c_m, float32[p]; h_m alone of who was silent.

        An answer that no node gives is named in the log and counts as missing.
        """
        updates = {}
        # Whoever has its number keeps it: a second process with the same one is turned away.
        for node in sorted(answers, key=lambda node: (self._nodes[node].worker is None, node)):
            try:
                update = self._receive(node, *answers[node], set(answers))
            except FlqError as error:
                _log.warning("node %d: %s; its answer counts as missing", node, error)
                continue
            if update is not None:
                updates[node] = update
        return updates

    def hear(self, node: int, fields: Fields) -> None:
        """Which model a node holds, from an answer without an update."""
        try:
            self._hear(node, fields)
        except FlqError as error:
            _log.warning("node %d: %s", node, error)

    def _hear(self, node: int, fields: Fields) -> str:
        state = field(fields, "state", str)
        if state not in (ANSWERED, SKIPPED, TESTED, LOST):
            raise ProtocolError("bad_request", "an FLQ answer of another kind",
                                f"{ANSWERED}, {SKIPPED}, {TESTED} or {LOST}", state)
        version = field(fields, "version", int) if state != LOST else -1
        if version > self.model.version:
            raise ProtocolError("other_base", "the node holds a model that there is not",
                                f"at most {self.model.version}", version)
        self._nodes[node] = self._nodes[node]._replace(
            version=version, params_hash=field(fields, "params_hash", bytes))
        return state

    def _receive(self, node: int, fields: Fields, num_samples: int,
                 present: set[int]) -> np.ndarray | None:
        state = self._hear(node, fields)
        if state not in (ANSWERED, SKIPPED):
            _log.info("node %d holds no model that the frames start from: a keyframe brings it",
                      node)
            return None
        worker = field(fields, "worker", int)
        if num_samples < 1 or not 0 <= worker < 2 ** 32:
            raise ProtocolError("bad_request", "an FLQ answer with unusable numbers",
                                "at least 1 sample, a number from 0", [num_samples, worker])
        comes = self._owner.get(worker) != node
        if comes:
            self._take_place(node, worker, num_samples, present)
        self._admit(node, worker, num_samples,
                    bool(field(fields, "reset", int)) and not comes)
        account = self.model.accounts[worker]
        reference = self._references.get(worker)
        update = np.zeros(self._expected.layout.num_params, np.float32)
        if reference is not None:
            update = (self._memory.rate * reference).astype(np.float32)
        if state == SKIPPED:
            self._skipped.add(worker)
            return update if reference is not None else None
        data = field(fields, "frame", bytes)
        head = frames.unpack_only_head(data, UPLOAD_KIND, self._expected)
        received = check_upload(worker, head, data, self.model.params_hash, account,
                                self._settings, self.config, self._expected)
        limit = self.config.security.max_update_norm
        if limit and received.norm2 > limit * limit:
            raise ProtocolError("bad_frame", "the update is longer than security.max_update_norm",
                                limit)
        self._uploads[worker] = received.upload
        return update + received.innovation

    def _take_place(self, node: int, worker: int, num_samples: int, present: set[int]) -> None:
        """A node says its number for the first time: a newcomer, or one in the place of another
        that did not answer this round.
        """
        owner = self._owner.get(worker)
        if owner in present:
            raise ProtocolError("worker_id_in_use", "two nodes have one number", None, worker,
                                "give each node a partition-id of its own")
        if self._nodes[node].worker is not None:
            raise ProtocolError("bad_request", "the node had another number",
                                self._nodes[node].worker, worker)
        if owner is not None:
            _log.info("node %d takes the place of node %d as worker %d", node, owner, worker)
            self._nodes[owner] = self._nodes[owner]._replace(worker=None)
        self._owner[worker] = node
        self._nodes[node] = self._nodes[node]._replace(worker=worker)
        if worker in self.model.accounts:
            self._start_again(node, worker)
        self.model = rounds.open_account(self.model, chain_id(self.run, node), worker, num_samples,
                                         self._uniform)

    def _admit(self, node: int, worker: int, num_samples: int, reset: bool) -> None:
        """The worker's account as this answer sees it: reset, or of another size."""
        if reset:
            _log.info("worker %d lost its reference: both start again from 0", worker)
            self._start_again(node, worker)
        account = self.model.accounts[worker]
        if account.num_samples == num_samples:
            return
        weighed = account.member and self._memory.has_reference_sum and not self._uniform
        if weighed:  # What the sum holds of it has its old weight.
            self._start_again(node, worker)
        resized = rounds.resized(self.model.accounts[worker], num_samples, self._uniform)
        self.model = self.model._replace(accounts={**self.model.accounts, worker: resized})
        if weighed:
            raise ProtocolError("other_base", "the node has another number of samples",
                                account.num_samples, num_samples,
                                "its reference starts again from 0")

    def _start_again(self, node: int, worker: int) -> None:
        """The worker's reference leaves the sum; its next one starts from 0 in a new epoch."""
        self.model = rounds.depart(self.model, chain_id(self.run, node),
                                   [Departure(worker, self._references.pop(worker, None))])

    # --- the round

    def stepped(self, update: np.ndarray, node: int | None = None) -> dict[str, np.ndarray]:
        """The arrays after one node's update alone, from theta: what another strategy averages.
        node: its moving values come with them; without it they are the model's.
        """
        worker = None if node is None else self._nodes[node].worker
        moving = self.model.non_trainable
        if worker in self._uploads:
            moving = self._uploads[worker].non_trainable
        return self.form.join(self.model.params - update, moving, self._fixed)

    def drop(self, nodes: Iterable[int] | None = None) -> None:
        """The answers of this round, or those of some nodes, count as missing: it stays open."""
        for node in list(self._nodes) if nodes is None else nodes:
            worker = self._nodes[node].worker
            if worker is not None:
                self._uploads.pop(worker, None)
                self._skipped.discard(worker)

    def close(self, asked: Iterable[int], params: np.ndarray | None = None) -> bool:
        """Close the round in which these nodes were asked; False where nobody answered: it stays
        open.

        params: theta float32[p] after the round, in place of FLQ's own. Raises NonFiniteError.
        """
        if not self._uploads and not self._skipped:
            return False
        before = self.model
        numbers = (self._nodes[node].worker for node in asked)
        workers = {worker for worker in numbers if worker is not None}
        missing = workers - set(self._uploads) - self._skipped
        answers = Answers(tuple(self._uploads[worker] for worker in sorted(self._uploads)),
                          tuple(sorted(self._skipped)), (), tuple(sorted(missing)))
        closed = rounds.close_round(before, answers, self.config, self._expected.layout,
                                    lambda samples: local_steps_of(self.config, samples))
        if params is not None:
            closed = self._with_params(before, closed, params)
        # For whom nobody asked nothing has happened.
        accounts = {worker: account if worker in workers else before.accounts[worker]
                    for worker, account in closed.model.accounts.items()}
        new = closed.model._replace(accounts=accounts)
        body = codec.to_body(closed.encoded, self._down.entropy_coding, closed.history)
        self.model = new
        self._broadcasts.add(before, new, closed.encoded, body, self._terms(), False)
        self._commit()
        return True

    def _with_params(self, before: ModelState, closed: Closed,
                     params: np.ndarray) -> Closed:
        encoded, broadcast = downlink.encode(params, before.broadcast, before.version, self._down)
        digest = params_hash(broadcast, closed.model.non_trainable)
        model = closed.model._replace(
            params=params, broadcast=broadcast, params_hash=digest,
            activity=codec.next_activity(before.activity, encoded),
            average=average_after(before.average, before.version,
                                  Average(params, closed.model.non_trainable),
                                  self.config.model.averaging))
        return closed._replace(model=model, encoded=encoded)

    def _commit(self) -> None:
        """After the round: the references hold what was committed, and who was absent too long
        leaves.
        """
        if self._memory.has_reference_sum:
            for worker, upload in self._uploads.items():
                kept = self._references.get(worker)
                if kept is None:
                    kept = np.zeros(upload.innovation.size, np.float64)
                self._references[worker], _ = self._memory.commit(kept, upload.innovation)
        self._uploads, self._skipped = {}, set()
        for worker in self.model.members:
            account = self.model.accounts[worker]
            if account.absent >= self.config.system.absent_rounds:
                _log.info("worker %d was absent for %d rounds: its reference leaves the average",
                          worker, account.absent)
                self._start_again(self._owner[worker], worker)
