"""The quickstart's ClientApp; the lines that name FLQ are what it adds."""

import keras
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flq.integrations.flower import flq_mod
from tfexample.task import load_data, load_model

app = ClientApp(mods=[flq_mod])


def model_and_data(msg, context):
    """The model that came, and this node's data."""
    keras.backend.clear_session()
    model = load_model(context.run_config["learning-rate"])
    model.set_weights(msg.content["arrays"].to_numpy_ndarrays())
    return model, load_data(context.node_config["partition-id"],
                            context.node_config["num-partitions"])


@app.train()
def train(msg, context):
    """Train the model that came on this node's data."""
    model, (x_train, y_train, _, _) = model_and_data(msg, context)
    told = model.fit(x_train, y_train, epochs=context.run_config["local-epochs"],
                     batch_size=context.run_config["batch-size"], verbose=0)
    metrics = MetricRecord({"num-examples": len(x_train), "train_loss": told.history["loss"][-1],
                            "train_acc": told.history["accuracy"][-1]})
    content = RecordDict({"arrays": ArrayRecord(model.get_weights()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    """Test the model that came on this node's data."""
    model, (_, _, x_test, y_test) = model_and_data(msg, context)
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    metrics = MetricRecord({"num-examples": len(x_test), "eval_loss": loss, "eval_acc": accuracy})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
