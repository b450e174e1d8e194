"""The live bar that a terminal shows while a run goes on. Standard library only."""

import os
import shutil
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
_GOES_FIRST = ("loss", "eta", "down", "up", "accuracy")  # what a narrow terminal does without


def is_over(status: Dict[str, Any]) -> bool:
    """Whether a status is the last one: the run has ended, and its last model was tested or cannot
    be.
    """
    return status["phase"] == "FINISHED" and not status.get("pending_tests")


class ProgressBar:
    """Draws GET /status: one line that is redrawn on a terminal; elsewhere one plain line per new
    round, error and step of the end.

    Bits are payload bits since the start; the factor behind them is what float32 would have sent
    over that. Only ASCII is drawn, except for an error's own text: block letters are two columns
    wide in some CJK locales.

    Example::

        bar = ProgressBar(sys.stderr, max_rounds=30)
        bar.update(HttpClient(url).status())
        bar.close()
    """

    def __init__(self, stream: TextIO, max_rounds: int) -> None:
        self._stream = stream
        self._max_rounds = max_rounds
        self._drawn = 0                      # columns of the line on the terminal
        self._printed = (0, "", "")          # round, error and end of the last plain line

    def update(self, status: Dict[str, Any]) -> None:
        """Show a status, the JSON object of GET /status. max_rounds may change while a run goes on.
        """
        self._max_rounds = status.get("max_rounds", self._max_rounds)
        if self._stream.isatty():
            self._redraw(status)
        else:
            self._print_new(status)

    def say(self, text: str) -> None:
        """A line of its own above the bar, such as what somebody should do."""
        self._write(("\r" + " " * self._drawn + "\r" if self._drawn else "") + text + "\n")
        self._drawn = 0

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._drawn:
            self._write("\n")
            self._drawn = 0

    def _redraw(self, status: Dict[str, Any]) -> None:
        width = self._terminal_width() - 1   # a letter in the last column would start a new line
        parts = _parts(status)
        narrow_first = [name for name in _GOES_FIRST if any(name == part[0] for part in parts)]
        while narrow_first and display_width(self._line(status, parts, _BAR[0])) > width:
            dropped = narrow_first.pop(0)
            parts = [part for part in parts if part[0] != dropped]
        spare = width - display_width(self._line(status, parts, 0))
        line = clip(self._line(status, parts, min(max(spare, _BAR[0]), _BAR[1])), width)
        drawn = display_width(line)
        self._write("\r" + line + " " * (self._drawn - drawn))
        self._drawn = drawn

    def _line(self, status: Dict[str, Any], parts: List[Tuple[str, str]], bar: int) -> str:
        done = min(1.0, status["current_round"] / self._max_rounds)
        filled = int(done * bar)
        head = f"{self._round(status)} [{'#' * filled + '-' * (bar - filled)}] {100 * done:3.0f}%"
        return "  ".join([head] + [text for _, text in parts])

    def _print_new(self, status: Dict[str, Any]) -> None:
        round_, error = status["current_round"], status.get("error") or ""
        end = _end(status) if status["phase"] == "FINISHED" else ""
        if round_ != self._printed[
                0] or error and error != self._printed[1] or end != self._printed[2]:
            texts = [self._round(status)] + [text for _, text in _parts(status)]
            self._write(clip("  ".join(texts), 1000) + "\n")
        self._printed = (round_, error, end)

    def _round(self, status: Dict[str, Any]) -> str:
        return f"round {status['current_round']}/{self._max_rounds}"

    def _terminal_width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


def _parts(status: Dict[str, Any]) -> List[Tuple[str, str]]:
    """(name, text) of everything behind the bar, from left to right; what is not known is left out.
    """
    parts = [("note", _note(status))]
    if status["accuracy"] is not None:
        parts.append(("accuracy", "accuracy " + format_percent(status["accuracy"])))
    if status["loss"] is not None:
        parts.append(("loss", f"loss {status['loss']:.4f}"))
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
