"""TensorFlow is set up once per process, late, and says so when that is impossible."""

import subprocess
import sys

import pytest

from flq import config
from flq.errors import ConfigError
from flq.learning import device
from tests.jetson_trees import NANO, NANO_REPORT, plant
from tests.learning.learners import learner


def run(program):
    command = [sys.executable, "-W", "ignore", "-c", program]
    return subprocess.check_output(command, stderr=subprocess.DEVNULL,
                                   universal_newlines=True).strip()


def test_nothing_but_training_imports_tensorflow():
    program = (
        "import sys\nimport flq.learning, flq.learning.device, flq.learning.learner, "
        "flq.learning.models\n"
        "from flq import config\nfrom flq.learning.datasets import load_dataset\nfrom "
        "flq.learning.partition import partition\n"
        "shards = partition(load_dataset('digits').y_train, None, config.build({}))\n"
        "print([len(shard) for shard in shards], 'tensorflow' in sys.modules)")
    assert run(program) == "[360, 359, 359, 359] False"


def test_threads_are_fixed_once():
    learner()
    device.configure(config.build({}))
    with pytest.raises(
            ConfigError, match=
            "TensorFlow already runs .* another number of threads; expected model.num_threads 1; "
            "got 2"
    ):
        device.configure(config.build({"model.num_threads": 2}))


def test_tensorflow_used_before_is_an_error():
    program = (
        "import tensorflow as tf\ntf.constant(1) + 1\nfrom flq import config\nfrom flq.errors "
        "import ConfigError\n"
        "from flq.learning import device\ntry: device.configure(config.build({'model.num_threads': "
        "3}))\n"
        "except ConfigError as error: print(error)")
    assert run(program).startswith("TensorFlow was used in this process before FLQ could set it up")


def test_threads_and_determinism_of_a_fresh_process():
    program = (
        "from flq import config\nfrom flq.learning import device\n"
        "device.configure(config.build({'model.num_threads': 3}), replicas=2)\nimport tensorflow "
        "as tf\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads(), "
        "tf.config.threading.get_inter_op_parallelism_threads() >= 2)"
    )
    assert run(program) == "3 True"


def test_seeds_repeat_what_a_users_model_draws():
    import tensorflow as tf

    draws = []
    for _ in range(2):
        device.configure(config.build({"dataset.seed": 2 ** 40}))
        draws.append(tf.random.uniform([4]).numpy().tolist())
    assert draws[0] == draws[1]


def test_the_learner_reports_what_the_files_say(tmp_path):
    report = device.describe(plant(tmp_path, NANO))
    assert {name: report[name] for name in NANO_REPORT} == NANO_REPORT
    assert report["tensorflow"] and report["gpus"] == [] and report["python"] and report[
        "machine"] and report["host"]
