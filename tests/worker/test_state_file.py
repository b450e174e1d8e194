"""A worker's state on disk: what comes back is what was saved, and what is damaged is said so."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest

from flq import config, durable
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.errors import ConfigError, DataError
from flq.parameters import Layout, params_hash
from flq.records import LocalResult
from flq.rng import Stream
from flq.worker.state_file import InMemory, StateFile, WorkerRecord

LAYOUT = Layout(((5, 4), (4,)), ((2,),))
OFF = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)
SILENT = LazyTerms(1.0, 1e9, 100, 1, 0.0, 1.0)


def settings_of(mode, memory, coded=False):
    keys = {"flq_algorithm.mode": mode, "flq_algorithm.memory": memory, "flq_algorithm.entropy_coding": coded}
    return uplink.settings_from(config.build(keys), LAYOUT)


def record_of(settings, round_, uplink_state, lazy=OFF, scale=1.0):
    noise = np.random.RandomState(round_)
    values = noise.standard_normal(2).astype(np.float32)
    result = LocalResult((scale * noise.standard_normal(24)).astype(np.float32), values, 1.5, 1)
    proposal = uplink.propose(uplink_state, result, round_, settings, lazy, Stream(0, 4, 1, round_).uniform)
    params = noise.standard_normal(24).astype(np.float32)
    return WorkerRecord("ab" * 16, "run", round_, params, values, params_hash(params, values), uplink_state, proposal, True)


def same_state(first, second):
    memories = first.memory is second.memory is None or (
        first.memory.dtype == second.memory.dtype and np.array_equal(first.memory, second.memory))
    return memories and first[1:] == second[1:]


@pytest.mark.parametrize("mode, memory, coded", [("laq", "reference", False), ("laq", "reference", True), ("bbit", "residual", False),
                                                 ("bin", "reference", False), ("qsgd", "none", False), ("fedavg", "none", False)])
def test_both_futures_come_back(tmp_path, mode, memory, coded):
    settings = settings_of(mode, memory, coded)
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    assert file.load() is None
    state = uplink.initial_state(settings, 24, {"bin": 1, "fedavg": 32}.get(mode, 4), b"r" * 32)
    for round_ in range(4):
        record = record_of(settings, round_, state)
        file.save(record)
        loaded = file.load()
        assert loaded[:3] == record[:3] and loaded.two_phase
        assert np.array_equal(loaded.params, record.params) and np.array_equal(loaded.state, record.state)
        assert same_state(loaded.proposal.committed, record.proposal.committed)
        assert same_state(loaded.proposal.kept, record.proposal.kept)
        assert loaded.proposal.body == record.proposal.body and loaded.proposal[:3] == record.proposal[:3]
        state = uplink.settle(loaded.proposal, round_ != 1)


def as_older_version_wrote(data):
    """The same state in the form of FLQSTATE1, which held h as float32."""
    header_length, model_length = struct.unpack_from("<IQ", data, 10)
    start = 22 + header_length
    header, body = json.loads(data[22:start].decode("utf-8")), data[start:-32]
    length = header["lengths"][0]
    memory = np.frombuffer(body[:length], "<f8").astype("<f4").tobytes()
    header["lengths"][0] = len(memory)
    head = json.dumps(header).encode("utf-8")
    signed = b"FLQSTATE1\n" + struct.pack("<IQ", len(head), model_length) + head + memory + body[length:len(body) - model_length]
    return signed + body[len(body) - model_length:] + hashlib.sha256(signed).digest()


@pytest.mark.parametrize("settled", [False, True])
def test_a_state_of_an_older_version_goes_on(tmp_path, settled):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    state = uplink.initial_state(settings, 24, 4, b"r" * 32)
    state = uplink.settle(record_of(settings, 0, state).proposal, True)  # one commit: h is still float32
    record = record_of(settings, 1, state)
    record = record._replace(proposal=None) if settled else record
    file.save(record)
    with open(file.path, "rb") as stream:
        old = as_older_version_wrote(stream.read())
    with open(file.path, "wb") as stream:
        stream.write(old)
    loaded = file.load()
    held = loaded.uplink if settled else loaded.proposal.kept
    assert held.memory.dtype == np.float64 and np.array_equal(held.memory, state.memory)
    if not settled:
        assert same_state(loaded.proposal.committed, record.proposal.committed)
    file.save(loaded)
    assert same_state(file.load().uplink, loaded.uplink)


def test_a_silent_proposal_and_a_settled_state_come_back(tmp_path):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    state = uplink.initial_state(settings, 24, 4, b"r" * 32)._replace(clock=0)
    record = record_of(settings, 3, state, SILENT)
    assert record.proposal.skip
    file.save(record)
    assert file.load().proposal.skip and file.load().proposal.reason == "lazy"
    file.save(record._replace(proposal=None))
    assert file.load().proposal is None and same_state(file.load().uplink, state)


def test_an_update_that_is_not_finite_comes_back_with_its_loss(tmp_path):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    state = uplink.initial_state(settings, 24, 4, b"r" * 32)
    result = LocalResult(np.full(24, np.nan, np.float32), np.zeros(2, np.float32), float("nan"), 1)
    proposal = uplink.propose(state, result, 0, settings, OFF, None)
    file.save(record_of(settings, 0, state)._replace(proposal=proposal))
    assert file.load().proposal.reason == "nonfinite" and np.isnan(file.load().proposal.loss)


def test_of_another_model_only_the_instance_is_used(tmp_path):
    settings = settings_of("laq", "reference")
    first = StateFile(str(tmp_path), 1, LAYOUT, settings)
    first.save(record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32)))
    first.close()
    other = StateFile(str(tmp_path), 1, Layout(((3,),)), settings).load()
    assert other.instance == "ab" * 16 and other.run_id == "" and other.proposal is None


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"x" + data[41:], lambda data: b"junk" * 50,
], ids=["short", "empty", "changed", "foreign"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, damage):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    file.save(record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32)))
    with open(file.path, "rb") as stream:
        data = stream.read()
    with open(file.path, "wb") as stream:
        stream.write(damage(data))
    with pytest.raises(DataError) as refusal:
        file.load()
    assert "worker-1.state is damaged" in str(refusal.value)


def test_no_byte_can_change_unseen(tmp_path):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    file.save(record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32)))
    with open(file.path, "rb") as stream:
        data = stream.read()
    for place in range(len(data)):
        with open(file.path, "wb") as stream:
            stream.write(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:])
        with pytest.raises(DataError):
            file.load()


def test_a_second_process_is_kept_out(tmp_path):
    settings = settings_of("laq", "reference")
    first = StateFile(str(tmp_path), 1, LAYOUT, settings)
    with pytest.raises(ConfigError) as refusal:
        StateFile(str(tmp_path), 1, LAYOUT, settings)
    assert "in use by another process" in str(refusal.value)
    first.close()
    StateFile(str(tmp_path), 1, LAYOUT, settings).close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refusal:
        StateFile(str(tmp_path / "file" / "state"), 1, LAYOUT, settings_of("laq", "reference"))
    assert "cannot use the state directory" in str(refusal.value)


def test_the_order_is_write_fsync_rename_fsync(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        done.append("fsync directory" if os.path.isdir("/proc/self/fd/{}".format(descriptor)) else "fsync file")
        fsync(descriptor)

    def recorded_replace(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    durable.replace_file(str(tmp_path / "file"), [b"a", b"b"], "test")
    assert done == ["fsync file", "rename", "fsync directory"]
    assert (tmp_path / "file").read_bytes() == b"ab" and os.listdir(str(tmp_path)) == ["file"]


def test_a_write_that_fails_keeps_the_old_state(tmp_path, monkeypatch):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    record = record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32))
    file.save(record)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError) as refusal:
        file.save(record._replace(version=9))
    assert "No space left" in str(refusal.value) and file.load().version == 0


def test_in_memory_gives_back_what_it_was_given():
    state = InMemory()
    assert state.load() is None
    state.save("record")
    assert state.load() == "record"
