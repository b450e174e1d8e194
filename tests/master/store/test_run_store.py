"""The run store: a round is there whole or not at all, for ever, and a store that cannot be used is
named.
"""

import json
import math
import mmap
import re
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from flq.errors import ConfigError
from flq.master.store import run_store
from flq.master.store.events import Join, KeyChange
from flq.master.store.run_store import (
    Answer,
    RoundCommit,
    RunReader,
    RunStore,
    StoredRows,
    StoreError,
    backup,
    room_of,
)
from flq.records import Evaluation
from tests.reports.runs import round_record, worker_round

META = {"run_id": "run-1", "config": {"system": {"max_rounds": 3}}, "shapes": [[5, 7]]}


def commit_of(round_, answers=((0, "accepted"), (1, "skipped")), events=(), broadcast=b"frame",
              **changes):
    """Worker m's upload of round k is the bytes `upload k m`, its chain m times 32."""
    rows = tuple(
        Answer(worker_round(round_, worker, state), epoch=0, reference_hash=bytes([worker]) *
               32, frame=f"upload {round_} {worker}".encode() if state == "accepted" else None)
        for worker, state in answers)
    record = round_record(round_, accuracy=None, loss=None, **changes)
    return RoundCommit(record, rows, tuple(events), {"down": [round_]}, broadcast)


@pytest.fixture
def store(tmp_path):
    store = RunStore(tmp_path, META)
    yield store
    store.close()


def reopened(store):
    store.close()
    return RunStore(store.path.parent)


def test_a_store_says_what_run_it_holds(store):
    assert store.meta() == META


def test_a_round_is_read_as_it_was_written(store):
    events = (Join(0, 7), KeyChange("model.lr", "me", None, 0.5))
    commits = [
        commit_of(0, events=events),
        commit_of(1, ((1, "accepted"), (0, "missing"), (2, "refused")), late=(0,))
    ]
    for commit in commits:
        store.commit_round(commit)
    stored = list(store.rounds())
    assert [round_.record
            for round_ in stored] == store.records() == [commit.record for commit in commits]
    assert [round_.events for round_ in stored] == [events, ()] and store.events() == list(events)
    assert [round_.accounting for round_ in stored] == [{"down": [0]}, {"down": [1]}]
    assert stored[0].answers == commits[0].answers
    assert [answer.row.worker for answer in stored[1].answers] == [0, 1, 2], "by worker"
    assert [round_.record.round
            for round_ in store.rounds(1)] == [1] and list(store.rounds(2)) == []
    assert store.worker_rounds() == [
        answer.row._asdict() for round_ in stored for answer in round_.answers
    ]


def test_a_row_of_before_a_field_is_read_with_its_default(store):
    store.commit_round(commit_of(0))
    wanted = [dict(row, residual_norm=None) for row in store.worker_rounds()]
    with sqlite3.connect(store.path) as database:
        rows = [(json.dumps({
            name: value for name, value in row.items() if name not in ("staleness", "residual_norm")
        }), row["worker"]) for row in wanted]
        database.executemany("UPDATE answers SET row = ? WHERE worker = ?", rows)
    assert store.worker_rounds() == wanted


def test_everything_is_there_after_a_restart(store):
    store.commit_round(commit_of(0))
    store.add_evaluation(0, Evaluation(0.75, 1.25, 100))
    store.add_checkpoint(1, b"digest", b"data")
    again = reopened(store)
    try:
        assert again.meta() == META and again.answer(0, 0) == (worker_round(0, 0), bytes(32))
        assert again.records() == [commit_of(0).record._replace(accuracy=0.75, loss=1.25)]
        assert again.checkpoints() == [(1, b"digest", b"data")]
    finally:
        again.close()


def test_a_loss_that_is_not_a_number_is_kept(store):
    store.commit_round(commit_of(0))
    store.add_evaluation(0, Evaluation(0.1, float("nan"), 100))
    assert math.isnan(store.evaluations()[0].loss) and math.isnan(
        store.records()[0].loss) and store.records()[0].accuracy == 0.1


def test_the_newest_rows_are_answered_as_the_file_has_them(store):
    for round_ in range(2):
        store.commit_round(commit_of(round_))
        assert all(
            store.answer(round_, worker) == StoredRows.answer(store, round_, worker) is not None
            for worker in (0, 1))
        assert store.answer(round_, 5) is None


def test_a_row_answers_for_ever_and_only_for_who_took_part(store):
    for round_ in range(3):
        store.commit_round(commit_of(round_))
    row, chain = store.answer(1, 1)
    assert row == worker_round(1, 1, "skipped") and chain == b"\1" * 32
    assert store.answer(1, 2) is None and store.answer(3, 0) is None and store.answer(-1, 0) is None


def test_a_reference_is_what_was_committed_in_its_epoch(store):
    for round_, epoch in enumerate((0, 0, 1, 1)):
        commit = commit_of(round_, ((0, "accepted"), (1, "accepted" if round_ % 2 else "refused")))
        store.commit_round(
            commit._replace(answers=tuple(
                answer._replace(epoch=epoch) for answer in commit.answers)))
    assert store.frames_of(0, 0) == [b"upload 0 0", b"upload 1 0"] and store.frames_of(
        0, 1) == [b"upload 2 0", b"upload 3 0"]
    assert store.frames_of(1, 0) == [b"upload 1 1"] and store.frames_of(
        2, 0) == [] and store.frames_of(0, 2) == []


def test_broadcasts_come_newest_first(store):
    assert list(store.broadcasts()) == []
    for round_ in range(3):
        store.commit_round(commit_of(round_, broadcast=bytes([round_])))
    assert list(store.broadcasts()) == [b"\2", b"\1", b"\0"]


def test_a_test_is_a_row_of_its_own_and_may_be_repeated(store):
    store.commit_round(commit_of(0))
    assert store.evaluations() == {} and store.records()[0].accuracy is None
    store.add_evaluation(0, Evaluation(0.5, 2.0, 10))
    store.add_evaluation(0, Evaluation(0.75, 1.0, 10))
    assert store.evaluations() == {0: Evaluation(0.75, 1.0, 10)
                                   } and store.records()[0].accuracy == 0.75


def test_the_newest_two_checkpoints_are_kept(store):
    for version in (3, 9, 6, 12):
        store.add_checkpoint(version, b"d", bytes([version]))
    assert [version for version, _, _ in store.checkpoints()] == [12, 9]


# --- the transaction


def test_a_round_is_stored_once(store):
    store.commit_round(commit_of(0))
    with pytest.raises(StoreError):
        store.commit_round(commit_of(0, broadcast=b"another"))
    assert list(store.broadcasts()) == [b"frame"]
    store.commit_round(commit_of(1))


def test_of_a_round_that_cannot_be_written_nothing_is_there(store):
    store.commit_round(commit_of(0))
    twice = commit_of(1)
    with pytest.raises(StoreError) as refusal:
        store.commit_round(
            twice._replace(events=(Join(0, 1),), answers=twice.answers + twice.answers[:1]))
    assert f"cannot write round 1 to {store.path}" in str(refusal.value) and "\n" not in str(
        refusal.value)
    assert len(store.records()) == 1 and len(store.worker_rounds()) == 2 and store.events() == []
    store.commit_round(commit_of(1))
    assert len(store.records()) == 2


@pytest.mark.parametrize("size", [100, 3000, 100000, 467818])
def test_the_room_that_an_error_names_is_what_the_round_takes(store, size):
    """SQLite writes whole pages, and a large row a chain of them."""
    commit = commit_of(0, tuple((worker, "accepted") for worker in range(4)), broadcast=bytes(size))
    commit = commit._replace(answers=tuple(
        answer._replace(frame=bytes(size)) for answer in commit.answers))
    store._db.execute(
        f"PRAGMA max_page_count={store._db.execute('PRAGMA page_count').fetchone()[0]}")
    if size > 10000:  # smaller ones fit into pages that are there
        with pytest.raises(StoreError, match="about [0-9]+ bytes of room") as refusal:
            store.commit_round(commit)
    else:
        refusal = None
    store._db.execute("PRAGMA max_page_count=1000000")
    log = store.path.with_name("run.db-wal")
    before = log.stat().st_size
    store.commit_round(commit)
    taken = log.stat().st_size - before
    named = room_of(commit) if refusal is None else int(
        re.search("about ([0-9]+) bytes", str(refusal.value)).group(1))
    assert taken <= named <= taken + 6 * 16408


def test_a_full_disk_is_named_and_the_round_fits_when_there_is_room(store):
    store.commit_round(commit_of(0))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")  # what a full disk looks like to SQLite
    large = commit_of(1, broadcast=bytes(100000))
    with pytest.raises(StoreError) as refusal:
        store.commit_round(large)
    assert "full" in refusal.value.got and "make room" in refusal.value.hint
    assert "bytes of room" in refusal.value.expected
    assert len(store.records()) == 1
    with pytest.raises(StoreError):
        store.add_checkpoint(1, b"d", bytes(100000))
    store._db.execute("PRAGMA max_page_count=1000000")
    store.commit_round(large)
    assert list(store.broadcasts()) == [bytes(100000), b"frame"]


@pytest.mark.parametrize("length", [10**9 + 1, 2**31])
def test_a_checkpoint_that_is_too_long_is_one_line(store, length):
    with mmap.mmap(-1, length) as data, pytest.raises(StoreError) as refusal:  # no page is used
        store.add_checkpoint(1, b"d", data)
    told = str(refusal.value)
    assert "too long for a checkpoint" in told and str(length) in told and "\n" not in told
    assert store.checkpoints() == []


def test_a_commit_survives_a_power_cut(store):
    """As far as SQLite knows how: WAL with synchronous FULL, no memory map."""
    settings = {
        name: store._db.execute("PRAGMA " + name).fetchone()[0]
        for name in ("journal_mode", "synchronous", "mmap_size")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "mmap_size": 0}


def test_a_reader_from_outside_sees_whole_rounds_while_the_master_writes(store):
    store.commit_round(commit_of(0))
    reader = sqlite3.connect(store.path.as_uri() + "?mode=ro", uri=True)
    try:
        assert reader.execute("SELECT count(*) FROM rounds").fetchone() == (1,)
        store.commit_round(commit_of(1))
        (record,) = reader.execute("SELECT record FROM rounds WHERE round = 1").fetchone()
        assert json.loads(record)["round"] == 1
    finally:
        reader.close()


def files_of(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_reading_a_finished_run_leaves_its_folder_as_it_was(store, tmp_path_factory):
    store.commit_round(commit_of(0))
    directory = store.path.parent
    store.close()
    before, changed = files_of(directory), store.path.stat().st_mtime_ns
    assert "run.db-wal" not in before
    with RunReader(directory) as reader:
        assert len(reader.records()) == 1
    backup(directory, tmp_path_factory.mktemp("elsewhere") / "copy.db")
    assert files_of(directory) == before and store.path.stat().st_mtime_ns == changed


def test_reading_removes_the_empty_log_that_an_older_reader_left(store):
    store.commit_round(commit_of(0))
    store.close()
    reader = sqlite3.connect(store.path.as_uri() + "?mode=ro", uri=True)
    reader.execute("SELECT * FROM rounds").fetchall()
    reader.close()
    assert store.path.with_name("run.db-wal").exists()
    with RunReader(store.path.parent) as reader:
        assert len(reader.records()) == 1
    assert not list(store.path.parent.glob("run.db-*"))


def test_reading_moves_no_round_of_a_killed_master_out_of_its_log(store, tmp_path_factory):
    store.commit_round(commit_of(0))
    killed = tmp_path_factory.mktemp("elsewhere") / "killed"
    shutil.copytree(store.path.parent, killed)
    before = {name: (killed / name).read_bytes() for name in ("run.db", "run.db-wal")}
    assert before["run.db-wal"]
    with RunReader(killed) as reader:
        assert len(reader.records()) == 1
    assert {name: (killed / name).read_bytes() for name in before} == before


def test_threads_share_a_store(store):
    store.commit_round(commit_of(0))
    failures = []

    def look():
        try:
            for _ in range(50):
                assert store.answer(0, 0)[0].worker == 0
        except Exception as error:  # an assertion of a thread must reach the test
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for round_ in range(1, 20):
        store.commit_round(commit_of(round_))
    for thread in threads:
        thread.join()
    assert not failures and len(store.records()) == 20


# --- stores that cannot be used


def test_a_new_run_needs_an_empty_directory_and_an_old_one_its_store(store, tmp_path):
    store.close()
    with pytest.raises(StoreError, match="exists already"):
        RunStore(tmp_path, META)
    with pytest.raises(StoreError, match="run.db is missing"):
        RunStore(_made(tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_directory_of_a_new_run_is_made(tmp_path):
    store = RunStore(tmp_path / "results" / "run-1", META)
    store.close()
    assert (tmp_path / "results" / "run-1" / "run.db").exists()


def test_a_directory_that_cannot_be_made_or_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError) as refusal:
            RunStore(directory, META)
        assert str(directory) in str(refusal.value) and "--run_dir" in refusal.value.hint


def test_a_store_with_smaller_pages_goes_on(store, tmp_path):
    store.commit_round(commit_of(0))
    # as an older FLQ made it
    store._db.executescript("PRAGMA journal_mode=delete; PRAGMA page_size=4096; VACUUM;")
    again = reopened(store)
    again.commit_round(commit_of(1))
    assert again._db.execute("PRAGMA page_size").fetchone()[0] == 4096
    assert [round_.answers
            for round_ in again.rounds()] == [commit_of(0).answers,
                                              commit_of(1).answers]
    again.close()


def test_a_second_master_is_refused_until_the_first_is_gone(store, tmp_path):
    with pytest.raises(ConfigError) as refusal:
        RunStore(tmp_path)
    assert f"another master uses {tmp_path}" in str(refusal.value)
    reopened(store).close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "page"])
def test_a_damaged_store_is_named(store, tmp_path, damage):
    for round_ in range(20):
        store.commit_round(commit_of(round_, broadcast=bytes(5000)))
    store.close()
    path = tmp_path / "run.db"
    data, size = path.read_bytes(), run_store.PAGE_BYTES
    path.write_bytes({
        "garbage": b"no database at all" * 500, "truncated": data[:len(data) // 2],
        "page": data[:2 * size] + bytes(range(256)) * (size // 256) + data[3 * size:]
    }[damage])
    with pytest.raises(StoreError) as refusal:
        RunStore(tmp_path)
    assert str(path) in str(refusal.value) and "backup" in refusal.value.hint and "\n" not in str(
        refusal.value)


def bytes_read():
    """What this process has read so far, from the disk or not."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_opening_a_store_and_what_a_start_asks_reads_no_frames(store, tmp_path):
    frames, length = 0, 200_000
    for round_ in range(20):
        commit = commit_of(round_, broadcast=bytes(length))
        answers = tuple(answer._replace(frame=bytes(length)) for answer in commit.answers)
        frames += length * (1 + len(answers))
        store.commit_round(commit._replace(answers=answers))
    store.close()
    before = bytes_read()
    again = RunStore(tmp_path)
    assert len(again.records()) == 20 and len(again.worker_rounds()) == 40 and not again.events()
    assert again.last_rounds() == {0: 19, 1: 19} and again.num_rounds() == 20
    assert bytes_read() - before < frames / 10
    assert next(again.broadcasts()) == bytes(length)
    again.check_all()
    assert bytes_read() - before > frames
    again.close()


def test_a_frame_that_is_damaged_is_named_where_the_whole_file_is_checked(store, tmp_path):
    store.commit_round(commit_of(0, broadcast=bytes(200_000)))
    store.commit_round(commit_of(1))
    store.close()
    path, size = tmp_path / "run.db", run_store.PAGE_BYTES
    pages = [path.read_bytes()[start:start + size] for start in range(0, path.stat().st_size, size)]
    chain = [index for index, page in enumerate(pages) if not any(page[4:])]
    assert len(chain) > 5, "pages of the broadcast"
    pages[chain[2]] = b"\7" * size
    path.write_bytes(b"".join(pages))
    again = RunStore(tmp_path)
    assert len(again.records()) == 2
    with pytest.raises(StoreError) as refusal:
        again.check_all()
    assert f"{path} is damaged" in str(refusal.value) and "\n" not in str(refusal.value)
    again.close()


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    for call in (store.records, store.meta, lambda: store.add_evaluation(0, Evaluation(0, 0, 1))):
        with pytest.raises(StoreError):
            call()


# --- copies


def test_a_backup_is_the_store_while_it_is_written(store, tmp_path):
    store.commit_round(commit_of(0))
    backup(tmp_path, tmp_path / "backups" / "other" / "run.db")  # in folders that it makes
    store.commit_round(commit_of(1))
    copy = RunStore(tmp_path / "backups" / "other")
    try:
        assert copy.meta() == META and copy.records() == [commit_of(0).record]
    finally:
        copy.close()


def test_a_backup_overwrites_nothing_and_needs_a_run(store, tmp_path):
    there, copy, nowhere = tmp_path / "there.db", tmp_path / "copy.db", tmp_path / "nowhere"
    there.write_text("mine")
    for target in (there, there / "run.db"):
        with pytest.raises(StoreError, match="cannot copy"):
            backup(tmp_path, target)
    with pytest.raises(ConfigError, match="there is no run in"):
        backup(nowhere, copy)
    assert there.read_text() == "mine" and not copy.exists()


def _made(directory):
    directory.mkdir()
    return directory
