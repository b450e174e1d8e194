"""The quickstart with a SuperLink and SuperNodes as processes: a SuperNode that is killed and
started again is back in the average, and nothing is counted twice. It takes minutes, because each
message to a node starts a process.
"""

import json
import os
import shutil
import signal
import sys

import pytest

pytest.importorskip("flwr", reason="flwr is not installed here, tests/integrations/run.sh flower "
                    "makes an environment with it")

from benchmarks.peers.flower_wire import Flower, prepared  # noqa: E402
from benchmarks.peers.processes import wait_for  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("flower-superlink", path=os.path.dirname(
    sys.executable)) is None, reason="flower-superlink is not beside this Python")

PATIENCE_S = 1800
SAID = """def told_of(strategy):
    import json, os
    aggregate = strategy.aggregate_train

    def aggregated(server_round, replies):
        found = aggregate(server_round, replies)
        with open(os.environ["ROUNDS_FILE"] + ".accounts", "a") as file:
            file.write(json.dumps([[worker, account.clock, account.epoch] for worker, account in
                                   sorted(strategy.server.model.accounts.items())]) + "\\n")
        return found

    strategy.aggregate_train = aggregated


def global_evaluate("""


def test_a_supernode_that_is_killed_and_started_again_is_back_in_the_average(tmp_path):
    app = prepared(tmp_path, plain=False)
    server = app / "quickstart" / "server_app.py"
    # After each round: each worker's clock and epoch.
    start = "    result = strategy.start("
    text = server.read_text().replace("def global_evaluate(", SAID)
    server.write_text(text.replace(start, "    told_of(strategy)\n" + start))
    flower = Flower(tmp_path, 2)
    try:
        values = f'num-server-rounds=3 mode="laq" final-model="{tmp_path / "final.pt"}"'
        run = flower.start(flower.bin / "flwr", "run", app, "local", "--stream", "--run-config",
                           values)
        wait_for(lambda: len(flower.notes()) >= 2, "the first round", PATIENCE_S)
        killed = flower.processes[1]
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
        flower.start(*killed.args)
        wait_for(lambda: len(flower.notes()) >= 4 or run.poll() not in (None, 0), "the last round",
                 PATIENCE_S)
        accounts = [json.loads(line) for line in
                    (tmp_path / "rounds.jsonl.accounts").read_text().splitlines()]
        assert accounts[0] == [[0, 0, 0], [1, 0, 0]]
        assert accounts[-1] == [[0, 0, 0], [1, 0, 0]], "both are members again, each once"
    finally:
        flower.end()
