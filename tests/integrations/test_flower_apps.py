"""Flower's quickstarts in examples/, and what benchmarks/peers measures of them: their ServerApps
and ClientApps as they are, in one process, with every message written and read as Flower sends it.
"""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed here, tests/integrations/run.sh "
                    "flower-apps makes an environment with it")

import tomli  # noqa: E402
from flwr.app import Context, RecordDict  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

from benchmarks.peers import flower_accuracy, flower_processor  # noqa: E402
from benchmarks.peers.flower_messages import Messages  # noqa: E402
from flq.integrations.flower import FlqStrategy  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# example -> its framework, its package, how many rounds it needs to learn the digits
EXAMPLES = {"flower_quickstart": ("torch", "quickstart", 12),
            "flower_tensorflow": ("tensorflow", "tfexample", 5)}
# Of Keras and of TensorFlow's own code, not of the app's.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def settings_of(example):
    text = (ROOT / "examples" / example / "pyproject.toml").read_text()
    return tomli.loads(text)["tool"]["flwr"]["app"]["config"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_quickstart_learns_with_two_lines_of_flq(example, tmp_path, monkeypatch):
    framework, package, rounds = EXAMPLES[example]
    pytest.importorskip(framework, reason=f"{framework} is not installed here")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / example))
    client = __import__(f"{package}.client_app", fromlist=["app"])
    server = __import__(f"{package}.server_app", fromlist=["app"])
    config = dict(settings_of(example), **{
        "num-server-rounds": rounds, "fraction-evaluate": 1.0,
        "final-model": str(tmp_path / "final_model.keras")})
    grid = Messages(client.app, 2, config)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    tested = []
    aggregate = FlqStrategy.aggregate_evaluate
    monkeypatch.setattr(FlqStrategy, "aggregate_evaluate",
                        lambda *arguments: tested.append(aggregate(*arguments)) or tested[-1])
    server.app(grid, Context(1, 1, {}, RecordDict(), config))
    assert tested[-1]["eval_acc"] > 0.8 and len(tested) == rounds
    assert (tmp_path / "final_model.keras").stat().st_size > 50_000
    # Float32 would be four bytes for each of some 20,000 weights.
    assert grid.up < rounds * 2 * 15_000


def test_accuracy_per_bit_is_measured_once_and_read_from_what_was_kept(tmp_path, monkeypatch,
                                                                       capsys):
    pytest.importorskip("torch", reason="torch is not installed here")
    arguments = ["flower_accuracy.py", "--out", str(tmp_path), "--apps", "pytorch", "--updates",
                 "float32", "rd", "--dataset", "digits", "--nodes", "3", "--rounds", "4"]
    monkeypatch.setattr(sys, "argv", arguments)
    flower_accuracy.main()
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(kept) == ["pytorch-float32-0.json", "pytorch-rd-0.json"]
    whole, coded = (json.loads((tmp_path / name).read_text()) for name in sorted(kept))
    assert len(whole["points"]) == 4 and whole["weights"] == coded["weights"] == 9_258
    assert whole["points"][-1][2] > 8 * 4 * 3 * 4 * whole["weights"] > 8 * coded["points"][-1][2]
    capsys.readouterr()
    flower_accuracy.main()
    shown = capsys.readouterr()
    assert not shown.err and "| pytorch | rd | not reached |" in shown.out
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


def test_processor_time_is_that_of_the_mod_without_the_training():
    cells = flower_processor.measure("rd", flower_processor.MODELS["cnn_small"], 2, 4)
    plain = flower_processor.measure("float32", flower_processor.MODELS["cnn_small"], 2, 4)
    assert len(cells) == 4 and min(cells) > 0 and cells[0] > plain[0]
