"""The REST API through Flask's test client: who may ask, how refusals look, what is answered."""

import io
import json
import queue
import re
from pathlib import Path

import numpy as np
import pytest

from flq import revoked, tokens
from flq.errors import ERROR_KINDS
from flq.master.http import history_answers, http_api
from flq.master.http.guard import Access
from flq.master.http.http_api import LONGEST_JSON, create_app
from flq.master.http.parking import PLACE, Parked
from flq.master.http.server import PEER
from flq.master.http.tls import Peer
from flq.master.status import metrics_text, status
from flq.parameters import flatten
from flq.protocol import endpoints, messages
from flq.protocol.endpoints import ENDPOINTS
from flq.records import Bid
from tests.master.hands import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]

SECRET = "0123456789abcdef" * 4
FRAME = "application/x-flq"
SETTINGS = ("total_workers=2", "quorum=all", "max_rounds=3")


class Api:
    """A client of an application. stopped counts calls of /stop."""

    def __init__(self, run, on_loopback=True, **access):
        self.run, self.stopped = run, 0
        self.app = create_app(run.service, Access(SECRET, on_loopback, **access), self._stop)
        self._client = self.app.test_client()

    def _stop(self, order):
        self.stopped += 1
        return messages.Stopped(True, "results/run-1")

    def ask(self, method, path, credential=None, host="localhost", **content):
        headers = dict(content.pop("headers", {}), Host=host)
        if credential is not None:
            headers["Authorization"] = "Bearer " + credential
        return self._client.open(path, method=method, headers=headers, buffered=True, **content)

    def refused(self, name, *arguments, **content):
        answer = self.ask(*arguments, **content)
        document = json.loads(answer.data)
        assert (document["error"], answer.status_code) == (name,
                                                           ERROR_KINDS[name].status), answer.data
        assert set(document) == {"error", "message", "expected", "got", "hint"
                                 } and "\n" not in document["message"]
        assert answer.mimetype == "application/json"
        return document


@pytest.fixture
def run(start):
    return start(*SETTINGS)


@pytest.fixture
def api(run):
    return Api(run)


@pytest.fixture
def hands(run):
    return run.hands(0, 1)


# --- who may ask

WORKER = tokens.worker_token(SECRET, 0)
BODIES = {
    "/register": {"json": {"worker_id": 0}}, "/heartbeat": {"json": {}},
    "/upload_update": {"headers": {"Content-Type": FRAME}},
    "/get_global_model": {"headers": {"Accept": FRAME}}
}


def _ask(api, endpoint, credential, refusal=None):
    path = endpoint.path.replace("{name}", "page.js").replace(
        "{worker}", "1") + ("?round=0" if "round" in endpoint.query else "")
    content = {key: dict(value) for key, value in BODIES.get(endpoint.path, {}).items()}
    if refusal is not None:
        return api.refused(refusal, endpoint.method, path, credential, **content)
    return api.ask(endpoint.method, path, credential, **content)


VIEWER = tokens.token_of(SECRET, tokens.holder("viewer-bob"))
ANN = tokens.token_of(SECRET, tokens.holder("operator-ann"))


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.who == "anyone"],
                         ids=lambda e: e.path)
def test_what_is_for_anyone_needs_no_token(api, endpoint):
    assert _ask(api, endpoint, None).status_code == 200


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.who == "operator"],
                         ids=lambda e: e.method + e.path)
@pytest.mark.parametrize("credential", [None, "", "x", WORKER, VIEWER, SECRET[:-1], SECRET + "0"],
                         ids=["none", "empty", "x", "worker", "viewer", "short", "long"])
def test_what_changes_something_needs_the_operators_token(api, endpoint, credential):
    _ask(api, endpoint, credential, "unauthorized")
    assert api.stopped == 0 and not api.run.state.paused and not api.run.state.removed


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.who == "operator"],
                         ids=lambda e: e.method + e.path)
def test_an_operators_token_is_enough(api, endpoint):
    assert _ask(api, endpoint, SECRET).status_code == 200
    assert _ask(api, endpoint, ANN).status_code == 200


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.who in ("reader", "viewer")],
                         ids=lambda e: e.path)
def test_what_is_protected_is_read_by_viewers_and_operators_alone(run, endpoint):
    api = Api(run, on_loopback=False)
    for credential in (VIEWER, ANN, SECRET):
        assert _ask(api, endpoint, credential).status_code == 200
    for credential in (None, "x", WORKER, VIEWER[:-1]):
        _ask(api, endpoint, credential, "unauthorized")


def test_each_endpoint_says_which_roles_it_is_for(api):
    described = json.loads(api.ask("GET", "/openapi.json").data)
    roles = {"anyone": [], "worker": ["worker"], "session": ["session"],
             "operator": ["operator"], "viewer": ["viewer", "operator"],
             "reader": ["viewer", "operator"]}
    for endpoint in ENDPOINTS:
        told = described["paths"][endpoint.path][endpoint.method.lower()].get("security", [])
        assert [role for entry in told for role in entry] == roles[endpoint.who]
    assert set(described["components"]["securitySchemes"]) == set(sum(roles.values(), []))


def test_a_token_says_whose_it_is(api):
    for credential, role, name in ((SECRET, "operator", "owner"), (ANN, "operator", "ann"),
                                   (VIEWER, "viewer", "bob")):
        assert json.loads(api.ask("GET", "/whoami", credential).data) == {"role": role,
                                                                          "name": name}


def test_a_revoked_token_is_refused_by_name_and_no_other_is(run):
    listed = revoked.Revoked({}, {})
    api = Api(run, revoked=lambda: listed)
    assert _ask(api, endpoints.PAUSE, ANN).status_code == 200
    listed = revoked.Revoked({"operator-ann": {"times": 1}, "0": {"times": 2}}, {})
    for endpoint, credential in ((endpoints.PAUSE, ANN), (endpoints.WHO_AM_I, ANN),
                                 (endpoints.REGISTER, WORKER)):
        assert _ask(api, endpoint, credential, "unauthorized")["message"] == (
            "this token was revoked")
    assert _ask(api, endpoints.WHO_AM_I, VIEWER).status_code == 200
    again = tokens.token_of(SECRET, tokens.holder("operator-ann"), listed)
    assert _ask(api, endpoints.RESUME, again).status_code == 200


def test_a_registration_that_its_revocation_overtook_leaves_no_session(run, monkeypatch):
    """The list was read again, and sessions ended, between the check and the new session."""
    listed = revoked.Revoked({}, {})
    api = Api(run, revoked=lambda: listed)
    register = run.service.register

    def overtaken(registration):
        nonlocal listed
        listed = revoked.Revoked({"0": {"times": 1}}, {})
        return register(registration)

    document = run.hand(0).registration()
    monkeypatch.setattr(run.service, "register", overtaken)
    api.refused("unauthorized", "POST", "/register", WORKER, json=document)
    assert not list(run.service.run.sessions.seen_since(-1.0))


def test_every_order_names_its_operator(api, run):
    for endpoint, credential in ((endpoints.PAUSE, ANN), (endpoints.RESUME, SECRET),
                                 (endpoints.REMOVE, ANN)):
        _ask(api, endpoint, credential)
    api.ask("PATCH", "/config", ANN, json={"model.lr": 0.5})
    assert [(event.by, event.at > 1600000000) for event in run.store.events()
            ] == [("ann@127.0.0.1", True), ("owner@127.0.0.1", True), ("ann@127.0.0.1", True),
                  ("ann@127.0.0.1", True)]
    told = json.loads(api.ask("GET", "/events").data)["events"]
    assert [event["by"] for event in told] == ["ann", "owner", "ann", "ann"]



@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.who == "session"],
                         ids=lambda e: e.method + e.path)
def test_a_workers_requests_need_its_session(api, hands, endpoint):
    _ask(api, endpoint, None, "unauthorized")
    for credential in ("made-up", SECRET, WORKER):
        _ask(api, endpoint, credential, "unknown_session")
    hands[0].leave()
    _ask(api, endpoint, hands[0].session, "unknown_session")


@pytest.mark.parametrize("credential", [
    None, SECRET, "flq1.0." + "0" * 64,
    tokens.worker_token(SECRET[::-1], 0),
    tokens.worker_token(SECRET, 1)
], ids=["none", "operator", "forged", "another master's", "another worker's"])
def test_a_worker_registers_with_its_own_token_alone(api, credential):
    api.refused("unauthorized", "POST", "/register", credential, json={"worker_id": 0})


@pytest.mark.parametrize("scheme", ["Basic " + SECRET, SECRET, "Bearer", "Bearer \xe9"])
def test_a_credential_of_another_form_is_none(api, scheme):
    api.refused("unauthorized", "POST", "/pause", headers={"Authorization": scheme})


def test_the_schemes_name_may_be_written_as_one_likes(api):
    assert api.ask("POST", "/pause",
                   headers={"Authorization": "bearer " + SECRET}).status_code == 200


@pytest.mark.parametrize("mode, on_loopback, free", [("auto", True, True), ("auto", False, False),
                                                     ("always", True, False),
                                                     ("always", False, False),
                                                     ("never", False, True)])
def test_weights_and_configuration_are_protected_off_loopback(start, mode, on_loopback, free):
    api = Api(start(*SETTINGS, "protect_reads=" + mode), on_loopback)
    for path in ("/config", "/get_global_model?format=npz", "/get_global_model?format=json"):
        if free:
            assert api.ask("GET", path).status_code == 200
        else:
            api.refused("unauthorized", "GET", path)
            api.refused("unauthorized", "GET", path, WORKER)
        assert api.ask("GET", path, SECRET).status_code == 200
    assert api.ask("GET", "/get_global_model").status_code == 200, "what the model is, is no secret"


def test_after_many_wrong_tokens_a_peer_waits_and_the_right_one_still_works(api):
    for _ in range(30):
        api.refused("unauthorized", "POST", "/pause", "wrong")
    answer = api.ask("POST", "/pause", "wrong")
    assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= 60
    assert json.loads(answer.data)["error"] == "too_many_requests"
    assert api.ask("POST", "/pause", SECRET).status_code == 200
    assert api.ask("POST", "/pause", "wrong",
                   environ_overrides={"REMOTE_ADDR": "10.0.0.7"}).status_code == 401


def test_a_brief_status_does_not_grow_with_the_workers(start):
    shown = []
    for number in (1, 40):
        run = start(f"total_workers={number}", "quorum=all", "max_rounds=3",
                    name=str(number))
        run.hands(*range(number))
        whole, brief = (json.loads(Api(run).ask("GET", "/status" + query).data)
                        for query in ("", "?brief=1"))
        assert set(whole) - set(brief) == {"worker_status"} and brief["members"] == 0
        shown.append((len(json.dumps(whole)), len(json.dumps(brief))))
    (whole, brief), (whole_of_many, brief_of_many) = shown
    assert whole_of_many > whole + 39 * 100 and brief_of_many <= brief + 4  # 40 has two digits


def test_a_brief_status_says_what_the_run_waits_for(api, hands, monkeypatch):
    hands[0].leave()
    later = api.run.service.now() + 3600.0
    monkeypatch.setattr(api.run.service, "now", lambda: later)
    whole, brief = (json.loads(api.ask("GET", "/status" + query).data)
                    for query in ("", "?brief=1"))
    assert brief["stall"] == whole["stall"]["text"] and "worker" in brief["stall"]


# --- the Host header


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil.example",
    "[evil]", "1.2.3"
])
def test_another_machines_name_is_misdirected(api, host):
    for method, path in (("GET", "/status"), ("POST", "/pause"), ("GET", "/nothing")):
        api.refused("misdirected", method, path, SECRET, host=host)


@pytest.mark.parametrize("host", [
    "localhost", "localhost:5000", "LOCALHOST", "127.0.0.1", "192.168.1.9:5000", "[::1]",
    "[fe80::1]:5000"
])
def test_addresses_and_this_machines_names_are_welcome(api, host):
    assert api.ask("GET", "/status", host=host).status_code == 200


def test_further_names_can_be_allowed(start):
    api = Api(start(*SETTINGS, 'allowed_hosts=["FLQ.example"]'))
    assert api.ask("GET", "/status", host="flq.Example:5000").status_code == 200
    api.refused("misdirected", "GET", "/status", host="www.flq.example")


# --- refusals


@pytest.mark.parametrize("name, method, path",
                         [("not_found", "GET", "/nothing"), ("not_found", "GET", "/page/none.js"),
                          ("not_found", "GET", "/page/../service.py"),
                          ("not_found", "POST", "/workers/x/remove"),
                          ("not_found", "POST", "/workers/2/remove"),
                          ("not_found", "POST", "/workers/-1/remove"),
                          ("method_not_allowed", "DELETE", "/status"),
                          ("method_not_allowed", "GET", "/register"),
                          ("method_not_allowed", "PUT", "/config"),
                          ("bad_request", "GET", "/get_global_model?format=pickle"),
                          ("bad_request", "GET", "/history?since=x")])
def test_what_is_not_there_is_refused_in_the_same_form(api, name, method, path):
    api.refused(name, method, path, SECRET)


@pytest.mark.parametrize("path", [
    "/outcome", "/outcome?round=", "/outcome?round=x", "/outcome?round=-1", "/outcome?round=1.5",
    "/outcome?round=0&wait=x", "/outcome?round=0&wait=-1", "/outcome?round=0&wait=nan",
    "/outcome?round=0&wait=inf", "/outcome?round=0&wait=3601"
])
def test_an_argument_that_cannot_be_is_refused(api, hands, path):
    api.refused("bad_request", "GET", path, hands[0].session)


@pytest.mark.parametrize("query", ["have=x", "hash=xyz", "have=0&hash=0", "wait=x"])
def test_an_argument_of_a_fetch_that_cannot_be_is_refused(api, hands, query):
    api.refused("bad_request", "GET", "/get_global_model?" + query, hands[0].session,
                headers={"Accept": FRAME})


@pytest.mark.parametrize("query", ["have=x", "have=0&hash=xyz", "have=", "have=0&wait=x"])
def test_an_argument_of_an_answer_that_cannot_be_is_refused(api, run, hands, query):
    hands[0].train()
    api.refused("bad_request", "POST", "/upload_update?" + query, hands[0].session,
                data=hands[0].frame(), headers={"Content-Type": FRAME})
    api.refused("bad_request", "POST", "/bid?" + query, hands[0].session,
                json=messages.BID.to_json(Bid(0, 0, True, "lazy", (), 1.0, 0.0)))
    assert not run.state.bids, "nothing was taken"
    api.refused("bad_request", "GET", "/outcome?round=0&" + query, hands[0].session)


@pytest.mark.parametrize("have", [-1, -5, 7, 2 ** 40, -2 ** 70])
def test_a_version_that_the_master_does_not_know_gets_a_keyframe(api, hands, have):
    answer = api.ask("GET", f"/get_global_model?have={have}&hash=00", hands[0].session,
                     headers={"Accept": FRAME})
    assert answer.status_code == 200 and answer.mimetype == FRAME and len(answer.data) > 4 * 42


@pytest.mark.parametrize("body, name", [(b"{", "bad_json"), (b"[]", "bad_json"),
                                        (b"\xff", "bad_json"),
                                        (b" " * (LONGEST_JSON + 1), "too_large")])
@pytest.mark.parametrize("method, path", [("POST", "/register"), ("POST", "/bid"),
                                          ("POST", "/heartbeat"), ("PATCH", "/config")])
def test_a_body_that_is_no_json_is_refused(api, hands, method, path, body, name):
    credential = {"/register": WORKER, "/config": SECRET}.get(path, hands[0].session)
    api.refused(name, method, path, credential, data=body)


def test_an_upload_is_a_frame(api, hands):
    for headers in ({}, {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}):
        api.refused("unsupported_media_type", "POST", "/upload_update", hands[0].session, data=b"x",
                    headers=headers)
    refusal = api.refused("bad_frame", "POST", "/upload_update", hands[0].session, data=b"x",
                          headers={"Content-Type": FRAME})
    assert refusal["message"].startswith("frame_short")


def test_a_bug_in_the_master_is_named_without_its_secrets(api, monkeypatch, caplog):
    monkeypatch.setattr(api.run.service, "pause", lambda order: 1 / 0)
    document = api.refused("internal", "POST", "/pause", SECRET)
    assert "division" not in json.dumps(document) and "ZeroDivisionError" in caplog.text


# --- where clients show certificates

MARK = "ab" * 32


def _showing(*holders, fingerprint=MARK):
    return {"environ_overrides": {PEER: Peer(fingerprint, frozenset(holders))}}


@pytest.mark.parametrize("credential, holders, ok", [
    (SECRET, ("operator-ann",), True), (SECRET, ("operator-ann", "3"), True),
    (SECRET, ("3",), False), (SECRET, ("viewer-bob",), False), (ANN, ("operator-ann",), True),
    (ANN, ("operator-eve",), False), (ANN, ("viewer-ann",), False), (VIEWER, ("viewer-bob",), None),
    (VIEWER, ("operator-eve",), None), (VIEWER, ("viewer-eve",), False)])
def test_a_token_needs_its_holders_certificate(run, credential, holders, ok):
    """None: it reads and changes nothing."""
    api = Api(run, certificates=True)
    reads = api.ask("GET", "/whoami", credential, **_showing(*holders)).status_code
    steers = api.ask("POST", "/pause", credential, **_showing(*holders)).status_code
    assert (reads == 200, steers == 200) == (ok is not False, ok is True)
    by = [event.by for event in run.store.events()]
    name = "owner" if credential == SECRET else "ann"
    assert by == ([f"{name}@127.0.0.1 certificate {MARK}"] if ok else [])


def test_a_session_is_of_no_use_with_another_workers_certificate(run):
    api, hand = Api(run, certificates=True), run.hand(0)
    assert api.ask("POST", "/heartbeat", hand.session, json={}, **_showing("0")).status_code == 200
    both = _showing("1", "0")
    assert api.ask("POST", "/heartbeat", hand.session, json={}, **both).status_code == 200
    for holders in (("1",), ("operator-ann",)):
        refusal = api.refused("unauthorized", "POST", "/heartbeat", hand.session, json={},
                              **_showing(*holders))
        assert refusal["got"] == f"one for {holders[0]}"
    api.refused("unauthorized", "POST", "/register", WORKER, json={"worker_id": 0},
                **_showing("1"))


def test_without_a_certificate_for_somebody_nothing_is_answered(run):
    api = Api(run, certificates=True)
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{name}", "page.js").replace("{worker}", "1")
        for shown in (_showing(), {}):
            answer = api.ask(endpoint.method, path, SECRET, **shown)
            assert answer.status_code in (401, 429), "429: it was tried too often"
    assert not run.state.paused and not run.state.removed and api.stopped == 0


def test_a_revoked_certificate_is_refused_and_its_holders_next_one_is_not(run):
    api = Api(run, certificates=True, revoked=lambda: revoked.Revoked({}, {MARK: {}}))
    assert api.refused("unauthorized", "GET", "/status",
                       **_showing("3"))["message"] == "this certificate was revoked"
    assert api.ask("GET", "/status", **_showing("3", fingerprint="cd" * 32)).status_code == 200


def test_a_certificate_that_is_revoked_while_its_request_waits_gets_no_answer(run):
    listed, left = [revoked.NOTHING], queue.Queue()
    api = Api(run, certificates=True, revoked=lambda: listed[0])
    first, second = run.hands(0, 1)
    first.train()
    second.train()

    class Left:
        answer = left.put

    place = {PLACE: lambda: Left, **_showing("0")["environ_overrides"]}
    with pytest.raises(Parked):
        api.ask("POST", "/upload_update?wait=30", first.session, data=first.frame(),
                headers={"Content-Type": FRAME}, environ_overrides=place)
    listed[0] = revoked.Revoked({}, {MARK: {}})
    second.upload()
    answer = left.get(timeout=PATIENCE_S)
    assert answer.status_code == 401 and "this certificate was revoked" in answer.get_data(True)
    assert run.wait_for_round(1), "what it sent before counts"


def test_nor_does_a_person_who_waits_for_news(run, monkeypatch):
    listed = [revoked.NOTHING]
    api = Api(run, certificates=True, revoked=lambda: listed[0])

    def wait_for(condition, timeout_s):
        listed[0] = revoked.Revoked({}, {MARK: {}})

    news = json.loads(api.ask("GET", "/status?seen=", **_showing("viewer-bob")).data)["news"]
    monkeypatch.setattr(run.service, "wait_for", wait_for)
    api.refused("unauthorized", "GET", f"/status?seen={news}&wait=30", **_showing("viewer-bob"))


# --- a worker's round


def test_a_worker_plays_a_round(api, run):
    hello = json.loads(
        api.ask("POST", "/register", WORKER, json={"protocol": 1, "worker_id": 0}).data)
    assert hello["run_id"] == run.service.run_id
    assert hello["config"]["system.total_workers"] == 2 and "logging.log_dir" not in hello["config"]
    first, second = run.hands(0, 1)
    answer = api.ask("POST", "/register", WORKER, json=first.registration())
    first.session = json.loads(answer.data)["session"]
    first.train()
    second.train()
    upload = {"data": first.frame(), "headers": {"Content-Type": FRAME}}
    answer = api.ask("POST", "/upload_update", first.session, **upload)
    assert answer.status_code == 202 and json.loads(answer.data)["state"] == "open"
    assert json.loads(
        api.ask("POST", "/heartbeat", first.session,
                json={"temperature_c": 48.5}).data) == {"state": "run"}
    second.upload()
    run.wait_for_round(1)
    answer = api.ask("GET", "/outcome?round=0", first.session)
    assert answer.status_code == 200 and json.loads(answer.data)["state"] == "accepted"
    assert json.loads(
        answer.data)["reference_hash"] == first.proposal.committed.reference_hash.hex()
    late = api.ask("POST", "/upload_update?wait=5", first.session, **upload)
    assert json.loads(late.data)["state"] == "accepted", "the record answers for ever"
    held = "have=0&hash=" + first.hash.hex()
    fetched = api.ask("GET", "/get_global_model?" + held, first.session, headers={"Accept": FRAME})
    assert fetched.status_code == 200 and fetched.mimetype == FRAME
    both = api.ask("POST", "/upload_update?" + held, first.session, **upload)
    assert both.status_code == 200 and both.mimetype == FRAME and both.data == fetched.data
    assert json.loads(both.headers["FLQ-Outcome"]) == json.loads(answer.data)
    silence = messages.BID.to_json(Bid(0, 1, True, "lazy", (), 1.0, 0.0))
    assert json.loads(api.ask("POST", "/bid?wait=5", first.session,
                              json=silence).data)["state"] == "skipped"
    assert api.ask("GET", "/get_global_model?have=1&hash=00", first.session,
                   headers={"Accept": FRAME}).status_code == 204
    api.refused("wrong_round", "GET", "/outcome?round=2", first.session)
    assert json.loads(api.ask("POST", "/leave", first.session).data) == {"state": "left"}
    api.refused("unknown_session", "POST", "/heartbeat", first.session,
                json={"temperature_c": 48.5})


def test_the_end_is_told_to_workers(api, run, hands):
    run.service.stop()
    api.refused("stopped", "GET", "/get_global_model?have=0&hash=" + hands[0].hash.hex(),
                hands[0].session, headers={"Accept": FRAME})
    api.refused("stopped", "POST", "/register", WORKER, json=hands[0].registration())
    assert api.ask("GET", "/status").status_code == 200


# --- what people read


def test_status_says_where_the_run_stands(api, run, hands):
    run.play(*hands)
    shown = json.loads(api.ask("GET", "/status").data)
    assert (shown["current_round"], shown["max_rounds"], shown["connected_workers"],
            shown["phase"]) == (1, 3, 2, "BIDDING")
    assert shown["worker_status"]["0"]["uploads"] == 1 and shown["worker_status"]["0"][
        "state"] == "training"
    assert shown["bits"]["up"]["payload"] == run.service.run.history.rows(
    )[0].payload_bits_up and shown["bits"]["up"]["wire"] is None


def test_the_history_is_json_or_csv_from_any_round_on(api, run, hands):
    run.play(*hands)
    run.play(*hands)
    rounds = json.loads(api.ask("GET", "/history").data)["rounds"]
    assert [record["round"] for record in rounds] == [0, 1] and rounds[0]["selected"] == [0, 1]
    for since, left in ((1, 1), (2, 0), (-5, 2), (10 ** 30, 0)):
        assert len(json.loads(api.ask("GET", f"/history?since={since}").data)["rounds"]) == left
    answer = api.ask("GET", "/history?format=csv&since=1")
    header, row = answer.data.decode("ascii").splitlines()
    assert answer.mimetype == "text/csv" and dict(zip(header.split(","),
                                                      row.split(",")))["selected"] == "0 1"
    assert api.ask("GET", "/history?format=csv&since=2").data == b""


def test_the_model_is_read_with_numpy_or_as_json(api, run, hands):
    run.play(*hands)
    result = run.service.run.model.result
    about = json.loads(api.ask("GET", "/get_global_model").data)
    assert about["version"] == about["round"] == 1
    assert about["num_parameters"] == 40 and about["shapes"] == [[5, 7], [5]
                                                                 ] and "weights" not in about
    arrays = np.load(io.BytesIO(api.ask("GET", "/get_global_model?format=npz").data),
                     allow_pickle=False)
    shapes = run.learner.layout.shapes
    assert int(arrays["version"]) == 1 and (flatten([arrays["p0"], arrays["p1"]], shapes)
                                            == result.params).all()
    assert (arrays["s0"] == result.non_trainable
            ).all() and arrays["s0"].shape == run.learner.layout.non_trainable_shapes[0]
    weights = json.loads(api.ask("GET", "/get_global_model?format=json").data)["weights"]
    assert (flatten([np.array(tensor) for tensor in weights],
                    shapes) == result.params).all()


def test_metrics_are_prometheus_text(api, run, hands):
    run.play(*hands)
    answer = api.ask("GET", "/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.data.decode("ascii").splitlines()
    assert 'flq_phase{phase="BIDDING"} 1' in lines and "flq_round 1" in lines
    assert 'flq_worker_uploads_total{worker="0"} 1' in lines
    assert "flq_cohort 0" in lines and "flq_cohorts 1" in lines and "flq_paused 0" in lines
    names = [line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")]
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(kinds) == len(set(kinds)) and set(names) == set(kinds)


def test_a_label_of_the_metrics_holds_any_text(run):
    shown = dict(status(run.service), dataset='npz:a"b\\c\nd', accuracy=float("nan"))
    text = metrics_text(shown)
    assert r'dataset="npz:a\"b\\c\nd"' in text.splitlines()[2] and "flq_accuracy nan" in text


def test_every_metric_that_the_dashboard_shows_exists(run, hands):
    """docs/grafana.json, with every expression and variable in it."""
    run.play(*hands)
    # as after its first test, which another thread makes
    text = metrics_text(dict(status(run.service), accuracy=0.5, loss=0.25))
    served = {line.split("{")[0].split(" ")[0] for line in text.splitlines()
              if not line.startswith("#")}
    labels = set(re.findall(r'[{,](\w+)="', text)) | {"instance"}
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"]
                   for target in panel.get("targets", [])]
    expressions += [variable["query"]["query"] for variable in dashboard["templating"]["list"]
                    if variable["type"] == "query"]
    shown = {name for text in expressions for name in re.findall(r"flq_\w+", text)}
    assert len(expressions) > 10 and not shown - served
    used = {name for text in expressions for name in re.findall(r'[{,] *(\w+) *=', text)} | {
        name for text in expressions for group in re.findall(r"by \(([^)]*)\)", text)
        for name in group.replace(" ", "").split(",")}
    assert used and not used - labels
    # nothing that is served and changes while a run goes on is left out
    assert served - shown <= {"flq_max_rounds", "flq_loss", "flq_worker_resets_total"}


def test_what_is_served_and_described_is_the_list_of_endpoints(api):
    listed = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    assert len(set(listed)) == len(listed)
    document = json.loads(api.ask("GET", "/openapi.json").data)
    described = {(method.upper(), path) for path, operations in document["paths"].items()
                 for method in operations}
    assert described == set(listed)
    served = {(method, str(rule).replace("<int:worker>", "{worker}").replace("<name>", "{name}"))
              for rule in api.app.url_map.iter_rules()
              for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert served == described


def test_the_configuration_in_force_is_shown(api, run):
    run.service.change({"model.lr": 0.125}, by="test")
    assert json.loads(api.ask("GET", "/config").data)["model"]["lr"] == 0.125


# --- the page


@pytest.mark.parametrize("path", ["/"] + sorted(
    "/page/" + path.name for path in (Path(http_api.__file__).parent / "page").iterdir()))
def test_the_page_takes_nothing_from_elsewhere(api, path):
    answer = api.ask("GET", path)
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(
        "; "))
    assert policy.pop("default-src") == policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_nobody_elses_page_may_read(api):
    answer = api.ask("GET", "/status", headers={"Origin": "http://evil.example"})
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]


# --- who watches


def test_a_viewer_waits_for_news_and_has_all_that_status_has(api, run, hands):
    first = json.loads(api.ask("GET", "/status?seen=").data)
    assert set(first) == {"news"} | set(json.loads(api.ask("GET", "/status").data))
    run.play(*hands)
    second = json.loads(api.ask("GET", f"/status?seen={first['news']}&wait=30").data)
    assert second["news"] != first["news"] and second["current_round"] == 1
    api.refused("bad_request", "GET", "/status?seen=x&wait=-1")


def test_the_history_comes_in_parts(api, run, hands):
    for _ in range(2):
        run.play(*hands)
    parts = [json.loads(api.ask("GET", f"/history?since={since}&limit={limit}").data)["rounds"]
             for since, limit in ((0, 1), (1, 5), (0, 0), (2, 1), (-7, 9))]
    assert [[record["round"] for record in part] for part in parts] == [[0], [1], [], [], [0, 1]]
    text = api.ask("GET", "/history?format=csv&limit=1").data.decode()
    assert len(text.splitlines()) == 2
    for limit in ("-1", "x", ""):
        api.refused("bad_request", "GET", f"/history?limit={limit}")


def test_a_long_history_streams_in_pages_and_says_the_same(api, run, hands, monkeypatch):
    for _ in range(3):
        run.play(*hands)
    whole = [api.ask("GET", path).data for path in ("/history", "/history?format=csv")]
    monkeypatch.setattr(history_answers, "PAGE", 1)
    for path, expected in zip(("/history", "/history?format=csv"), whole):
        answer = api.ask("GET", path)
        assert answer.data == expected and "Content-Length" not in answer.headers
    assert len(json.loads(api.ask("GET", "/history?since=1").data)["rounds"]) == 2
    assert "Content-Length" in api.ask("GET", "/history?since=2").headers


def test_few_read_a_whole_history_at_a_time(api, run, hands, monkeypatch):
    for _ in range(2):
        run.play(*hands)
    monkeypatch.setattr(history_answers, "PAGE", 1)
    client = api.app.test_client()
    readers = [client.get("/history", headers={"Host": "localhost"})
               for _ in range(history_answers.MOST_STREAMS)]
    refused = api.refused("too_many_requests", "GET", "/history")
    assert refused["expected"] == "at most 4 at a time, or limit=1 and less"
    assert api.ask("GET", "/history?limit=1").status_code == 200
    assert api.ask("GET", "/status").status_code == 200
    for reader in readers:
        reader.close()
    for method in ("HEAD", "GET", "HEAD", "HEAD", "HEAD", "HEAD", "GET"):
        assert api.ask(method, "/history").status_code == 200


def test_events_name_what_was_done_and_no_value(api, run, hands):
    run.service.change({"model.lr": 0.125}, by="10.1.2.3")
    api.ask("POST", "/pause", SECRET)
    api.ask("POST", "/resume", SECRET)
    run.play(*hands)
    api.ask("POST", "/workers/1/remove", SECRET)
    answer = api.ask("GET", "/events")
    assert b"10.1.2.3" not in answer.data and b"0.125" not in answer.data
    events = json.loads(answer.data)["events"]
    assert [(event["round"], event["event"], event["worker"], event["key"]) for event in events
            if event["event"] != "join"] == [(0, "config", None, "model.lr"),
                                             (0, "pause", None, None), (0, "resume", None, None),
                                             (1, "remove", 1, None)]
    assert json.loads(api.ask("GET", "/events?since=1").data)["events"] == events[-1:]


# --- the operator


def test_changes_come_flat_or_in_sections(api, run):
    answer = api.ask("PATCH", "/config", SECRET, json={"model": {"lr": 0.25}, "max_rounds": 9})
    assert json.loads(answer.data) == {
        "effective_round": 0, "changed": {
            "model.lr": {"old": run.config.model.lr, "new": 0.25},
            "system.max_rounds": {"old": 3, "new": 9}
        }
    }
    assert json.loads(api.ask("PATCH", "/config", SECRET, json={}).data)["changed"] == {}
    for name, change in (("cannot_change", {"dataset": {"seed": 1}}), ("bad_value", {
            "lr": "x"
    }), ("bad_value", {"max_rounds": 0}), ("cannot_change", {"model": {"lr": 0.5}, "nothing": 1})):
        api.refused(name, "PATCH", "/config", SECRET, json=change)
    assert run.service.run.config.model.lr == 0.25 and run.state.settings.max_rounds == 9


def test_the_operator_pauses_resumes_removes_and_stops(api, run):
    assert json.loads(api.ask("POST", "/pause", SECRET).data) == {"status": "paused"
                                                                  } and run.state.paused
    assert json.loads(api.ask("POST", "/resume", SECRET).data) == {"status": "running"
                                                                   } and not run.state.paused
    assert json.loads(api.ask("POST", "/workers/1/remove", SECRET).data) == {
        "status": "removed", "worker": 1
    } and run.state.removed == {1}
    assert json.loads(api.ask("POST", "/stop", SECRET).data) == {
        "status": "stopped", "results_saved": True, "results": "results/run-1"} and api.stopped == 1
