"""FLQ's updates on Flower: a mod for the ClientApp and a strategy around the ServerApp's own.

    pip install "flq[flower]"

In a Flower app of the message API two lines change:

    app = ClientApp(mods=[flq_mod])                                   # client_app.py
    strategy = FlqStrategy(FedAvg(fraction_train=0.5), mode="laq")    # server_app.py

Quantised differences travel down in place of the model, and coded low-bit updates with memory up.
docs/engines.md says what is kept of FLQ on Flower and what is lost.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, Callable, Iterable

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from flq.errors import DataError
from flq.integrations.exchange import LOST, MOVING_NAMES, configured, field
from flq.integrations.exchange_node import Answer, Node
from flq.integrations.exchange_server import Server

RECORD = "flq"
"""The record of FLQ's fields in a message's content, and in a node's context state."""
_LOSSES = ("train_loss", "train-loss", "loss")
_log = logging.getLogger("flwr")


def flq_mod(message: Message, context: Context,
            call_next: Callable[[Message, Context], Message]) -> Message:
    """A mod for a ClientApp whose ServerApp has an FlqStrategy; the first one of the list, so that
    the others see whole models. Messages without FLQ's record go through as they are.

    The app gets the model's arrays and answers with trained ones, as ever; its metrics must have
    the number of samples. What FLQ keeps of a node is in the state of its context.
    """
    if RECORD not in message.content:
        return call_next(message, context)
    fields = message.content[RECORD]
    own_number = context.node_config.get("partition-id")
    node = Node.load(context.state.get(RECORD), context.node_id,
                     own_number if isinstance(own_number, int) else None)
    arrays = node.receive(fields)
    if arrays is None:
        return _answer(message, RecordDict(), node.lost())
    content = RecordDict({name: record for name, record in message.content.items()
                          if name != RECORD})
    content[field(fields, "key", str)] = _record_of(arrays)
    message.content = content
    reply = call_next(message, context)
    if reply.has_error():
        return reply
    if message.metadata.message_type.partition(".")[0] != MessageType.TRAIN:
        told = node.tested()
    else:
        key, trained = _the_arrays(reply.content)
        told = node.answer({name: array.numpy() for name, array in trained.items()},
                           _num_samples(reply.content, field(fields, "weighted-by", str)),
                           _loss(reply.content))
        del reply.content[key]
    context.state[RECORD] = ConfigRecord(node.state())
    reply.content[RECORD] = ConfigRecord(told)
    return reply


class FlqStrategy(Strategy):
    """A strategy for a ServerApp whose ClientApps have the flq_mod.

    strategy: Flower's, which samples the nodes and aggregates their metrics. aggregate: `flq`, FLQ
    makes the step itself (docs/algorithm.md 1 and 3), with its correction and its server
    optimisers; `strategy`, the given one makes it from the updates that arrived, FedAdam or Krum
    for instance; by default `flq` for FedAvg itself and `strategy` for all others. moving: patterns
    of the names of arrays that travel in float32 and are averaged, those of batch normalisation by
    default. config, keywords: FLQ's configuration, as flq.Config takes it. What concerns FLQ's own
    training and network does not count, and total_workers only for a rule against bad workers.

    The arrays that start() gives and evaluate_fn gets are those of the model that FLQ keeps: with
    model.averaging the average, else what the nodes hold. Raises ConfigError.
    """

    def __init__(self, strategy: Strategy, config: str | dict[str, Any] | None = None,
                 aggregate: str | None = None, moving: Iterable[str] = MOVING_NAMES,
                 **keywords: Any) -> None:
        self._strategy, self._config = strategy, configured(config, keywords)
        self._own_step = (type(strategy) is FedAvg) if aggregate is None else aggregate == "flq"
        if aggregate not in (None, "flq", "strategy"):
            raise DataError("aggregate cannot take this value", "flq or strategy", aggregate)
        self._moving = tuple(moving)
        self._weighted_by = getattr(strategy, "weighted_by_key", "num-examples")
        self._key = getattr(strategy, "arrayrecord_key", "arrays")
        self.server: Server | None = None
        self._asked: list[int] = []

    def summary(self) -> None:
        algorithm = self._config.flq_algorithm
        _log.info("\t├──> FLQ: mode %s, %d bits up, %d down, memory %s; the step is %s",
                  algorithm.mode, algorithm.b_up, algorithm.b_down, algorithm.memory,
                  "FLQ's" if self._own_step else type(self._strategy).__name__ + "'s")
        self._strategy.summary()

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord,
                        grid: Grid) -> Iterable[Message]:
        """The strategy's messages, with what brings each node to the model in its place."""
        server = self._begin(arrays)
        messages = self._with_fields(
            self._strategy.configure_train(server_round, _record_of(server.true_arrays()), config,
                                           grid))
        self._asked = [message.metadata.dst_node_id for message in messages]
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]
                        ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The model after the round; None of both where nobody answered."""
        server = self._started()
        replies, answers = list(replies), {}
        for reply in replies:
            if reply.has_content() and RECORD in reply.content:
                answers[reply.metadata.src_node_id] = (
                    reply.content[RECORD], _num_samples(reply.content, self._weighted_by, 0))
        updates = server.receive(answers)
        whole = []
        for reply in replies:
            node = reply.metadata.src_node_id
            if node in answers:
                del reply.content[RECORD]
                if node not in updates:
                    continue
                reply.content[self._key] = _record_of(server.stepped(updates[node]))
            whole.append(reply)
        theirs, metrics = self._strategy.aggregate_train(server_round, whole)
        params = None
        if not self._own_step:
            if theirs is None:
                server.drop()
                return None, metrics
            params, _ = server.form.split(_arrays_of(theirs))
        if not server.close(self._asked, params):
            return None, metrics
        return _record_of(server.arrays()), metrics

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord,
                           grid: Grid) -> Iterable[Message]:
        """The strategy's messages; what they bring need not be sent again for the training."""
        self._begin(arrays)
        return self._with_fields(
            self._strategy.configure_evaluate(server_round, arrays, config, grid))

    def aggregate_evaluate(self, server_round: int,
                           replies: Iterable[Message]) -> MetricRecord | None:
        """The strategy's metrics, of the nodes that held the model."""
        server, whole = self._started(), []
        for reply in replies:
            if reply.has_content() and RECORD in reply.content:
                fields = reply.content[RECORD]
                server.hear(reply.metadata.src_node_id, fields)
                del reply.content[RECORD]
                if fields.get("state") == LOST:
                    continue
            whole.append(reply)
        return self._strategy.aggregate_evaluate(server_round, whole)

    def _begin(self, arrays: ArrayRecord) -> Server:
        if self.server is None:
            # The id only tells this run from the node's last one.
            self.server = Server(self._config, _arrays_of(arrays), secrets.token_hex(8),
                                 self._moving)
        return self.server

    def _started(self) -> Server:
        if self.server is None:
            raise DataError("an answer came before the first message", "configure_train first")
        return self.server

    def _with_fields(self, messages: Iterable[Message]) -> list[Message]:
        server, found = self._started(), []
        for message in sorted(messages, key=lambda message: message.metadata.dst_node_id):
            node = message.metadata.dst_node_id
            key, _ = _the_arrays(message.content)
            content = RecordDict({name: record for name, record in message.content.items()
                                  if name != key})
            content[RECORD] = ConfigRecord(
                {**server.open(node, key), "weighted-by": self._weighted_by})
            found.append(Message(content, node, message.metadata.message_type,
                                 ttl=message.metadata.ttl, group_id=message.metadata.group_id))
        return found


def _answer(message: Message, content: RecordDict, fields: Answer) -> Message:
    content[RECORD] = ConfigRecord(fields)
    return Message(content, reply_to=message)


def _record_of(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def _arrays_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in record.items()}


def _the_arrays(content: RecordDict) -> tuple[str, ArrayRecord]:
    """The one model of a message. Raises DataError where there is another number."""
    if len(content.array_records) != 1:
        raise DataError("FLQ carries one model in a message", "one ArrayRecord",
                        len(content.array_records))
    return next(iter(content.array_records.items()))


def _num_samples(content: RecordDict, key: str, default: int | None = None) -> int:
    """The number of samples in the metrics. Raises DataError where there is none and no default."""
    for record in content.metric_records.values():
        value = record.get(key)
        if isinstance(value, (int, float)) and value >= 1:
            return int(value)
    if default is None:
        raise DataError(f"the answer's metrics have no {key}", "a number of at least 1", "none")
    return default


def _loss(content: RecordDict) -> float:
    """The training's loss, which an upload names; 0 where the app does not tell."""
    found = [record[name] for record in content.metric_records.values() for name in _LOSSES
             if isinstance(record.get(name), (int, float))]
    return float(found[0]) if found else 0.0
