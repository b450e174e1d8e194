"""What a sweep shows while its runs are played."""

from flq import config
from flq.sweep.plan import Planned
from flq.sweep.play import Progress
from flq.sweep.processes import Ended
from flq.sweep_commands import _Watcher


class Lines:
    """What is shown."""

    quiet = False

    def __init__(self):
        self.said = []
        self.say, self.step = self.said.append, lambda *told: self.said.append(told)


def test_a_store_that_cannot_be_read_does_not_end_the_others(tmp_path):
    """The process of that run says so, and its line is shown."""
    plan = [Planned(name, config.load(None, ["max_rounds=5"]).config, frozenset())
            for name in ("a", "b")]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.db").write_bytes(b"no database" * 100)
    found, shown = {"a": Progress(2, False), "b": Progress(0, False)}, Lines()
    watcher = _Watcher(plan, tmp_path, found, shown)
    watcher.watch(plan, [])
    watcher.watch(plan[1:], [Ended(plan[0], "exit code 1: damaged")])
    assert shown.said == ["error: a: exit code 1: damaged"] and found["a"].rounds == 2
