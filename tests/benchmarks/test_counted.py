"""What a benchmark counts of a system that is not ours, without one."""

import json
import socket

import pytest

from benchmarks.peers.counted import CountedGroup, print_row


@pytest.fixture
def system(tmp_path):
    """A group without a process, and a server behind two proxies that answers each byte twice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = CountedGroup(tmp_path, {"OF": "ours"})
        group.stand_before(server.getsockname()[1], 2)
        yield group, server
        group.end()


def note(group, *values):
    with open(group.environment["ROUNDS_FILE"], "a") as file:
        file.write(json.dumps(values) + "\n")


def test_bytes_are_counted_at_each_note(system):
    group, server = system
    assert group.environment["OF"] == "ours" and group.count(0, lambda: True) == []
    note(group, 1.0, 0.25)
    assert group.count(1, lambda: True) == [(1.0, 0.25, 0, 0)]
    with socket.create_connection(group.proxies[1].address) as client:
        there, _ = server.accept()
        with there:
            client.sendall(b"12345")
            there.sendall(there.recv(5) * 2)
            assert len(client.recv(10, socket.MSG_WAITALL)) == 10
    note(group, 2.0, 0.5)
    assert group.count(2, lambda: True)[1] == (2.0, 0.5, 5, 10)


def test_a_system_that_failed_ends_the_count_with_its_last_words(system, tmp_path):
    (tmp_path / "log-0").write_text("no such job")
    with pytest.raises(SystemExit, match="no such job"):
        system[0].count(1, lambda: True)


def test_a_row_leaves_out_the_first_round(capsys):
    print_row("laq", [(0.0, 0.1, 0, 0), (9.0, 0.2, 9000, 9000), (10.0, 0.3, 9200, 9400),
                      (12.0, 0.5, 9600, 9800)], 2)
    assert capsys.readouterr().out == "| laq | 150 | 200 | 1.50 | 0.500 |\n"
