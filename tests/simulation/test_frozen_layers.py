"""A model with frozen layers that each process draws anew, from the first registration to the end
of a run.
"""

import concurrent.futures

import numpy as np
import pytest

from flq import config
from flq.learning.learner import build_learner
from flq.master.process import run_meta
from flq.master.service import Service
from flq.master.store.run_store import RunStore
from flq.simulation.local_client import LocalClient
from flq.worker.loop import Worker
from flq.worker.state_file import InMemory
from tests.learning.learners import learner

CONSTANTS = 828  # values of the frozen layers
LIVE = 12        # moving statistics
WEIGHTS = 12 * 6 + 6 + 6 + 6 + 6 * 10 + 10


@pytest.fixture
def learners():
    """The master's and the workers'."""
    learner()  # TensorFlow is configured
    settings = config.build({
        "model.name": "tests.learning.frozen_models:build", "model.local_steps": 2,
        "system.total_workers": 2, "system.quorum": "all", "system.max_rounds": 3,
        "flq_algorithm.entropy_coding": False
    })
    return settings, build_learner(settings, [],
                                   evaluate=True), build_learner(settings, [0, 1], evaluate=True)


def test_workers_train_on_the_masters_frozen_weights_which_travel_once(tmp_path, learners):
    settings, master, own = learners
    assert master.constants != own.constants
    service = Service(settings, master, RunStore(tmp_path, run_meta("run", settings, master)),
                      "run")
    service.start()
    workers = [
        Worker(worker, LocalClient(service, worker), own, settings, "run", InMemory(), str,
               retry_for_s=None) for worker in (0, 1)
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        assert list(executor.map(lambda worker: worker.run(), workers)) == [0, 0]
    service.wait_for_end()
    assert own.constants == master.constants and len(own.constants) == 4 * CONSTANTS
    rows = service.run.history.rows()
    model = service.run.model
    played = model.broadcast, model.non_trainable
    assert own.evaluate(*played) == master.evaluate(*played)
    up = 8 * (WEIGHTS // 2 + 4 * 6 + 4 * LIVE)  # 4 bits a weight, six scales, the moving statistics
    assert [row.payload_bits_up for row in rows] == [2 * up] * 3
    first, *others = [row.nominal_bits_down for row in rows]
    # Version 0 as a keyframe for both, the frozen values for the process that held others, and the
    # first difference.
    assert first - others[0] == 2 * 32 * (WEIGHTS + LIVE) + 32 * CONSTANTS
    assert not np.array_equal(model.non_trainable, own.initial()[1])
    service.close()
