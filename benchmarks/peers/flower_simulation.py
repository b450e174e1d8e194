"""Rounds of Flower's simulation (Ray) with FLQ's data, model and compiled local update, for
benchmarks/simulate_scale.py: FedAvg in float32, every client in each round, tested after each.

    python flower_simulation.py FILE CPUS key=value ...      notes the end of each round in FILE

Each actor of Ray builds one learner, as FLQ's process does for each processor.
"""

import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np  # noqa: E402
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.clientapp import ClientApp  # noqa: E402
from flwr.serverapp import ServerApp  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402
from flwr.simulation import run_simulation  # noqa: E402


@functools.lru_cache(maxsize=None)
def learner_of(settings, evaluate):
    """(configuration, learner) of this process."""
    from flq import config
    from flq.learning.learner import build_learner
    loaded = config.load(None, list(settings)).config
    workers = () if evaluate else range(loaded.system.total_workers)
    return loaded, build_learner(loaded, workers, evaluate=evaluate)


def client_app(settings):
    app = ClientApp()

    @app.train()
    def train(message, context):
        loaded, learner = learner_of(settings, False)
        worker = int(context.node_config["partition-id"])
        params, = message.content["arrays"].to_numpy_ndarrays()
        round_ = int(message.content["config"]["server-round"]) - 1
        result = learner.local_update(params, np.zeros(0, np.float32), worker, round_)
        step = np.float32(loaded.model.local_lr * learner.num_local_steps(worker))
        content = RecordDict({
            "arrays": ArrayRecord([params - step * result.update]),
            "metrics": MetricRecord({"num-examples": learner.num_samples(worker)})
        })
        return Message(content=content, reply_to=message)

    return app


class Timed(FedAvg):
    """FedAvg that notes the end of each round."""

    file = ""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        if any(reply.has_error() for reply in replies):
            raise SystemExit("a client failed")
        answer = super().aggregate_train(server_round, replies)
        with open(self.file, "a", encoding="ascii") as file:
            file.write(f"{time.time()!r}\n")
        return answer


def main():
    file, cpus, settings = sys.argv[1], int(sys.argv[2]), tuple(sys.argv[3:])
    loaded, tester = learner_of(settings, True)
    workers = loaded.system.total_workers
    app = ServerApp()

    @app.main()
    def serve(grid, context):
        params, _ = tester.initial()

        def test(server_round, arrays):
            tested, = arrays.to_numpy_ndarrays()
            found = tester.evaluate(tested, np.zeros(0, np.float32))
            return MetricRecord({"accuracy": found.accuracy})

        strategy = Timed(fraction_evaluate=0.0, min_train_nodes=workers,
                         min_available_nodes=workers)
        strategy.file = file
        strategy.start(grid, ArrayRecord([params]), num_rounds=loaded.system.max_rounds,
                       evaluate_fn=test)

    run_simulation(app, client_app(settings), workers, backend_config={
        "init_args": {"num_cpus": cpus, "include_dashboard": False},
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0}
    })


if __name__ == "__main__":
    # an actor of Ray finds `learner_of`, and what that keeps, by the name of a module
    from benchmarks.peers import flower_simulation
    flower_simulation.main()
