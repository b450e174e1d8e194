"""A worker's state on disk: what comes back is what was saved, and what is damaged is said so."""

import json
import os
import struct

import numpy as np
import pytest

from flq import config
from flq.algorithm import uplink
from flq.algorithm.lazy import LazyTerms
from flq.errors import ConfigError, DataError
from flq.host import durable
from flq.parameters import Layout, params_hash
from flq.records import LocalResult
from flq.rng import Stream
from flq.worker import state_format
from flq.worker.state_file import InMemory, StateFile
from flq.worker.worker_record import WorkerRecord
from tests.worker.older_states import envelope, older_state

LAYOUT = Layout(((5, 4), (4,)), ((2,),))
OFF = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)
SILENT = LazyTerms(1.0, 1e9, 100, 1, 0.0, 1.0)


def settings_of(mode, memory, coded=False):
    keys = {
        "flq_algorithm.mode": mode, "flq_algorithm.memory": memory,
        "flq_algorithm.entropy_coding": coded
    }
    return uplink.settings_from(config.build(keys), LAYOUT)


def record_of(settings, round_, uplink_state, lazy=OFF, scale=1.0):
    noise = np.random.RandomState(round_)
    values = noise.standard_normal(2).astype(np.float32)
    result = LocalResult((scale * noise.standard_normal(24)).astype(np.float32), values, 1.5, 1)
    proposal = uplink.propose(uplink_state, result, round_, settings, lazy,
                              Stream(0, 4, 1, round_).uniform)
    params = noise.standard_normal(24).astype(np.float32)
    return WorkerRecord("ab" * 16, "run", round_, params, values, params_hash(params, values),
                        uplink_state, proposal, True)


def same_state(first, second):
    without = {"memory": None, "activity": None}
    return (same_array(first.memory, second.memory)
            and same_array(first.activity, second.activity)
            and first._replace(**without) == second._replace(**without))


def same_array(first, second):
    return first is second is None or (first.dtype == second.dtype
                                       and np.array_equal(first, second))


def same_record(first, second):
    assert first[:
                 3] == second[:
                              3]
    assert first.params_hash == second.params_hash and first.two_phase == second.two_phase
    assert np.array_equal(first.params, second.params)
    assert np.array_equal(first.non_trainable, second.non_trainable)
    if second.proposal is None:
        return first.proposal is None and same_state(first.uplink, second.uplink)
    assert first.proposal[:4] == second.proposal[:4] and first.proposal[5:8] == second.proposal[5:8]
    assert np.array_equal(first.proposal.non_trainable, second.proposal.non_trainable)
    return same_state(first.proposal.committed, second.proposal.committed) and same_state(
        first.proposal.kept, second.proposal.kept)


@pytest.mark.parametrize("mode, memory, coded",
                         [("laq", "reference", False), ("laq", "reference", True),
                          ("bbit", "residual", False), ("bin", "reference", False),
                          ("qsgd", "none", False), ("fedavg", "none", False),
                          ("rd", "reference", "context"), ("rd", "residual", "context"),
                          ("rd", "none", "context"), ("laq", "reference", "context")])
def test_both_futures_come_back(tmp_path, mode, memory, coded):
    settings = settings_of(mode, memory, coded)
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    assert file.load() is None
    state = uplink.initial_state(settings, 24, {"bin": 1, "fedavg": 32, "rd": 16}.get(mode, 4),
                                 b"r" * 32)
    for round_ in range(4):
        record = record_of(settings, round_, state)
        file.save(record)
        loaded = file.load()
        assert same_record(loaded, record)
        state = uplink.settle(loaded.proposal, round_ != 1)


def test_what_was_coded_beside_a_history_is_sent_as_that_again(tmp_path):
    settings = settings_of("rd", "reference", "context")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    record = record_of(settings, 0, uplink.initial_state(settings, 24, 16, b"r" * 32))
    assert record.proposal.body.beside_history
    file.save(record)
    assert file.load().proposal.body == record.proposal.body


@pytest.mark.parametrize("first, second", [("context", True), (True, "context")])
def test_of_a_run_that_codes_otherwise_only_the_instance_counts(tmp_path, first, second):
    settings = settings_of("rd", "reference", first)
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    file.save(record_of(settings, 0, uplink.initial_state(settings, 24, 16, b"r" * 32)))
    file.close()
    found = StateFile(str(tmp_path), 1, LAYOUT, settings_of("rd", "reference", second)).load()
    assert (found.instance, found.run_id, found.proposal) == ("ab" * 16, "", None)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("how", ["unsettled", "silent", "settled"])
@pytest.mark.parametrize("mode, memory, coded", [("laq", "reference", False),
                                                 ("laq", "reference", True),
                                                 ("bbit", "residual", False),
                                                 ("qsgd", "none", False)])
def test_a_state_of_an_older_version_goes_on(tmp_path, version, how, mode, memory, coded):
    settings = settings_of(mode, memory, coded)
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    state = uplink.initial_state(settings, 24, 4, b"r" * 32)
    # one commit: h is still float32
    state = uplink.settle(record_of(settings, 0, state).proposal, True)
    record = record_of(settings, 1, state, SILENT if how == "silent" else OFF)
    record = record._replace(proposal=None) if how == "settled" else record
    with open(file.path, "wb") as stream:
        stream.write(older_state(version, record, memory, mode, LAYOUT))
    loaded = file.load()
    assert same_record(loaded, record)
    file.save(loaded)
    assert same_record(file.load(), loaded)
    with open(file.path, "rb") as stream:
        assert stream.read().startswith(b"FLQSTATE4\n")


@pytest.mark.parametrize("lengths, said", [([192, 20, 8, 96, 9], "arrays of"),
                                           ([8, 204, 8, 96, 8], "array memory"),
                                           ([192, 20, 8, 96], "arrays of"),
                                           ([-8, 220, 8, 96, 8], "arrays of")])
def test_an_older_state_with_wrong_lengths_is_refused(tmp_path, lengths, said):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    record = record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32))
    data = older_state(2, record, "reference", "laq", LAYOUT)
    length = struct.unpack_from("<I", data, 10)[0]
    header = json.loads(data[22:22 + length].decode("ascii"))
    assert header["lengths"] == [192, 20, 8, 96, 8]
    header["lengths"] = lengths
    body = data[22 + length:-32]
    with open(file.path, "wb") as stream:
        stream.write(
            envelope(b"FLQSTATE2\n",
                     json.dumps(header).encode("ascii"), [body[:-104]], [body[-104:]]))
    with pytest.raises(DataError) as refusal:
        file.load()
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("mode, memory", [("laq", "reference"), ("bbit", "residual"),
                                          ("qsgd", "none")])
def test_names_cost_a_few_hundred_bytes(tmp_path, mode, memory):
    settings = settings_of(mode, memory)
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    record = record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32))
    file.save(record)
    assert os.path.getsize(file.path) <= len(older_state(2, record, memory, mode, LAYOUT)) + 400


def rewritten(file, change):
    """The file again, with a right SHA-256, after change(header, arrays)."""
    with open(file.path, "rb") as stream:
        header, arrays = state_format.unpack(stream.read())
    change(header, arrays)
    model = {name: arrays.pop(name) for name in state_format.MODEL}
    with open(file.path, "wb") as stream:
        stream.write(b"".join(
            bytes(piece) for piece in state_format.pack(header, dict(arrays, **model))))


@pytest.mark.parametrize(
    "change, said",
    [(lambda header, arrays: arrays.update(memory=arrays["memory"].astype(np.float32)),
      "array memory of dtype float32"),
     (lambda header, arrays: arrays.update(memory=arrays["memory"][:-1]), "shape [23]"),
     (lambda header, arrays: arrays.update(memory=arrays["memory"].reshape(4, 6)), "shape [4, 6]"),
     (lambda header, arrays: arrays.pop("memory"), "no 'memory' in it"),
     (lambda header, arrays: arrays.update(velocity=arrays["memory"]), "an array named velocity"),
     (lambda header, arrays: arrays.update(params=arrays["params"][:-1]),
      "array params of dtype float32 and shape [23]"),
     (lambda header, arrays: arrays.update(params=arrays["params"].astype(np.float64)),
      "array params of dtype float64"),
     (lambda header, arrays: arrays.update(params=arrays["params"] + 1),
      "a model with another hash"),
     (lambda header, arrays: arrays.update(state=arrays["state"][:-1]), "array state"),
     (lambda header, arrays: arrays.pop("proposal.state"), "no 'proposal.state' in it"),
     (lambda header, arrays: arrays.update({"proposal.body": arrays["proposal.body"][:-1]}),
      "the body has another length"),
     (lambda header, arrays: arrays.update({"proposal.body": arrays["memory"]}),
      "array proposal.body of dtype float64"),
     (lambda header, arrays: header.update(proposal=None), "an array named proposal.body"),
     (lambda header, arrays: header.pop("instance"), "no 'instance' in it"),
     (lambda header, arrays: header.update(uplink=None), "NoneType"),
     (lambda header, arrays: header.update(params_hash="zz"), "non-hexadecimal"),
     (lambda header, arrays: header["proposal"].update(loss="much"), "could not convert"), ])
def test_arrays_that_do_not_fit_the_run_are_refused_by_one_line(tmp_path, change, said):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    file.save(record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32)))
    rewritten(file, change)
    with pytest.raises(DataError) as refusal:
        file.load()
    text = str(refusal.value)
    assert "worker-1.state is damaged" in text and said in text and "\n" not in text


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
    lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"x" + data[41:],
    lambda data: b"junk" * 50,
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
        done.append(
            "fsync directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "fsync file")
        fsync(descriptor)

    def recorded_replace(source, target):
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    durable.replace_file(str(tmp_path / "file"), [b"a", b"b"], "test")
    assert done == ["fsync file", "rename", "fsync directory"]
    assert (tmp_path / "file").read_bytes() == b"ab" and os.listdir(str(tmp_path)) == ["file"]


def test_only_its_owner_may_read_a_state(tmp_path):
    before = os.umask(0)
    try:
        durable.replace_file(str(tmp_path / "state"), [b"x"], "state")
    finally:
        os.umask(before)
    assert os.stat(str(tmp_path / "state")).st_mode & 0o777 == 0o600


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


def test_a_history_comes_back_and_is_asked_for_by_nobody_else(tmp_path):
    settings = settings_of("laq", "reference")
    file = StateFile(str(tmp_path), 1, LAYOUT, settings)
    record = record_of(settings, 0, uplink.initial_state(settings, 24, 4, b"r" * 32))
    activity = np.arange(24).astype(np.uint8)
    file.save(record._replace(activity=activity))
    loaded = file.load()
    assert same_record(loaded, record)
    assert loaded.activity.dtype == np.uint8 and loaded.activity.tolist() == activity.tolist()
    file.save(record)
    assert file.load().activity is None
    file.save(record._replace(activity=activity[1:]))
    with pytest.raises(DataError, match="array activity of dtype uint8"):
        file.load()
