#!/usr/bin/env python3
"""What the default bounds cost a run whose workers are all honest.

    FLQ_DATA_DIR=DIR python benchmarks/honest_bounds.py --out FOLDER --rounds 40
    FLQ_DATA_DIR=DIR python benchmarks/honest_bounds.py --out FOLDER --rounds 40 \\
        --dataset benchmarks.writers:load --set partition=natural --set total_workers=30

Uneven data (Dirichlet 0.1), cnn_small, 10 workers, three seeds, the modes laq and bin, on
Fashion-MNIST; with the second command people who write differently. Each run is played once with
security.max_norm_ratio as it is by default and once with 0. Prints a Markdown table of uploads that
were taken and refused, the largest size of an upload in units of what was typical, and both
accuracies. Where nothing is refused both runs are the same bit for bit, which is compared. Exits
with 1 when 1 in 1,000 uploads or more were refused. A run that is there already is not run again.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from flq.algorithm import bounds, uplink  # noqa: E402
from flq.compression import codec  # noqa: E402
from flq.master.run.closing import stored_upload  # noqa: E402
from flq.master.store.events import Flagged  # noqa: E402
from flq.master.store.results import read_run  # noqa: E402
from flq.master.store.run_store import RunReader  # noqa: E402
from flq.master.stored.stored_run import stored_config  # noqa: E402
from flq.parameters import Layout  # noqa: E402
from flq.protocol.frames import Expected  # noqa: E402

LAST = 10  # tests whose mean is the accuracy of a run
MODES = ("laq", "bin")


@dataclasses.dataclass
class Cell:
    taken: int
    refused: int
    largest: float
    accuracy: float
    model: str


def simulate(directory, settings):
    if (directory / "summary.json").exists():
        return
    words = [word for setting in settings for word in ("--set", setting)]
    subprocess.run([sys.executable, "-m", "flq", "simulate", "--run_dir", str(directory), *words],
                   cwd=ROOT, check=True)


def read(directory):
    """What a stored run shows: sizes are measured as the master does."""
    with RunReader(directory) as store:
        meta = store.meta()
        config = stored_config(meta["config"])
        layout = Layout(tuple(map(tuple, meta["shapes"])), tuple(map(tuple, meta["state_shapes"])))
        settings = uplink.settings_from(config, layout)
        expected = Expected(meta["run_id"], layout, settings.sizes, settings.quantizer)
        observed, taken, largest = bounds.first_observed(bytes(8)), 0, 0.0
        for stored in store.rounds():
            uploads = []
            for answer in stored.answers:
                if answer.frame is None:
                    continue
                frame = stored_upload(store, answer.frame, expected)
                measure = bounds.measure(observed.key, settings.memory, codec.decode(
                    frame.encoded, settings.sizes), frame.non_trainable)
                uploads.append(bounds.Examined(answer.row.worker, measure, 1))
            taken += len(uploads)
            sizes = [bounds.size(observed, settings.memory, upload) for upload in uploads]
            middle = statistics.median([size for past in observed.recent for size in past] + sizes)
            largest = max(largest, max(sizes) / middle)
            observed = bounds.observe(observed, settings.memory, uploads)
        refused = sum(isinstance(event, Flagged) for event in store.events())
    run = read_run(directory)
    tested = [record["accuracy"] for record in run.rounds if record["accuracy"] is not None]
    return Cell(taken, refused, largest, statistics.mean(tested[-LAST:]),
                run.rounds[-1]["params_hash"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dataset", default="fmnist")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="further keys of every run")
    arguments = parser.parse_args()
    taken = refused = 0
    print("| mode | seed | uploads | refused | largest / typical | accuracy | without a bound |"
          "\n|---|---|---|---|---|---|---|")
    for mode in MODES:
        for seed in arguments.seeds:
            found = {}
            for ratio in (None, 0):
                directory = arguments.out / f"{mode}-{seed}{'' if ratio is None else '-off'}"
                simulate(directory, [
                    f"dataset.name={arguments.dataset}", "dataset.partition=non_iid",
                    "dir_alpha=0.1", "total_workers=10", "model.name=cnn_small",
                    f"max_rounds={arguments.rounds}",
                    f"seed={seed}", f"mode={mode}", "save_results=false", *arguments.set,
                    *([] if ratio is None else [f"max_norm_ratio={ratio}"])])
                found[ratio] = read(directory)
            bounded, free = found[None], found[0]
            assert bounded.refused or bounded.model == free.model, "the same run, bit for bit"
            taken, refused = taken + bounded.taken, refused + bounded.refused
            print(f"| {mode} | {seed} | {bounded.taken} | {bounded.refused} | "
                  f"{free.largest:.2f} | {bounded.accuracy:.4f} | {free.accuracy:.4f} |",
                  flush=True)
    print(f"\n{refused} of {taken + refused} uploads were refused")
    return int(1000 * refused >= taken + refused)


if __name__ == "__main__":
    sys.exit(main())
