"""Notes after each round, one JSON line in ROUNDS_FILE: whether the sum of references is that of
its members, and each worker's [number, clock, epoch, node].
"""

import json
import os

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from flq.integrations.flower import FlqStrategy
from tests.system.own_learner import LeastSquares

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    strategy = FlqStrategy(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=config["nodes"],
               min_available_nodes=config["nodes"]), mode=config["mode"])

    def noted(server_round, _):
        if server_round:
            server = strategy.server
            total = sum(account.weight * server._references.get(worker, 0.0)
                        for worker, account in server.model.accounts.items() if account.member)
            agrees = bool(np.allclose(server.model.reference_sum, total, rtol=1e-9, atol=1e-9))
            accounts = [[worker, account.clock, account.epoch, str(server._owner[worker])]
                        for worker, account in sorted(server.model.accounts.items())]
            with open(os.environ["ROUNDS_FILE"], "a") as file:
                file.write(json.dumps([agrees, accounts]) + "\n")
        return MetricRecord()

    names = ("layer.kernel", "layer.bias", "norm.running_mean")
    first = ArrayRecord({
        name: Array(array) for name, array in zip(names, LeastSquares().weights())
    })
    strategy.start(grid, first, num_rounds=config["rounds"],
                   timeout=config["timeout-s"], evaluate_fn=noted)
