"""Where the memory and the start-up time of one process go: a worker's, or its model's without FLQ.

Started by worker_memory.py, on Python 3.6 too. Writes a JSON object a line into a file: the stage,
seconds since the process started, processor seconds, and MB of resident memory: anonymous, of
files, and the largest so far.

    worker_stages.py FILE model ROUNDS      the cnn, its compiled step, and five batches a round
    worker_stages.py FILE worker OPTIONS    flq_worker.py with these options
"""

import functools
import json
import os
import resource
import sys
from typing import Any, Callable, Dict, TextIO

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STEPS, BATCH = 5, 32


class Stages(object):
    """What a process has used up to here, a line for each stage."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        with open("/proc/self/stat") as stat:
            ticks = int(stat.read().rsplit(")", 1)[1].split()[19])
        self._started = ticks / os.sysconf("SC_CLK_TCK")

    def note(self, stage: str) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        resident = _smaps()
        anonymous = resident["Anonymous"] / 1e6
        self._file.write(json.dumps({
            "stage": stage,
            "s": _uptime_s() - self._started,
            "processor_s": usage.ru_utime + usage.ru_stime,
            "anonymous": anonymous,
            "file": resident["Rss"] / 1e6 - anonymous,
            "peak": usage.ru_maxrss * 1024 / 1e6
        }) + "\n")
        self._file.flush()

    def after(self, owner: Any, name: str, stage: str) -> None:
        """Note a stage each time that a function has returned."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def noted(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            self.note(stage)
            return result

        setattr(owner, name, noted)


def _uptime_s() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])


def _smaps() -> Dict[str, int]:
    """Bytes of the whole process by kind."""
    with open("/proc/self/smaps_rollup") as file:
        fields = (line.split() for line in file)
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields if words[-1] == "kB"}


def worker(stages: Stages) -> int:
    """flq_worker.py of sys.argv, with a note where each part of it ends."""
    sys.path.insert(0, ROOT)
    import flq_worker
    from flq.learning import device, learner
    from flq.worker import loop, process
    stages.note("import flq")
    stages.after(process, "_hello", "configuration came")
    stages.after(learner, "load_dataset", "data set read")
    stages.after(learner, "_read", "shard kept")
    stages.after(device, "configure", "import tensorflow")
    stages.after(learner, "build_model", "model built")
    stages.after(learner, "build_learner", "step compiled")
    stages.after(loop.Worker, "_register", "registered")
    stages.after(loop.Worker, "_train", "round trained and quantised")
    for effect in (loop.machine.Register, loop.machine.Train):
        loop._PERFORM[effect] = getattr(loop.Worker, loop._PERFORM[effect].__name__)
    code = flq_worker.main()
    stages.note("end")
    return code


def model(stages: Stages, rounds: int) -> int:
    """What anybody needs who trains this model, and nothing of FLQ."""
    import numpy as np
    import requests  # noqa: F401
    stages.note("import numpy, requests")
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    stages.note("import tensorflow")
    layers = tf.keras.layers
    cnn = tf.keras.Sequential([
        tf.keras.Input((28, 28, 1)),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10),
    ])
    stages.note("model built")

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, cnn(x, training=True))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, cnn.trainable_variables)
        for variable, gradient in zip(cnn.trainable_variables, gradients):
            variable.assign_sub(0.1 * gradient)
        return loss

    compiled = tf.function(step, autograph=False).get_concrete_function(
        tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([None], tf.int32))
    stages.note("step compiled")
    random = np.random.RandomState(0)
    for _ in range(rounds):
        for _ in range(STEPS):
            x = random.uniform(size=(BATCH, 28, 28, 1)).astype(np.float32)
            y = random.randint(10, size=BATCH).astype(np.int32)
            float(compiled(tf.convert_to_tensor(x), tf.convert_to_tensor(y)))
        stages.note("round trained")
    stages.note("end")
    print(tf.__version__, np.__version__)
    return 0


def main() -> int:
    path, what, rest = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(path, "w") as file:
        stages = Stages(file)
        stages.note("Python started")
        if what == "model":
            return model(stages, int(rest[0]))
        sys.argv[1:] = rest
        return worker(stages)


if __name__ == "__main__":
    sys.exit(main())
