#!/usr/bin/env python3
"""Relative error against bits per weight of every quantiser here, and of other projects' where they
are installed, beside Shannon's bound.

    # once, for --peers and for --updates
    benchmarks/peers/install.sh
    python benchmarks/real_updates.py --out build/real_updates.npz
    OMP_NUM_THREADS=1 python benchmarks/rate_distortion.py --updates build/real_updates.npz \\
        --peers build/peers --plot docs/rate_distortion.png

Data: N(0, 1e-2), p = 467,818 (the size of the cnn) as one tensor; the same times 1e-6; and the
innovations of the cnn that real_updates.py keeps, tensor by tensor, of which the mean over the
rounds is shown. bits: the body of a frame, with its scales. error: ||d - c|| / ||d||. Shannon's
bound for a normal source is log2(1 / error) bits. Times are processor time on the normal vector,
medians of --repeats, in processes that keep freed memory as FLQ's master and workers do
(flq/host/heap.py); the peers' too.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from candidates import ROTATED_SIGN  # noqa: E402

from flq import rng  # noqa: E402
from flq.compression import QUANTIZERS, codec, rate_distortion  # noqa: E402
from flq.host import heap  # noqa: E402

P = 467818
STEPS = (8.0, 4.0, 2.5, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.067)
GRIDS = [("laq", bits) for bits in (2, 3, 4, 5, 6, 8)] + [
    ("bbit", bits) for bits in (2, 3, 4, 5, 6, 8)
] + [("bin", 1)] + [("qsgd", bits) for bits in (2, 3, 4, 5, 6, 8)]
BLOCKS = [("laq", 2), ("laq", 3), ("laq", 4), ("bbit", 2), ("bbit", 3), ("bbit", 4), ("bin", 1),
          ("qsgd", 3), ("qsgd", 4)]
BLOCK_SIZES = (64, 256, 1024)
PEERS = Path(__file__).resolve().parent / "peers"


def candidates():
    """(name, settings, quantiser, bits, entropy coding, one radius or step for the vector)."""
    for name, bits in GRIDS:
        for coded in (False, True):
            yield name + (" coded"
                          if coded else ""), f"b = {bits}", QUANTIZERS[name], bits, coded, False
    for name, bits in BLOCKS:
        for size in BLOCK_SIZES:
            for coded in (False, True):
                label = f"{name}{' coded' if coded else ''}, blocks of {size}"
                quantizer = QUANTIZERS[name]._replace(block_size=size)
                yield label, f"b = {bits}", quantizer, bits, coded, False
    for vector in (False, True):
        for step in STEPS:
            yield "rd" + (" radius: vector" if vector else
                          ""), f"step {step}", rate_distortion.with_step(step), 8, True, vector
    yield "rotated sign (not in FLQ)", "b = 1", ROTATED_SIGN, 1, False, False


def measure(vector, sizes, quantizer, bits, coded, repeats):
    """Bits per weight, relative error, and median ms of encoding and decoding."""
    encoding, decoding = [], []
    for _ in range(repeats):
        start = time.process_time()
        body = codec.to_body(
            codec.encode(quantizer, vector, sizes, bits,
                         rng.Stream(0, rng.UPLINK).uniform), coded)
        middle = time.process_time()
        decoded = codec.decode(codec.from_body(body, quantizer, bits, sizes), sizes)
        encoding.append(middle - start)
        decoding.append(time.process_time() - middle)
    error = np.linalg.norm(vector - decoded) / np.linalg.norm(vector)
    return 8 * len(body.data) / vector.size, float(
        error), 1000 * statistics.median(encoding), 1000 * statistics.median(decoding)


def of_flq(vectors, repeats, only):
    """Rows of (name, setting, {vector: bits, error, encode ms, decode ms}) of the candidates whose
    name holds one of the texts, or of all without one.
    """
    for name, setting, quantizer, bits, coded, one_radius in candidates():
        if only and not any(text in name for text in only):
            continue
        yield name, setting, {
            key: measure(vector, (P,) if one_radius else sizes, quantizer, bits, coded,
                         repeats if key == "normal" else 1)
            for key, (vector, sizes) in vectors.items()
        }


def of_peers(vectors, repeats, folder):
    """The same rows, measured by peers/codecs.py in each peer's own environment."""
    with tempfile.TemporaryDirectory() as scratch:
        file = str(Path(scratch) / "vectors.npz")
        arrays = {key: vector for key, (vector, _) in vectors.items()}
        arrays.update({"sizes of " + key: np.array(sizes) for key, (_, sizes) in vectors.items()})
        np.savez(file, **arrays)
        for peer in ("nvflare", "bitsandbytes", "openfl", "fedlab"):
            python = Path(folder) / peer / "bin" / "python"
            if not python.exists():
                print(f"not measured: {peer} is not installed ({python})", file=sys.stderr)
                continue
            command = [str(python), str(PEERS / "codecs.py"), peer, file, "--repeats", str(repeats)]
            process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            for line in process.stdout.splitlines():
                if not line.startswith("{"):  # some say something when they start
                    continue
                row = json.loads(line)
                yield row["name"], row["setting"], {
                    key: tuple(values) for key, values in row["measured"].items()
                }
            if process.returncode:
                print(f"not measured to its end: {peer} (exit code {process.returncode})",
                      file=sys.stderr)


def cells(measured):
    """bits, error and distance of the normal vector, error of the small one, bits and error of the
    real ones, ms.
    """
    rate, error, encoding, decoding = measured["normal"]
    text = [
        f"{rate:.3f}", f"{error:.4f}", f"{rate + np.log2(error):.2f}", f"{measured['small'][1]:.4f}"
    ]
    if is_real(measured):
        text += [f"{point_of(measured, True)[0]:.3f}", f"{point_of(measured, True)[1]:.4f}"]
    return text + [f"{encoding:.1f}", f"{decoding:.1f}"]


def is_real(measured):
    return any(key.startswith("innovation") for key in measured)


def point_of(measured, real):
    """(bits, error) on the normal vector, or the means over the real ones."""
    chosen = [
        values for key, values in measured.items()
        if (key.startswith("innovation") if real else key == "normal")
    ]
    return float(np.mean([values[0] for values in chosen])), float(
        np.mean([values[1] for values in chosen]))


def plot(rows, path):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    kinds = [False, True] if is_real(rows[0][2]) else [False]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(1 + 6 * len(kinds), 6), squeeze=False,
                                     sharey=True)
    for axes, real in zip(panels[0], kinds):
        for name in dict.fromkeys(row[0] for row in rows):
            points = sorted(
                point_of(measured, real) for other, _, measured in rows if other == name)
            ours = re.split("[ ,]", name)[0] in QUANTIZERS
            axes.semilogy(*zip(*points), marker="." if ours else "x", label=name,
                          linestyle=":" if "blocks" in name else "--" if name.endswith("coded")
                          else "-")
        if not real:
            bits = np.linspace(0, 9, 50)
            axes.semilogy(bits, 2 ** -bits, "k", label="Shannon")
        axes.set(xlabel="bits per weight", title="innovations of the cnn" if real else "N(0, 1e-2)",
                 xlim=(0, 9), ylim=(4e-3, 2))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("relative error")
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--updates", help="the NPZ file of benchmarks/real_updates.py")
    parser.add_argument("--peers",
                        help="the folder of the environments that benchmarks/peers/install.sh made")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT",
                        help="of FLQ, only the rows whose name holds one of these")
    parser.add_argument("--plot", help="a PNG file to write")
    arguments = parser.parse_args()
    heap.keep_freed_memory()
    normal = (0.01 * np.random.RandomState(0).standard_normal(P)).astype(np.float32)
    vectors = {"normal": (normal, (P,)), "small": (normal * np.float32(1e-6), (P,))}
    if arguments.updates:
        with np.load(arguments.updates) as file:
            sizes = tuple(file["sizes"].tolist())
            vectors.update(
                {key: (file[key], sizes) for key in file.files if key.startswith("innovation")})
    heads = [
        "quantiser", "setting", "bits per weight", "relative error", "bits above Shannon",
        "error, times 1e-6"
    ]
    heads += ["cnn: bits per weight", "cnn: relative error"] if arguments.updates else []
    heads += ["encode ms", "decode ms"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    rows = []
    sources = [of_flq(vectors, arguments.repeats, arguments.only)]
    if arguments.peers:
        sources.append(of_peers(vectors, arguments.repeats, arguments.peers))
    for source in sources:
        for name, setting, measured in source:
            rows.append((name, setting, measured))
            print(f"| {name} | {setting} | {' | '.join(cells(measured))} |", flush=True)
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
