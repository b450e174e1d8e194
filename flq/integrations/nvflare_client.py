"""A client's pair of DXO filters: nvflare.py adds them to a job."""

from __future__ import annotations

import os
from typing import Any, Mapping

from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs

from flq.errors import DataError, FlqError
from flq.host.durable import replace_file
from flq.integrations.exchange import field
from flq.integrations.exchange_node import Answer, Node
from flq.integrations.nvflare_dxo import (
    HOLDS,
    RECORD,
    SHARED,
    WEIGHTS,
    arrays_of,
    given_as,
    node_of,
    num_samples,
    replaced,
)

STATE_FILE = "flq.state"
"""In the job's folder on the client: what must outlive its process."""
_LOSSES = ("train_loss", "loss")


class ModelDecoder(DXOFilter):
    """On a client, in: the model out of what came. It holds what FLQ keeps of the client;
    UpdateEncoder hands it what the training gave.
    """

    def __init__(self) -> None:
        super().__init__([DataKind.APP_DEFINED], [DataKind.APP_DEFINED])
        self._path, self._id = "", 0
        self._node: Node | None = None
        self._trains = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type != EventType.START_RUN:
            return
        folder = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
        self._path = os.path.join(folder, STATE_FILE)
        self._id = node_of(fl_ctx.get_identity_name())
        self._node = Node.load(_kept(self._path), self._id)
        fl_ctx.set_prop(SHARED, self, private=True, sticky=True)
        self._say(fl_ctx)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        if RECORD not in dxo.data:
            return None
        assert self._node is not None, "START_RUN comes before the first task"
        fields, self._trains = dxo.data[RECORD], False
        try:
            arrays = self._node.receive(fields)
            if arrays is None:
                raise DataError("the frames start from another model than this client's",
                                "its own run and version", self._node.holds[:2])
            data = given_as(field(fields, "key", str), arrays)
        except FlqError:
            self._node = Node(self._id)
            self._say(fl_ctx)
            raise
        self._say(fl_ctx)
        self._trains = True
        return replaced(dxo, DataKind.WEIGHTS, data)

    def answer(self, dxo: DXO) -> Answer | None:
        """What the training gave, as the fields of the answer; None where no model of FLQ came.

        Raises DataError for arrays that are not the model's.
        """
        if not self._trains or self._node is None:
            return None
        self._trains = False
        held, (arrays, _) = self._node.arrays(), arrays_of(dxo)
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            arrays = {name: array + arrays[name] if name in arrays else array
                      for name, array in held.items()}
        if set(arrays) == set(held):  # in the model's order; Node.answer refuses other names
            arrays = {name: arrays[name] for name in held}
        fields = self._node.answer(arrays, num_samples(dxo.meta), _loss(dxo.meta))
        try:  # Before the answer leaves: a process that is killed now must know what it said.
            replace_file(self._path, [fobs.dumps(self._node.state())], "nvflare_state")
        except OSError as error:
            self.logger.warning(f"FLQ's state could not be written to {self._path} ({error}): if "
                                "this process ends, its reference starts again from 0")
        return fields

    def _say(self, fl_ctx: FLContext) -> None:
        """With each request for a task the server hears which model is held."""
        assert self._node is not None
        run, version, digest = self._node.holds
        fl_ctx.set_prop(HOLDS, f"{run} {version} {digest.hex()}" if version >= 0 else "",
                        private=False, sticky=True)


class UpdateEncoder(DXOFilter):
    """On a client, out: the trained model as an update of few bits."""

    def __init__(self) -> None:
        super().__init__(WEIGHTS, WEIGHTS)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        decoder = fl_ctx.get_prop(SHARED)
        fields = decoder.answer(dxo) if decoder is not None else None
        if fields is None:
            return None
        kind = DataKind(dxo.data_kind).value
        return replaced(dxo, DataKind.APP_DEFINED, {RECORD: dict(fields, kind=kind)})


def _kept(path: str) -> Any:
    """What was kept, for Node.load; None where there is nothing that can be read."""
    try:
        with open(path, "rb") as file:
            kept = fobs.loads(file.read())
    except Exception:  # fobs has no error of its own; a file that it cannot read counts as lost
        return None
    return kept if isinstance(kept, dict) else None


def _loss(meta: Mapping[str, Any]) -> float:
    """The training's loss, which an upload names; 0 where the script does not tell."""
    metrics = meta.get(MetaKey.INITIAL_METRICS)
    if not isinstance(metrics, dict):
        return 0.0
    found = [metrics[name] for name in _LOSSES if isinstance(metrics.get(name), (int, float))]
    return float(found[0]) if found else 0.0
