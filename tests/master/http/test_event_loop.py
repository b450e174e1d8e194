"""The server's loop: what it asks of whom, and that no change is missed."""

import concurrent.futures
import contextlib
import selectors
import socket
import threading

import pytest

from flq.master.http.event_loop import EventLoop
from flq.master.http.server import Server

PATIENCE_S = 30.0


class Adjustments:
    outbuf_high_watermark = 1000


class Channel:
    """A connection as waitress's map holds it, on one end of a pair of sockets."""

    adj, accepting = Adjustments, False

    def __init__(self, loop):
        self.socket, self.peer = socket.socketpair()
        self._fileno, self.loop, self.server = self.socket.fileno(), loop, self
        self.total_outbufs_len, self.wants_read, self.asked, self.pulled = 0, True, 0, 0
        self.got, self.will_close = b"", False
        loop[self._fileno] = self

    def readable(self):
        self.asked += 1
        return self.wants_read

    def writable(self):
        return self.total_outbufs_len or self.will_close

    def handle_read_event(self):
        self.got += self.socket.recv(100)

    def handle_write_event(self):
        self.socket.send(b"x" * self.total_outbufs_len)
        self.total_outbufs_len = 0

    def handle_error(self):
        raise AssertionError("no error is expected")

    def pull_trigger(self):
        self.pulled += 1

    def close(self):
        del self.loop[self._fileno]
        self._fileno = None
        self.socket.close()
        self.peer.close()

    def waits_for(self):
        """What the system was asked to tell of it."""
        key = self.loop._selector.get_map().get(self._fileno)
        return 0 if key is None else key.events


@pytest.fixture
def loop():
    found = EventLoop()
    found._all_at = float("inf")  # no turn of all of them
    yield found
    for channel in list(found.values()):
        channel.close()
    found._selector.close()


def test_a_new_connection_is_read_and_asked_again_after_each_event(loop):
    channel, idle = Channel(loop), Channel(loop)
    loop._look()
    assert (channel.waits_for(), channel.asked, idle.asked) == (selectors.EVENT_READ, 1, 1)
    for _ in range(3):
        loop._look()
    assert (channel.asked, idle.asked) == (1, 1), "nothing happened to them"
    channel.peer.send(b"hello")
    loop._events(PATIENCE_S)
    loop._look()
    assert (channel.got, channel.asked, idle.asked) == (b"hello", 2, 1)


def test_all_are_asked_once_in_a_while(loop):
    channels = [Channel(loop) for _ in range(3)]
    loop._look()
    loop._all_at = 0.0
    loop._look()
    loop._look()
    assert [channel.asked for channel in channels] == [2, 2, 2]


def test_who_waits_for_its_answer_is_no_ones_business(loop):
    channel = Channel(loop)
    loop._look()
    channel.wants_read = False
    loop.look_again(channel)
    loop._look()
    assert channel.waits_for() == 0
    channel.wants_read = True
    loop.look_again(channel)
    loop._look()
    assert channel.waits_for() == selectors.EVENT_READ


def test_a_thread_sends_its_answer_itself_and_the_loop_what_it_leaves(loop):
    channel = Channel(loop)
    with loop.serving(channel):
        channel.wants_read, channel.total_outbufs_len = False, 900
        loop._look()
        assert channel.waits_for() == 0, "it sends this itself"
        channel.total_outbufs_len = 1001
        loop._look()
        assert channel.waits_for() == selectors.EVENT_WRITE, "it waits for the loop"
        channel.total_outbufs_len = 900
        loop._look()
        assert channel.waits_for() == 0 and not channel.pulled
    assert channel.pulled == 1
    loop._look()
    assert channel.waits_for() == selectors.EVENT_WRITE
    loop._events(PATIENCE_S)
    channel.wants_read = True
    loop._look()
    assert len(channel.peer.recv(1000)) == 900 and channel.waits_for() == selectors.EVENT_READ


def test_a_thread_that_waits_for_the_loop_is_not_left_waiting(loop):
    """waitress's threads wait for less than the mark, and for the end of what cannot be sent."""
    for length, will_close in ((1000, False), (900, True)):
        channel = Channel(loop)
        with loop.serving(channel):
            channel.wants_read, channel.total_outbufs_len = False, length
            channel.will_close = will_close
            loop._look()
            assert channel.waits_for() == selectors.EVENT_WRITE


def test_a_thread_that_ends_late_takes_nothing_from_the_one_with_the_next_request(loop):
    """The answer is out before its thread is done, and the next request may be there by then."""
    channel, done, both = Channel(loop), threading.Event(), threading.Barrier(2)

    def first():
        with loop.serving(channel):
            both.wait(PATIENCE_S)
            both.wait(PATIENCE_S)
        done.set()

    thread = threading.Thread(target=first)
    thread.start()
    both.wait(PATIENCE_S)
    with loop.serving(channel):
        channel.wants_read = False
        both.wait(PATIENCE_S)
        assert done.wait(PATIENCE_S)
        loop._look()
        assert channel.waits_for() == 0
        channel.wants_read = True  # the second answer is out, and waitress pulls its trigger
        loop._look()
        assert channel.waits_for() == selectors.EVENT_READ
    thread.join()


def test_what_a_thread_changed_is_seen_whenever_the_loop_looks(loop):
    channel = Channel(loop)
    with loop.serving(channel):
        channel.wants_read = False
        loop._look()
        channel.wants_read = True  # the answer is out, and waitress pulls its trigger
        loop._look()
        assert channel.waits_for() == selectors.EVENT_READ
        channel.wants_read = False
    loop._look()
    assert channel.waits_for() == 0


def test_the_number_of_a_closed_connection_may_be_anothers(loop):
    first = Channel(loop)
    loop._look()
    number = first._fileno
    first.close()
    assert number not in loop and number not in loop._selector.get_map()
    second = Channel(loop)
    assert second._fileno == number
    loop._look()
    assert second.waits_for() == selectors.EVENT_READ
    loop.look_again(first)
    loop._look()
    assert second.waits_for() == selectors.EVENT_READ


def test_a_connection_that_another_thread_closes_while_it_is_asked_ends_no_loop(loop):
    channel = Channel(loop)

    def closes_it():
        channel.close()
        return True
    channel.readable = closes_it
    loop._look()
    assert not loop


def test_what_became_of_the_number_of_a_closed_connection_does_not_keep_the_loop_busy(loop):
    """Another thread closes a connection that is asked, and then opens something else."""
    channel, others = Channel(loop), []

    def closes_it():
        number = channel._fileno
        channel.close()
        others.extend(socket.socketpair())
        assert others[0].fileno() == number
        others[1].send(b"hello")
        return True
    channel.readable = closes_it
    loop._look()
    loop._events(0.0)
    assert not loop._selector.get_map()
    for other in others:
        other.close()


def answer(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_requests_of_many_connections_are_answered_without_waiting_for_a_turn_of_all(
        monkeypatch, header):
    monkeypatch.setattr("flq.master.http.event_loop._ALL_AGAIN_S", 1e6)
    server = Server("127.0.0.1", 0, 100)
    server.start(answer, 1000)

    def ask(peer):
        for _ in range(1 if header else 20):
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
            data = b""
            while not data.endswith(b"ok"):
                more = peer.recv(1000)
                assert more
                data += more
        assert not header or peer.recv(1) == b"", "it is closed"

    try:
        with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(20) as pool:
            peers = [
                stack.enter_context(
                    socket.create_connection((server.host, server.port), PATIENCE_S))
                for _ in range(20)
            ]
            for done in [pool.submit(ask, peer) for peer in peers]:
                done.result(PATIENCE_S)
    finally:
        server.close()
