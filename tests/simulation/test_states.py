"""What a worker's state file holds after every round of whole runs is what the worker holds, bit
for bit, whatever shapes its rounds.
"""

import pytest

from flq.worker import state_file
from flq.worker.state_file import StateFile
from tests.system.quadratic import Quadratic
from tests.worker.same_record import same

CASES = [
    "mode=laq thr_scale=100 local_lr=0.2", "mode=bbit sel_clients=2",
    "mode=bin memory_rate=0.3 cohorts=2 entropy_coding=context",
    "mode=rd memory_rate=0.3 cohorts=2 entropy_coding=context entropy_coding_down=context",
    "mode=rd memory=residual sel_clients=2 entropy_coding=context downlink=rd",
    "mode=qsgd radius=block block_size=16 radius_down=block block_size_down=16",
    "mode=fedavg memory=reference memory_rate=0.1 b_down=32", "mode=laq b_up=2"
]


class Checked(StateFile):
    """A state file that is read again, as another process would, after each write."""

    steps = 0

    def save(self, record, broadcasts=None):
        super().save(record, broadcasts)
        end = self._end
        assert same(self.load(), record)
        assert self._end == end, "who reads it goes on where who wrote it does"
        Checked.steps += end.number > 0


@pytest.mark.parametrize("case", CASES)
def test_each_round_leaves_what_the_worker_holds(tmp_path, monkeypatch, case):
    from flq import config
    from flq.simulation import run
    monkeypatch.setattr(run, "StateFile", Checked)
    monkeypatch.setattr(state_file, "MOST_STEPS", 5)
    monkeypatch.setattr(Checked, "steps", 0)
    settings = config.load(None, ["total_workers=3", "max_rounds=14", "quorum=all", "local_steps=3",
                                  *case.split()]).config
    run.simulate(settings, str(tmp_path / "run"), Quadratic(settings), resume=True,
                 take_signals=False)
    assert Checked.steps >= 15
