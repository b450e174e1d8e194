"""Flower's grid and nodes in one process: whole rounds with real ClientApps and messages, and every
fault that a fleet has.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from flq.integrations.flower import flq_mod
from tests.system.own_learner import LeastSquares

NAMES = ("layer.kernel", "layer.bias", "norm.running_mean")
SAMPLES = "num-examples"


def first_arrays():
    return ArrayRecord({
        name: Array(array) for name, array in zip(NAMES, LeastSquares().weights())
    })


def app_of(learner):
    """A ClientApp as a user writes it, around the learner."""
    app = ClientApp(mods=[flq_mod])
    rounds = iter(range(10**6))

    @app.train()
    def train(message, context):
        record = message.content["arrays"]
        weights, loss = learner.train([array.numpy() for array in record.values()], next(rounds))
        arrays = ArrayRecord({
            name: Array(np.asarray(array, np.float32)) for name, array in zip(record, weights)
        })
        metrics = MetricRecord({SAMPLES: learner.num_samples(), "train_loss": loss})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message, context):
        weights = [array.numpy() for array in message.content["arrays"].values()]
        accuracy, loss, samples = learner.evaluate(weights)
        metrics = MetricRecord({SAMPLES: samples, "loss": loss, "accuracy": accuracy})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


class Nodes:
    """A grid of nodes with these learners; their ids are 1000, 1001, ...

    before(message), after(reply): a test's faults. A message or a reply for which they return None
    is lost. Counts the bytes of FLQ's records, by message type.
    """

    def __init__(self, learners, numbered=True):
        self.apps, self.contexts, self.numbered = {}, {}, numbered
        self.before = self.after = lambda message: message
        self.bytes, self.seen = {}, []
        # What Flower sets in the process of a ServerApp.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        for number, learner in enumerate(learners):
            self.start(1000 + number, learner, number)

    def start(self, node, learner, number):
        """A node, or one that comes back without its state."""
        self.apps[node] = app_of(learner)
        config = {"partition-id": number} if self.numbered else {}
        self.contexts[node] = Context(run_id=1, node_id=node, node_config=config,
                                      state=RecordDict(), run_config={})

    def stop(self, node):
        del self.apps[node], self.contexts[node]

    def get_node_ids(self):
        return list(self.apps)

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.seen.append((message.metadata.message_type, node, dict(message.content["flq"])))
            message = self.before(message)
            if message is None or node not in self.apps:
                continue
            state = RecordDict(dict(self.contexts[node].state))
            reply = self.apps[node](message, self.contexts[node])
            if reply.has_error():
                self.contexts[node].state = state
            else:
                self._count(reply)
            reply = self.after(reply)
            if reply is not None:
                replies.append(reply)
        return replies

    def _count(self, reply):
        assert not reply.content.array_records, "no model travels up"
        kind = reply.metadata.message_type
        size = sum(len(value) for value in reply.content["flq"].values()
                   if isinstance(value, bytes))
        self.bytes[kind] = self.bytes.get(kind, 0) + size
