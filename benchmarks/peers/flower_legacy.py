"""Flower's rounds over its older gRPC flow (start_server, start_client); run by rounds.py in
Flower's environment.

    python flower_legacy.py server ADDRESS WORKERS ROUNDS FILE
    python flower_legacy.py client ADDRESS
"""

import sys

from flwr.client import NumPyClient, start_client
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg
from processes import Rounds
from tensors import SAMPLES, initial, updated


class Timed(FedAvg):
    """FedAvg that notes the end of each round."""

    def __init__(self, file, **settings):
        super().__init__(**settings)
        self._rounds = Rounds(file)

    def aggregate_fit(self, server_round, results, failures):
        if failures:
            raise SystemExit(f"a client failed: {failures[0]}")
        answer = super().aggregate_fit(server_round, results, failures)
        self._rounds.ended()
        return answer


class Client(NumPyClient):
    """Answers with the model plus an update from a table."""

    def fit(self, parameters, config):
        return updated(parameters), SAMPLES, {}


def main():
    role, address = sys.argv[1:3]
    if role == "client":
        start_client(server_address=address, client=Client().to_client(), insecure=True)
        return
    workers, rounds, file = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    strategy = Timed(file, fraction_fit=1.0, fraction_evaluate=0.0, min_fit_clients=workers,
                     min_available_clients=workers,
                     initial_parameters=ndarrays_to_parameters(initial()))
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)


if __name__ == "__main__":
    main()
