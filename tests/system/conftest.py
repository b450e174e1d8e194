"""One directory of processes for each module or test; when a test fails, the last lines of their
logs are shown.
"""

import pytest

from tests.system.processes import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Processes that the tests of one module share."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.close()


@pytest.fixture
def own_site(tmp_path):
    """Processes of one test."""
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed:
        sites = [value for value in item.funcargs.values() if isinstance(value, Site)]
        report.sections.extend(("last lines of the logs", site.tails()) for site in sites)
    return report
