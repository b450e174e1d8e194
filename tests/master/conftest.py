"""Services for tests, closed when the test ends."""

import pytest

from tests.master.hands import Run


@pytest.fixture
def start(tmp_path):
    """start(key=value, ...) -> a Run in the test's directory."""
    runs = []

    def make(*settings, **kwargs):
        runs.append(Run(tmp_path, *settings, **kwargs))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
