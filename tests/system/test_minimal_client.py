"""examples/minimal_client.py: docs/protocol.md is enough to write a worker that knows nothing of
FLQ.
"""

import json
import sys

from flq.learning.datasets import digits
from tests.system.processes import ROOT

CLIENT = ROOT / "examples" / "minimal_client.py"
DIGITS = digits.__file__.replace(".py", ".npz")


def _start(site, master, worker):
    url = master.url
    token_file = site.directory / f"worker{worker}.token"
    token_file.write_text(master.worker_token(worker) + "\n")
    return site.start(f"client-{worker}", sys.executable, CLIENT, url, worker, token_file, DIGITS)


def test_two_clients_train_the_digits(own_site):
    master = own_site.master("total_workers=2", "min_workers=2", "max_rounds=25", "mode=fedavg",
                             "b_down=32", "model.name=softmax", "init=zeros", "partition=local",
                             script=(ROOT / "flq_master.py",))
    clients = [_start(own_site, master, worker) for worker in range(2)]
    assert [program.wait() for program in clients + [master]] == [0, 0, 0]
    summary = json.loads((master.run_dir / "summary.json").read_text())
    assert summary["rounds"] == 25 and summary["uploads"] == 50 and summary["missing"] == 0
    assert summary["accuracy"] > 0.85
    assert summary["bits"]["up"]["payload"] == 50 * 32 * 650


def test_a_run_of_another_kind_refuses_the_client(own_site):
    master = own_site.master("total_workers=1", "model.name=softmax", "init=zeros", "partition=iid",
                             script=(ROOT / "flq_master.py",))
    client = _start(own_site, master, 0)
    assert client.wait() == 1
    assert "data_mismatch" in client.text() and "Traceback" not in client.text()
