"""One round on the master: everything that changes when it closes (algorithm.md 1 and 3).

`close_round` is a pure function of the model's state and of the answers. It returns new records
and changes none, so that nothing is adopted before it is stored, and a replay computes the same
bits.
"""

import math
import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from flq.algorithm import (
    aggregation,
    bounds,
    cohorts,
    downlink,
    lazy,
    memories,
    robust,
    server_optimizers,
)
from flq.algorithm.aggregation import Bidder, Committed
from flq.algorithm.averaging import Average, average_after
from flq.algorithm.bounds import Examined
from flq.algorithm.lazy import NEVER_COMMITTED
from flq.algorithm.memories import Memory
from flq.algorithm.model_state import (
    Account,
    Answers,
    Closed,
    Departure,
    ModelState,
    Upload,
    Waiting,
)
from flq.algorithm.uplink import first_reference_hash
from flq.compression import codec
from flq.errors import FlqError
from flq.kernels import largest_magnitude, squared_norm, stepped
from flq.parameters import Layout, params_hash
from flq.pieces import PIECE, pieces
from flq.settings import Config, LazySelectionSection

OnEncoded = Callable[[codec.Encoded, Optional[np.ndarray]], None]
Start = Callable[..., Callable[[], Any]]
"""start(function, *arguments) -> result(): begins a computation whose result is asked for later."""


def at_once(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A function's result, computed here and now."""
    result = function(*arguments)
    return lambda: result


class NonFiniteError(FlqError):
    """The run diverges: v or theta is not finite, or no update can be taken. The round is not
    committed and the run pauses.
    """


def initial_state(config: Config, layout: Layout, params: np.ndarray,
                  non_trainable: np.ndarray) -> ModelState:
    """Version 0: theta = theta_hat of every cohort, nobody is a member."""
    optimizer = server_optimizers.configured(config.model)
    memory = memories.configured(config.flq_algorithm)
    kept = robust.initial(config.flq_algorithm, layout.num_params)
    has_sum = memory.has_reference_sum and kept is None
    reference_sum = np.zeros(layout.num_params, np.float64) if has_sum else None
    activity = downlink.initial_activity(downlink.settings_from(config, layout))
    average = Average(params, non_trainable) if config.model.averaging else None
    return ModelState(0, params, params, non_trainable, params_hash(params, non_trainable),
                      optimizer.init(layout.num_params), reference_sum, (), {},
                      activity, (Waiting(params, activity),) * (config.system.cohorts - 1), average,
                      robust=kept)


def open_account(model: ModelState, run_id: str, worker: int, num_samples: int,
                 uniform: bool) -> ModelState:
    """The model with an account for a worker that registers for the first time."""
    accounts = dict(model.accounts)
    accounts[worker] = Account(1.0 if uniform else float(num_samples), num_samples, 0,
                               first_reference_hash(run_id, worker, 0), NEVER_COMMITTED, False, 0)
    return model._replace(accounts=accounts)


def resize(model: ModelState, sizes: Dict[int, int], uniform: bool) -> ModelState:
    """The model with other numbers of samples, by worker.

    What A holds of a member has its old weight: it must depart first.
    """
    accounts = dict(model.accounts)
    for worker, num_samples in sizes.items():
        if accounts[worker].member:
            raise FlqError(f"worker {worker} is a member and cannot be weighed anew")
        accounts[worker] = resized(accounts[worker], num_samples, uniform)
    return model._replace(accounts=accounts)


def resized(account: Account, num_samples: int, uniform: bool) -> Account:
    return account._replace(weight=1.0 if uniform else float(num_samples), num_samples=num_samples)


def history_sum(rule: LazySelectionSection, model: ModelState) -> float:
    """What the broadcast of this model carries for the lazy rule."""
    return lazy.history_sum(model.norms, rule.ck, rule.D)


def is_overdue(account: Account, max_skips: int) -> bool:
    """True for who is selected first: silent or refused for C = max_skips turns, or not a member
    yet.
    """
    return not account.member or account.clock >= max_skips


def candidate_weight(total_weight: float, account: Account) -> float:
    """w_m of a bid: n_m / N, before membership n_m / (N + n_m)."""
    return account.weight / (total_weight if account.member else total_weight + account.weight)


def depart(model: ModelState, run_id: str, departures: Sequence[Departure]) -> ModelState:
    """A / a -= n_m g_m and N -= n_m, in worker order; the worker's next commit starts from h = 0 in
    a new epoch.

    When no member remains A is 0, without what its roundings left.
    """
    accounts, reference_sum, exact = dict(model.accounts), model.reference_sum, False
    for departure in sorted(departures, key=lambda item: item.worker):
        account = accounts[departure.worker]
        if account.member and reference_sum is not None:
            if departure.reference is None:
                raise FlqError(
                    f"worker {departure.worker} is a member but its reference is missing")
            reference_sum = reference_sum - np.multiply(departure.reference, account.weight,
                                                        dtype=np.float64)
            exact = departure.reference.dtype == np.float64
        accounts[departure.worker] = departed(run_id, departure.worker, account)
    observed = model.observed and bounds.forget(model.observed,
                                                [departure.worker for departure in departures])
    kept = model.robust and robust.without(model.robust,
                                           [departure.worker for departure in departures])
    left = model._replace(accounts=accounts, reference_sum=reference_sum, observed=observed,
                          robust=kept)
    return left._replace(
        reference_sum=np.zeros_like(reference_sum)) if exact and not left.members else left


def departed(run_id: str, worker: int, account: Account) -> Account:
    """The account of a worker whose reference is reset: no member, a new epoch."""
    epoch = account.epoch + 1
    return account._replace(epoch=epoch, reference_hash=first_reference_hash(run_id, worker, epoch),
                            clock=NEVER_COMMITTED, member=False, absent=0, activity=None)


@np.errstate(over="ignore", invalid="ignore")  # what overflows is caught as non-finite
def close_round(model: ModelState, answers: Answers, config: Config, layout: Layout,
                local_steps_of: Callable[[int], int],
                on_encoded: OnEncoded = lambda encoded, history: None,
                start: Start = at_once) -> Closed:
    """Aggregate, step, encode the next broadcast. Departures were applied before (`depart`).

    local_steps_of(num_samples) -> E_m, for the default server rate. on_encoded is called with the
    next broadcast and what it is coded beside, while there is more to compute. start: begins half
    of the sum, and the average; it may use another thread.
    Raises NonFiniteError when v or theta is not finite; the given model is then still the current
    one.
    """
    algorithm, selected = config.flq_algorithm, {upload.worker for upload in answers.uploads}
    memory, num_cohorts = memories.configured(algorithm), config.system.cohorts
    accounts = _settle(model.accounts, answers, model.version, num_cohorts)
    joined = model._replace(accounts=accounts)
    members = joined.members
    turn = [worker for worker in members if cohorts.plays(worker, model.version, num_cohorts)]

    combined = (_averaged(joined, answers, turn, config, start) if model.robust is None else
                _bounded(joined, answers, turn, config))
    v = combined.direction

    params, optimizer, norms, lr, norm2 = model.params, model.optimizer, model.norms, 0.0, 0.0
    if v is not None:
        v, norm2 = _clip(v, algorithm.clip_global)
        _require_finite(math.isfinite(norm2), "the direction v", str(norm2))
        steps = [local_steps_of(accounts[worker].num_samples) for worker in members]
        # a number of samples is what its worker says
        middle = sum(steps) / len(steps) if model.robust is None else statistics.median(steps)
        lr = server_optimizers.server_lr(config.model, middle)
        lr *= server_optimizers.selected_scale(algorithm, len(selected), len(turn))
        step, optimizer = server_optimizers.configured(config.model).apply(optimizer, v)
        params = stepped(params, np.float32(lr), step)
        _require_finite(math.isfinite(largest_magnitude(params)), "the model theta", "inf or nan")

    # Whose turn the next round is comes first.
    base, *waiting = (*model.waiting, Waiting(model.broadcast, model.activity))
    encoded, broadcast = downlink.encode(params, base.broadcast, model.version,
                                         downlink.settings_from(config, layout), base.activity)
    on_encoded(encoded, base.activity)
    norms = lazy.push_norm(norms, norm2, config.lazy_selection.D)
    non_trainable = combined.non_trainable
    average = start(average_after, model.average, model.version, Average(params, non_trainable),
                    config.model.averaging)
    digest = params_hash(broadcast, non_trainable)
    observed = model.observed and bounds.observe(model.observed, memory,
                                                 examined(model, answers.uploads, memory))
    new = ModelState(model.version + 1, params, broadcast, non_trainable, digest, optimizer,
                     combined.reference_sum, norms, accounts,
                     codec.next_activity(base.activity, encoded), tuple(waiting), average(),
                     observed, combined.kept)
    return Closed(new, encoded, base.activity, combined.rho, lr, norm2,
                  history_sum(config.lazy_selection, new))


class _Combined(NamedTuple):
    """What is made of a round's answers. direction: v before it is clipped, None where the
    optimiser must not step. reference_sum, kept, non_trainable: of the new model.
    """

    direction: Optional[np.ndarray]
    rho: float
    reference_sum: Optional[np.ndarray]
    kept: Optional[robust.Kept]
    non_trainable: np.ndarray


def _averaged(model: ModelState, answers: Answers, turn: Sequence[int], config: Config,
              start: Start) -> _Combined:
    """With the mean (algorithm.md 3). model: with the accounts after the round. turn: the members
    whose turn it is.
    """
    algorithm, accounts, members = config.flq_algorithm, model.accounts, model.members
    memory, selected = memories.configured(algorithm), {upload.worker for upload in answers.uploads}
    committed = [
        Committed(u.worker, accounts[u.worker].weight, u.innovation) for u in answers.uploads
    ]
    rho = 1.0
    if memory.has_reference_sum:
        rho = aggregation.correction(
            algorithm.correction, _bidders(model, answers), selected,
            aggregation.effective_rho_max(algorithm.rho_max, len(members),
                                          config.budget_selection.sel_clients,
                                          config.system.cohorts))
    selected_weight = sum(accounts[worker].weight for worker in sorted(selected))
    # Only a reference says something of those whose turn it was not.
    averaged = members if memory.has_reference_sum else turn
    weight = sum(accounts[worker].weight for worker in averaged)
    v, reference_sum = _summed(model, memory, committed, weight, selected_weight, rho, start)
    non_trainable = aggregation.mean_non_trainable(
        [(u.worker, accounts[u.worker].weight, u.non_trainable) for u in answers.uploads],
        model.non_trainable)
    return _Combined(v, rho, reference_sum, None, non_trainable)


def _summed(model: ModelState, memory: Memory, committed: Sequence[Committed], weight: float,
            selected_weight: float, rho: float,
            start: Start) -> Tuple[Optional[np.ndarray], Optional[np.ndarray]]:
    """v, None where the optimiser must not step, and sum n_m g_m after the round, None where the
    master holds none. Piece by piece, so that D is never in memory as a whole.
    """
    before, length = model.reference_sum, model.params.size
    v = np.empty(length, np.float32)
    after = None if before is None else np.empty_like(before)

    def add(begin: int, end: int) -> bool:
        steps = True
        # Made here: NumPy 1 keeps in an errstate what its thread had before.
        with np.errstate(over="ignore", invalid="ignore"):
            for part in pieces(begin, end):
                weighted = aggregation.weighted_sum(committed, part)
                held = None if before is None else before[part]
                steps = memory.direction(held, weight, weighted, selected_weight, rho, v[part])
                if after is not None:
                    memory.accumulate(held, weighted, after[part])
        return steps

    middle = length // (2 * PIECE) * PIECE
    rest = start(add, middle, length)
    add(0, middle)
    return (v if rest() else None), after


def _bounded(model: ModelState, answers: Answers, turn: Sequence[int],
             config: Config) -> _Combined:
    """With a rule against bad workers (algorithm.md 11)."""
    assert model.robust is not None, "the run has such a rule"
    algorithm = config.flq_algorithm
    v, kept = robust.direction(model.robust, memories.configured(algorithm),
                               {u.worker: u.innovation for u in answers.uploads}, len(turn),
                               algorithm)
    non_trainable = robust.non_trainable({u.worker: u.non_trainable for u in answers.uploads},
                                         model.non_trainable, algorithm)
    return _Combined(v, 1.0, None, kept, non_trainable)


def examined(model: ModelState, uploads: Sequence[Upload], memory: Memory) -> List[Examined]:
    """What the bounds compare of a round's uploads. A residual holds what was not sent: an upload
    after n turns without a commit is n + 1 updates long."""
    def turns(account: Account) -> int:
        return 1 + (account.clock if memory.keeps_unsent and account.member else 0)

    return [Examined(upload.worker, upload.measure, turns(model.accounts[upload.worker]))
            for upload in sorted(uploads, key=lambda upload: upload.worker)
            if upload.measure is not None]


def _settle(accounts: Dict[int, Account], answers: Answers, round_: int,
            num_cohorts: int) -> Dict[int, Account]:
    """Chains and clocks after the round; who committed is a member from now on.

    For whose turn it was not nothing has happened.
    """
    settled = dict(accounts)
    uploads = {upload.worker: upload for upload in answers.uploads}
    answered = set(answers.skipped) | {worker for worker, _ in answers.refused}
    for worker, account in accounts.items():
        if worker in uploads:
            upload = uploads[worker]
            settled[worker] = account._replace(reference_hash=upload.reference_hash, clock=0,
                                               member=True, absent=0, activity=upload.activity)
        elif cohorts.plays(worker, round_, num_cohorts):
            absent = 0 if worker in answered else account.absent + 1
            settled[worker] = account._replace(clock=min(account.clock + 1, NEVER_COMMITTED),
                                               absent=absent)
    return settled


def _bidders(model: ModelState, answers: Answers) -> Sequence[Bidder]:
    """B: the members that bid, are missing, or were not asked, in worker order."""
    gains = dict(answers.refused)
    gains.update((upload.worker, upload.gain) for upload in answers.uploads)
    silent = set(answers.skipped)
    return [
        Bidder(worker, model.accounts[worker].weight, gains.get(worker)) for worker in model.members
        if worker not in silent
    ]


def _clip(v: np.ndarray, limit: float) -> Tuple[np.ndarray, float]:
    """v scaled to the norm `limit` where it is longer, and ||v||^2 as applied."""
    norm2 = squared_norm(v)
    if limit > 0 and norm2 > limit * limit:
        v = v * np.float32(limit / math.sqrt(norm2))
        norm2 = squared_norm(v)
    return v, norm2


def _require_finite(finite: bool, what: str, got: str) -> None:
    if not finite:
        raise NonFiniteError(
            f"{what} is not finite", "finite values", got,
            "lower model.lr or set flq_algorithm.clip_global with PATCH /config, then POST /resume")
