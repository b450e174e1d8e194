"""Each node trains by its partition-id; FLQ's repository is on PYTHONPATH."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flq.integrations.flower import flq_mod
from tests.system.own_learner import LeastSquares

app = ClientApp(mods=[flq_mod])


@app.train()
def train(message, context):
    learner, record = LeastSquares(context.node_config["partition-id"]), message.content["arrays"]
    weights, loss = learner.train([array.numpy() for array in record.values()], 0)
    arrays = ArrayRecord({
        name: Array(np.asarray(array, np.float32)) for name, array in zip(record, weights)
    })
    metrics = MetricRecord({"num-examples": learner.num_samples(), "train_loss": loss})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
