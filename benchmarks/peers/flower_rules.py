"""Flower's aggregation functions on the vectors of benchmarks/robust_rules.py, which runs this with
the Python of Flower's environment (benchmarks/peers/install.sh flwr).

On standard input, for each call a line of JSON (rule, bad, samples of each client, p) and the
float32 vectors one after the other; on standard output a line of JSON (seconds of processor time)
and the float32 result.
"""

import json
import sys
import time

import numpy as np
from flwr.server.strategy import aggregate as flower

RULES = {
    "mean": lambda results, bad: flower.aggregate(results),
    "median": lambda results, bad: flower.aggregate_median(results),
    "trimmed_mean": lambda results, bad: flower.aggregate_trimmed_avg(results, bad / len(results)),
    # FedAvg with multi-Krum keeps as many as FLQ does
    "krum": lambda results, bad: flower.aggregate_krum(results, bad, len(results) - bad - 2),
}


def main():
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    for line in iter(lines.readline, b""):
        told = json.loads(line)
        length = 4 * told["p"]
        results = [([np.frombuffer(lines.read(length), np.float32)], samples)
                   for samples in told["samples"]]
        began = time.process_time()
        found = RULES[told["rule"]](results, told["bad"])[0]
        seconds = time.process_time() - began
        out.write(json.dumps({"seconds": seconds}).encode() + b"\n")
        out.write(np.asarray(found, np.float32).tobytes())
        out.flush()


if __name__ == "__main__":
    main()
