"""One configuration, one run: over HTTP with processes for the workers, and simulated in one
process, bit for bit.
"""

import pytest

from flq.modes import BLOCK, MODES
from tests.system.processes import ROOT, history_of
from tests.system.quadratic import simulate_here

REAL_PROGRAMS = {
    "master": (ROOT / "flq_master.py",), "worker": (ROOT / "flq_worker.py",),
    "simulation": ("-m", "flq", "simulate")
}

OVER_HTTP = [
    "mode=fedavg",
    "mode=laq thr_scale=100 local_lr=0.2",
    "mode=laq8 sel_clients=2 correction=count",
    "mode=bbit local_epochs=2 batch_size=50 weighting=uniform",
    "mode=bin memory=residual server_optimizer=adam up_budget_bits=200",
    "mode=qsgd b_down=32 clip_global=0.5",
    "mode=rd cohorts=2 memory_rate=0.4 server_optimizer=momentum",
    "mode=bbit memory=reference cohorts=3 thr_scale=100 local_lr=0.2 max_rounds=12",
    "mode=laq total_workers=5 cohorts=2 sel_clients=1 max_rounds=8",
    "mode=rd memory_rate=0.3 server_optimizer=momentum",
    "mode=rd rd_target_bits=9 downlink=rd rd_target_bits_down=8",
    "mode=laq b_up=2 radius=block block_size=16 radius_down=block block_size_down=32",
    "mode=laq downlink=rd entropy_coding_down=context",
    "mode=rd aggregation=median cohorts=2 server_optimizer=momentum",
    "mode=qsgd aggregation=trimmed_mean",
]
SIMULATED = [
    f"mode={row.name} memory={memory}{more}" for row in MODES.values() for memory in row.memories
    for more in ("", " sel_clients=1 local_epochs=1 weighting=uniform")
] + ["mode=bin memory_rate=0.1"] + [
    "mode=laq aggregation=krum bad_workers=0", "mode=rd aggregation=trimmed_mean sel_clients=2",
    "mode=laq aggregation=centered_clipping thr_scale=100 local_lr=0.2",
    "mode=bbit aggregation=median", "mode=fedavg aggregation=centered_clipping"
] + [
    f"mode={row.name} radius=block block_size=16 entropy_coding=true downlink={down} "
    "radius_down=block block_size_down=16" for row, down in zip(
        (row for row in MODES.values() if BLOCK in row.radii), ("laq", "bbit", "bin", "laq", "bin"))
]


def number_in(key, case, default):
    """The last word on a key in a case."""
    found = [word.partition("=")[2] for word in case.split() if word.startswith(key + "=")]
    return int(found[-1]) if found else default


def states(history):
    return {row["state"] for row in history[1]}


@pytest.mark.parametrize("case", OVER_HTTP)
def test_http_and_simulation_are_the_same_run(own_site, case):
    settings = ["total_workers=3", "max_rounds=5", "quorum=all"] + case.split()
    rounds, cohorts = number_in("max_rounds", case, 5), number_in("cohorts", case, 1)
    master = own_site.master(*settings)
    workers = [own_site.worker(ids, master)
               for ids in ("0", f"1-{number_in('total_workers', case, 3) - 1}")]
    simulated = simulate_here(own_site.directory / "simulation-run", settings)
    assert [program.wait() for program in workers + [master]] == [0, 0, 0]
    assert history_of(master.run_dir) == simulated
    assert len({record["params_hash"] for record in simulated[0]}) == rounds
    assert [record["cohort"] for record in simulated[0]] == [k % cohorts for k in range(rounds)]
    assert all(row["worker"] % cohorts == row["round"] % cohorts for row in simulated[1])
    assert ("skipped" in states(simulated)) == ("thr_scale" in case)
    assert ("refused" in states(simulated)) == ("sel_clients" in case or "up_budget_bits" in case)


@pytest.mark.parametrize("case", SIMULATED)
def test_two_simulations_are_the_same_run(tmp_path, case):
    settings = ["total_workers=3", "max_rounds=5"] + case.split()
    first, second = (simulate_here(tmp_path / name, settings) for name in ("first", "second"))
    assert first == second and len(first[0]) == 5


@pytest.mark.parametrize("downlink", [
    "rd", "rd b_down=16", "bbit b_down=16", "laq b_down=16", "bin", "rd rd_target_bits_down=2",
    "bbit b_down=16 radius_down=block block_size_down=16"
])
def test_how_the_broadcasts_are_coded_changes_no_model(tmp_path, downlink):
    settings = ["total_workers=3", "max_rounds=6", "sel_clients=2"] + f"downlink={downlink}".split()
    rows = {}
    for coding in ("false", "true", "context"):
        history = simulate_here(tmp_path / coding, settings + [f"entropy_coding_down={coding}"])
        rows[coding] = [{name: value for name, value in row.items() if name != "payload_bits_down"}
                        for row in history[0]], history[1]
    assert rows["false"] == rows["true"] == rows["context"]


@pytest.mark.parametrize("case", [
    "model.name=mlp mode=laq b_up=3 partition=non_iid thr_scale=0.05 local_steps=3",
    "model.name=examples.custom_model:build mode=bbit sel_clients=2 local_epochs=1 "
    "weighting=uniform"
], ids=["mlp", "custom_model"])
def test_tensorflow_gives_the_same_run_over_http_and_simulated(own_site, case):
    """Real programs on real data; the custom model has batch normalisation, whose moving statistics
    travel too.
    """
    settings = ["total_workers=3", "max_rounds=4", "quorum=all"] + case.split()
    master = own_site.master(*settings, script=REAL_PROGRAMS["master"])
    simulation = own_site.simulate(*settings, script=REAL_PROGRAMS["simulation"])
    workers = [own_site.worker(ids, master, "--allow", "examples.custom_model",
                               script=REAL_PROGRAMS["worker"]) for ids in ("0", "1-2")]
    assert [program.wait() for program in workers + [master, simulation]] == [0, 0, 0, 0]
    history = history_of(master.run_dir)
    assert history == history_of(own_site.directory / "simulation-run")
    assert history[0][-1]["accuracy"] > 0.5 and ("refused" in states(history)) == ("sel_clients"
                                                                                   in case)
