"""Greedy selection: overdue workers first, then the best gain, per bit where bits are scarce; who
broke its word comes last.
"""

from typing import Dict, NamedTuple, Sequence, Tuple

from flq.records import Option


class Candidate(NamedTuple):
    """One bidder. option.gain is raw; weight is w_m, so that the bid's gain is w_m^2 option.gain.

    overdue: its clock reached C, or it never committed. flagged: what it was granted lately it did
    not send, or not as it had said.
    """

    worker: int
    weight: float
    overdue: bool
    option: Option
    flagged: bool = False

    @property
    def gain(self) -> float:
        return self.weight * self.weight * self.option.gain


def select(candidates: Sequence[Candidate], sel_clients: int,
           budget_bits: int) -> Dict[int, Option]:
    """Who may upload, by worker id.

    Nothing set (0, 0): everybody. sel_clients: the best n. budget_bits: greedy by gain per bit,
    each one that still fits. Both: both hold. Ties go to the smaller worker id. A budget below the
    smallest bid grants the single best upload: silence for ever would be worse.
    """
    def rank(candidate: Candidate) -> Tuple[bool, bool, float, int]:
        value = candidate.gain / candidate.option.bits if budget_bits else candidate.gain
        return (candidate.flagged, not candidate.overdue, -value, candidate.worker)

    ranked = sorted(candidates, key=rank)
    limit = sel_clients or len(ranked)
    granted: Dict[int, Option] = {}
    spent = 0
    for candidate in ranked:
        if len(granted) == limit:
            break
        if budget_bits and spent + candidate.option.bits > budget_bits:
            continue
        granted[candidate.worker] = candidate.option
        spent += candidate.option.bits
    if not granted and ranked:
        granted[ranked[0].worker] = ranked[0].option
    return granted
