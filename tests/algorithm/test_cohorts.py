"""Whose turn a round is, against a list of all rounds."""

import pytest

from flq.algorithm import cohorts


@pytest.mark.parametrize("num_cohorts", [1, 2, 3, 7])
def test_turns_versions_and_bases_follow_from_the_list_of_rounds(num_cohorts):
    held = dict.fromkeys(range(num_cohorts), 0)  # version 0 is everybody's
    turns = {worker: [] for worker in range(10)}
    for round_ in range(30):
        if round_:  # version k is made for the cohort that plays round k
            cohort = cohorts.cohort_of(round_, num_cohorts)
            assert cohorts.base_of(round_, num_cohorts) == held[cohort]
            held[cohort] = round_
        for cohort, version in held.items():
            assert cohorts.newest_version(cohort, round_, num_cohorts) == version
        for worker, played in turns.items():
            last = cohorts.last_turn(worker, round_, num_cohorts)
            assert last == played[-1] if played else last < 0
            if cohorts.plays(worker, round_, num_cohorts):
                played.append(round_)
        assert any(played and played[-1] == round_ for played in turns.values())
    assert all(
        [later - earlier for earlier, later in zip(played, played[1:])] == [num_cohorts] *
        (len(played) - 1) for played in turns.values())
