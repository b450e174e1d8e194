"""A sweep's runs on a cluster, without one: what comes back of a run."""

import types

from flq.cluster import tasks
from flq.sweep.plan import Planned

PLANNED = Planned("a", None, frozenset())


class RayError(Exception):
    """The parent of what Ray raises."""


def ended(folder, problem=None, files=()):
    ray = types.SimpleNamespace(exceptions=types.SimpleNamespace(RayError=RayError),
                                get=lambda answer: (problem, dict(files)))
    return tasks._ended(ray, None, PLANNED, folder)


def test_the_files_for_people_come_back(tmp_path):
    assert ended(tmp_path, files=[("summary.json", b"{}")]).problem is None
    assert (tmp_path / "a" / "summary.json").read_bytes() == b"{}"


def test_files_that_find_no_room_are_that_runs_problem(tmp_path):
    (tmp_path / "a").write_text("where its folder should be")
    found = ended(tmp_path, files=[("summary.json", b"{}")])
    assert "cannot write" in found.problem and "\n" not in found.problem
