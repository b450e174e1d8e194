"""The worker process: its command line, what it asks before it starts, its threads, signals and
exit codes.
"""

import json
import logging
import os
import signal
import threading

import numpy as np
import pytest

from flq import config, tokens
from flq.errors import ConfigError, DataError, ProtocolError, UnreachableError
from flq.host import arithmetic
from flq.parameters import Layout
from flq.worker import process
from flq.worker.master_client import HttpClient
from flq.worker.process import Options, parse_workers, run_threads
from tests.worker.misbehaving import Misbehaving, answer

SECRET = "0123456789abcdef" * 4


# --- the command line


@pytest.mark.parametrize("text, workers", [("0", [0]), ("3", [3]), ("0-3", [0, 1, 2, 3]),
                                           ("5-5", [5]), ("007", [7]), ("65535", [65535])])
def test_a_worker_id_is_a_number_or_a_range(text, workers):
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", [
    "", "-", "-1", "1-", "a", "1-b", "1.5", "1,2", "3-1", "65536", "0-65536", " 1", "1-2-3",
    "\u00b2", "\u0663", "0x1", "9" * 5000, "0-" + "9" * 5000
])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ConfigError) as refusal:
        parse_workers(text)
    assert "--worker_id cannot take this value" in str(refusal.value)
    assert len(str(refusal.value)) < 200


# --- threads


class Stub(object):
    """What run_threads needs of a worker: it ends with a code or an error, or goes on until it is
    stopped.
    """

    def __init__(self, worker, end=None):
        self.worker, self._end, self._stopped, self.left = worker, end, threading.Event(
        ), threading.Event()

    def run(self):
        if self._end is None:
            assert self._stopped.wait(30)
            return 0
        if isinstance(self._end, Exception):
            raise self._end
        return self._end

    def stop(self):
        self._stopped.set()

    def leave(self):
        self.left.set()


@pytest.fixture(autouse=True)
def handlers():
    """run_threads takes over the signals of its process."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize("ends, code", [([0], 0), ([0, 0], 0), ([3, 0], 3), ([0, 3, 0], 3)])
def test_the_largest_exit_code_counts(ends, code):
    assert run_threads([Stub(worker, end) for worker, end in enumerate(ends)]) == (code, True)


@pytest.mark.parametrize("error, code", [(UnreachableError("away"), 75), (DataError("damaged"), 4),
                                         (ConfigError("wrong"), 2), (ValueError("a bug"), 1)])
def test_a_worker_that_fails_ends_the_others_of_its_process(error, code, caplog):
    others = [Stub(0), Stub(2)]
    assert run_threads([others[0], Stub(1, error), others[1]]) == (code, True)
    assert any("worker 1" in message for message in caplog.messages) and str(error) in caplog.text


def test_a_worker_that_is_refused_does_not_end_the_others():
    refused, other = Stub(0, 3), Stub(1)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_threads([refused, other])))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive() and not other.left.is_set()
    other.stop()
    thread.join(30)
    assert codes == [(3, True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_workers_leave(number):
    class Signalled(Stub):
        def run(self):
            os.kill(os.getpid(), number)
            return super(Signalled, self).run()

    workers = [Signalled(0), Stub(1)]
    assert run_threads(workers) == (0, True)
    assert all(worker.left.wait(30) for worker in workers)


def test_after_a_signal_a_thread_that_computes_for_the_workers_counts_as_theirs():
    class Signalled(Stub):
        def run(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return super(Signalled, self).run()

    asked = []

    def soon():
        asked.append(1)
        return len(asked) < 4

    assert run_threads([Signalled(0)], is_working=lambda: True) == (0, False)
    assert run_threads([Signalled(0)], is_working=soon) == (0, True)
    assert run_threads([Stub(0, 2)], is_working=lambda: True) == (2, True)


# --- before the workers start


class Learner(object):
    """As much of a learner as a worker needs before it registers."""

    layout, builtin_model, partition_hash = Layout(((3,),)), True, ""

    def __init__(self, settings, workers):
        self.config, self.workers = settings, workers

    def num_samples(self, worker):
        return 10

    def device(self):
        return {}

    def is_preparing(self):
        return False

    def initial(self):
        return np.zeros(3, np.float32), np.zeros(0, np.float32)


def hello(*overrides):
    shared = config.shared_values(config.load(None, ["total_workers=2"] + list(overrides)).config)
    return answer(200, json.dumps({"run_id": "run-1", "config": shared}).encode("ascii"))


def refusal(name, status):
    return answer(status, json.dumps({"error": name, "message": name}).encode("ascii"))


class Case(object):
    """process.run with a token file and a state directory of the test; `learners` are those that
    were built.
    """

    def __init__(self, directory):
        self.token_file, self._state_dir, self.learners = str(directory / "token"), str(
            directory / "state"), []
        with open(self.token_file, "w") as file:
            file.write(SECRET)
        os.chmod(self.token_file, 0o600)

    def run(self, url, workers=(0,), own=(), retry_for_s=None, token_file=None):
        loaded = config.load(None, list(own))
        options = Options(list(workers), url, loaded, token_file or self.token_file, retry_for_s,
                          False, self._state_dir, None)

        def build(settings, ids):
            self.learners.append(Learner(settings, ids))
            return self.learners[-1]

        return process.run(options, build)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(process, "LONGEST_PAUSE_S", 0.005)
    return Case(tmp_path)


def test_a_process_asks_for_the_configuration_first_and_builds_one_learner(case, caplog):
    with Misbehaving(hello("mode=bin"), refusal("finished", 410)) as server, caplog.at_level(
            logging.INFO, "flq.worker"):
        assert case.run(server.url, [0, 1], ["log_level=DEBUG"]) == 0
    # a worker is never mute
    assert caplog.messages[:2] == [f"vectors are computed by {arithmetic.described()}",
                                   f"asking {server.url} for the run's configuration"]
    line, headers, body = server.requests[0]
    assert (line, json.loads(
        body.decode("ascii"))) == ("POST /register HTTP/1.1", {"protocol": 1, "worker_id": 0})
    assert headers["authorization"] == "Bearer " + tokens.worker_token(SECRET, 0)
    (learner,) = case.learners
    assert learner.workers == [
        0, 1
    ] and learner.config.flq_algorithm.mode == "bin" and learner.config.logging.log_level == "DEBUG"
    registered = [json.loads(body.decode("ascii")) for _, _, body in server.requests[1:]]
    assert sorted(document["worker_id"] for document in registered) == [0, 1]
    assert sorted(headers["authorization"] for _, headers, _ in server.requests[1:]) == [
        "Bearer " + tokens.worker_token(SECRET, worker) for worker in (0, 1)]


def test_a_worker_that_the_run_does_not_have_is_refused_before_anything_is_loaded(case):
    with Misbehaving(hello()) as server, pytest.raises(ConfigError) as refused:
        case.run(server.url, [1, 2])
    assert "--worker_id is not in this run; expected 0 to 1; got 2" in str(
        refused.value) and case.learners == []


def test_a_file_that_says_otherwise_is_refused_by_key(case):
    with Misbehaving(hello("mode=bin")) as server, pytest.raises(ConfigError) as refused:
        case.run(server.url, own=["mode=laq"])
    assert "flq_algorithm.mode differs from the master's" in str(
        refused.value) and case.learners == []


def test_a_key_of_its_file_that_has_no_effect_in_this_run_is_named(case, caplog):
    with Misbehaving(hello("adam_beta2=0.5", "dir_alpha=0.1"), refusal("finished", 410)) as server:
        assert case.run(server.url, own=["adam_beta2=0.5", "lazy_rule=laq"]) == 0
    assert caplog.messages[:2] == [
        "model.adam_beta2 0.5 has no effect: model.server_optimizer is not adam",
        "lazy_selection.lazy_rule is no key any more: LAQ's is the only lazy rule; remove it"
    ]
    assert not any("dir_alpha" in message
                   for message in caplog.messages), "the master's own keys are its own to tell"


def test_a_master_that_is_not_there_yet_is_waited_for(case, caplog):
    not_yet = [None, answer(503, b"", "text/html"), refusal("blocked", 503), None]
    with Misbehaving(*not_yet + [hello(), refusal("stopped", 410)]) as server:
        assert case.run(server.url) == 0
    assert len(server.requests) == 6 and sum("trying again" in message
                                             for message in caplog.messages) >= 3


def test_a_master_that_never_comes_is_given_up(case):
    with Misbehaving(None) as server, pytest.raises(UnreachableError):
        case.run(server.url, retry_for_s=0.05)
    assert len(server.requests) > 1


@pytest.mark.parametrize("name, status", [("not_found", 404), ("misdirected", 421),
                                          ("bad_request", 400)])
def test_a_refusal_that_stays_is_an_error_at_once(case, name, status):
    with Misbehaving(refusal(name, status)) as server, pytest.raises(ProtocolError) as refused:
        case.run(server.url)
    assert refused.value.name == name and refused.value.exit_code == 3 and len(server.requests) == 1


def test_the_token_is_read_once_more_when_it_is_refused(case, caplog):
    with Misbehaving(refusal("unauthorized", 401), hello(), refusal("finished", 410)) as server:
        assert case.run(server.url) == 0
    caplog.clear()
    with Misbehaving(refusal("unauthorized", 401)) as server, pytest.raises(ProtocolError):
        case.run(server.url)
    assert len(server.requests) == 2
    # and no word of trying without end
    assert caplog.messages == ["unauthorized; reading the token once more"]


def test_what_is_said_while_a_master_is_not_there_is_what_is_done(case, caplog):
    with Misbehaving(None) as server, pytest.raises(UnreachableError):
        case.run(server.url, retry_for_s=0.05)
    assert caplog.messages[0].endswith("; trying again for 0.05 s")
    caplog.clear()
    with Misbehaving(refusal("unauthorized", 401), None, None, hello(), refusal("finished",
                                                                                410)) as server:
        assert case.run(server.url) == 0
    assert caplog.messages[0].endswith("; reading the token once more")
    assert "; trying again without end (" in caplog.messages[1]


def test_a_worker_without_a_token_waits_for_it(case, tmp_path, monkeypatch):
    missing, slept = str(tmp_path / "later"), []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            os.rename(case.token_file, missing)

    monkeypatch.setattr(process.time, "sleep", sleep)
    with Misbehaving(hello(), refusal("finished", 410)) as server:
        assert case.run(server.url, token_file=missing) == 0
    assert len(
        slept) == 3 and server.requests[0][1]["authorization"] == "Bearer " + tokens.worker_token(
            SECRET, 0)


def test_a_worker_without_a_token_may_give_up(case, tmp_path):
    with Misbehaving(hello()) as server, pytest.raises(UnreachableError) as refused:
        case.run(server.url, retry_for_s=0.0, token_file=str(tmp_path / "never"))
    assert "no token yet" in str(refused.value) and server.requests == []


def test_a_token_that_cannot_be_read_is_waited_for_with_its_reason(case, tmp_path, caplog):
    with Misbehaving(hello()) as server, pytest.raises(UnreachableError):
        case.run(server.url, retry_for_s=0.05, token_file=str(tmp_path))
    assert server.requests == [] and len(caplog.messages) == 1 and caplog.messages[0].startswith(
        f"cannot read the token file {tmp_path}; got Is a directory; "), caplog.messages


def test_another_workers_token_is_refused(case):
    with open(case.token_file, "w") as file:
        file.write(tokens.worker_token(SECRET, 1))
    with Misbehaving(hello()) as server, pytest.raises(ConfigError) as refused:
        case.run(server.url)
    assert "the token of another worker" in str(refused.value) and server.requests == []


def test_a_worker_that_the_master_refuses_ends_with_3(case):
    with Misbehaving(hello(), refusal("data_mismatch", 409)) as server:
        assert case.run(server.url) == 3


def test_a_damaged_state_is_an_error_of_data(case, tmp_path):
    os.mkdir(str(tmp_path / "state"))
    with open(str(tmp_path / "state" / "worker-0.state"), "w") as file:
        file.write("no state")
    with Misbehaving(hello()) as server, pytest.raises(DataError):
        case.run(server.url)


def test_heartbeats_of_a_training_worker_say_how_warm_its_machine_is(monkeypatch):
    beaten, looks = threading.Event(), [True]

    class Training(object):
        session = "its session"

        @property
        def training(self):  # asked before each heartbeat
            if looks:
                return looks.pop()
            beaten.set()
            return False

    monkeypatch.setattr(process.jetson, "temperature", lambda: 48.5)
    with Misbehaving(answer(200, b'{"state": "run"}')) as server:
        settings = config.load(None, ["worker_timeout_s=1"]).config
        heartbeats = process.Heartbeats([Training()], HttpClient(server.url), settings)
        heartbeats.start()
        assert beaten.wait(30.0)
        heartbeats.stop()
        heartbeats.join()
    (line, headers, body), = server.requests
    assert line == "POST /heartbeat HTTP/1.1" and headers["authorization"] == "Bearer its session"
    assert json.loads(body.decode("ascii")) == {"temperature_c": 48.5}
