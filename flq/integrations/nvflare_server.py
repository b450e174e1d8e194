"""The server's pair of DXO filters: nvflare.py adds them to a job."""

from __future__ import annotations

import re
import secrets
import threading
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from flq.errors import DataError, FlqError
from flq.integrations.exchange import LOST, MOVING_NAMES, TESTED, configured
from flq.integrations.exchange_node import Answer
from flq.integrations.exchange_server import Server
from flq.integrations.nvflare_dxo import (
    HOLDS,
    NUMPY,
    RECORD,
    SHARED,
    WEIGHTS,
    arrays_of,
    given_as,
    node_of,
    num_samples,
    replaced,
)

_OTHER_WORKFLOW = 'a workflow that extends nvflare\'s BaseFedAvg, or add_flq(aggregate="engine")'


class ModelEncoder(DXOFilter):
    """On the server, out: in place of the model what brings the client to it. It holds the run;
    UpdateDecoder hands it what comes.

    The arguments are those of nvflare.add_flq; config has the keys by path. Raises ConfigError and
    DataError.
    """

    def __init__(self, config: dict[str, Any] | None = None, aggregate: str = "flq",
                 moving: list[str] | None = None) -> None:
        super().__init__([DataKind.WEIGHTS], [DataKind.WEIGHTS])
        if aggregate not in ("flq", "engine"):
            raise DataError("aggregate cannot take this value", "flq or engine", aggregate)
        # Under these names NVFlare writes the arguments into the job.
        self.config, self.aggregate = dict(config or {}), aggregate
        self.moving = list(MOVING_NAMES if moving is None else moving)
        self._checked = configured(self.config, {})
        self.server: Server | None = None
        self._lock = threading.RLock()
        self._numbers: dict[str, int] = {}
        self._array_type = NUMPY  # of the workflow's models
        self._round: Any = None  # the workflow's, of the tasks that are out
        self._tasks: dict[str, str] = {}  # client -> its task, until the answer came
        self._asked: set[str] = set()
        self._handed: set[str] = set()  # whose update went on to the workflow,
        self._accepted: set[str] = set()  # which took it
        self._seen: set[str] = set()  # who was heard from in this round

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            fl_ctx.set_prop(SHARED, self, private=True, sticky=True)
        elif event_type == EventType.BEFORE_PROCESS_TASK_REQUEST:
            with self._lock:
                self._seen.add(_peer(fl_ctx))
        elif event_type == AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            if fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED):
                with self._lock:
                    self._accepted.add(_peer(fl_ctx))
        elif event_type == AppEventType.AFTER_AGGREGATION and self.aggregate == "flq":
            try:
                with self._lock:
                    self._step(fl_ctx.get_prop(AppConstants.AGGREGATION_RESULT))
            except FlqError as error:  # an event's exceptions end nothing
                self.system_panic(str(error), fl_ctx)

    # --- to a client

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        client = _peer(fl_ctx)
        try:
            with self._lock:
                self._begin(dxo, shareable.get_header(AppConstants.CURRENT_ROUND), fl_ctx)
                fields = self._open(client, fl_ctx.get_peer_context().get_prop(HOLDS))
                self._tasks[client] = shareable.get_header(ReservedHeaderKey.TASK_ID)
                self._asked.add(client)
        except FlqError as error:  # no client could be given this model
            self.system_panic(str(error), fl_ctx)
            raise
        return replaced(dxo, DataKind.APP_DEFINED, {RECORD: fields})

    def _begin(self, dxo: DXO, round_: Any, fl_ctx: FLContext) -> None:
        """The round of these tasks; what its workflow made of the one before closes that."""
        arrays, self._array_type = arrays_of(dxo)
        if self.server is None:
            # The id only tells this run from the client's last one.
            self.server = Server(self._checked, arrays, secrets.token_hex(8), self.moving)
            names = sorted((client.name for client in fl_ctx.get_engine().get_clients()),
                           key=_natural_key)
            self._numbers = {name: number for number, name in enumerate(names)}
        elif round_ != self._round and self.aggregate == "flq":
            kept = self.server.arrays()
            if self._asked or set(kept) != set(arrays) or not all(
                    np.array_equal(array, kept[name]) for name, array in arrays.items()):
                raise DataError("the step of this workflow cannot be FLQ's", _OTHER_WORKFLOW,
                                "one that makes another step")
        elif round_ != self._round and self._asked:
            params, _ = self.server.form.split(arrays)
            self._close(self.server, params)
        self._round = round_

    def _open(self, client: str, holds: Any) -> Answer:
        assert self.server is not None
        node = node_of(client)
        if self.server.knows(node):
            self.server.hear(node, _said(holds, self.server.run))
        number = self._numbers.setdefault(client, len(self._numbers))
        return self.server.open(node, self._array_type, number)

    # --- from a client

    def take(self, client: str, task: str, dxo: DXO) -> DXO:
        """A client's answer to its task as arrays; without any where it counts as missing."""
        with self._lock:
            nothing = replaced(dxo, DataKind.WEIGHTS, {})
            if self.server is None or self._tasks.get(client) != task:
                self.logger.info(f"{client}: an answer to a task that is over does not count")
                return nothing
            del self._tasks[client]
            node, fields = node_of(client), dxo.data[RECORD]
            # A client is known by its name, whatever number it says.
            answer = dict(fields if isinstance(fields, dict) else {}, worker=self._numbers[client])
            updates = self.server.receive({node: (answer, num_samples(dxo.meta))})
            if node not in updates:
                return nothing
            self._handed.add(client)
            kind, arrays = DataKind.WEIGHTS, self.server.stepped(updates[node], node)
            if answer.get("kind") == DataKind.WEIGHT_DIFF.value:
                kind, before = DataKind.WEIGHT_DIFF, self.server.true_arrays()
                arrays = {name: array - before[name] for name, array in arrays.items()}
            return replaced(dxo, kind, given_as(self._array_type, arrays))

    # --- the round

    def _step(self, result: Any) -> None:
        """FLQ's step in the place of what the workflow made of the updates."""
        if not isinstance(result, FLModel):
            raise DataError("this workflow keeps its step to itself", _OTHER_WORKFLOW,
                            type(result).__name__)
        if self.server is not None:
            self._close(self.server, None)
            result.params = given_as(self._array_type, self.server.arrays())
            result.params_type = ParamsType.FULL

    def _close(self, server: Server, params: np.ndarray | None) -> None:
        server.drop(node_of(client) for client in self._handed - self._accepted)
        # A client that is there asks for tasks again and again: who did not is absent, and whom
        # the workflow left out is not.
        absent = {client for client in self._numbers
                  if client not in self._seen and server.knows(node_of(client))}
        server.close([node_of(client) for client in sorted(self._asked | absent)], params)
        self._tasks = {}
        self._asked, self._handed, self._accepted, self._seen = set(), set(), set(), set()


class UpdateDecoder(DXOFilter):
    """On the server, in: the client's update as the arrays that it stands for."""

    def __init__(self) -> None:
        kinds = [DataKind.APP_DEFINED, *WEIGHTS]
        super().__init__(kinds, kinds)

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        if (shareable.get_return_code() == ReturnCode.TASK_DATA_FILTER_ERROR
                and fl_ctx.get_peer_context().get_prop(HOLDS) == ""):
            # It could not read the frames and says that it holds nothing now: no reason to end the
            # job, as the workflow would.
            self.logger.warning(f"{_peer(fl_ctx)} holds no model that the frames start from: a "
                                "keyframe comes with its next task")
            shareable.set_return_code(ReturnCode.OK)
            return DXO(DataKind.WEIGHTS, {}).update_shareable(shareable)
        return super().process(shareable, fl_ctx)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        if RECORD not in dxo.data:
            raise DataError(f"{_peer(fl_ctx)} answered with a whole model",
                            "an update from FLQ's filters, which add_flq gives to all clients",
                            dxo.data_kind)
        encoder = fl_ctx.get_prop(SHARED)
        return encoder.take(_peer(fl_ctx), fl_ctx.get_prop(FLContextKey.TASK_ID), dxo)


def _peer(fl_ctx: FLContext) -> str:
    return fl_ctx.get_peer_context().get_identity_name()


def _natural_key(name: str) -> list[tuple[str, int]]:
    """A key for sorting, by which site-2 comes before site-10."""
    found = re.findall(r"([^0-9]*)([0-9]*)", name)
    return [(text, int(digits or -1)) for text, digits in found]


def _said(holds: Any, run: str) -> Answer:
    """What a client said it holds, as the fields of an answer without an update."""
    found = re.fullmatch(r"([0-9a-f]+) ([0-9]{1,9}) ([0-9a-f]{16})", str(holds))
    if found is None or found[1] != run:
        return {"state": LOST, "params_hash": b""}
    return {"state": TESTED, "version": int(found[2]), "params_hash": bytes.fromhex(found[3])}
