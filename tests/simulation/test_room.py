"""What a simulation says of the disk before it begins."""

import collections
import logging

import pytest

from flq import config
from flq.simulation import room
from tests.system.quadratic import CNN

Usage = collections.namedtuple("Usage", "total used free")
SLOT = 8 * 467818 + 234049  # g in float64, and 4 bits a weight


def told(monkeypatch, caplog, directory, *settings, free=10**12, rounds=10, keeps_states=False):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda where: Usage(free, 0, free))
    loaded = config.load(None, settings).config
    with caplog.at_level(logging.INFO, "flq.simulation"):
        room.tell(directory, loaded, CNN, SLOT * loaded.system.total_workers, rounds, keeps_states)
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_a_small_run_says_nothing(monkeypatch, caplog, tmp_path):
    assert told(monkeypatch, caplog, tmp_path, "total_workers=8") == []


def test_a_large_one_says_what_it_takes(monkeypatch, caplog, tmp_path):
    (level, text), = told(monkeypatch, caplog, tmp_path, "total_workers=1000")
    assert level == "INFO" and text == (
        f"1000 workers take of {tmp_path}: 3.98 GB while they run, at most 234 MB for the uploads "
        "of each round, 2.34 GB in all; it has 1.00 TB free")


@pytest.mark.parametrize("free, level", [(6_400_000_000, "INFO"), (6_300_000_000, "WARNING")])
def test_a_disk_that_may_not_have_it_is_a_warning(monkeypatch, caplog, tmp_path, free, level):
    (got, text), = told(monkeypatch, caplog, tmp_path, "total_workers=1000", free=free)
    assert got == level and text.endswith("GB free")


def test_only_a_cohort_uploads_in_a_round(monkeypatch, caplog, tmp_path):
    (_, text), = told(monkeypatch, caplog, tmp_path, "total_workers=1000", "cohorts=4")
    assert "58.5 MB for the uploads" in text


@pytest.mark.parametrize("rounds, states", [(1, "6.26 GB"), (1000, "52.6 GB")])
def test_states_grow_until_they_are_folded(monkeypatch, caplog, tmp_path, rounds, states):
    (_, text), = told(monkeypatch, caplog, tmp_path, "total_workers=1000", rounds=rounds,
                      keeps_states=True)
    assert f"at most {states} for their states" in text
