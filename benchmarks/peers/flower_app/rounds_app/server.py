"""Flower's rounds over its message flow: FedAvg that notes the end of each round. processes.py and
tensors.py are on PYTHONPATH.
"""

from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from processes import Rounds
from tensors import initial

app = ServerApp()


class Timed(FedAvg):
    """FedAvg that notes the end of each round."""

    rounds: Rounds

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        if any(reply.has_error() for reply in replies):
            raise SystemExit("a client failed")
        answer = super().aggregate_train(server_round, replies)
        self.rounds.ended()
        return answer


@app.main()
def main(grid, context):
    workers = context.run_config["workers"]
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=workers, min_available_nodes=workers)
    strategy.rounds = Rounds(context.run_config["file"])
    strategy.start(grid, ArrayRecord(initial()), num_rounds=context.run_config["rounds"])
