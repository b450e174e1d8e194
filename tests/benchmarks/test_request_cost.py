"""The cost of a request is measured for both sides and with all bytes."""

from benchmarks import request_cost
from flq.master.http.guard import Access
from flq.master.http.http_api import create_app
from flq.master.http.server import Server


def test_each_request_costs_both_sides_something_and_moves_its_bytes():
    server = Server("127.0.0.1", 0, 2)
    server.start(create_app(request_cost.Answering(), Access("secret", True), None),
                 request_cost.LONGEST)
    try:
        found = request_cost.measure(f"http://127.0.0.1:{server.port}", 2, request_cost.BLOCK)
    finally:
        server.close()
    assert set(found) == set(request_cost.CASES)
    assert all(master > 0 and worker > 0 for master, worker in found.values())
    asked = 2 * request_cost.BLOCK
    up, down = (bits / 8 / asked for bits in server.wire.bits())
    assert 2 * request_cost.UP < up < 2 * request_cost.UP + 2000
    assert 2 * request_cost.DOWN < down < 2 * request_cost.DOWN + 2000
