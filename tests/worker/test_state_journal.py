"""A state that grows by a step a round: whatever is on the disk when the process dies, what comes
back is the record before or the record after, bit for bit.
"""

import json
import os
import shutil

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import downlink, uplink
from flq.algorithm.lazy import LazyTerms
from flq.compression import codec
from flq.errors import DataError
from flq.host import durable
from flq.parameters import Layout, params_hash
from flq.protocol import frames
from flq.records import LocalResult
from flq.rng import Stream
from flq.worker import journal, state_file, state_format
from flq.worker.state_file import StateFile
from flq.worker.worker_record import WorkerRecord
from tests.worker.same_record import same

LAYOUT = Layout(((5, 4), (4,)), ((2,),))
RUN = "run"
TERMS = frames.RoundTerms(0.0, 0.0, 1.0, 0.0, 100, 0)
OFF = LazyTerms(0.0, 0.0, 100, 1, 0.0, 1.0)
SILENT = LazyTerms(1.0, 1e9, 100, 0, 0.0, 1.0)
CASES = [["mode=laq"], ["mode=laq", "entropy_coding=false", "b_up=2"], ["mode=bin"],
         ["mode=bbit"], ["mode=qsgd"], ["mode=fedavg", "b_down=32"], ["mode=rd"],
         ["mode=rd", "memory=residual", "downlink=rd"], ["mode=rd", "memory=none"],
         ["mode=laq", "radius=block", "block_size=16", "downlink=laq"]]


class Rounds(object):
    """A worker's rounds with a master that broadcasts and decides."""

    def __init__(self, keys):
        self.config = config.load(None, keys).config
        self.settings = uplink.settings_from(self.config, LAYOUT)
        self.down = downlink.settings_from(self.config, LAYOUT)
        self.expected = frames.Expected(RUN, LAYOUT, self.settings.sizes, self.settings.quantizer)
        self.version, self.params = 0, np.linspace(-1, 1, 24).astype(np.float32)
        self.values = np.zeros(2, np.float32)
        self.activity = downlink.initial_activity(self.down)
        self.uplink, self.proposal = self.fresh(0), None

    def fresh(self, epoch):
        return uplink.initial_state(self.settings, 24, self.config.flq_algorithm.b_up,
                                    uplink.first_reference_hash(RUN, 1, epoch))

    def record(self):
        return WorkerRecord("ab" * 16, RUN, self.version, self.params, self.values,
                            params_hash(self.params, self.values), self.uplink, self.proposal,
                            bool(self.version % 2), self.activity)

    def propose(self, lazy=OFF, broken=False):
        noise = np.random.RandomState(self.version)
        update = noise.standard_normal(24).astype(np.float32)
        result = LocalResult(update * np.float32(np.nan if broken else 1),
                             noise.standard_normal(2).astype(np.float32), 1.5, 1)
        self.proposal = uplink.propose(self.uplink, result, self.version, self.settings, lazy,
                                       Stream(0, 4, 1, self.version).uniform)

    def settle(self, accepted):
        self.uplink, self.proposal = uplink.settle(self.proposal, accepted), None

    def broadcast(self):
        """The next version, and its frame."""
        target = self.params + rng.Stream(6, rng.INIT, 0, self.version).uniform(24).astype(
            np.float32)
        encoded, params = downlink.encode(target, self.params, self.version, self.down,
                                          self.activity)
        body = codec.to_body(encoded, self.down.entropy_coding, self.activity)
        base, self.version = self.version, self.version + 1
        self.params, self.values = params, self.values + np.float32(0.5)
        self.activity = codec.next_activity(self.activity, encoded)
        return frames.pack(
            frames.Content(self.down.quantizer, self.down.bits, body, self.values),
            frames.Place(self.version, base, params_hash(self.params, self.values)), TERMS,
            self.expected)

    def file(self, directory):
        return StateFile(str(directory), 1, LAYOUT, self.settings)


def contents(file):
    with open(file.path, "rb") as stream:
        return stream.read()


def begun(tmp_path, keys=("mode=laq",), rounds=1):
    """A state file after so many rounds, each of which was accepted."""
    played = Rounds(list(keys))
    file = played.file(tmp_path)
    file.save(played.record(), [])
    broadcasts = []
    for _ in range(rounds):
        played.propose()
        file.save(played.record(), broadcasts)
        played.settle(True)
        broadcasts = [played.broadcast()]
    return played, file, broadcasts[0]


@pytest.mark.parametrize("keys", CASES, ids=" ".join)
def test_every_step_gives_the_same_state_as_the_whole_of_it(tmp_path, monkeypatch, keys):
    monkeypatch.setattr(state_file, "LONGEST_JOURNAL", 100)
    played = Rounds(keys)
    file = played.file(tmp_path / "state")
    file.save(played.record(), [])
    sizes, broadcasts = [len(contents(file))], []
    for turn in range(12):
        # what a round can be: silent, not finite, refused, and behind rounds of somebody else
        played.propose(SILENT if turn == 4 else OFF, broken=turn == 7)
        file.save(played.record(), broadcasts)
        sizes.append(len(contents(file)))
        copy = tmp_path / f"copy-{turn}"
        copy.mkdir()
        shutil.copy(file.path, str(copy))
        again = played.file(copy)
        assert same(again.load(), played.record()), turn
        again.close()
        played.settle(turn % 3 != 1)
        broadcasts = [played.broadcast() for _ in range(3 if turn == 5 else 1)]
    assert sizes == sorted(sizes), "it only grew"
    assert file.load() is not None
    file.save(played.record()._replace(proposal=None))
    assert len(contents(file)) < sizes[-1], "and is written whole again"


def test_a_step_holds_what_is_new_and_no_more(tmp_path):
    layout = Layout(((300, 100), (100,)))
    played = Rounds(["mode=laq"])
    settings = uplink.settings_from(played.config, layout)
    file = StateFile(str(tmp_path), 1, layout, settings)
    noise = np.random.RandomState(0)
    params, values = noise.standard_normal(30100).astype(np.float32), np.zeros(0, np.float32)
    state = uplink.initial_state(settings, 30100, 4, b"r" * 32)
    record = WorkerRecord("ab" * 16, RUN, 0, params, values, params_hash(params, values), state,
                          None, False)
    file.save(record, [])
    before = os.path.getsize(file.path)
    result = LocalResult(noise.standard_normal(30100).astype(np.float32), values, 1.5, 1)
    proposal = uplink.propose(state, result, 0, settings, OFF, Stream(0, 4, 1, 0).uniform)
    file.save(record._replace(proposal=proposal), [])
    assert os.path.getsize(file.path) - before <= len(proposal.body.data) + 1200


def test_a_process_that_comes_back_goes_on_with_the_journal(tmp_path):
    played, file, frame = begun(tmp_path, rounds=2)
    file.close()
    again = played.file(tmp_path)
    held = again.load()
    before = contents(again)
    played.uplink = uplink.settle(held.proposal, True)
    played.propose()
    again.save(played.record(), [frame])
    assert contents(again)[:len(before)] == before and len(contents(again)) > len(before)
    assert same(again.load(), played.record())


@pytest.mark.parametrize("what", ["a reset", "a keyframe", "another run", "another file",
                                  "a shorter file", "no file", "an older file"])
def test_what_does_not_follow_is_written_whole(tmp_path, what):
    played, file, frame = begun(tmp_path, rounds=3)
    broadcasts = [frame]
    if what == "a reset":
        played.uplink = played.fresh(1)
    elif what == "a keyframe":
        broadcasts = None
    elif what == "another file":
        shutil.copy(file.path, file.path + ".copy")
        os.rename(file.path + ".copy", file.path)
    elif what == "a shorter file":
        os.truncate(file.path, os.path.getsize(file.path) - 1)
    elif what == "no file":
        os.unlink(file.path)
    elif what == "an older file":
        file.close()
        file = played.file(tmp_path)  # which has read nothing
    played.propose()
    record = played.record()
    file.save(record._replace(run_id="another") if what == "another run" else record, broadcasts)
    assert contents(file) == b"".join(
        bytes(chunk) for chunk in file._coding.to_chunks(
            record._replace(run_id="another") if what == "another run" else record))


def test_a_long_journal_is_folded_by_its_steps_and_by_its_bytes(tmp_path, monkeypatch):
    for name, value, expected in (("MOST_STEPS", 3, 3), ("LONGEST_JOURNAL", 1, 4)):
        with monkeypatch.context() as patched:
            patched.setattr(state_file, name, value)
            played = Rounds(["mode=laq"])
            file = played.file(tmp_path / name)
            file.save(played.record(), [])
            wholes, broadcasts = 0, []
            for _ in range(12):
                before = os.stat(file.path).st_ino
                played.propose()
                file.save(played.record(), broadcasts)
                wholes += os.stat(file.path).st_ino != before
                assert same(file.load(), played.record())
                played.settle(True)
                broadcasts = [played.broadcast()]
            assert wholes == expected


def test_a_state_whose_last_step_was_torn_is_that_before_it(tmp_path):
    played, file, frame = begun(tmp_path, rounds=3)
    before, held = contents(file), file.load()
    played.propose()
    file.save(played.record(), [frame])
    after = contents(file)
    assert after[:len(before)] == before
    for length in list(range(len(before), len(after), 37)) + [len(after) - 1]:
        with open(file.path, "wb") as stream:
            stream.write(after[:length])
        assert same(file.load(), held)
    # and the next step takes its place
    file.save(played.record(), [frame])
    assert contents(file) == after


def test_no_byte_of_a_state_or_a_step_can_change_unseen(tmp_path):
    played, file, frame = begun(tmp_path, rounds=2)
    length, before = len(contents(file)), file.load()
    played.propose()
    file.save(played.record(), [frame])
    data = contents(file)
    for place in list(range(0, len(data), 7)) + [len(data) - 1]:
        with open(file.path, "wb") as stream:
            stream.write(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:])
        if place < length:
            with pytest.raises(DataError) as refusal:
                file.load()
            text = str(refusal.value)
            assert "worker-1.state is damaged" in text and "\n" not in text
        else:
            assert same(file.load(), before), "as if it had never been written"


@pytest.mark.parametrize("change, said", [
    (lambda header, arrays: header["uplink"].update(reference_hash="00" * 32),
     "a chain that does not go on"),
    (lambda header, arrays: header.update(version=9), "broadcasts up to version 2, not 9"),
    (lambda header, arrays: header.update(params_hash="00" * 8), "broadcasts up to version 2"),
    (lambda header, arrays: arrays.pop("broadcasts"), "no 'broadcasts' in it"),
    (lambda header, arrays: arrays.update(broadcasts=arrays["broadcasts"][:-1]), "frame_short"),
    (lambda header, arrays: arrays.update(broadcasts=np.tile(arrays["broadcasts"], 2)),
     "relative to another version"),
    (lambda header, arrays: arrays.update(more=arrays["broadcasts"]), "an array named more"),
    (lambda header, arrays: header.pop("proposal"), "no 'proposal' in it"),
    (lambda header, arrays: header.update(proposal=None), "NoneType"),
    (lambda header, arrays: arrays.update({"proposal.body": arrays["proposal.body"][:-1]}),
     "body"), ])
def test_a_step_that_no_worker_makes_is_refused_by_one_line(tmp_path, change, said):
    played, file, frame = begun(tmp_path, keys=["mode=laq", "entropy_coding=false"], rounds=2)
    played.propose()
    data = contents(file)
    header, arrays = state_format.unpack_record(
        b"".join(bytes(piece) for piece in file._coding.to_step(played.record(), [frame])))
    change(header, arrays)
    with open(file.path, "ab") as stream:
        for piece in journal.pack(2, state_format.pack_record(header, arrays)):
            stream.write(piece)
    assert contents(file)[:len(data)] == data
    with pytest.raises(DataError) as refusal:
        file.load()
    text = str(refusal.value)
    assert "worker-1.state is damaged" in text and said in text and "\n" not in text


def test_of_a_run_that_codes_otherwise_only_the_instance_counts(tmp_path):
    played, file, _ = begun(tmp_path, rounds=2)
    file.close()
    other = Rounds(["mode=rd"])
    found = other.file(tmp_path)
    record = found.load()
    assert (record.instance, record.run_id, record.proposal) == ("ab" * 16, "", None)
    found.save(other.record(), [])
    assert same(found.load(), other.record())


def full(descriptor):
    raise OSError(28, "No space left on device")


def test_a_step_without_room_keeps_the_old_state_and_is_tried_again(tmp_path, monkeypatch):
    played, file, frame = begun(tmp_path, rounds=2)
    held = file.load()
    played.propose()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(DataError) as refusal:
                file.save(played.record(), [frame])
            assert "cannot write the worker's state" in str(refusal.value)
            assert "bytes of room; got No space left on device" in str(refusal.value)
    again = played.file(tmp_path / "copy")
    shutil.copy(file.path, again.path)
    with open(again.path, "r+b") as stream:
        stream.truncate(len(contents(file)) - 1)  # the disk does not have all of it
    assert same(again.load(), held)
    file.save(played.record(), [frame])
    assert same(file.load(), played.record())


def test_where_only_a_step_has_room_a_long_journal_grows_on(tmp_path, monkeypatch):
    played, file, frame = begun(tmp_path, rounds=3)
    monkeypatch.setattr(state_file, "MOST_STEPS", 3)

    def no_room(path, chunks, name):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state_file, "replace_file", no_room)
        played.propose()
        file.save(played.record(), [frame])
        assert same(file.load(), played.record())
    played.settle(True)
    frame = played.broadcast()
    before = os.stat(file.path).st_ino
    played.propose()
    file.save(played.record(), [frame])
    assert os.stat(file.path).st_ino != before and same(file.load(), played.record())


def test_a_fold_whose_directory_cannot_be_synced_is_made_again(tmp_path, monkeypatch):
    """The new file is there by then: no step fits behind it."""
    played, file, frame = begun(tmp_path, rounds=3)
    monkeypatch.setattr(state_file, "MOST_STEPS", 3)
    played.propose()
    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync_directory", full)
        for _ in range(3):
            with pytest.raises(DataError):
                file.save(played.record(), [frame])
    file.save(played.record(), [frame])
    assert same(file.load(), played.record())


def test_a_step_is_one_fsync(tmp_path, monkeypatch):
    played, file, frame = begun(tmp_path, rounds=2)
    done, fsync = [], os.fsync

    def counted(descriptor):
        done.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    played.propose()
    file.save(played.record(), [frame])
    assert done == [file.path]


def test_a_whole_state_that_finds_no_room_leaves_nothing_behind(tmp_path, monkeypatch):
    played = Rounds(["mode=laq"])
    file = played.file(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError):
        file.save(played.record(), [])
    assert os.listdir(str(tmp_path)) == ["worker-1.state.lock"]


GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden",
                      "states.json")


@pytest.mark.parametrize("case", range(3))
def test_a_file_that_the_version_before_wrote_is_read_and_goes_on(tmp_path, case):
    with open(GOLDEN, encoding="ascii") as stream:
        told = json.load(stream)[case]
    played = Rounds(told["keys"])
    file = played.file(tmp_path)
    with open(file.path, "wb") as stream:
        stream.write(bytes.fromhex(told["state"]))
    record = file.load()
    assert (record.instance, record.run_id, record.version) == ("ab" * 16, RUN, told["version"])
    assert record.params.tolist() == told["params"]
    assert record.non_trainable.tolist() == told["non_trainable"]
    assert (record.activity is None) == (told["activity"] is None)
    futures = [(told["kept"], record.uplink if record.proposal is None else record.proposal.kept)]
    if told["committed"]:
        assert record.proposal.body.data.hex() == told["body"]
        futures.append((told["committed"], record.proposal.committed))
    for expected, found in futures:
        assert found.memory.tolist() == expected["memory"]
        assert found.reference_hash.hex() == expected["reference_hash"]
        assert (found.clock, found.bits) == (expected["clock"], expected["bits"])
        assert (found.activity is None) == (expected["activity"] is None)
        assert found.activity is None or found.activity.tolist() == expected["activity"]
    file.save(record, [])
    assert contents(file).startswith(b"FLQSTATE4\n"), "behind an older one there is no journal"
    assert same(file.load(), record)
