"""What became of a worker's answer to a round: from the open round, or from what is stored
(protocol.md 1).

With late_updates apply an upload that missed its round is not lost: it is a difference to the
committed reference, and as long as that reference is the worker's, the next round that closes can
commit it (decision 14).
"""

from __future__ import annotations

from typing import Mapping

from flq.algorithm import cohorts
from flq.algorithm.model_state import Account
from flq.master.run.checks import Received
from flq.master.store.run_store import StoredRows
from flq.protocol import round_machine as machine
from flq.records import Outcome


def outcome_of(worker: int, round_: int, state: machine.RoundState, account: Account,
               received: Mapping[int, Received], store: StoredRows, apply_late: bool) -> Outcome:
    """The outcome of that round for the worker. account: as the open round sees it. received: the
    open round's uploads.
    """
    chain = account.reference_hash.hex()
    if round_ >= state.round:
        verdict = machine.verdict_so_far(state, worker)
        granted = (state.granted or {}).get(worker)
        return Outcome(round_, "open" if verdict == "none" else verdict,
                       granted.b if granted else 0, chain)
    found = store.answer(round_, worker)
    if found is not None and found[0].staleness == 0 and found[0].state in ("accepted", "refused",
                                                                            "skipped"):
        row, reference_hash = found
        return Outcome(round_, row.state, row.b if row.state == "accepted" else 0,
                       reference_hash.hex())
    if apply_late:
        applied = store.late_answer(round_, worker)
        if applied is not None:
            return Outcome(round_, "accepted", applied[0].b, applied[1].hex())
        return Outcome(round_, _still_possible(worker, round_, state, account, received), 0, chain)
    return Outcome(round_, "late", 0, found[1].hex() if found is not None else chain)


def _still_possible(worker: int, round_: int, state: machine.RoundState, account: Account,
                    received: Mapping[int, Received]) -> str:
    """granted: send the upload of that closed round now. open: it is here, or a later round can
    take it. late: it is lost.
    """
    turns = state.settings.cohorts
    last_commit = cohorts.last_turn(worker, state.round, turns) - turns * account.clock
    if state.phase == machine.FINISHED or worker in state.removed or last_commit >= round_:
        return "late"
    if worker in state.uploaded:
        return "open" if received[worker].computed_in == round_ else "late"
    if machine.owes(state, worker) == "bid":
        return "granted"
    return "late" if machine.verdict_so_far(state, worker) != "none" else "open"
