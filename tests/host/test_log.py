"""What somebody else wrote steers no terminal, and no line of a log looks like two."""

import io
import logging

import pytest

from flq.errors import in_one_line, printable
from flq.host import log

ESCAPES = ["\x1b[2J", "\x1b]0;title\x07", "\x9b2J", "a\rb", "a\x08b", "a\u202eb", "a\u2066b",
           "\x00", "\x7f", "a\u2028b", "\ud800"]


def logged(message, *arguments, **options):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(log.PlainFormatter(log.FORMAT))
    logger = logging.Logger("flq.test")
    logger.addHandler(handler)
    logger.error(message, *arguments, **options)
    return stream.getvalue()


@pytest.mark.parametrize("text", ESCAPES)
def test_a_line_holds_nothing_that_steers(text):
    for line in (logged("worker said %s", text), logged("worker said " + text)):
        assert line.endswith("\n") and line[:-1].isprintable() and " worker said " in line


def test_a_message_is_one_line():
    assert logged("%s", "done\n2026-12-01 00:00:00,000 ERROR   flq.master: all is lost").count(
        "\n") == 1


@pytest.mark.parametrize("text", ESCAPES)
def test_a_traceback_keeps_its_lines_and_steers_nothing(text):
    try:
        raise ValueError("so " + text)
    except ValueError:
        lines = logged("failed", exc_info=True).splitlines()
    assert all(line.isprintable() for line in lines) and "Traceback" in lines[1] and len(lines) > 3


def test_letters_of_every_script_stay():
    assert printable("站点 Ünï 𝛼\nb") == "站点 Ünï 𝛼\nb"
    assert in_one_line(" a\n\x1b[2J  b ") == "a [2J b"


def test_the_servers_own_words_go_the_same_way(tmp_path, loggers):
    path = log.start("test", str(tmp_path), "INFO", logging.StreamHandler(io.StringIO()))
    logging.getLogger("waitress.queue").warning("a request of %s", "\x1b[2J")
    with open(path, encoding="utf-8") as file:
        assert "waitress.queue: a request of  [2J\n" in file.read()
