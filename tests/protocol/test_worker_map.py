"""Maps and sets of workers beside Python's own."""

import hypothesis
import pytest
from hypothesis import strategies as st

from flq.protocol.worker_map import WorkerMap, WorkerSet

WORKERS = st.one_of(st.integers(0, 5), st.integers(60, 70), st.integers(0, 65535))
CHANGES = st.lists(st.tuples(st.booleans(), WORKERS, st.integers(0, 3)), max_size=40)


@hypothesis.given(st.dictionaries(WORKERS, st.integers(0, 3)), CHANGES)
def test_a_map_is_a_dict_that_is_copied_with_each_change(start, changes):
    found, expected = WorkerMap(start), dict(start)
    older = []
    for is_put, worker, value in changes:
        older.append((found, dict(expected)))
        if is_put:
            found, expected[worker] = found.put(worker, value), value
        else:
            found = found.without(worker)
            expected.pop(worker, None)
        assert len(found) == len(expected) and found == expected
        assert found.get(worker) == expected.get(worker)
        assert (worker in found) == (worker in expected)
        assert found.get(worker, "none") == expected.get(worker, "none")
    for then, copy in older:
        assert then == copy, "what was copied has not changed"
    assert sorted(found.all_values()) == sorted(expected.values())
    assert dict(found) == expected and sorted(found) == sorted(expected)
    assert {worker: found[worker] for worker in expected} == expected


@hypothesis.given(st.sets(WORKERS), CHANGES, st.sets(WORKERS))
def test_a_set_is_a_frozenset(start, changes, other):
    found, expected = WorkerSet(start), frozenset(start)
    older = []
    for is_put, worker, _ in changes:
        older.append((found, expected))
        found = found.put(worker) if is_put else found.without(worker)
        expected = expected | {worker} if is_put else expected - {worker}
        assert len(found) == len(expected) and found == expected and expected == found
        assert (worker in found) == (worker in expected)
    for then, copy in older:
        assert then == copy
    assert found & other == expected & other and other - found == other - expected
    assert found - other == expected - other and found | other == expected | other
    assert (found <= other) == (expected <= other) and sorted(found) == sorted(expected)


def test_who_is_not_there_is_named():
    for found in (WorkerMap({7: "a"}), WorkerMap({7: "a", 3: "b"})):
        with pytest.raises(KeyError) as error:
            found[700]
        assert error.value.args == (700,)
        with pytest.raises(KeyError) as error:
            found[4]
        assert error.value.args == (4,)
    assert repr(WorkerMap({7: "a"})) == "WorkerMap({7: 'a'})" and repr(WorkerSet([7])) == (
        "WorkerSet({7})")


@pytest.mark.parametrize("number", [2048, 65536])
def test_a_change_copies_a_small_part(number):
    whole = WorkerMap(dict.fromkeys(range(number), 0))
    changed = whole.put(100, 1)
    shared = sum(block is whole._blocks[name] for name, block in changed._blocks.items())
    assert shared == len(whole._blocks) - 1 and max(map(len, whole._blocks.values())) == 64
    assert whole.without(number) is whole
