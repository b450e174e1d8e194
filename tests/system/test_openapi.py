"""Requests made of the master's own description: whatever they are, no answer is a bug's (500), and
without a token nothing changes.

schemathesis draws them from /openapi.json: values of each type at their limits, of other types, too
many and too few of them, and methods that an endpoint does not have.
"""

import importlib.util
import sys

import pytest

from tests.system.processes import PATIENCE_S
from tests.system.test_bad_requests import SETTINGS, STRANGER, registration

pytestmark = pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None,
                                reason="schemathesis is not installed")
# its command, which pip puts somewhere else on each machine; a frame is bytes to it
COMMAND = """
import schemathesis
import schemathesis.cli
schemathesis.serializer.alias("application/x-flq", "application/octet-stream")
schemathesis.cli.schemathesis()
"""
CHANGING = "/(stop|leave)$"  # what would end what the test looks at


@pytest.fixture
def master(own_site):
    """A run that waits for its workers."""
    master = own_site.master(*SETTINGS)
    assert master.port  # it listens, and its secret is there
    return master


def ask_everything(site, master, credential, *options):
    """What schemathesis says of the answers to what it drew."""
    headers = ("--header", f"Authorization: Bearer {credential}") if credential else ()
    program = site.start(
        "schemathesis", sys.executable, "-c", COMMAND, "run", master.url + "/openapi.json",
        "--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing",
        "--max-examples", 5, "--seed", 1, "--continue-on-failure", "--no-color",
        "--request-timeout", PATIENCE_S, *headers, *options)
    code = program.wait(3 * PATIENCE_S)
    assert code == 0 and "Traceback" not in master.text(), program.text() + master.text()
    assert " passed" in program.text(), program.text()
    assert master.get("/healthz")["status"] == "ok"


def seen(master):
    """All that somebody could have changed."""
    status = {name: value for name, value in master.status().items() if name != "stall"}
    return status, master.get("/events"), master.get("/history"), master.order(
        "GET", "/config").json(), set(master.run_dir.iterdir())


def test_without_a_token_nothing_fails_and_nothing_changes(own_site, master):
    before = seen(master)
    ask_everything(own_site, master, None)
    assert seen(master) == before


@pytest.mark.parametrize("who", ["operator", "session"])
def test_with_a_token_nothing_fails(own_site, master, who):
    credential = master.secret
    if who == "session":
        answer = master.ask("POST", "/register", master.worker_token(STRANGER),
                            json=registration())
        credential = answer.json()["session"]
    ask_everything(own_site, master, credential, "--exclude-path-regex", CHANGING)
