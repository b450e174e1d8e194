"""Each part of a round is measured where it is done, without the parts inside of it."""

import argparse
import time

from benchmarks import round_profile


def test_a_short_profile_has_all_parts_of_both_sides():
    arguments = argparse.Namespace(workers=2, rounds=2)
    spent, (up, down) = round_profile.in_a_process("laq, coded", arguments)
    for side, parts in round_profile.PARTS.items():
        assert {label for who, label in spent if who == side} == {part for part, _, _ in parts}
    assert all(used >= 0 and seconds > 0 for used, seconds in spent.values())
    assert 50_000 < down < up < 234_000
    all_of = round_profile.cell(spent, "worker", "all")
    assert float(all_of.split()[0]) > float(round_profile.cell(spent, "worker", "norms").split()[0])


def test_what_is_inside_counts_once():
    class Owner:
        @staticmethod
        def inner():
            time.sleep(0.05)

        @staticmethod
        def outer():
            Owner.inner()

    meter = round_profile.Meter()
    meter._replace(Owner, "inner", {"worker": "inner"})
    meter._replace(Owner, "outer", {"worker": "outer"})
    Owner.outer()
    assert meter.spent["worker", "inner"][1] >= 0.05 > meter.spent["worker", "outer"][1]
    assert min(used for used, _ in meter.spent.values()) >= 0
