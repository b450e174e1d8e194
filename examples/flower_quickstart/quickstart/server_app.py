"""The quickstart's ServerApp; the lines that name FLQ are what it adds."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flq.integrations.flower import FlqStrategy
from quickstart.task import Net, load_data, test

app = ServerApp()


def global_evaluate(server_round, arrays):
    """Test the model on the whole test set."""
    model = Net()
    model.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = test(model, load_data("test"))
    return MetricRecord({"accuracy": accuracy, "loss": loss})


@app.main()
def main(grid, context):
    """Run the rounds and keep the model."""
    torch.manual_seed(0)
    arrays = ArrayRecord(Net().state_dict())
    strategy = FedAvg(fraction_evaluate=context.run_config["fraction-evaluate"])
    strategy = FlqStrategy(strategy, mode=context.run_config["mode"])
    result = strategy.start(
        grid=grid, initial_arrays=arrays, num_rounds=context.run_config["num-server-rounds"],
        train_config=ConfigRecord({"lr": context.run_config["learning-rate"]}),
        evaluate_fn=global_evaluate)
    torch.save(result.arrays.to_torch_state_dict(), context.run_config["final-model"])
