"""What the master says of its wire against a proxy that counts every byte between it and its
workers.
"""

import socket

import pytest

from tests.system.counting_proxy import CountingProxy
from tests.system.processes import wait_until
from tests.system.quadratic import CNN

WORKERS = range(2)
SCALES_BYTES = 4 * CNN.num_tensors


class Measured:
    """A run of the cnn's 467,818 weights, whose workers speak through a proxy each."""

    def __init__(self, site, name, *settings):
        self.master = site.master("total_workers=2", "quorum=all", "max_rounds=3", "model.name=cnn",
                                  *settings, name=name, options=())
        self.proxies = [CountingProxy(self.master.port) for _ in WORKERS]
        self.workers = [
            site.worker(m, self.master, url=self.proxies[m].url, name=f"{name}-{m}")
            for m in WORKERS
        ]

    def finish(self):
        assert [worker.wait() for worker in self.workers] == [0, 0]
        self.master.wait_for_phase("FINISHED")
        self.rounds = self.master.get("/history")["rounds"]
        return self

    def bits_by_proxy(self):
        return {
            "up": 8 * sum(proxy.up for proxy in self.proxies),
            "down": 8 * sum(proxy.down for proxy in self.proxies)
        }

    def bits_by_master(self):
        bits = self.master.status()["bits"]
        return {direction: bits[direction]["wire"] for direction in bits}

    def check_counts(self, when):
        """A moment may pass between a byte on the socket and both counts of it."""
        wait_until(lambda: self.bits_by_master() == self.bits_by_proxy(),
                   "the counts agree: " + when, 10)

    def close(self):
        for proxy in self.proxies:
            proxy.close()


@pytest.fixture(scope="module", params=[("bin", 1, 0), ("laq", 4, 0), ("laq8", 8, 0),
                                        ("laq", 4, 1)], ids=lambda p: "{}-{}-sel{}".format(*p))
def run(request, site):
    mode, bits, sel_clients = request.param
    name = f"{mode}-{sel_clients}"
    settings = "mode=" + mode, f"b_up={bits}", "entropy_coding=false", f"sel_clients={sel_clients}"
    measured = Measured(site, name, *settings).finish()
    measured.bits, measured.sel_clients = bits, sel_clients
    yield measured
    measured.close()


def test_the_wire_of_the_master_is_that_of_the_proxy_to_the_byte(run):
    run.check_counts("at the end")
    # and it is not nothing that agrees
    assert run.bits_by_master()["up"] > 2 * run.bits * CNN.num_params


def test_an_upload_costs_its_levels_its_scales_and_less_than_a_kilobyte(run):
    """Counted for each worker and round: every byte, both ways, of the requests that answer a round
    and of their answers.

    Without a budget that is POST /upload_update alone, which carries its bid. With one it is POST
    /bid too, and the limit 1.5 kB. b p / 8 bytes of levels and 4 bytes for each of the 12 scales
    are the payload; the next model, which comes with the outcome, is that of the row.
    """
    limit = 1500 if run.sel_clients else 1000
    payload = -(-run.bits * CNN.num_params // 8) + SCALES_BYTES
    assert SCALES_BYTES == 48
    for m in WORKERS:
        bids, uploads = run.proxies[m].of("/bid"), run.proxies[m].of("/upload_update")
        selected = [record["round"] for record in run.rounds if m in record["selected"]]
        assert len(uploads) == len(selected) > 0 and len(bids) == (len(run.rounds)
                                                                   if run.sel_clients else 0)
        # the long poll of the upload was answered by the round's end
        assert run.proxies[m].of("/outcome") == []
        for round_, upload in zip(selected, uploads):
            bid = bids[round_].up + bids[round_].down if bids else 0
            model = run.rounds[round_]["payload_bits_down"] // (8 * len(WORKERS))
            assert upload.down > model > 0
            assert 0 < upload.up + upload.down + bid - payload - model < limit
    assert {record["payload_bits_up"]
            for record in run.rounds} == {8 * payload * (run.sel_clients or len(WORKERS))}


def test_what_comes_after_the_results_is_no_part_of_the_run(run):
    wait_until((run.master.run_dir / "summary.json").exists, "the results are written")
    before = run.bits_by_master()
    assert run.master.ask("GET", "/outcome").status_code == 401
    rounds = run.master.get("/history")["rounds"]
    assert run.bits_by_master() == before == {
        way: sum(record["wire_bits_" + way] for record in rounds) for way in before
    }


def test_failed_tries_are_counted_too(site):
    run = Measured(site, "failing", "mode=bin", "total_workers=3")  # a run that waits for one more
    wait_until(lambda: run.master.status()["connected_workers"] == 2, "both are there")
    for worker in run.workers:
        worker.kill()
    run.check_counts("before anything failed")
    # a worker's token that is no session
    token = b"Authorization: Bearer " + run.master.worker_token(0).encode() + b"\r\n"
    head = (b"POST /upload_update HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/x-flq\r\n" + token)
    body = bytes(50000)
    length = b"Content-Length: 50000\r\n"
    good_and_broken = (b"GET /outcome?round=0 HTTP/1.1\r\nHost: localhost\r\n" + token + b"\r\n" +
                       b"\r\nx" * 50 + b"\r\n\r\n")
    try:
        for what, data, answer in (("without a session", head + length + b"\r\n" + body,
                                    b"HTTP/1.1 401 "), ("too long, as announced",
                                                        head + b"Content-Length: 9999999\r\n\r\n",
                                                        b"HTTP/1.1 413 "),
                                   ("too long, and begun",
                                    head + b"Content-Length: 9999999\r\n\r\n" + bytes(100),
                                    b"HTTP/1.1 413 "), ("no length at all",
                                                        head + b"Content-Length: many\r\n\r\n",
                                                        b"HTTP/1.1 400 "),
                                   ("asking first",
                                    head + length + b"Expect: 100-continue\r\n\r\n" + body,
                                    b"HTTP/1.1 100 "), ("cut in the middle of the body",
                                                        head + length + b"\r\n" + body[:20000],
                                                        None), ("cut after the head",
                                                                head + length + b"\r\n", None),
                                   ("a second request on the connection is broken", good_and_broken,
                                    b"HTTP/1.1 401 ")):
            _send(run, what, data, answer)
            run.check_counts(what)
        before = run.bits_by_master()
        for credential in (None, "x", "flq1.0.ff"):  # a stranger's traffic is no part of the run
            assert run.master.ask("POST", "/register", credential,
                                  data=body).status_code in (400, 401)
        run.master.status()
        assert run.bits_by_master() == before  # what people ask is no worker's traffic
    finally:
        run.close()


def _send(run, what, data, answer):
    """One connection through the proxy: all of data, and the first bytes of the answer where one is
    due.
    """
    before = run.bits_by_proxy()["up"]
    with socket.create_connection(run.proxies[0].address) as connection:
        connection.sendall(data)
        if answer:
            assert connection.recv(len(answer)) == answer, what
    wait_until(lambda: run.bits_by_proxy()["up"] == before + 8 * len(data),
               "all of it went through: " + what, 10)
