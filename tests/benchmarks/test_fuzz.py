"""A few inputs of the fuzzer of frames and streams."""

import sys

from benchmarks import fuzz
from tests.protocol.test_frames import ATTACKS


def test_the_fuzzer_finds_nothing_and_tries_nothing_twice(monkeypatch, capsys, tmp_path):
    results = tmp_path / "fuzz.jsonl"
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--inputs", "3000", "--results", str(results)])
    fuzz.main()
    said = capsys.readouterr().out
    assert "3000 inputs; " in said and len(results.read_text().splitlines()) == 1
    rows = {row.split(" | ")[0].strip("| "): row for row in said.splitlines()}
    for outcome in ("read", "bad_crc", "bad_coding", "bad_scale", "bad_length", "other_history"):
        assert outcome in rows, said
    monkeypatch.setattr(fuzz, "block_of", None)
    fuzz.main()
    assert capsys.readouterr().out == said


def test_every_reason_of_a_refused_frame_is_one_that_the_fuzzer_expects():
    assert {name.split(".")[1] for name in ATTACKS} <= fuzz.REASONS
