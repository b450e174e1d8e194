"""FLQ on NVFlare with real processes: its simulator, whose clients are killed and started again,
and its POC mode, a server and clients over mutual TLS whose connections are cut. The model is that
of flq.simulate bit for bit all the same. It takes some minutes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="nvflare is not installed here, tests/integrations/run.sh "
                    "nvflare makes an environment with it")
torch = pytest.importorskip("torch")

import flq  # noqa: E402
from benchmarks.peers.nvflare_wire import ROOT, Nvflare  # noqa: E402
from benchmarks.peers.processes import descendants, wait_for  # noqa: E402
from tests.system.own_learner import LeastSquares  # noqa: E402
from tests.system.proxy import close  # noqa: E402

JOB = Path(__file__).parent / "nvflare_learner"
PATIENCE_S = 600
ROUNDS = 6
SETTINGS = {"mode": "laq", "entropy_coding_down": "context"}


def recipe_of(clients):
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe

    from flq.integrations.nvflare import add_flq
    if str(JOB) not in sys.path:
        sys.path.insert(0, str(JOB))
    from model import Weights
    from told import Told
    recipe = FedAvgRecipe(name="job", model=Weights(), min_clients=clients, num_rounds=ROUNDS,
                          train_script=str(JOB / "client.py"))
    add_flq(recipe, **SETTINGS)
    recipe._job.to_server(Told(), id="told")
    return recipe


def check(clients, file, notes):
    """The model that NVFlare kept is that of a simulation; nobody started again from 0."""
    kept = torch.load(file, weights_only=False)
    kept = list(kept["model"].values())
    simulated = flq.simulate(learners=[LeastSquares(worker) for worker in range(clients)],
                             max_rounds=ROUNDS, **SETTINGS)
    for left, right in zip(kept, simulated.weights):
        assert (np.asarray(left) == right).all()
    assert notes[-1] == [[worker, 0, 0] for worker in range(clients)]
    assert len(notes) == ROUNDS


def client_of(process, name):
    """The process of a simulated client, where there is one now."""
    for pid in descendants(process.pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "nvflare.private.fed.app.simulator.simulator_worker" in words and name in words:
            return pid
    return None


def test_clients_of_the_simulator_are_killed_and_started_again(tmp_path):
    # With fewer threads than clients NVFlare ends a client's process after each task, and starts
    # one that died again when it is its turn.
    file = tmp_path / "rounds.jsonl"
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from tests.integrations.test_nvflare_processes import recipe_of\n"
            "from nvflare.recipe import SimEnv\n"
            f"recipe_of(3).execute(SimEnv(num_clients=3, num_threads=2, workspace_root="
            f"{str(tmp_path)!r}))\n")
    environment = dict(os.environ, PYTHONPATH=str(ROOT), ROUNDS_FILE=str(file), HOME=str(tmp_path),
                       OMP_NUM_THREADS="1", SECONDS_OF_TRAINING="1")
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=log,
                                   stderr=log, cwd=str(tmp_path), start_new_session=True)
    try:
        wait_for(lambda: len(notes_in(file)) >= 2 or process.poll() is not None, "two rounds",
                 PATIENCE_S)
        found = []
        wait_for(lambda: found.append(client_of(process, "site-2")) or found[-1] is not None,
                 "a client's process", PATIENCE_S)
        os.kill(found[-1], signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 0, (tmp_path / "log").read_text()[-3000:]
        said = (tmp_path / "log").read_text()
        assert "Subprocess died" in said or "Communication error" in said, "it was killed"
        check(3, next(tmp_path.rglob("FL_global_model.pt")), notes_in(file))
    finally:
        for pid in [*descendants(process.pid), process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


def notes_in(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.filterwarnings("ignore:ssl_context is deprecated")  # NVFlare's administrator
def test_a_server_and_clients_whose_connections_are_cut(tmp_path):
    system = Nvflare(tmp_path, 2)
    try:
        job = system.submit(recipe_of(2))
        wait_for(lambda: len(system.notes()) >= 2, "two rounds", PATIENCE_S)
        for proxy in system.proxies:
            for _ in range(2):
                for end in list(proxy._sockets):
                    close(end)
                held = len(system.notes())
                wait_for(lambda held=held: len(system.notes()) > held, "the next round",
                         PATIENCE_S)
        session = system.session()
        try:
            session.monitor_job(job, timeout=PATIENCE_S)
            assert session.get_job_meta(job)["status"] == "FINISHED:COMPLETED"
            result = Path(session.download_job_result(job))
        finally:
            session.close()
        check(2, next(result.rglob("FL_global_model.pt")), system.notes())
    finally:
        system.end()
