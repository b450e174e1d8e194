"""Requests that wait without a thread, on real sockets."""

import concurrent.futures
import contextlib
import http.client
import queue
import threading
import time

import pytest

from flq.master.http.parking import PLACE, Parked
from flq.master.http.server import Server
from flq.protocol.endpoints import OUTCOME, STATUS

PATIENCE_S = 30.0


def response(text):
    body = text.encode("ascii")

    def serve(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"),
                                  ("Content-Length", str(len(body)))])
        return [body]
    return serve


class Application:
    """Parks /outcome, whose query says what it is answered with; everything else is answered at
    once. parked: (what, its place) of those that wait.
    """

    def __init__(self):
        self.parked, self.hold = queue.Queue(), threading.Event()
        self.hold.set()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != OUTCOME.path:
            return response("now")(environ, start_response)
        if environ["QUERY_STRING"] == "work":
            assert self.hold.wait(PATIENCE_S)
            return response("done")(environ, start_response)
        self.parked.put((environ["QUERY_STRING"], environ[PLACE]()))
        raise Parked

    def answer_one(self):
        text, place = self.parked.get(timeout=PATIENCE_S)
        place.answer(response(text))


@contextlib.contextmanager
def serving(max_workers=400):
    server, application = Server("127.0.0.1", 0, max_workers), Application()
    server.start(application, 1000)
    try:
        yield server, application
    finally:
        application.hold.set()
        server.close()


@pytest.fixture
def served():
    with serving() as both:
        yield both


def connection(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)


def asked(server, text, path=OUTCOME.path):
    """A connection that has asked."""
    made = connection(server)
    made.request("GET", f"{path}?{text}")
    return made


def read(made):
    return made.getresponse().read().decode("ascii")


def test_many_wait_without_a_thread_each_and_get_their_own_answers(served):
    server, application = served
    before = threading.active_count()
    waiting = {str(number): asked(server, str(number)) for number in range(300)}
    places = dict(application.parked.get(timeout=PATIENCE_S) for _ in waiting)
    assert threading.active_count() == before and set(places) == set(waiting)
    with contextlib.closing(asked(server, "", STATUS.path)) as person:
        assert read(person) == "now"
    for text in sorted(places):
        places[text].answer(response(text))
    for text, made in waiting.items():
        assert read(made) == text
        made.close()


def test_one_connection_after_another_answer_never_gets_an_older_one(served):
    """However soon the answer comes: before the request is parked, or while the one before it is
    still being put away.
    """
    server, application = served
    answering = threading.Thread(target=lambda: [application.answer_one() for _ in range(1200)],
                                 daemon=True)
    answering.start()

    def play(first):
        with contextlib.closing(connection(server)) as made:
            for number in range(first, first + 200):
                made.request("GET", f"{OUTCOME.path}?{number}")
                assert read(made) == str(number)
                made.request("GET", STATUS.path)
                assert read(made) == "now"

    with concurrent.futures.ThreadPoolExecutor(6) as executor:
        for done in [executor.submit(play, 1000 * number) for number in range(6)]:
            done.result()
    answering.join(PATIENCE_S)
    assert not answering.is_alive()


def test_who_is_gone_meanwhile_disturbs_nobody(served):
    server, application = served
    gone, stays = asked(server, "gone"), asked(server, "stays")
    places = dict(application.parked.get(timeout=PATIENCE_S) for _ in range(2))
    gone.close()
    places["gone"].answer(response("gone"))
    places["stays"].answer(response("stays"))
    assert read(stays) == "stays"
    stays.request("GET", STATUS.path)
    assert read(stays) == "now"
    stays.close()


def test_people_are_answered_while_workers_queue_for_the_threads():
    with serving() as (server, application):
        application.hold.clear()
        busy = [asked(server, "work") for _ in range(20)]
        with contextlib.closing(asked(server, "", STATUS.path)) as person:
            assert read(person) == "now"
        more = [asked(server, "work") for _ in range(100)]
        application.hold.set()
        with contextlib.closing(asked(server, "", STATUS.path)) as person:
            assert read(person) == "now"
        for made in busy + more:
            assert read(made) == "done"
            made.close()


def test_what_travels_of_a_parked_request_counts():
    with serving() as (server, application):
        made = asked(server, "x" * 50)
        application.answer_one()
        assert read(made) == "x" * 50
        made.close()
        deadline = time.monotonic() + PATIENCE_S
        while not all(server.wire.bits()) and time.monotonic() < deadline:
            time.sleep(0.01)
        up, down = server.wire.bits()
        assert up > 8 * 50 and down > 8 * 50


def test_the_last_answers_are_out_before_the_server_ends():
    with serving() as (server, application):
        waiting = [asked(server, str(number)) for number in range(200)]
        places = [application.parked.get(timeout=PATIENCE_S) for _ in waiting]
        for text, place in places:
            place.answer(response(text))
    for number, made in enumerate(waiting):
        assert read(made) == str(number)
        made.close()
