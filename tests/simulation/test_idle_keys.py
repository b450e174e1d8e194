"""Keys that idle_keys.IDLE says change nothing: whole runs with and without them are the same, and
differ where no row holds.
"""

import json

import pytest

from flq import config, idle_keys
from tests.learning.test_idle_keys import CASES as LEARNING
from tests.system.quadratic import simulate_here

BASE = ("total_workers=3", "max_rounds=4", "eval_every=2")
LAZY = ("thr_scale=1", "batch_size=0")
THR = "lazy_selection.thr_scale is 0"
HISTORY = THR + " (only the recorded history_sum differs)"
DOWN = "flq_algorithm.b_down is 0 or 32"
SCALE = "flq_algorithm.scale_by_selected is false"
MEMORY = "flq_algorithm.memory is not reference"
BUDGET = ("sel_clients=1", "max_rounds=8")

# A row's path and reason: a value that is set, the settings in which the row holds, and some in
# which it does not. None: there the key's effect is one of time, which no simulation shows.
CASES = {
    ("system.min_workers", "system.quorum is all"): (2, (), None),
    ("system.start_workers", "system.quorum is all"): (3, (), None),
    # Of all three: the first round opens with them, whatever start_workers says.
    ("system.start_workers", "system.min_workers is not smaller"):
        (2, ("quorum=deadline", "round_deadline_s=600", "min_workers=3"), None),
    ("system.round_deadline_s", "system.quorum is all"): (0.1, (), None),
    ("system.longest_deadline_s", "system.quorum is all"): (0.1, (), None),
    # Of all three: else the first round opens with whoever is there first.
    ("system.longest_deadline_s", "system.round_deadline_s is set"):
        (0.1, ("quorum=deadline", "round_deadline_s=600", "min_workers=3"), None),
    ("system.absent_rounds", "system.quorum is all"): (1, (), None),
    ("model.momentum", "model.server_optimizer is sgd"): (0.5, (), ("server_optimizer=momentum",)),
    ("model.adam_beta2", "model.server_optimizer is not adam"):
        (0.5, ("server_optimizer=momentum",), ("server_optimizer=adam",)),
    ("model.adam_epsilon", "model.server_optimizer is not adam"):
        (0.5, (), ("server_optimizer=adam",)),
    ("flq_algorithm.downlink", DOWN): ("laq", ("b_down=32",), ()),
    ("security.max_samples", "dataset.partition is not local"): (1, (), None),
    ("security.max_weight_share", "dataset.partition is not local"):
        (0.01, (), ("partition=local",)),
    ("security.max_weight_share", "flq_algorithm.weighting is uniform"):
        (0.01, ("partition=local", "weighting=uniform"), ("partition=local",)),
    ("flq_algorithm.rd_step", "flq_algorithm.mode is not rd"): (0.5, (), ("mode=rd",)),
    ("flq_algorithm.rd_step_down", "flq_algorithm.downlink is not rd"):
        (0.5, (), ("downlink=rd",)),
    ("flq_algorithm.rd_step_down", DOWN): (0.5, ("downlink=rd", "b_down=0"), ("downlink=rd",)),
    ("flq_algorithm.rd_target_bits", "flq_algorithm.mode is not rd"): (3.0, (), ("mode=rd",)),
    ("flq_algorithm.rd_target_bits_down", "flq_algorithm.downlink is not rd"):
        (3.0, (), ("downlink=rd",)),
    ("flq_algorithm.rd_target_bits_down", DOWN):
        (3.0, ("downlink=rd", "b_down=0"), ("downlink=rd",)),
    ("flq_algorithm.rd_step", "flq_algorithm.rd_target_bits is set"):
        (0.5, ("mode=rd", "rd_target_bits=9"), ("mode=rd",)),
    ("flq_algorithm.rd_step_down", "flq_algorithm.rd_target_bits_down is set"):
        (0.5, ("downlink=rd", "rd_target_bits_down=9"), ("downlink=rd",)),
    ("flq_algorithm.radius_down", DOWN): ("block", ("b_down=32",), ()),
    ("flq_algorithm.block_size", "flq_algorithm.radius is not block"):
        (16, (), ("radius=block",)),
    ("flq_algorithm.block_size_down", "flq_algorithm.radius_down is not block"):
        (16, (), ("radius_down=block",)),
    ("flq_algorithm.block_size_down", DOWN): (16, ("radius_down=block", "b_down=0"),
                                              ("radius_down=block",)),
    ("system.master_side_information_mb", "flq_algorithm.entropy_coding is not context"):
        (0, (), ("mode=rd",)),
    ("system.master_side_information_mb", "the mode is never coded"):
        (0, ("mode=fedavg", "entropy_coding=context"), ("mode=rd",)),
    ("flq_algorithm.entropy_coding", "the mode is always coded"):
        (False, ("mode=rd", "entropy_coding=true", "model.name=cnn", "max_rounds=2"), None),
    ("flq_algorithm.entropy_coding", "the mode is never coded"): (True, ("mode=fedavg",), None),
    ("flq_algorithm.entropy_coding_down", "the downlink is always coded"):
        (False, ("downlink=rd", "model.name=cnn", "max_rounds=2"), ("model.name=cnn",
                                                                    "max_rounds=2")),
    ("flq_algorithm.entropy_coding_down", DOWN + ", and float32 is never coded"): (
        False, ("b_down=32", "model.name=cnn", "max_rounds=2"), ("model.name=cnn", "max_rounds=2")),
    ("flq_algorithm.sel_ref", SCALE): (9, (), ("scale_by_selected=true",)),
    ("flq_algorithm.scale_max", SCALE): (0.5, (), ("scale_by_selected=true",)),
    # It refuses runs, and changes none that it lets begin.
    ("system.references_mb", "flq_algorithm.aggregation is mean"): (0, (), None),
    ("system.references_mb", MEMORY): (0, ("memory=none", "aggregation=median"), None),
    ("flq_algorithm.bad_workers", "flq_algorithm.aggregation is mean"):
        (0, (), ("aggregation=trimmed_mean",)),
    ("flq_algorithm.memory_rate", MEMORY): (0.5, ("memory=residual",), ()),
    ("flq_algorithm.correction", MEMORY): ("none", BUDGET + ("memory=none",), BUDGET),
    ("flq_algorithm.rho_max", MEMORY): (1.1, BUDGET + ("memory=residual",), BUDGET),
    ("flq_algorithm.rho_max", "flq_algorithm.correction is none"):
        (1.1, BUDGET + ("correction=none",), BUDGET),
    ("lazy_selection.D", HISTORY): (2, ("max_rounds=8",), LAZY + ("max_rounds=8",)),
    ("lazy_selection.D", "lazy_selection.ck is 0, so that no step of the model counts"):
        (2, LAZY + ("max_rounds=8", "ck=0"), LAZY + ("max_rounds=8",)),
    ("lazy_selection.ck", HISTORY): (100.0, (), LAZY),
    ("lazy_selection.C", THR + " and there is no budget"): (2, (), BUDGET),
    ("lazy_selection.warmup", THR): (5, (), ("thr_scale=1e9", "ck=1e6")),
    ("lazy_selection.lazy_eps", THR): (1e6, (), LAZY),
}


def _run(directory, settings):
    """The history, without what the rows say is recorded all the same."""
    rounds, workers = simulate_here(directory, BASE + settings)
    return [{name: value for name, value in record.items() if name != "history_sum"}
            for record in rounds], workers


def _warnings(settings):
    loaded = config.load(None, ("quorum=all",) + BASE + settings)
    return idle_keys.without_effect(loaded.config, loaded.explicit)


def test_every_row_has_its_case():
    assert {(row.path, row.reason) for row in idle_keys.IDLE} == set(CASES) | set(LEARNING)
    assert len({(row.path, row.reason) for row in idle_keys.IDLE}) == len(idle_keys.IDLE)


@pytest.mark.parametrize("path, reason", sorted(CASES))
def test_a_run_is_the_same_with_and_without_the_key(tmp_path, path, reason):
    value, idle, alive = CASES[path, reason]
    key = (f"{path}={json.dumps(value)}",)
    assert [line for line in _warnings(idle + key) if line.startswith(path + " ")] == [
        f"{path} {json.dumps(value)} has no effect: {reason}"]
    assert _run(tmp_path / "without", idle) == _run(tmp_path / "with", idle + key)
    if alive is not None:
        assert _warnings(alive + key) == []
        assert _run(tmp_path / "alive", alive) != _run(tmp_path / "changed", alive + key)
