"""What a worker of a simulation keeps outside of the process's memory is what it would hold."""

import os

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.master.store.run_store import StoreError
from flq.records import LocalResult
from flq.simulation import shelves
from flq.simulation.shelves import Shelves
from tests.system.quadratic import SMALL
from tests.vectors import same_bits

NOT_LAZY = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)
MODES = ("laq", "bbit", "bin", "qsgd", "rd", "fedavg")


def settings_of(*overrides):
    return uplink.settings_from(config.load(None, ["total_workers=3", *overrides]).config, SMALL)


def fresh(settings):
    return uplink.initial_state(settings, SMALL.num_params, settings.quantizer.min_bits, b"r" * 32)


def proposed(settings, state, worker, round_, value=None):
    generator = np.random.RandomState([worker, round_])
    update = generator.standard_normal(SMALL.num_params).astype(np.float32)
    if value is not None:
        update[:] = value
    return uplink.propose(state, LocalResult(update, np.zeros(2, np.float32), 1.0, 1), round_,
                          settings, NOT_LAZY, rng.Stream(0, rng.UPLINK, worker, round_).uniform)


def same_state(first, second):
    return first._replace(memory=None, activity=None) == second._replace(
        memory=None, activity=None) and all(
            (one is None and other is None) or same_bits(one, other, one.dtype)
            for one, other in zip((first.memory, first.activity), (second.memory,
                                                                   second.activity)))


@pytest.mark.parametrize("settings", [("mode=" + mode,) for mode in MODES] +
                         [("mode=laq", "memory=residual"), ("mode=rd", "entropy_coding=context"),
                          ("mode=laq", "memory_rate=0.5")], ids=str)
def test_a_worker_is_what_it_would_be_without(tmp_path, settings):
    settings = settings_of(*settings)
    kept = Shelves(tmp_path, 3, settings, settings.quantizer.min_bits)
    states = {worker: (fresh(settings), kept.of(worker).keep(fresh(settings)))
              for worker in range(3)}
    for round_, verdicts in enumerate([(True, True, False), (False, True, True),
                                       (True, True, True), (False, False, True)]):
        waiting = {}
        for worker, (own, shelved) in states.items():
            value = np.inf if (worker, round_) == (1, 2) else None  # it is silent then
            plain = proposed(settings, own, worker, round_, value)
            put = kept.of(worker).put(proposed(settings, shelved, worker, round_, value))
            assert put.body == plain.body and put.reason == plain.reason
            assert (put.committed.reference_hash,
                    put.committed.clock) == (plain.committed.reference_hash, plain.committed.clock)
            waiting[worker] = plain, put
        for worker, (plain, put) in waiting.items():
            accepted = verdicts[worker] and not plain.skip
            states[worker] = (uplink.settle(plain, accepted),
                              kept.of(worker).settle(put, accepted))
            assert same_state(*states[worker])
            memory = states[worker][1].memory
            assert memory is None or not memory.flags.owndata


@pytest.mark.parametrize("settings", [("mode=fedavg",), ("mode=laq",)], ids=str)
def test_an_upload_is_read_from_the_file(tmp_path, settings):
    settings = settings_of(*settings)
    shelf = Shelves(tmp_path, 3, settings, settings.quantizer.min_bits).of(1)
    plain = proposed(settings, fresh(settings), 1, 0)
    put = shelf.put(plain)
    assert isinstance(put.body.data, memoryview) and len(put.body.data) == len(plain.body.data)
    assert put.bid(1) == plain.bid(1)
    taken = shelf.take(put)
    assert isinstance(taken.body.data, bytes) and taken.body == plain.body
    silent = proposed(settings, fresh(settings), 1, 0, np.inf)
    assert shelf.take(shelf.put(silent)).body is None


def test_an_upload_of_more_bits_stays_in_the_process(tmp_path):
    """A mode that adds bits may come to more than there is room for."""
    settings = settings_of("mode=laq", "entropy_coding=false")
    state = fresh(settings)._replace(bits=8)
    plain = proposed(settings, state, 1, 0)
    shelf = Shelves(tmp_path, 3, settings, 4).of(1)
    put = shelf.put(plain)
    assert put.body.data is plain.body.data
    assert same_state(shelf.settle(put, True), uplink.settle(plain, True))


def test_no_file_is_left_and_none_can_be_seen(tmp_path):
    settings = settings_of()
    kept = Shelves(tmp_path, 3, settings, settings.quantizer.min_bits)
    assert os.listdir(tmp_path) == [] and kept.of(2).keep(fresh(settings)).memory.shape == (40,)


def test_where_a_system_reserves_no_room_the_file_is_written(tmp_path, monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(shelves.os, "posix_fallocate")
    monkeypatch.setattr(shelves, "_PIECE", 100)
    settings = settings_of()
    kept = Shelves(tmp_path, 3, settings, settings.quantizer.min_bits)
    held = kept.of(2).keep(fresh(settings)._replace(memory=np.arange(40.0)))
    assert held.memory.tolist() == list(range(40)) and not held.memory.flags.owndata
    assert not kept.of(1).keep(fresh(settings)).memory.any()


def test_a_disk_without_room_is_told_in_one_line(tmp_path, monkeypatch):
    def full(descriptor, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelves.os, "posix_fallocate", full)
    with pytest.raises(StoreError) as refusal:
        Shelves(tmp_path, 3, settings_of(), 4)
    told = str(refusal.value)
    assert "1056 bytes of room" in told and "No space left" in told and "\n" not in told
