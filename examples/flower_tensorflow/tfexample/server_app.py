"""The quickstart's ServerApp; the lines that name FLQ are what it adds."""

import keras
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flq.integrations.flower import FlqStrategy
from tfexample.task import load_model

app = ServerApp()


@app.main()
def main(grid, context):
    """Run the rounds and keep the model."""
    keras.utils.set_random_seed(0)
    model = load_model()
    arrays = ArrayRecord(model.get_weights())
    strategy = FedAvg(fraction_train=context.run_config["fraction-train"])
    strategy = FlqStrategy(strategy, mode=context.run_config["mode"])
    result = strategy.start(grid=grid, initial_arrays=arrays,
                            num_rounds=context.run_config["num-server-rounds"])
    model.set_weights(result.arrays.to_numpy_ndarrays())
    model.save(context.run_config["final-model"])
