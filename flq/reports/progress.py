"""The live bars that a terminal shows while something goes on, and the few lines that tell the same
elsewhere. Standard library only.
"""

import os
import shutil
import threading
import time
from typing import Any, Dict, List, TextIO, Tuple

from flq.reports.run_files import compression
from flq.reports.terminal import (
    clip,
    display_width,
    format_bits,
    format_duration,
    format_percent,
    format_ratio,
)

_BAR = (10, 30)  # columns of the bar, at least and at most
_PARTS = 10      # plain lines of something that goes on as it should
_SILENT_S = 60.0  # no plain line comes later than that after the one before
_GOES_FIRST = ("loss", "eta", "down", "up", "accuracy")  # what a narrow terminal does without


def is_over(status: Dict[str, Any]) -> bool:
    """Whether a status is the last one: the run has ended, and its last model was tested or cannot
    be.
    """
    return status["phase"] == "FINISHED" and not status.get("pending_tests")


def is_terminal(stream: TextIO) -> bool:
    """Whether a line can be drawn again there: a terminal that obeys a carriage return."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class LiveLine:
    """One line of a terminal that is drawn again and again. Its methods may be called from any
    thread.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0  # columns of the line on the terminal
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """A line of its own above the bar, such as what somebody should do."""
        with self._lock:
            self._write(("\r" + " " * self._drawn + "\r" if self._drawn else "") + text + "\n")
            self._drawn = 0

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        with self._lock:
            if self._drawn:
                self._write("\n")
                self._drawn = 0

    def _draw(self, line: str) -> None:
        with self._lock:
            drawn = display_width(line)
            self._write("\r" + line + " " * (self._drawn - drawn))
            self._drawn = drawn

    def _terminal_width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


class _Rarely:
    """When something is news: at first, with each tenth of the whole, and after a minute."""

    def __init__(self) -> None:
        self._part, self._at = -1, 0.0

    def is_due(self, done: int, total: int) -> bool:
        part, now = _PARTS * done // max(1, total), time.monotonic()
        if self._part >= 0 and part <= self._part and now - self._at < _SILENT_S:
            return False
        self._part, self._at = part, now
        return True


class StepBar(LiveLine):
    """So many of so many, such as rounds that are computed again.

    Example::

        bar = StepBar(sys.stderr, "round")
        bar.update(3, 200)
        bar.close()
    """

    def __init__(self, stream: TextIO, what: str) -> None:
        super().__init__(stream)
        self._what, self._lines = what, _Rarely()

    def update(self, done: int, total: int) -> None:
        head = f"{self._what} {done}/{total}"
        if is_terminal(self._stream):
            width = self._terminal_width() - 1
            bar = min(max(width - display_width(head) - 9, _BAR[0]), _BAR[1])
            self._draw(clip(f"{head} {_bar(done, total, bar)}", width))
        elif self._lines.is_due(done, total):
            self.say(head)


class ProgressBar(LiveLine):
    """Draws GET /status: one line that is redrawn on a terminal; elsewhere a plain line for the
    first round, each tenth of the rounds, each error, pause and step of the end, or for each new
    round where that is asked for.

    Bits are payload bits since the start; the factor behind them is what float32 would have sent
    over that. Only ASCII is drawn, except for an error's own text: block letters are two columns
    wide in some CJK locales.

    Example::

        bar = ProgressBar(sys.stderr, max_rounds=30)
        bar.update(HttpClient(url).status())
        bar.close()
    """

    def __init__(self, stream: TextIO, max_rounds: int, every_round: bool = False) -> None:
        super().__init__(stream)
        self._max_rounds, self._every_round = max_rounds, every_round
        self._printed = (0, "", "")          # round, hindrance and end at the last look
        self._lines = _Rarely()

    def update(self, status: Dict[str, Any]) -> None:
        """Show a status, the JSON object of GET /status. max_rounds may change while a run goes on.
        """
        self._max_rounds = status.get("max_rounds", self._max_rounds)
        with self._lock:
            if is_terminal(self._stream):
                self._redraw(status)
            else:
                self._print_new(status)

    def _redraw(self, status: Dict[str, Any]) -> None:
        width = self._terminal_width() - 1   # a letter in the last column would start a new line
        parts = _parts(status)
        narrow_first = [name for name in _GOES_FIRST if any(name == part[0] for part in parts)]
        while narrow_first and display_width(self._line(status, parts, _BAR[0])) > width:
            dropped = narrow_first.pop(0)
            parts = [part for part in parts if part[0] != dropped]
        spare = width - display_width(self._line(status, parts, 0))
        line = clip(self._line(status, parts, min(max(spare, _BAR[0]), _BAR[1])), width)
        self._draw(line)

    def _line(self, status: Dict[str, Any], parts: List[Tuple[str, str]], bar: int) -> str:
        head = f"{self._round(status)} {_bar(status['current_round'], self._max_rounds, bar)}"
        return "  ".join([head] + [text for _, text in parts])

    def _print_new(self, status: Dict[str, Any]) -> None:
        round_ = status["current_round"]
        held = status.get("error") or ("paused" if status.get("paused") else "")
        end = _end(status) if status["phase"] == "FINISHED" else ""
        new_round = round_ != self._printed[0] and (self._every_round or
                                                    self._lines.is_due(round_, self._max_rounds))
        if new_round or held and held != self._printed[1] or end != self._printed[2]:
            texts = [self._round(status)] + [text for _, text in _parts(status)]
            self._write(clip("  ".join(texts), 1000) + "\n")
        self._printed = (round_, held, end)

    def _round(self, status: Dict[str, Any]) -> str:
        return f"round {status['current_round']}/{self._max_rounds}"


def _bar(done: int, total: int, width: int) -> str:
    part = min(1.0, done / max(1, total))
    filled = int(part * width)
    return f"[{'#' * filled + '-' * (width - filled)}] {100 * part:3.0f}%"


def _parts(status: Dict[str, Any]) -> List[Tuple[str, str]]:
    """(name, text) of everything behind the bar, from left to right; what is not known is left out.
    """
    parts = [("note", _note(status))]
    if status["accuracy"] is not None:
        parts.append(("accuracy", "accuracy " + format_percent(status["accuracy"])))
    if status["loss"] is not None:
        loss = status["loss"]
        parts.append(("loss", f"loss {loss:.4f}" if abs(loss) < 1e4 else f"loss {loss:.3g}"))
    for direction in ("up", "down"):
        bits = status["bits"][direction]
        ratio = compression(bits["float32"], bits["payload"])
        factor = f" ({format_ratio(ratio)} less)" if ratio is not None else ""
        parts.append((direction, f"{direction} {format_bits(bits['payload'])}{factor}"))
    if status["eta_s"] is not None and status["phase"] != "FINISHED":
        parts.append(("eta", "ETA " + format_duration(status["eta_s"])))
    return [part for part in parts if part[1]]


def _note(status: Dict[str, Any]) -> str:
    """Why the bar does not move, in a few words; empty while rounds go on."""
    if status.get("error"):
        return "error: " + clip(status["error"], 500)
    if status.get("paused"):
        return "paused"
    if status.get("stall"):
        return clip(status["stall"]["text"], 500)
    if status["phase"] == "WAITING" and status["connected_workers"] < status["total_workers"]:
        return f"waiting for workers ({status['connected_workers']} of {status['total_workers']})"
    if status["phase"] == "FINISHED":
        return _end(status)
    return "blocked" if status["phase"] == "BLOCKED" else ""


def _end(status: Dict[str, Any]) -> str:
    """How far the end of a run has come, which takes as long as testing its last model."""
    if not is_over(status):
        return "testing the last model"
    return "stopped" if status.get("stopped") else "finished"
