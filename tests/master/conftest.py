"""Services for tests, closed when the test ends."""

import pytest

from tests.master.hands import Run


@pytest.fixture
def start(tmp_path):
    """start(key=value, ..., name="run") -> a Run in a directory of that name; one that is there
    goes on.
    """
    runs = []

    def make(*settings, name="run", **kwargs):
        runs.append(Run(tmp_path / name, *settings, **kwargs))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
