"""A run in which some compute with the compiled kernels and some with NumPy, and after a kill the
other way round, is the run that it would have been.
"""

from pathlib import Path

import pytest

from tests.system.processes import history_of
from tests.system.quadratic import check_replay, simulate_here

CASES = {
    "rd": ["mode=rd", "memory_rate=0.4", "cohorts=2", "max_rounds=10", "downlink=rd",
           "entropy_coding=true"],
    "laq": ["mode=laq", "memory=residual", "sel_clients=2", "server_optimizer=momentum"],
    "rule": ["mode=bbit", "aggregation=centered_clipping"],
}


def start(site, settings, path, port, numpy, name):
    """A master and its workers; numpy: which of the three processes compute with NumPy."""
    switches = [{"PYTHONPATH": path, "FLQ_KERNELS": "numpy" * switch} for switch in numpy]
    master = site.master(*settings, port=port, **switches[0])
    workers = [site.worker(ids, master, "--allow", "tests.quadratic", name=f"{name}-{ids}",
                           SECONDS_OF_TRAINING="0.05", **switch)
               for ids, switch in zip(("0", "1-2"), switches[1:])]
    return [master] + workers


def computes_with_numpy(program):
    return "kernels-" not in Path(f"/proc/{program.process.pid}/maps").read_text()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("numpy", [(True, False, True), (False, True, False)],
                         ids=["master_begins_with_numpy", "master_begins_compiled"])
def test_a_run_that_goes_on_with_the_other_arithmetic_is_the_same_run(own_site, with_library, case,
                                                                      numpy):
    settings = ["total_workers=3", "max_rounds=8", "quorum=all", "model.name=tests.quadratic:wide"]
    settings += CASES[case]
    programs = start(own_site, settings, with_library, 0, numpy, "before")
    port = programs[0].port
    programs[0].wait_for_round(4)
    assert tuple(map(computes_with_numpy, programs)) == numpy
    for program in reversed(programs):
        program.kill()
    programs = start(own_site, settings, with_library, port, [not switch for switch in numpy],
                     "after")
    assert [program.wait() for program in programs] == [0, 0, 0]
    assert history_of(programs[0].run_dir) == simulate_here(own_site.directory / "here", settings)
    check_replay(own_site)
