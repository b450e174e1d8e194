"""Whatever a stranger, a broken worker or a person with a typo sends: a documented error, and the
run is untouched.
"""

import json
import socket
import struct

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.compression import QUANTIZERS
from flq.errors import ERROR_KINDS
from flq.parameters import params_hash
from flq.protocol import frames
from tests.system.processes import history_of
from tests.system.quadratic import SMALL, Quadratic, simulate_here

SETTINGS = ["total_workers=3", "max_rounds=3", "quorum=all", "mode=laq"]
CONFIG = config.load(None, SETTINGS).config
LEARNER = Quadratic(CONFIG)
FRAME = {"Content-Type": "application/x-flq"}
BROADCAST = {"Accept": "application/x-flq"}
STRANGER = 2  # the worker that the tests play


@pytest.fixture(scope="module")
def master(site):
    """A run whose workers 0 and 1 are at work, and wait in round 0 for worker 2."""
    master = site.master(*SETTINGS)
    site.worker("0-1", master)
    return master


@pytest.fixture(scope="module")
def session(master):
    answer = master.ask("POST", "/register", master.worker_token(STRANGER), json=registration())
    assert answer.status_code == 200, answer.text
    return answer.json()["session"]


class Owed:
    """The upload that worker 2 owes, and ways to get it wrong."""

    def __init__(self, run_id):
        settings, (params, non_trainable) = uplink.settings_from(CONFIG, SMALL), LEARNER.initial()
        reference_hash = uplink.first_reference_hash(run_id, STRANGER, 0)
        before = uplink.initial_state(settings, SMALL.num_params, CONFIG.flq_algorithm.b_up,
                                      reference_hash)
        proposal = uplink.propose(before, LEARNER.local_update(params, non_trainable, STRANGER, 0),
                                  0, settings, LazyTerms(0, 0, 100, 1, 3, 1),
                                  rng.Stream(0, rng.UPLINK, STRANGER, 0).uniform)
        self.run_id, self.body = run_id, proposal.body
        self._parts = [
            frames.Content(settings.quantizer, proposal.bits, proposal.body, non_trainable),
            frames.Place(0, 0, params_hash(params, non_trainable), STRANGER, reference_hash),
            frames.UploadTerms(proposal.gain, proposal.loss, proposal.residual_norm, before.clock)
        ]
        self._expected = frames.Expected(run_id, SMALL, settings.sizes)

    def frame(self, expected=None, **wrong):
        parts = [
            part._replace(**{name: wrong[name] for name in part._fields if name in wrong})
            for part in self._parts
        ]
        return frames.pack(*parts, expected=expected or self._expected)

    def frame_with_body(self, data, **wrong):
        return self.frame(body=self.body._replace(data=data), **wrong)


@pytest.fixture(scope="module")
def upload(master, session):
    return Owed(master.status()["run_id"])


def registration(**changes):
    initial = params_hash(*LEARNER.initial()).hex()
    known = {
        "protocol": 1, "worker_id": STRANGER, "instance": "5" * 32,
        "num_samples": LEARNER.num_samples(STRANGER), "partition_hash": LEARNER.partition_hash,
        "shapes_hash": SMALL.hash(), "params_hash": initial, "device": {}, "states": []
    }
    return dict(known, **changes)


def check(answer, name):
    """The answer is the documented error of that name; returns it."""
    document = answer.json()
    assert (document["error"], answer.status_code) == (name, ERROR_KINDS[name].status), answer.text
    assert set(document) == {"error", "message", "expected", "got", "hint"} and document["message"]
    assert answer.headers["Content-Type"] == "application/json"
    return document


def say(master, data):
    """Bytes as they are -> the status and the JSON that came back, until the master closed the
    connection.
    """
    with socket.create_connection(("127.0.0.1", master.port)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


# --- JSON
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [
    b"{", b"[]", b"null", b"\xff\xfe", b"{'round': 0}", b'{"round": NaN}', b'{"round": Infinity}',
    b'{"a":' * 9 + b"1" + b"}" * 9, b"[" * 30000 + b"]" * 30000
], ids=lambda body: body[:12].decode("latin-1"))
def test_what_is_no_shallow_json_object_is_bad_json(master, session, body):
    check(master.ask("POST", "/bid", session, data=body), "bad_json")


def test_a_long_json_is_too_large(master, session):
    check(master.ask("POST", "/bid", session, data=b'{"round": 0}' + b" " * 65536), "too_large")


@pytest.mark.parametrize("bid", [{}, {"round": 0}, {
    "round": "0", "skip": True, "residual_norm": 0
}, {"round": 0, "skip": 1, "residual_norm": 0}, {"round": -1, "skip": True, "residual_norm": 0}, {
    "round": 2**40, "skip": True, "residual_norm": 0
}, {"round": 0, "skip": False, "residual_norm": 0}, {
    "round": 0, "skip": True, "options": [{}], "residual_norm": 0
}, {"round": 0, "skip": False, "options": [{"b": 4, "bits": 10, "gain": -1}], "residual_norm": 0}, {
    "round": 0, "skip": False, "options": [{"b": 4, "bits": 10, "gain": 1}] * 17, "residual_norm": 0
}, {"round": 0, "skip": True, "reason": "\x1b[2J", "residual_norm": 0}])
def test_a_bid_of_another_form_is_a_bad_request(master, session, bid):
    check(master.ask("POST", "/bid", session, json=bid), "bad_request")


def test_a_number_beyond_float64_is_a_bad_request(master, session):
    check(
        master.ask("POST", "/bid", session,
                   data=b'{"round": 0, "skip": true, "residual_norm": 1e999}'), "bad_request")


STATE = {
    "run_id": "r", "round": 0, "params_hash": "", "reference_hash": "", "pending": -1,
    "pending_hash": ""
}


@pytest.mark.parametrize("name, changes",
                         [("bad_request", {"protocol": 2}),
                          ("shapes_mismatch", {"shapes_hash": "0123456789abcdef"}),
                          ("data_mismatch", {"partition_hash": "other"}),
                          ("data_mismatch", {"num_samples": 1}),
                          ("model_mismatch", {"params_hash": "00" * 8}),
                          ("quantizer_mismatch", {"quantizer_hash": "00" * 8}),
                          ("bad_request", {"instance": 5}), ("bad_request", {"quantizer_hash": 5}),
                          ("bad_request", {"num_samples": 0}), ("bad_request", {"states": [{}]}),
                          ("bad_request", {"states": [{}] * 5}),
                          ("bad_request", {"states": [dict(STATE, params_hash="no hex")]}),
                          ("bad_request", {"device": {"name": "x" * 5000}}),
                          ("bad_request", {"take_over": "yes"}),
                          ("worker_id_in_use", {"instance": "6" * 32})])
def test_a_foreign_registration_is_refused_by_name(master, session, name, changes):
    document = check(
        master.ask("POST", "/register", master.worker_token(STRANGER),
                   json=registration(**changes)), name)
    if name.endswith("mismatch"):
        (_, value), = changes.items()
        assert document["got"] == value and document["expected"] is not None


# --- uploads
# ----------------------------------------------------------------------------------------------


def test_a_damaged_upload_is_refused_with_what_is_wrong(master, session, upload):
    frame = upload.frame()
    flipped = frame[:-1] + bytes([frame[-1] ^ 1])
    for reason, data in (("frame_short", b""), ("frame_short", b"hello"), ("frame_short",
                                                                           frame[:-1]),
                         ("frame_long", frame + b"\0"), ("bad_magic", b"PK\x03\x04" + frame[4:]),
                         ("bad_version", frame[:4] + b"\x09" + frame[5:]), ("bad_crc", flipped)):
        document = check(master.ask("POST", "/upload_update", session, FRAME, data=data),
                         "bad_frame")
        assert document["message"].startswith(reason + ": ")


def test_a_foreign_upload_is_refused_with_what_is_foreign(master, session, upload):
    other_run = frames.Expected("another", SMALL, SMALL.sizes)
    other_shapes = frames.Expected(upload.run_id, SMALL._replace(shapes=((7, 5), (5,))),
                                   SMALL.sizes)
    for name, words, data in (
        ("bad_frame", "other_run", upload.frame(expected=other_run)),
        ("bad_frame", "other_shapes",
         upload.frame(expected=other_shapes)), ("bad_frame", "bad_terms",
                                                upload.frame(gain=float("nan"))),
        ("bad_frame", "bad_terms",
         upload.frame(residual_norm=-1.0)),
        ("bad_frame", "bad_state", upload.frame(non_trainable=np.array([0, np.inf], np.float32))),
        ("bad_frame", "bad_scale",
         upload.frame_with_body(struct.pack("<f", float("nan")) + upload.body.data[4:])),
        ("bad_frame", "bad_length", upload.frame_with_body(
            upload.body.data[:-1])), ("bad_frame", "another quantiser",
                                      upload.frame(quantizer=QUANTIZERS["bbit"])),
        ("bad_frame", "another number of bits",
         upload.frame_with_body(bytes(8 + SMALL.num_params // 4),
                                bits=2)), ("bad_frame", "another worker's", upload.frame(worker=0)),
        ("other_base", "another model", upload.frame(params_hash=bytes(8))),
        ("other_base", "another reference",
         upload.frame(reference_hash=bytes(32))), ("wrong_round", "not open yet",
                                                   upload.frame(round=7))):
        document = check(master.ask("POST", "/upload_update", session, FRAME, data=data), name)
        assert words in document["message"]


def test_an_upload_of_another_kind_or_length_is_refused(master, session, upload):
    check(master.ask("POST", "/upload_update", session, data=upload.frame()),
          "unsupported_media_type")
    json_type = {"Content-Type": "application/json"}
    check(master.ask("POST", "/upload_update", session, json_type, data=upload.frame()),
          "unsupported_media_type")
    head = b"POST /upload_update HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-flq\r\n"
    status, document = say(master, head + b"Content-Length: 1000000000000\r\n\r\n")
    assert (status, document["error"]) == (413, "too_large")
    status, document = say(
        master,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 2)
    assert (status, document["error"]) == (413, "too_large")


# --- who may do what: fewer than the 30 wrong tokens in 10 s that slow an address down
# ----------------------


@pytest.mark.parametrize("method, path", [("POST", "/bid"), ("POST", "/heartbeat"),
                                          ("POST", "/leave"), ("GET", "/outcome?round=0"),
                                          ("POST", "/upload_update"),
                                          ("GET", "/get_global_model?have=0")])
def test_a_session_cannot_be_made_up(master, session, method, path):
    body = {"data": b'{}'} if path == "/heartbeat" else {}
    check(master.ask(method, path, "made-up", dict(FRAME, **BROADCAST), **body), "unknown_session")


@pytest.mark.parametrize("method, path", [("POST", "/pause"), ("POST", "/resume"),
                                          ("POST", "/stop"), ("PATCH", "/config"),
                                          ("POST", "/workers/0/remove")])
def test_only_the_operator_operates(master, session, method, path):
    for credential in (None, master.worker_token(0)):
        check(master.ask(method, path, credential, json={}), "unauthorized")


def test_no_credential_stands_for_another_one(master, session):
    check(master.ask("POST", "/pause", session), "unauthorized")
    for credential in (None, master.secret, "flq1.2." + "0" * 64, "flq1.2", master.worker_token(0),
                       "\xe9"):
        check(master.ask("POST", "/register", credential, json=registration()), "unauthorized")
    check(master.ask("POST", "/register", master.worker_token(3), json=registration(worker_id=3)),
          "not_found")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "", "[evil]:1"])
def test_another_host_name_is_misdirected(master, host):
    check(master.ask("GET", "/status", headers={"Host": host}), "misdirected")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:5000", "LOCALHOST"])
def test_a_name_of_this_machine_is_welcome(master, host):
    assert master.ask("GET", "/status", headers={"Host": host}).status_code == 200


# --- addresses
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [
    "/nothing", "/status/", "/page/none.js", "/page/../service.py", "/page/%2e%2e/service.py",
    "/workers/x/remove"
])
def test_an_unknown_path_is_not_found(master, path):
    check(master.ask("GET", path), "not_found")


@pytest.mark.parametrize("method, path", [("DELETE", "/status"), ("POST", "/status"),
                                          ("GET", "/register"), ("PUT", "/config"),
                                          ("POST", "/get_global_model"), ("GET", "/stop"),
                                          ("GET", "/workers/0/remove"), ("BREW", "/bid")])
def test_a_wrong_method_is_not_allowed(master, method, path):
    check(master.ask(method, path), "method_not_allowed")


@pytest.mark.parametrize("path", [
    "/outcome", "/outcome?round=x", "/outcome?round=-1", "/outcome?round=-100000000000000000000",
    "/outcome?round=0&wait=-1", "/outcome?round=0&wait=nan", "/get_global_model?have=1.5",
    "/get_global_model?have=0&hash=xyz", "/history?since=x", "/get_global_model?format=pickle"
])
def test_an_unusable_argument_is_a_bad_request(master, session, path):
    check(master.ask("GET", path, session, {} if "format" in path else BROADCAST), "bad_request")


def test_a_round_that_is_not_open_yet_is_wrong(master, session):
    check(master.ask("GET", "/outcome?round=100000000000000000000", session), "wrong_round")


@pytest.mark.parametrize(
    "name, data",
    [("bad_request", b"hello\r\n\r\n"),
     ("bad_request", b"GET /status HTTP/1.1\r\nno colon\r\n\r\n"),
     ("bad_request", b"POST /bid HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
     ("bad_request", b"POST /bid HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n"),
     ("headers_too_large",
      b"GET /status HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 20000 + b"\r\n\r\n"),
     ("misdirected", b"GET /status HTTP/1.0\r\n\r\n")])
def test_what_is_hardly_http_gets_the_same_kind_of_answer(master, name, data):
    status, document = say(master, data)
    assert (status, document["error"]) == (ERROR_KINDS[name].status, name)


# --- after all that
# ---------------------------------------------------------------------------------------


def test_too_many_wrong_tokens_are_slowed_down(master):
    answers = [master.ask("POST", "/pause", "wrong") for _ in range(31)]
    check(answers[0], "unauthorized" if answers[0].status_code == 401 else "too_many_requests")
    check(answers[-1], "too_many_requests")
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert master.get("/healthz")["status"] == "ok"


def test_the_run_of_the_others_ends_as_if_nothing_had_been(site, master, session):
    worker = site.worker(STRANGER, master, "--take_over")
    assert [program.wait() for program in site.programs] == [0, 0, 0] and worker in site.programs
    assert "Traceback" not in master.text()
    assert history_of(master.run_dir) == simulate_here(site.directory / "simulation-run", SETTINGS)
