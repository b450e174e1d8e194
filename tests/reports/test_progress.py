import fcntl
import io
import os
import struct
import termios

import pytest

from flq.reports.progress import ProgressBar, is_over
from flq.reports.terminal import display_width


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal; its width comes from COLUMNS."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding=encoding, newline="")

    def isatty(self):
        return True

    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


def status(round_, **changes):
    values = {
        "run_id": "digits-1", "phase": "BIDDING", "paused": False, "mode": "laq",
        "dataset": "digits", "model": "cnn_small", "current_round": round_, "max_rounds": 30,
        "connected_workers": 4, "total_workers": 4, "pending_updates": 0, "accuracy": 0.9125,
        "loss": 0.2841, "eta_s": 35.0, "error": None, "bits": {
            "up": {"nominal": 12000000, "payload": 12300000, "wire": 12900000, "float32": 98400000},
            "down": {"nominal": 4000000, "payload": 4100000, "wire": None, "float32": 32800000}
        }, "worker_status": {},
    }
    values.update(changes)
    return values


NOTHING = {
    direction: {"nominal": 0, "payload": 0, "wire": 0, "float32": 0} for direction in ("up", "down")
}


def test_plain_lines_one_per_new_round():
    stream = io.StringIO()
    bar = ProgressBar(stream, 30)
    bar.update(status(0, phase="WAITING", accuracy=None, loss=None, eta_s=None, bits=NOTHING))
    bar.update(status(1, accuracy=None, loss=None, eta_s=None))
    bar.update(status(1, pending_updates=3))
    bar.update(status(12))
    bar.update(status(12, error="disk full: /data", phase="BLOCKED"))
    bar.update(status(12, error="disk full: /data", phase="BLOCKED"))
    bar.update(status(30, phase="FINISHED", eta_s=0.0))
    bar.close()
    bits = "up 12.3 Mbit (8.0x less)  down 4.10 Mbit (8.0x less)"
    assert stream.getvalue().splitlines() == [
        "round 1/30  " + bits,
        "round 12/30  accuracy 91.25 %  loss 0.2841  " + bits + "  ETA 35.0 s",
        "round 12/30  error: disk full: /data  accuracy 91.25 %  loss 0.2841  " + bits +
        "  ETA 35.0 s", "round 30/30  finished  accuracy 91.25 %  loss 0.2841  " + bits,
    ]


def test_a_pause_is_a_plain_line():
    stream = io.StringIO()
    bar = ProgressBar(stream, 30)
    for shown in [status(1), status(2), status(2, paused=True), status(2, paused=True), status(2),
                  status(3), status(3, paused=True), status(3, paused=True, error="disk full")]:
        bar.update(shown)
    assert [line.split("  ")[:2] for line in stream.getvalue().splitlines()] == [
        ["round 1/30", "accuracy 91.25 %"], ["round 2/30", "paused"],
        ["round 3/30", "accuracy 91.25 %"], ["round 3/30", "paused"],
        ["round 3/30", "error: disk full"]]


def test_the_last_line_has_the_last_test():
    ends = [
        status(30, phase="FINISHED", accuracy=0.5933, pending_tests=2),
        status(30, phase="FINISHED", accuracy=0.6, pending_tests=1),
        status(30, phase="FINISHED", accuracy=0.759, pending_tests=0)
    ]
    stream = io.StringIO()
    bar = ProgressBar(stream, 30)
    for shown in [status(30, pending_tests=1)] + ends:
        bar.update(shown)
    notes = [line.split("  ")[1:3] for line in stream.getvalue().splitlines()]
    assert notes == [["accuracy 91.25 %", "loss 0.2841"],
                     ["testing the last model", "accuracy 59.33 %"],
                     ["finished", "accuracy 75.90 %"]]
    assert [is_over(shown) for shown in ends] == [False, False, True]
    assert is_over(
        status(3, phase="FINISHED",
               stopped=True)) and not is_over(status(30, phase="BIDDING", pending_tests=0))


@pytest.mark.parametrize(
    "changes, note",
    [({"phase": "FINISHED"}, "finished"),
     ({"phase": "FINISHED", "stopped": True, "pending_tests": 1}, "testing the last model"),
     ({"phase": "FINISHED", "stopped": True}, "stopped"), ({"phase": "BLOCKED"}, "blocked"),
     ({"phase": "WAITING"}, ""),
     ({"phase": "WAITING", "connected_workers": 3}, "waiting for workers (3 of 4)"),
     ({"paused": True}, "paused"),
     ({"stall": {"text": "waiting for worker 2 (a\x1bb), last heard 1 min 00 s ago"}},
      "waiting for worker 2 (a b), last heard 1 min 00 s ago"), ])
def test_why_the_bar_does_not_move(changes, note):
    stream = io.StringIO()
    ProgressBar(stream,
                30).update(status(3, accuracy=None, loss=None, eta_s=None, bits=NOTHING, **changes))
    assert stream.getvalue() == "  ".join(
        filter(None, ["round 3/30", note, "up 0 bit", "down 0 bit"])) + "\n"


def test_a_terminal_redraws_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    stream = Terminal()
    bar = ProgressBar(stream, 30)
    bar.update(status(12))
    bar.update(
        status(12, phase="WAITING", connected_workers=1, accuracy=None, loss=None, eta_s=None,
               bits=NOTHING))
    bar.close()
    bar.close()
    first = ("round 12/30 [############------------------]  40%  accuracy 91.25 %  loss 0.2841  "
             "up 12.3 Mbit (8.0x less)  down 4.10 Mbit (8.0x less)  ETA 35.0 s")
    second = (
        "round 12/30 [############------------------]  40%  waiting for workers (1 of 4)  up 0 bit "
        " down 0 bit"
    )
    assert stream.text() == "\r" + first + "\r" + second + " " * (len(first) - len(second)) + "\n"


@pytest.mark.parametrize("width, line", [(
    110,
    "round 12/30 [#######-----------]  40%  accuracy 91.25 %  up 12.3 Mbit (8.0x less)  down 4.10 "
    "Mbit (8.0x less)"
), (80, "round 12/30 [######----------]  40%  accuracy 91.25 %  up 12.3 Mbit (8.0x less)"),
                                         (50, "round 12/30 [####--------]  40%  accuracy 91.25 %"),
                                         (20, "round 12/30 [####--"), ])
def test_a_narrow_terminal_shows_less(monkeypatch, width, line):
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    ProgressBar(stream, 30).update(status(12))
    assert stream.text() == "\r" + line


@pytest.mark.parametrize("width", range(1, 200, 7))
def test_no_line_reaches_the_last_column(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for error in (None, "磁盘已满:/数据/结果 不能写入,请腾出空间 " * 5):
        stream = Terminal()
        ProgressBar(stream, 30).update(status(29, error=error))
        assert display_width(stream.text()[1:]) < width or width == 1


def test_a_terminal_without_cjk_letters_shows_question_marks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal("ascii")
    ProgressBar(stream, 30).update(status(3, error="满\x1b[2J"))
    assert stream.text().endswith("  error: ? [2J")


def test_the_maximum_may_change_while_a_run_goes_on(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    ProgressBar(stream, 30).update(status(30, max_rounds=60, accuracy=None, loss=None, eta_s=None))
    assert stream.text().startswith("\rround 30/60 [#######-------]  50%")


def test_the_width_of_a_real_terminal_counts():
    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with os.fdopen(reader, "rb", buffering=0) as reading, os.fdopen(writer, "w") as stream:
        bar = ProgressBar(stream, 30)
        bar.update(status(15, paused=True))
        bar.close()
        drawn = b""
        while not drawn.endswith(b"\n"):  # a terminal hands on what it likes at a time
            drawn += reading.read(1000)
    assert drawn == b"\rround 15/30 [######------]  50%  paused\r\n"


def test_a_line_above_the_bar_takes_its_place(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    bar = ProgressBar(stream, 30)
    bar.say("first")
    bar.update(status(15, paused=True))
    drawn = len(stream.text()) - len("first\n\r")
    bar.say("warning: x")
    assert stream.text().endswith("\r" + " " * drawn + "\rwarning: x\n")
    bar.close()
    assert stream.text().endswith("x\n")  # nothing is drawn that a line would have to end
