"""The HTTP client against a server that misbehaves on purpose: whatever comes, one error that says
what to do.
"""

import gzip
import json
import logging
import os
import socket
import subprocess
import sys
import zlib

import pytest

from flq.errors import ERROR_KINDS, ConfigError, ProtocolError, UnreachableError
from flq.protocol import endpoints, messages
from flq.protocol.messages import Hello, Question, Registration
from flq.records import Bid, HeldModel, Outcome
from flq.worker import master_client
from flq.worker.client import MasterClient
from flq.worker.master_client import HttpClient
from tests.worker.misbehaving import Misbehaving, answer

FRAME = "application/x-flq"
REGISTRATION = Registration(1, 1, "process", 10, "", "ab", "", {}, (), False)
BID = Bid(1, 2, True, "lazy", (), 0.5, 0.0)
OUTCOME = {"round": 2, "state": "skipped", "option": 0, "reference_hash": "cd" * 32}
TERMS = {
    "history_sum": 0.0, "thr_scale": 0.0, "mean_weight": 1.0, "deadline_s": 0.0, "max_skips": 100,
    "two_phase": 0
}
REGISTERED = {
    "run_id": "r", "session": "s", "round": 0, "version": 0, "have": -1, "params_hash": "ab" * 8,
    "owes": "bid", "outcome": "", "reference": "reset", "reference_hash": "cd" * 32, "terms": TERMS
}
CALLS = {
    "hello": lambda client: client.hello(Question(1, 1)),
    "register": lambda client: client.register(REGISTRATION),
    "fetch_model": lambda client: client.fetch_model(HeldModel(3, b"\xab\xcd"), 0.0),
    "fetch_constants": lambda client: client.fetch_constants(),
    "bid": lambda client: client.bid(BID, 0.0),
    "upload": lambda client: client.upload(b"frame", 0.0),
    "outcome": lambda client: client.outcome(4, 0.0),
    "heartbeat": lambda client: client.heartbeat(48.5),
    "status": lambda client: client.status(),
    "leave": lambda client: client.leave(),
}
# What a master answers in JSON, and what the call makes of it.
GOOD = {
    "hello": ({"run_id": "r", "config": {"model.name": "cnn"}}, Hello("r", {"model.name": "cnn"})),
    "register": (REGISTERED, messages.REGISTERED.parse(REGISTERED)),
    "bid": (OUTCOME, Outcome(2, "skipped", 0, "cd" * 32)),
    "upload": (OUTCOME, Outcome(2, "skipped", 0, "cd" * 32)),
    "outcome": (OUTCOME, Outcome(2, "skipped", 0, "cd" * 32)),
    "heartbeat": ({"state": "run"}, "run"),
    "status": ({"phase": "BIDDING", "x": [1, None]}, {"phase": "BIDDING", "x": [1, None]}),
    "leave": ({"state": "left"}, None),
}
EVERY_CALL = pytest.mark.parametrize("call", sorted(CALLS))


def good(call, status=200):
    """What a master answers to it."""
    kinds = {"fetch_model": FRAME, "fetch_constants": "application/octet-stream"}
    if call in kinds:
        return answer(status, bytes(range(256)), kinds[call])
    return answer(status, json.dumps(GOOD[call][0]).encode("ascii"))


def refusal(name, status=None, *headers, **fields):
    document = dict(
        {"error": name, "message": "what happened", "expected": 1, "got": 2, "hint": "what to do"},
        **fields)
    return answer(status or ERROR_KINDS[name].status,
                  json.dumps(document).encode("ascii"), "application/json", *headers)


def outcome_of(server, call):
    """What the call gave: a value, or the error that it raised."""
    client = HttpClient(server.url)
    try:
        return CALLS[call](client)
    except (ProtocolError, UnreachableError) as error:
        assert "\n" not in str(error)
        return error
    finally:
        client.close()


# --- what is sent


@pytest.mark.parametrize("call, line, kind, body", [
    ("hello", "POST /register", "application/json", b'{"protocol":1,"worker_id":1}'),
    ("register", "POST /register", "application/json",
     b'{"protocol":1,"worker_id":1,"instance":"process","num_samples":10,'
     b'"partition_hash":"","shapes_hash":"ab","params_hash":"",'
     b'"device":{},"states":[],"take_over":false}'),
    ("fetch_model", "GET /get_global_model?have=3&hash=abcd&wait=0", None, b""),
    ("fetch_constants", "GET /get_constants", None, b""),
    ("bid", "POST /bid?wait=0", "application/json",
     b'{"round":2,"skip":true,"loss":0.5,"residual_norm":0.0,"reason":"lazy"}'),
    ("upload", "POST /upload_update?wait=0", FRAME, b"frame"),
    ("outcome", "GET /outcome?round=4&wait=0", None, b""),
    ("heartbeat", "POST /heartbeat", "application/json", b'{"temperature_c":48.5}'),
    ("status", "GET /status", None, b""), ("leave", "POST /leave", "application/json", b"{}"),
])
def test_a_request_is_what_the_protocol_says(call, line, kind, body):
    with Misbehaving(good(call)) as server:
        client = HttpClient(server.url + "/")
        client.authorize("secret")
        CALLS[call](client)
        client.close()
    (sent, headers, data), = server.requests
    assert sent == line + " HTTP/1.1" and data == body
    assert headers["authorization"] == "Bearer secret" and headers.get("content-type") == kind
    assert headers.get("accept") == (FRAME if call == "fetch_model" else None)
    assert sum(len(name) + len(value) + 4
               for name, value in headers.items()) < 250, "a header costs bytes in every message"


TOLD = "FLQ-Outcome: " + json.dumps(OUTCOME)
EXCHANGES = {
    "bid": (lambda client: client.bid(BID, 0.0, HeldModel(3, b"\xab\xcd")),
            "POST /bid?have=3&hash=abcd&wait=0"),
    "upload": (lambda client: client.upload(b"frame", 0.0, HeldModel(3, b"\xab\xcd")),
               "POST /upload_update?have=3&hash=abcd&wait=0"),
    "outcome": (lambda client: client.outcome(4, 0.0, HeldModel(-1, b"")),
                "GET /outcome?round=4&have=-1&hash=&wait=0"),
}


def exchanged(call, data):
    """What an outcome that is asked for with a model gave, and the request's line."""
    with Misbehaving(data) as server:
        client = HttpClient(server.url, longest=5000)
        try:
            found = EXCHANGES[call][0](client)
        except ProtocolError as error:
            found = error
        client.close()
    return found, server.requests[0][0]


@pytest.mark.parametrize("call", sorted(EXCHANGES))
def test_a_model_comes_with_an_outcome(call):
    found, line = exchanged(call, answer(200, b"frames", FRAME, TOLD))
    assert found == Outcome(2, "skipped", 0, "cd" * 32, b"frames")
    assert line == EXCHANGES[call][1] + " HTTP/1.1"


@pytest.mark.parametrize("call", sorted(EXCHANGES))
def test_an_outcome_without_a_model_is_an_outcome(call):
    """There was none to send, or the master is an older one."""
    found, _ = exchanged(call, good(call))
    assert found == GOOD[call][1] and found.frames == b""


@pytest.mark.parametrize("call", sorted(EXCHANGES))
@pytest.mark.parametrize("data", [
    answer(200, b"frames", FRAME), answer(200, b"frames", "application/json", TOLD),
    answer(200, b"frames", FRAME, "FLQ-Outcome: {"),
    answer(200, b"frames", FRAME, "FLQ-Outcome: " + "[" * 10000),
    answer(200, b"frames", FRAME, TOLD.replace("skipped", "won")),
    answer(200, bytes(5001), FRAME, TOLD)
], ids=["no outcome", "no frames", "no JSON", "deep", "no verdict", "long"])
def test_an_outcome_with_a_model_as_no_master_sends_it_is_refused(call, data):
    found, _ = exchanged(call, data)
    assert isinstance(found, ProtocolError) and found.kind.action == "exit"


@pytest.mark.parametrize("call", sorted(EXCHANGES))
def test_a_message_where_a_model_may_come_is_no_longer_than_a_message(call):
    body = b'{"x":"' + bytes(master_client.LONGEST_JSON) + b'"}'
    with Misbehaving(answer(200, body)) as server:
        client = HttpClient(server.url, longest=10**9)
        with pytest.raises(ProtocolError) as refused:
            EXCHANGES[call][0](client)
    assert f"at most {master_client.LONGEST_JSON} bytes" in str(refused.value)


def test_a_wait_is_told_and_its_answer_is_given_time(monkeypatch):
    given = []
    with Misbehaving(good("outcome")) as server:
        client = HttpClient(server.url)
        request = client._session.request
        monkeypatch.setattr(client._session, "request",
                            lambda *a, **k: given.append(k["timeout"]) or request(*a, **k))
        client.outcome(0, 12.5)
        client.close()
    assert given == [(master_client.CONNECT_TIMEOUT_S, 12.5 + master_client.ANSWER_TIMEOUT_S)]
    assert server.requests[0][0] == "GET /outcome?round=0&wait=12.5 HTTP/1.1"


def test_one_connection_serves_many_requests():
    with Misbehaving(good("outcome"), per_connection=5) as server:
        client = HttpClient(server.url)
        for round_ in range(5):
            client.outcome(round_, 0.0)
        client.close()
    assert server.connections == 1 and len(server.requests) == 5


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Misbehaving(answer(200, b'{"phase": "BIDDING"}')) as server:
        assert outcome_of(server, "status") == {"phase": "BIDDING"}


# --- good answers


@pytest.mark.parametrize("call", sorted(GOOD))
def test_a_message_is_read(call):
    with Misbehaving(good(call, 202)) as server:
        assert outcome_of(server, call) == GOOD[call][1]


@pytest.mark.parametrize(
    "call, field, value, expected",
    [("outcome", "round", -1, "an integer from 0 to 4294967295"),
     ("outcome", "round", 1e400, "an integer from 0 to 4294967295"),
     ("upload", "state", "else", "one of open, granted, accepted, refused, skipped, late"),
     ("bid", "option", 2**70, "an integer from 0 to 32"),
     ("bid", "reference_hash", "cd", "64 hex digits"),
     ("register", "have", "0", "an integer from -1 to 4294967295"),
     ("register", "session", "two\nlines", "printable text"),
     ("register", "reference_hash", "x" * 64, "64 hex digits"),
     ("register", "params_hash", None, "printable text"), ("register", "terms", [], "an object"),
     ("hello", "config", None, "dict"), ("heartbeat", "state", 1, "one of run, paused, stop"),
     ("leave", "state", "stayed", "one of left")])
def test_a_message_that_no_master_sends_is_named_by_its_field(call, field, value, expected):
    body = json.dumps(dict(GOOD[call][0], **{field: value})).encode("ascii")
    with Misbehaving(answer(200, body)) as server:
        error = outcome_of(server, call)
    assert isinstance(error,
                      ProtocolError) and error.kind.action == "exit" and expected in str(error)
    assert (error.message ==
            f"{server.url} does not answer like an FLQ master: {error.message.split(': ')[-1]}")
    assert error.hint == "check system.master_url"


def test_terms_of_a_round_are_read_as_strictly_as_a_header():
    body = json.dumps(dict(REGISTERED, terms=dict(TERMS, mean_weight=float("nan")))).encode("ascii")
    with Misbehaving(answer(200, body)) as server:
        error = outcome_of(server, "register")
    assert ("mean_weight cannot take this value; expected a finite number of at least 0.0; got nan"
            in str(error))


def test_a_model_is_bytes_or_nothing_new():
    with Misbehaving(good("fetch_model"), answer(204, b"")) as server:
        assert outcome_of(server, "fetch_model") == bytes(range(256))
        assert outcome_of(server, "fetch_model") is None


# --- refusals


@pytest.mark.parametrize("name", sorted(ERROR_KINDS))
def test_a_refusal_of_the_protocol_keeps_its_name_and_its_words(name):
    with Misbehaving(refusal(name)) as server:
        error = outcome_of(server, "upload")
    assert isinstance(error,
                      ProtocolError) and error.name == name and error.kind is ERROR_KINDS[name]
    assert str(
        error) == "what happened; expected 1; got 2; what to do" and error.retry_after_s is None


@pytest.mark.parametrize("header, seconds", [("Retry-After: 7", 7.0), ("Retry-After: 0", 0.0),
                                             ("Retry-After: 99999", 60.0),
                                             ("Retry-After: " + "9" * 5000, None),
                                             ("Retry-After: soon", None), ("Retry-After: -3", None),
                                             ("Retry-After: \xb2", None),
                                             ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", None),
                                             ("Retry-After: 1.5", None)])
def test_the_master_may_say_when_to_come_back(header, seconds):
    with Misbehaving(refusal("blocked", None, header)) as server:
        assert outcome_of(server, "bid").retry_after_s == seconds


def test_a_refusal_may_leave_fields_out_or_hold_anything():
    with Misbehaving(answer(409, b'{"error": "other_base"}')) as server:
        error = outcome_of(server, "upload")
    assert error.name == "other_base" and error.expected is None and error.hint is None
    with Misbehaving(
            refusal("other_base", message="two\n lines", expected={"b": [4]}, got="\x1b[2J",
                    hint=["x"])) as server:
        assert str(outcome_of(server, "upload")) == "two lines; expected {'b': [4]}; got [2J; ['x']"


# --- answers that no master gives

FOREIGN = {
    "a page": answer(200, b"<html>Welcome</html>", "text/html"),
    "a list": answer(200, b"[]"),
    "null": answer(200, b"null"),
    "text": answer(200, b"not json"),
    "bytes": answer(200, b"\xff\xfe"),
    "nothing": answer(200, b""),
    "deep json": answer(200, b"[" * 100000),
    "a page that is not there": answer(404, b"<html>Not Found</html>", "text/html"),
    "a bug": answer(500, b"", "text/plain"),
    "another error": answer(418, b'{"error": "teapot"}'),
    "an error that is a list": answer(400, b'{"error": ["list"]}'),
    "an error that is an object": answer(400, b'{"error": {"code": 1}}'),
    "an error without a name": answer(400, b'{"message": "no name"}'),
    "a list of errors": answer(400, b"[1]"),
    "a deep error": answer(400, b"[" * 100000),
    "a redirect to elsewhere": answer(302, b"", "text/html", "Location: http://127.0.0.1:9/"),
    "a redirect to itself": answer(301, b"", "text/html", "Location: /status"),
}


@EVERY_CALL
@pytest.mark.parametrize("what", sorted(FOREIGN))
def test_what_does_not_answer_like_a_master_is_named_and_not_followed(call, what):
    with Misbehaving(FOREIGN[what]) as server:
        error = outcome_of(server, call)
    assert isinstance(error, ProtocolError) and error.kind.action == "exit"
    assert "does not answer like an FLQ master" in str(error) and "system.master_url" in str(error)
    assert len(server.requests) == 1, "no redirect is followed"


DEEP_ANSWERS = """
from flq.worker.answers import json_of


class Answer(object):
    content = b'{"a":' + b"[" * 100000


def parse_at(frames):
    return parse_at(frames - 1) if frames else [json_of(Answer) for _ in range(3)]


for frames in range(0, 960):
    assert parse_at(frames) == [None] * 3
"""


def test_a_deep_answer_does_not_abort_the_process_however_deep_its_stack_is():
    """Python 3.6 cannot always recover from the recursion in its JSON scanner: it ends the process
    with SIGABRT.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = subprocess.run([sys.executable, "-c", DEEP_ANSWERS], cwd=root, stderr=subprocess.PIPE,
                             universal_newlines=True)
    assert process.returncode == 0, process.stderr[:1000]


def test_brackets_in_texts_are_no_depth():
    with Misbehaving(answer(200,
                            json.dumps({"text": "[" * 1000 + '\\"{'}).encode("ascii"))) as server:
        assert outcome_of(server, "status") == {"text": "[" * 1000 + '\\"{'}


def test_a_registration_without_a_run_is_no_masters():
    with Misbehaving(answer(200, b'{"hello": "world"}')) as server:
        for call in ("hello", "register"):
            assert "does not answer like an FLQ master" in str(outcome_of(server, call))


@EVERY_CALL
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_its_master_is_tried_again(call, status):
    with Misbehaving(answer(status, b"<html>Bad Gateway</html>", "text/html")) as server:
        error = outcome_of(server, call)
    assert isinstance(error, UnreachableError) and f"HTTP {status}" in str(error)


# --- answers that are too large

GZIPPED = gzip.compress(bytes(2**20))


@EVERY_CALL
@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
def test_a_compressed_answer_is_not_unpacked(call, status, coding, monkeypatch):
    monkeypatch.setattr(zlib, "decompressobj", None)
    with Misbehaving(answer(status, GZIPPED, "application/json",
                            "Content-Encoding: " + coding)) as server:
        error = outcome_of(server, call)
    assert isinstance(error, ProtocolError) and error.kind.action == "exit"
    assert f"expected an answer that is not compressed; got Content-Encoding {coding}" in str(error)


def longest_of(call):
    return {"fetch_model": 5000, "fetch_constants": 5000,
            "status": master_client.LONGEST_STATUS}.get(call, master_client.LONGEST_JSON)


def endless(head):
    """A server's answer that never ends: more than any worker would read."""
    return (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + head + b"\r\n")


@EVERY_CALL
def test_an_answer_that_says_that_it_is_too_long_is_not_read(call):
    most = longest_of(call)
    head = f"Content-Length: {most + 1}\r\n".encode("ascii")
    with Misbehaving(endless(head)) as server:
        client = HttpClient(server.url, longest=5000)
        with pytest.raises(ProtocolError) as refused:
            CALLS[call](client)
    assert (f"an answer of at most {most} bytes; got {most + 1} bytes") in str(refused.value)


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"status"}))
@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_that_does_not_say_its_length_is_cut(call, chunked):
    body = bytes(2 * longest_of(call))
    if chunked:
        data = endless(b"Transfer-Encoding: chunked\r\n") + f"{len(body):x}\r\n".encode(
            "ascii") + body
    else:
        data = endless(b"") + body
    with Misbehaving(data, may_hang_up=True) as server:
        client = HttpClient(server.url, longest=5000)
        with pytest.raises(ProtocolError) as refused:
            CALLS[call](client)
    assert f"an answer of at most {longest_of(call)} bytes; got more" in str(refused.value)


def test_a_refusal_is_no_longer_than_a_message():
    head = b"HTTP/1.1 409 X\r\nContent-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
    with Misbehaving(head) as server:
        client = HttpClient(server.url, longest=10**9)
        with pytest.raises(ProtocolError) as refused:
            client.fetch_model(HeldModel(3, b"\xab\xcd"), 0.0)
    assert f"at most {master_client.LONGEST_JSON} bytes" in str(refused.value)


def test_a_line_without_end_between_the_chunks_is_not_read():
    data = endless(b"Transfer-Encoding: chunked\r\n") + b"1" * 10**6
    with Misbehaving(data, may_hang_up=True) as server:
        assert isinstance(outcome_of(server, "status"), UnreachableError)


def test_what_fits_is_read_whatever_way_it_comes():
    for head, body in ((b"Transfer-Encoding: chunked\r\n", b"2\r\n{\"\r\n5\r\na\":1}\r\n0\r\n\r\n"),
                       (b"Content-Encoding: identity\r\n", b'{"a":1}'),
                       (b"Content-Length: " + b"9" * 5000 + b"\r\n", b'{"a":1}')):
        with Misbehaving(endless(head) + body) as server:
            assert outcome_of(server, "status") == {"a": 1}


# --- connections that break


@EVERY_CALL
@pytest.mark.parametrize(
    "data", [
        None, b"", b"garbage\r\n\r\n", b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-flq\r\nContent-Length: 5000\r\n\r\n" +
        bytes(4000), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 409 X\r\nContent-Type: application/json\r\nContent-Length: "
        b"100\r\n\r\n{\"error\": \"other_base\"}"
    ], ids=[
        "closed", "silent", "garbage", "half a line", "short json", "short frame", "short chunk",
        "short refusal"
    ])
def test_an_answer_that_breaks_off_is_tried_again(call, data):
    with Misbehaving(data) as server:
        error = outcome_of(server, call)
    assert isinstance(error, UnreachableError) and server.url in str(error), error


@EVERY_CALL
def test_a_master_that_says_nothing_is_given_up_after_its_time(call, monkeypatch):
    monkeypatch.setattr(master_client, "ANSWER_TIMEOUT_S", 0.05)
    with Misbehaving(hang=True) as server:
        error = outcome_of(server, call)
    assert isinstance(error, UnreachableError) and "timed out" in str(error)


def test_a_port_where_nobody_listens_is_named_in_plain_words():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    with pytest.raises(UnreachableError) as refused:
        HttpClient(url).status()
    assert (
        str(refused.value) ==
        f"no answer from {url}; got Connection refused; is the master running and the address "
        "right?"
    )


def test_a_name_that_nobody_knows_is_unreachable():
    with pytest.raises(UnreachableError) as refused:
        HttpClient("http://nobody.invalid:5000").status()
    assert "nobody.invalid" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:5000", "ftp://127.0.0.1", "localhost", "HTTP//x"])
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(ConfigError) as refused:
        HttpClient(url)
    assert "system.master_url is not a URL; expected http://HOST:PORT" in str(refused.value)


@pytest.mark.parametrize("url", [
    "http://", "http://:5000", "http://127.0.0.1:port", "http://127.0.0.1:99999", "http://[::1",
    "http://.x"
])
def test_a_url_that_leads_nowhere_is_refused_with_the_first_request(url):
    with pytest.raises((ConfigError, UnreachableError)) as refused:
        HttpClient(url).status()
    assert url in str(refused.value) and "\n" not in str(refused.value)


def test_nothing_secret_is_logged(caplog):
    with caplog.at_level(logging.DEBUG), Misbehaving(answer(200, b"<html>", "text/html")) as server:
        client = HttpClient(server.url)
        client.authorize("very-secret")
        with pytest.raises(ProtocolError) as refused:
            client.status()
        client.close()
    assert "very-secret" not in caplog.text and "very-secret" not in str(refused.value)


# --- what a client is


def test_the_client_asks_what_the_list_says(monkeypatch):
    """Each call is one endpoint of a worker, but for the status, which is for anyone; and every
    endpoint of a worker is asked.
    """
    asked = {}
    send = HttpClient._send

    def note(client, endpoint, *arguments, **keywords):
        asked[endpoint.path] = endpoint
        return send(client, endpoint, *arguments, **keywords)

    monkeypatch.setattr(HttpClient, "_send", note)
    for call in CALLS:
        with Misbehaving(good(call)) as server:
            outcome_of(server, call)
    assert set(asked) - {endpoints.STATUS.path} == endpoints.WORKER_PATHS
    assert all(endpoint in endpoints.ENDPOINTS for endpoint in asked.values())


def test_every_method_of_a_client_says_what_it_does():
    assert issubclass(HttpClient, MasterClient) and MasterClient.__abstractmethods__ <= set(
        dir(HttpClient))
    for name in MasterClient.__abstractmethods__:
        assert getattr(MasterClient, name).__doc__, name
