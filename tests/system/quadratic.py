"""The programs of FLQ with a learner that needs no TensorFlow, for what is not about training.

    python tests/system/quadratic.py master|worker|simulate|replay|rollback|backup|compact [OPTIONS]

Worker m's loss is 1/2 ||theta - a_m||^2 with a drawn target a_m, so that the updates depend on the
model that came down and on the round, and the best model is the weighted mean of the targets.
model.name cnn has the shapes of that model on 28x28x1 (467,818 weights), softmax 40 weights,
tests.quadratic:wide 1,230, and every other name 40; the last two have 2 non-trainable values.
SECONDS_OF_TRAINING in the environment makes a round last ("0.1,2": worker 0 and all others), and
with CLOCK_JUMPS the wall clock of the process is an hour off, first ahead and then behind, each
time that somebody looks. With MOST_STEPS a worker's state is written whole after so many steps.
"""

import concurrent.futures
import itertools
import os
import sys
import time

import numpy as np

from flq import config
from flq.learning import batches
from flq.learning.initial import initial_params
from flq.learning.interface import Learner
from flq.parameters import Layout
from flq.records import Evaluation, LocalResult
from tests.system.processes import history_of

QUADRATIC_REPLAY = (sys.executable, os.path.abspath(__file__), "replay")

SMALL = Layout(((5, 7), (5,)), ((2,),))
STATELESS = Layout(SMALL.shapes)
WIDE = Layout(((40, 30), (30,)), ((2,),))
CNN = Layout(((3, 3, 1, 32), (32,), (3, 3, 32, 32), (32,), (3, 3, 32, 64), (64,), (3, 3, 64, 64),
              (64,), (3136, 128), (128,), (128, 10), (10,)))


class Quadratic(Learner):
    """The learner of the quadratic."""

    builtin_model = True
    partition_hash = "quadratic"

    def __init__(self, settings):
        self.layout = {
            "cnn": CNN, "softmax": STATELESS, "tests.quadratic:wide": WIDE
        }.get(settings.model.name, SMALL)
        self._config = settings
        self._targets = {}
        self._seconds = [
            float(seconds) for seconds in os.environ.get("SECONDS_OF_TRAINING", "0").split(",")
        ]

    def num_samples(self, worker):
        return 100 + 10 * worker

    def device(self):
        return {"host": "quadratic"}

    def initial(self):
        return initial_params(self.layout, self._config.model.init,
                              self._config.dataset.seed), np.zeros(self.layout.num_non_trainable,
                                                                   np.float32)

    def local_update(self, params, non_trainable, worker, round_):
        time.sleep(self._seconds[min(worker, len(self._seconds) - 1)])
        model, target = self._config.model, self._target(worker)
        steps = batches.local_steps_of(self._config, self.num_samples(worker))
        noise = np.float32(0.01) * np.random.RandomState([worker, round_]).standard_normal(
            params.size).astype(np.float32)
        weights, total = params, np.zeros_like(params)
        for _ in range(steps):
            gradient = weights - target + noise
            weights = weights - np.float32(model.local_lr) * gradient
            total = total + gradient
        return LocalResult(total / np.float32(steps), non_trainable + np.float32(worker + 1),
                           _loss(params, target), steps)

    def evaluate(self, params, non_trainable):
        workers = range(self._config.system.total_workers)
        loss = sum(_loss(params, self._target(worker)) for worker in workers) / len(workers)
        return Evaluation(1 / (1 + loss), loss, 1)

    def _target(self, worker):
        if worker not in self._targets:
            self._targets[worker] = np.random.RandomState(worker).standard_normal(
                self.layout.num_params).astype(np.float32)
        return self._targets[worker]


def _loss(params, target):
    return float(np.square(params - target).mean() / 2)


def simulate_here(directory, settings):
    """What `python -m flq simulate` does, in this process but not in its main thread, where it
    would take over the signals.
    """
    from flq.simulation.run import simulate
    settings = config.load(None, ["quorum=all"] + list(settings)).config
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        run_dir, _ = executor.submit(simulate, settings, str(directory),
                                     Quadratic(settings)).result()
    return history_of(run_dir)


def check_replay(site, run_dir="master-run"):
    """Replay computes the last model of a run that has ended; what it says."""
    replay = site.start("replay", *QUADRATIC_REPLAY, run_dir)
    code, rounds = replay.wait(), history_of(site.directory / run_dir)[0]
    model = "the run is what its store says: model " + rounds[-1]["params_hash"]
    assert code == 0 and model in replay.text(), replay.text()
    return replay.text()


def _let_the_clock_jump():
    now, jumps = time.time, itertools.cycle((3600.0, -3600.0))
    time.time = lambda: now() + next(jumps)


def main():
    program = sys.argv.pop(1)
    if "CLOCK_JUMPS" in os.environ:
        _let_the_clock_jump()
    if "MOST_STEPS" in os.environ:
        from flq.worker import state_file
        state_file.MOST_STEPS = int(os.environ["MOST_STEPS"])
    import flq.learning.learner
    # the programs look it up when they run
    flq.learning.learner.build_learner = lambda settings, *_, **__: Quadratic(settings)
    if program in ("simulate", "replay", "rollback", "backup", "compact"):
        import flq.__main__
        sys.argv.insert(1, program)
        return flq.__main__.main()
    import flq_master
    import flq_worker
    return {"master": flq_master, "worker": flq_worker}[program].main()


if __name__ == "__main__":
    sys.exit(main())
