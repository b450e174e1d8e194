"""The simulation's client: the service's methods in the place of HTTP, and whole runs through it.
"""

import concurrent.futures
import json
import math
import time

import numpy as np
import pytest

from flq import config
from flq.errors import ConfigError, FlqError, ProtocolError
from flq.protocol import messages
from flq.records import Bid, HeldModel, LocalResult
from flq.simulation.local_client import LocalClient
from flq.simulation.run import simulate
from flq.worker.loop import Worker
from flq.worker.state_file import InMemory
from tests.master.hands import PATIENCE_S, RUN_ID, Run
from tests.system.processes import history_of
from tests.system.quadratic import Quadratic

ONE = ("total_workers=1", "quorum=all", "max_rounds=2")


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run", *ONE)
    yield run
    run.close()


def refused(name, call, *arguments):
    with pytest.raises(ProtocolError) as refusal:
        call(*arguments)
    assert refusal.value.name == name


def test_a_worker_plays_a_round_without_a_network(run):
    client, hand = LocalClient(run.service, 0), run.hand(0)
    registered = client.register(messages.REGISTRATION.parse(hand.registration()))
    client.authorize(registered.session)
    hand.session = registered.session
    hand.train()
    outcome = client.upload(hand.frame(), PATIENCE_S)
    assert outcome.verdict == "accepted" and outcome == client.outcome(0, 0.0)
    data = client.fetch_model(HeldModel(0, hand.hash), 0.0)
    assert isinstance(data, bytes) and hand.fetch() is not None
    assert client.bid(Bid(0, 1, True, "lazy", (), math.nan, 0.0), PATIENCE_S).verdict == "skipped"
    assert client.heartbeat(48.5) == "run"
    assert run.service.run.members.devices[0]["temperature_c"] == 48.5
    client.leave()
    refused("unknown_session", client.outcome, 0, 0.0)


def test_nothing_new_is_none(run):
    client, hand = LocalClient(run.service, 0), run.hand(0)
    client.authorize(hand.session)
    run.service.pause()
    hand.train()
    hand.upload()
    assert client.fetch_model(HeldModel(0, hand.hash), 0.0) is None


def test_refusals_are_those_of_the_protocol(run):
    client, hand = LocalClient(run.service, 0), run.hand(0)
    for call in (lambda: client.outcome(0, 0.0), lambda: client.upload(b"", 0.0), client.leave):
        refused("unknown_session", call)
    client.authorize(hand.session)
    refused("bad_frame", client.upload, b"", 0.0)
    refused("wrong_round", client.outcome, 7, 0.0)
    refused("bad_request", client.bid, Bid(0, -1, True, "lazy", (), None, 0.0), 0.0)
    registration = messages.REGISTRATION.parse(hand.registration())
    refused("bad_request", client.register, registration._replace(num_samples=0))
    refused("model_mismatch", client.register, registration._replace(params_hash="00"))


def test_a_simulation_that_pauses_with_an_error_ends_with_it(run):
    client, hand = LocalClient(run.service, 0), run.hand(0)
    client.authorize(hand.session)
    client.bid(Bid(0, 0, True, "nonfinite", (), None, 0.0), 0.0)
    with pytest.raises(FlqError) as error:
        client.fetch_model(HeldModel(0, hand.hash), 0.0)
    assert "finite" in str(error.value)


def test_the_real_worker_ends_a_run_through_it(run):
    assert Worker(0, LocalClient(run.service, 0), run.learner, run.config, RUN_ID, InMemory(),
                  str).run() == 0
    assert [record.selected for record in run.service.run.history.rows()] == [(0,), (0,)]


# --- whole runs


def simulated(directory, *settings, learner=Quadratic, resume=False):
    """In another thread: in the main one a simulation takes over the signals."""
    loaded = config.load(None, ["quorum=all", "max_rounds=4", "total_workers=3", *settings]).config
    subject = learner(loaded)
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        return executor.submit(simulate, loaded, str(directory), subject, resume=resume,
                               watch=getattr(subject, "watch", None)).result()


@pytest.mark.parametrize("settings", [(), ("mode=bin", "sel_clients=2"),
                                      ("mode=bbit", "up_budget_bits=700"), ("mode=qsgd",),
                                      ("thr_scale=1", "C=2")],
                         ids=["laq", "bin of two", "bbit in a budget", "qsgd", "lazy"])
def test_the_same_seed_gives_the_same_run(tmp_path, settings):
    hashes = []
    for name in ("first", "second"):
        directory, run = simulated(tmp_path / name, *settings)
        assert run.summary["rounds"] == 4 and run.summary["phase"] == "FINISHED" and (
            directory / "summary.json").exists()
        hashes.append([record["params_hash"] for record in run.rounds])
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 4


def test_a_simulation_counts_no_wire(tmp_path):
    _, run = simulated(tmp_path / "run")
    assert run.summary["bits"]["up"]["wire"] is None and run.summary["bits"]["up"][
        "payload"] == 4 * 3 * 288


class Broken(Quadratic):
    """Worker 1 cannot train in round 2."""

    def local_update(self, params, non_trainable, worker, round_):
        if (worker, round_) == (1, 2):
            raise MemoryError("no room for the batch")
        return super().local_update(params, non_trainable, worker, round_)


def test_a_worker_that_fails_ends_the_simulation_with_what_there_is(tmp_path, caplog):
    with pytest.raises(FlqError) as error:
        simulated(tmp_path / "run", learner=Broken)
    assert "the simulation ended early" in str(
        error.value) and "no room for the batch" in caplog.text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2 and summary["phase"] == "UNFINISHED"


@pytest.mark.parametrize("settings", [(), ("mode=bbit", "sel_clients=2")],
                         ids=["laq", "bbit of two"])
def test_a_simulation_that_ended_early_goes_on(tmp_path, settings):
    simulated(tmp_path / "whole", *settings)
    with pytest.raises(FlqError) as error:
        simulated(tmp_path / "run", *settings, learner=Broken, resume=True)
    assert f"go on with --resume --run_dir {tmp_path / 'run'}" in str(error.value)
    _, run = simulated(tmp_path / "run", *settings, resume=True)
    assert run.summary["phase"] == "FINISHED"
    assert history_of(tmp_path / "run") == history_of(tmp_path / "whole")


def test_a_simulation_does_not_go_on_with_another_configuration(tmp_path):
    simulated(tmp_path / "run", resume=True)
    with pytest.raises(ConfigError) as error:
        simulated(tmp_path / "run", "mode=bin", resume=True)
    assert "another flq_algorithm" in str(error.value)


class Slow(Quadratic):
    """Worker 1 trains for longer than a worker may be unseen. Round 0 does not end before both are
    there: it may have begun with one of them.
    """

    def watch(self, service):
        self._service = service

    def local_update(self, params, non_trainable, worker, round_):
        while not self._service.wait_for(
                lambda run: round_ > 0 or len(run.state.present) == 2, timeout_s=0.01):
            pass
        if worker == 1:
            time.sleep(1.5)
        return super().local_update(params, non_trainable, worker, round_)


def test_a_simulated_worker_that_trains_for_long_shows_that_it_is_there(tmp_path):
    _, run = simulated(tmp_path / "run", "total_workers=2", "quorum=deadline", "min_workers=1",
                       "worker_timeout_s=1", learner=Slow)
    assert [(record["selected"], record["missing"])
            for record in run.rounds[1:]] == [((0, 1), ())] * 3


class Diverging(Quadratic):
    def local_update(self, params, non_trainable, worker, round_):
        result = super().local_update(params, non_trainable, worker, round_)
        return LocalResult(np.full(params.size, np.inf, np.float32), *result[1:])


def test_a_run_that_diverges_ends_the_simulation_with_its_reason(tmp_path, caplog):
    with pytest.raises(FlqError):
        simulated(tmp_path / "run", learner=Diverging)
    assert "no worker's update is finite" in caplog.text
