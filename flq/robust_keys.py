"""What keys must say together beside a rule against bad workers (algorithm.md 11)."""

from flq.errors import ConfigError
from flq.modes import AGGREGATIONS, WITH_REFERENCES
from flq.settings import Config

_REFERENCES = " or ".join(WITH_REFERENCES)


def check(config: Config) -> None:
    """Raises ConfigError for a rule that cannot have enough updates, or with which something would
    count that workers say of themselves.
    """
    algorithm, system, budget = config.flq_algorithm, config.system, config.budget_selection
    if not AGGREGATIONS[algorithm.aggregation].is_robust:
        return
    name, bad = algorithm.aggregation, algorithm.bad_workers
    fewest = AGGREGATIONS[name].fewest(bad)
    rule = f"flq_algorithm.aggregation {name} with {bad} bad workers"
    if system.total_workers < fewest:
        raise ConfigError(f"{rule} needs more workers", f"system.total_workers {fewest} or more",
                          system.total_workers, "flq_algorithm.bad_workers sets how many are bad")
    for key, fits, reason in (
            ("weighting", "uniform", "a worker says itself how many samples it has"),
            ("correction", "none", "a worker says itself what its bid is worth")):
        value = getattr(algorithm, key)
        if value != fits:
            raise ConfigError(f"flq_algorithm.{key} does not fit aggregation {name}", fits, value,
                              f"{reason}; leave the key out")
    if algorithm.memory in WITH_REFERENCES:
        return
    # Then the rule sees the uploads of a round alone.
    alone = f"{rule} and memory {algorithm.memory} needs {fewest} uploads in every round"
    if budget.up_budget_bits:
        raise ConfigError(alone, "budget_selection.up_budget_bits 0", budget.up_budget_bits,
                          f"memory {_REFERENCES} goes with every budget")
    for path, number in (("budget_selection.sel_clients", budget.sel_clients or fewest),
                         ("system.min_workers", system.min_workers),
                         ("system.cohorts", system.total_workers // system.cohorts)):
        if number < fewest:
            raise ConfigError(alone, f"at least {fewest} with {path}", number,
                              f"memory {_REFERENCES} needs no more than so many members")
