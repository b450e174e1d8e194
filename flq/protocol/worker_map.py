"""Maps and sets of workers that never change, and of which a changed copy is cheap.

The round machine makes a new state of each event. With dicts and frozensets an event would copy an
entry for each of M workers, and a round of M answers M^2. Here the entries lie in blocks by worker
id, and a copy with one entry changed shares all blocks but one.
"""

from itertools import chain
from typing import AbstractSet, Any, Dict, Iterable, Iterator, Mapping, TypeVar

Value = TypeVar("Value")

_BITS = 6  # 64 ids a block: for 2,048 workers a copy takes at most 32 + 64 entries


class WorkerMap(Mapping[int, Value]):
    """Worker id -> value."""

    def __init__(self, values: Mapping[int, Value]) -> None:
        blocks: Dict[int, Dict[int, Value]] = {}
        for worker, value in values.items():
            blocks.setdefault(worker >> _BITS, {})[worker] = value
        self._blocks, self._length = blocks, len(values)

    def put(self, worker: int, value: Value) -> "WorkerMap[Value]":
        """A copy with this value for the worker."""
        block = dict(self._blocks.get(worker >> _BITS, ()))
        length = self._length + (worker not in block)
        block[worker] = value
        return self._with(worker, block, length)

    def without(self, worker: int) -> "WorkerMap[Value]":
        """A copy without the worker, or this one where it is not in it."""
        if worker not in self:
            return self
        block = dict(self._blocks[worker >> _BITS])
        del block[worker]
        return self._with(worker, block, self._length - 1)

    def _with(self, worker: int, block: Dict[int, Value], length: int) -> "WorkerMap[Value]":
        copy: WorkerMap[Value] = WorkerMap.__new__(WorkerMap)
        copy._blocks, copy._length = dict(self._blocks), length
        copy._blocks[worker >> _BITS] = block
        return copy

    def __getitem__(self, worker: int) -> Value:
        block = self._blocks.get(worker >> _BITS)
        if block is None:
            raise KeyError(worker)
        return block[worker]

    def get(self, worker: int, default: Any = None) -> Any:
        block = self._blocks.get(worker >> _BITS)
        return default if block is None else block.get(worker, default)

    def __contains__(self, worker: Any) -> bool:
        block = self._blocks.get(worker >> _BITS)
        return block is not None and worker in block

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._blocks.values())

    def all_values(self) -> Iterator[Value]:
        """As values(), at the speed of a dict's."""
        return chain.from_iterable(block.values() for block in self._blocks.values())

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"WorkerMap({dict(self)})"


class WorkerSet(AbstractSet[int]):
    """Worker ids."""

    def __init__(self, workers: Iterable[int] = ()) -> None:
        self._map: WorkerMap[None] = WorkerMap(dict.fromkeys(workers))

    def put(self, worker: int) -> "WorkerSet":
        """A copy with the worker."""
        return self if worker in self else self._of(self._map.put(worker, None))

    def without(self, worker: int) -> "WorkerSet":
        """A copy without the worker, or this one where it is not in it."""
        return self._of(self._map.without(worker))

    @staticmethod
    def _of(workers: "WorkerMap[None]") -> "WorkerSet":
        copy = WorkerSet.__new__(WorkerSet)
        copy._map = workers
        return copy

    def __contains__(self, worker: Any) -> bool:
        return worker in self._map

    def __iter__(self) -> Iterator[int]:
        return iter(self._map)

    def __len__(self) -> int:
        return len(self._map)

    def __repr__(self) -> str:
        return f"WorkerSet({set(self)})"
