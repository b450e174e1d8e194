"""Whose turn a round is (algorithm.md 1, Cohorts): cohort k mod J plays round k, and worker m
belongs to cohort m mod J.

Each cohort has a broadcast model theta_hat_i of its own. Version k is the one that round k starts
from, so the versions of a cohort are those in its rounds, and before its first one it holds version
0, which is everybody's. (After cyclic participation, Cho 2023.)

Example, J = 3: version 7 is of cohort 1 and made from version 4, that from version 1, that from 0.
"""


def cohort_of(number: int, num_cohorts: int) -> int:
    """The cohort of a worker, and the one that plays a round or starts from a version."""
    return number % num_cohorts


def plays(worker: int, round_: int, num_cohorts: int) -> bool:
    """True when this round is the worker's turn."""
    return worker % num_cohorts == round_ % num_cohorts


def base_of(version: int, num_cohorts: int) -> int:
    """The version, from 1 on, that this one is a difference to: the last one of the same cohort."""
    return max(0, version - num_cohorts)


def newest_version(cohort: int, version: int, num_cohorts: int) -> int:
    """The newest version of a cohort where `version` is the newest of all."""
    return max(0, version - cohort_of(version - cohort, num_cohorts))


def last_turn(worker: int, round_: int, num_cohorts: int) -> int:
    """The last round before this one that was the worker's turn, negative before its first."""
    return round_ - 1 - cohort_of(round_ - 1 - worker, num_cohorts)
