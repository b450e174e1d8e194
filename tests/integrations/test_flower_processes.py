"""A SuperLink and SuperNodes as processes: what is killed and started again is back in the average
and nothing is counted twice. It takes minutes, because each message to a node starts a process.
"""

import os
import shutil
import sys

import pytest

pytest.importorskip("flwr", reason="flwr is not installed here, tests/integrations/run.sh flower "
                    "makes an environment with it")

from tests.integrations.flower_processes import PATIENCE_S, Site  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("flower-superlink", path=os.path.dirname(
    sys.executable)) is None, reason="flower-superlink is not beside this Python")


@pytest.fixture
def site(tmp_path, request):
    made = Site(tmp_path, **getattr(request, "param", {}))
    yield made
    made.end()


def clocks(found):
    """Each worker's number, clock and epoch, where the sum of references is that of its members."""
    agrees, accounts = found
    assert agrees
    return [account[:3] for account in accounts]


def test_a_supernode_that_is_killed_and_started_again_is_back_in_the_average(site):
    _, second = [site.start_node(number) for number in range(2)]
    site.run(rounds=4)
    site.await_rounds(1)
    site.kill(second)
    site.start_node(1)
    site.await_status("finished:completed")
    first, *_, last = site.rounds()
    assert clocks(first) == [[0, 0, 0], [1, 0, 0]]
    assert clocks(last) == [[0, 0, 0], [1, 0, 0]], "both are members again, each once"
    assert last[1][1][3] != first[1][1][3], "Flower gave it a new id"


@pytest.mark.skipif(not shutil.which("openssl") or not shutil.which("ssh-keygen"),
                    reason="openssl or ssh-keygen is not installed (apt install openssl "
                    "openssh-client)")
@pytest.mark.parametrize("site", [{"keys": True}], indirect=True)
def test_supernodes_with_keys_keep_their_ids_and_start_again_from_zero(site):
    keys = [site.key(f"node-{number}") for number in range(2)]
    for key in keys:
        site.register(key)
    stranger = site.start_node(2, site.key("stranger"))
    assert stranger.wait(PATIENCE_S) != 0 and "Failed to activate" in site.log_of(stranger)
    _, second = [site.start_node(number, key) for number, key in enumerate(keys)]
    site.run(rounds=5)
    site.await_rounds(1)
    site.kill(second)
    for _ in range(60):  # Flower refuses the key as long as it takes the killed node for alive.
        second = site.start_node(1, keys[1])
        if site.is_accepted(second):
            break
    site.await_status("finished:completed")
    first, *_, last = site.rounds()
    assert clocks(first) == [[0, 0, 0], [1, 0, 0]]
    assert clocks(last) == [[0, 0, 0], [1, 0, 1]], "its reference began again, in a new epoch"
    assert last[1][1][3] == first[1][1][3], "the key is the node"


def test_a_superlink_that_is_killed_ends_the_run_and_the_next_one_starts_from_its_first_model(site):
    for number in range(2):
        site.start_node(number)
    site.run(rounds=50)
    site.await_rounds(1)
    site.kill(site.link)
    before = site.rounds()
    site.link = site.start_link()
    site.await_status("finished:failed")
    played = len(site.rounds())
    assert played <= len(before) + 1, "nobody goes on with it"
    site.run(rounds=2)
    site.await_status("finished:completed")
    after = site.rounds()[played:]
    assert [clocks(found) for found in after] == [[[0, 0, 0], [1, 0, 0]]] * 2
    assert [account[3] for account in after[-1][1]] == [account[3] for account in before[0][1]]
