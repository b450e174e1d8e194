"""The examples of docs/reports.md for MLflow and Weights & Biases, as they stand."""

import os
import subprocess
import sys

import pytest

from tests.guide_pages import ROOT, blocks
from tests.system.conftest import own_site  # noqa: F401


def example(package):
    (text,) = ["\n".join(block.lines) for block in blocks("docs/reports.md")
               if f"import {package}" in block.lines]
    return text


def run_it(site, package, **variables):
    """The example beside a run of five rounds."""
    assert site.simulate("total_workers=2", "max_rounds=5", run_dir="results/first").wait() == 0
    script = site.directory / "example.py"
    script.write_text(example(package))
    environment = dict(site.environment, PYTHONPATH=ROOT, **variables)
    subprocess.run([sys.executable, str(script)], cwd=str(site.directory), env=environment,
                   check=True)


def test_mlflow(own_site):  # noqa: F811
    pytest.importorskip("mlflow", reason="it is not installed here: pip install mlflow-skinny")
    run_it(own_site, "mlflow", MLFLOW_ALLOW_FILE_STORE="true",
           MLFLOW_TRACKING_URI=(own_site.directory / "store").as_uri())
    (metrics,) = own_site.directory.glob("store/*/*/metrics")
    assert {"accuracy", "payload_bits_up"} <= set(os.listdir(str(metrics)))
    lines = (metrics / "payload_bits_up").read_text().splitlines()
    assert [int(line.split()[2]) for line in lines] == list(range(5))
    assert (metrics.parent / "params" / "flq_algorithm.mode").read_text() == "laq"


def test_wandb(own_site):  # noqa: F811
    pytest.importorskip("wandb", reason="it is not installed here: pip install wandb")
    run_it(own_site, "wandb", WANDB_MODE="offline", WANDB_SILENT="true")
    (written,) = own_site.directory.glob("wandb/offline-run-*/run-*.wandb")
    assert written.read_bytes().count(b"payload_bits_up") >= 5
