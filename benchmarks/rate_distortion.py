#!/usr/bin/env python3
"""Relative error against bits per weight for every quantiser, beside Shannon's bound; a table, and a plot with --plot FILE.

    python benchmarks/rate_distortion.py --plot docs/rate_distortion.png

Data: N(0, 1e-2), p = 467,818 (the size of the cnn) as one tensor. bits: the body of a frame, with its scales. error: ||d - c|| / ||d||.
Shannon's bound for a normal source is log2(1 / error) bits. Times are processor time, medians of --repeats.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import rng  # noqa: E402
from flq.compression import QUANTIZERS, codec, rate_distortion  # noqa: E402

P = 467818
STEPS = (8.0, 4.0, 2.5, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.067)
GRIDS = [("laq", bits) for bits in (2, 3, 4, 5, 6, 8)] + [("bbit", bits) for bits in (2, 3, 4, 5, 6, 8)] + [
    ("bin", 1)] + [("qsgd", bits) for bits in (2, 3, 4, 5, 6, 8)]


def candidates():
    """(name, settings, quantiser, bits, entropy coding)."""
    for name, bits in GRIDS:
        for coded in (False, True):
            yield name + (" coded" if coded else ""), "b = {}".format(bits), QUANTIZERS[name], bits, coded
    for step in STEPS:
        yield "rd", "step {}".format(step), rate_distortion.with_step(step), 8, True


def measure(vector, quantizer, bits, coded, repeats):
    """Bits per weight, relative error, and median ms of encoding and decoding."""
    sizes, encoding, decoding = (vector.size,), [], []
    for _ in range(repeats):
        start = time.process_time()
        body = codec.to_body(codec.encode(quantizer, vector, sizes, bits, rng.Stream(0, rng.UPLINK).uniform), coded)
        middle = time.process_time()
        decoded = codec.decode(codec.from_body(body, quantizer, bits, sizes), sizes)
        encoding.append(middle - start)
        decoding.append(time.process_time() - middle)
    error = np.linalg.norm(vector - decoded) / np.linalg.norm(vector)
    return 8 * len(body.data) / vector.size, error, 1000 * statistics.median(encoding), 1000 * statistics.median(decoding)


def plot(rows, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(7, 5))
    for name in dict.fromkeys(row[0] for row in rows):
        points = sorted((bits, error) for other, _, bits, error, _, _ in rows if other == name)
        axes.semilogy(*zip(*points), marker=".", label=name, linestyle="--" if "coded" in name else "-")
    bits = np.linspace(0, 8, 50)
    axes.semilogy(bits, 2 ** -bits, "k", label="Shannon")
    axes.set(xlabel="bits per weight", ylabel="relative error", xlim=(0, 8), ylim=(4e-3, 2))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plot", help="a PNG file to write")
    arguments = parser.parse_args()
    vector = (0.01 * np.random.RandomState(0).standard_normal(P)).astype(np.float32)
    print("| quantiser | setting | bits per weight | relative error | bits above Shannon | encode ms | decode ms |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for name, setting, quantizer, bits, coded in candidates():
        rows.append((name, setting) + measure(vector, quantizer, bits, coded, arguments.repeats))
        _, _, rate, error, encoding, decoding = rows[-1]
        print("| {} | {} | {:.3f} | {:.4f} | {:.2f} | {:.1f} | {:.1f} |".format(
            name, setting, rate, error, rate + np.log2(error), encoding, decoding), flush=True)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
