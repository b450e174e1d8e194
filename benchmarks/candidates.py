#!/usr/bin/env python3
"""Methods that are not in FLQ, beside those that are: a loop over the pure functions of
flq/algorithm, without a network.

    # measures what is not in the file yet, then prints the tables
    python benchmarks/candidates.py --out build/candidates.jsonl
    python benchmarks/candidates.py --out build/candidates.jsonl --table

Task: --dataset digits or fmnist, 10 workers, Dirichlet 0.1, cnn_small, 5 local steps of batch 32 or
64, 40 rounds, memory reference, the downlink of the defaults; accuracy is the mean of the last
three tests (rounds 30, 35, 40). Bits are payload bits up. What is compared:

one_bit   a randomised Hadamard rotation before the sign (DRIVE, Vargaftik 2021), beside bin and rd
          at about one bit
budget    adaptive_bits: every bid offers several widths, and the knapsack over (worker, width) is
          solved exactly
lazy      LASG-WK (Chen 2020) and a moving average of the updates, beside LAQ's rule
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flq import config, rng  # noqa: E402
from flq.algorithm import lazy, play, uplink  # noqa: E402
from flq.algorithm import round as rounds  # noqa: E402
from flq.algorithm.lazy import LazyTerms  # noqa: E402
from flq.algorithm.memories import MEMORIES  # noqa: E402
from flq.algorithm.selection import Candidate, select  # noqa: E402
from flq.compression import QUANTIZERS, rate_distortion  # noqa: E402
from flq.compression.quantizer import SMALLEST_SCALE, Quantizer  # noqa: E402
from flq.kernels import squared_norm, sum_f64  # noqa: E402
from flq.modes import Mode  # noqa: E402
from flq.records import Option  # noqa: E402

WORKERS, ROUNDS, LAST_TESTS = 10, 40, (30, 35, 40)
BLOCK = 2 ** 12
TASK = [
    f"total_workers={WORKERS}", "partition=non_iid", "dir_alpha=0.1", "model.name=cnn_small",
    "local_steps=5", f"max_rounds={ROUNDS}", "quorum=all", "mode=laq", "radius=tensor", "b_down=4",
    "averaging=0"
]
DATASETS = {
    "digits": ["dataset.name=digits", "batch_size=32"],
    "fmnist": ["dataset.name=fmnist", "batch_size=64"]
}


# --- one bit after a rotation


def rotated(values, signs, inverse):
    """The blocks of 2^12 entries times H D / 64 (or back), D the signs and H Hadamard's matrix; the
    rest as it is. float32[n].
    """
    out = values.astype(np.float32)
    if out.size < BLOCK:
        return out
    blocks = out[:out.size // BLOCK * BLOCK].reshape(-1, BLOCK)
    if not inverse:
        blocks *= signs
    width = 1
    while width < BLOCK:
        pairs = blocks.reshape(blocks.shape[0], -1, 2, width)
        low, high = pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]
        pairs[:, :, 0], pairs[:, :, 1] = low, high
        width *= 2
    blocks *= np.float32(BLOCK ** -0.5)
    if inverse:
        blocks *= signs
    return out


SIGNS = np.where(rng.Stream(0, 99).uniform(BLOCK) < 0.5, -1, 1).astype(np.float32)


def encode_rotated(values, bits, draw):
    turned = rotated(values, SIGNS, False)
    mean = sum_f64(np.abs(turned)) / turned.size
    scale = np.float32(mean) if mean >= SMALLEST_SCALE else np.float32(0)
    return scale, (turned > 0).astype(np.uint8)


def decode_rotated(scale, levels, bits):
    signs = levels.astype(np.float32) * np.float32(2) - np.float32(1)
    return rotated(signs * scale, SIGNS, True)


ROTATED_SIGN = Quantizer(Mode("rotated sign", wire_id=255, min_bits=1, max_bits=1,
                              bits=1), has_scale=True, max_level=lambda bits: 1,
                         encode=encode_rotated, decode=decode_rotated)


# --- several widths a bid


def knapsack(groups, budget):
    """The best choice of at most one (bits, gain) from each group within a budget: exact, by the
    list of undominated sums.

    groups: list of lists. Returns the chosen index of each group, -1 for none.
    """
    bits, gains, choices = np.zeros(1, np.int64), np.zeros(1), []
    for group in groups:
        all_bits = np.concatenate([bits] + [bits + option[0] for option in group])
        all_gains = np.concatenate([gains] + [gains + option[1] for option in group])
        origin = np.concatenate([np.arange(bits.size)] * (1 + len(group)))
        chosen = np.repeat(np.arange(-1, len(group)), bits.size)
        order = np.lexsort((-all_gains, all_bits))
        order = order[all_bits[order] <= budget]
        best = np.maximum.accumulate(all_gains[order])
        better = np.concatenate([[True], all_gains[order][1:] > best[:-1]])
        order = order[better]
        bits, gains = all_bits[order], all_gains[order]
        choices.append((chosen[order], origin[order]))
    place, picked = bits.size - 1, []
    for chosen, origin in reversed(choices):
        picked.append(int(chosen[place]))
        place = origin[place]
    return picked[::-1]


def select_widths(offers, budget):
    """offers: {worker: (weight, overdue, [Option, ...])} -> {worker: index of the option}.

    Overdue workers are served first.
    """
    picked = {}
    for overdue in (True, False):
        workers = [worker for worker in sorted(offers) if offers[worker][1] == overdue]
        groups = [[(option.bits, offers[worker][0]**2 * option.gain)
                   for option in offers[worker][2]] for worker in workers]
        for worker, index in zip(workers, knapsack(groups, budget)):
            if index >= 0:
                picked[worker] = index
                budget -= offers[worker][2][index].bits
    return picked


# --- the loop


class Method(object):
    """One way to run: the options that a bid offers as (quantiser, width, coded), the budget in
    bits a weight, and the lazy rule.
    """

    def __init__(self, options, budget=0.0, thr_scale=0.0, lazy_rule="laq", smoothing=0.0):
        self.options, self.budget, self.thr_scale = options, budget, thr_scale
        self.lazy_rule, self.smoothing = lazy_rule, smoothing


def plain(name, *widths):
    return [(QUANTIZERS[name], bits, False) for bits in widths]


def coded(name, *widths):
    return [(QUANTIZERS[name], bits, True) for bits in widths]


def rd(*steps):
    return [(rate_distortion.with_step(step), 8, True) for step in steps]


# A budget is three and a bit uploads of the smallest width that is worth sending, so that a mixture
# has room to pay.
SWEEPS = {
    "one_bit": {
        "bin": Method(plain("bin", 1)), "rotated sign": Method([(ROTATED_SIGN, 1, False)]),
        "rd, step 2.5": Method(rd(2.5)), "rd, step 2": Method(rd(2.0))
    }, "budget": {
        "laq, b = 3": Method(plain("laq", 3), 10), "laq, b = 4": Method(plain("laq", 4), 10),
        "laq, b of 3 to 8 offered": Method(plain("laq", 3, 4, 5, 6, 8), 10),
        "bbit coded, b = 3": Method(coded("bbit", 3), 3.2), "bbit coded, b = 4": Method(
            coded("bbit", 4), 3.2), "bbit coded, b of 2 to 6 offered": Method(
                coded("bbit", 2, 3, 4, 5, 6),
                3.2), "rd, step 2.5": Method(rd(2.5), 3.2), "rd, step 1.5": Method(rd(1.5), 3.2),
        "rd, steps 4, 2.5, 1.5, 1 offered": Method(rd(4.0, 2.5, 1.5, 1.0), 3.2)
    }, "lazy": {"always": Method(plain("laq", 4))},
}
for _thr in (0.1, 0.3, 1.0):
    SWEEPS["lazy"][f"LAQ's rule, thr_scale {_thr}"] = Method(plain("laq", 4), thr_scale=_thr)
for _thr in (0.3, 1.0, 3.0):
    SWEEPS["lazy"][f"LASG, thr_scale {_thr}"] = Method(plain("laq", 4), thr_scale=_thr,
                                                       lazy_rule="lasg")
for _beta in (0.5, 0.8):
    for _thr in (0.0, 0.3, 1.0):
        _name = f"LAQ's rule, thr_scale {_thr}, smoothing {_beta}"
        SWEEPS["lazy"][_name] = Method(plain("laq", 4), thr_scale=_thr, smoothing=_beta)


def train(method, settings, learner, one_step):
    """Accuracy (mean of the last tests), payload bits up and uploads. one_step: a learner whose
    update is the first gradient.
    """
    layout, seed = learner.layout, settings.dataset.seed
    position = play.begin("candidates", settings, layout, *learner.initial(),
                          [learner.num_samples(worker) for worker in range(WORKERS)])
    each = [uplink.UplinkSettings(quantizer, MEMORIES["reference"], is_coded, layout.sizes)
            for quantizer, _, is_coded in method.options]
    smoothed, last_model, bits_up, uploads_up, accuracies = [None] * WORKERS, [
        None
    ] * WORKERS, 0, 0, []
    for round_ in range(ROUNDS):
        (model, uplinks), offers, proposals, answers = position, {}, {}, {}
        for worker in range(WORKERS):
            account = model.accounts[worker]
            result = learner.local_update(model.broadcast, model.non_trainable, worker, round_)
            if method.smoothing and smoothed[worker] is not None:
                update = np.float32(method.smoothing) * smoothed[worker] + np.float32(
                    1 - method.smoothing) * result.update
                result = result._replace(update=update)
            smoothed[worker] = result.update
            made = []
            for (_, bits, _), one in zip(method.options, each):
                draw = rng.Stream(seed, rng.UPLINK, worker, round_).uniform
                made.append(
                    uplink.propose(uplinks[worker]._replace(bits=bits), result, round_, one,
                                   LazyTerms(0, 0, 100, 1, 0, 1), draw))
            terms = play.lazy_terms(settings, model, worker)._replace(thr_scale=method.thr_scale)
            if method.thr_scale > 0 and last_model[worker] is not None:
                if method.lazy_rule == "lasg":
                    new = squared_norm(
                        one_step.local_update(model.broadcast, model.non_trainable, worker,
                                              round_).update -
                        one_step.local_update(last_model[worker], model.non_trainable, worker,
                                              round_).update)
                else:
                    new = squared_norm(made[0].committed.memory - uplinks[worker].memory)
                if lazy.should_skip(terms, round_, uplinks[worker].clock, new,
                                    made[0].residual_norm**2, uplinks[worker].last_error2):
                    answers[worker] = made[0], play.SKIPPED
                    continue
            proposals[worker] = made
            offers[worker] = (rounds.candidate_weight(model.total_weight, account),
                              rounds.is_overdue(account, settings.lazy_selection.C), [
                                  Option(proposal.bits, 8 * len(proposal.body.data), proposal.gain)
                                  for proposal in made
                              ])
        budget = int(method.budget * layout.num_params)
        if budget and len(method.options) > 1:
            granted = select_widths(offers, budget)
        else:
            granted = dict.fromkeys(
                select([
                    Candidate(worker, weight, overdue, options[0])
                    for worker, (weight, overdue, options) in offers.items()
                ], 0, budget), 0)
        for worker, made in proposals.items():
            best = max(proposal.gain for proposal in made)
            proposal = made[granted.get(worker, 0)]._replace(gain=best)
            answers[worker] = proposal, play.ACCEPTED if worker in granted else play.REFUSED
            if worker in granted:
                bits_up, uploads_up, last_model[worker] = bits_up + 8 * len(
                    proposal.body.data), uploads_up + 1, model.broadcast
        # Options differ in how they write; any of them reads what the others wrote.
        position, closed = play.close(position, [answers[worker] for worker in range(WORKERS)],
                                      settings, layout, each[0],
                                      lambda _: settings.model.local_steps)
        model = closed.model
        if round_ + 1 in LAST_TESTS:
            accuracies.append(learner.evaluate(model.broadcast, model.non_trainable).accuracy)
    return statistics.mean(accuracies), bits_up, uploads_up


def table(lines):
    for dataset in sorted({line["dataset"] for line in lines}):
        for sweep in SWEEPS:
            rows = {}
            for line in lines:
                if (line["dataset"], line["sweep"]) == (dataset, sweep):
                    rows.setdefault(line["name"], []).append(line)
            if not rows:
                continue
            print(f"\n### {sweep} on {dataset}\n")
            print(
                "| method | accuracy, mean (standard deviation) | up, Mbit | uploads | seeds "
                "|\n|---|---|---|---|---|"
            )
            for name, group in rows.items():
                mean = {
                    key: statistics.mean(line[key] for line in group)
                    for key in ("accuracy", "bits_up", "uploads")
                }
                spread = statistics.stdev(line["accuracy"]
                                          for line in group) if len(group) > 1 else 0.0
                print(
                    f"| {name} | {mean['accuracy']:.3f} ({spread:.3f}) | "
                    f"{mean['bits_up'] / 1000000.0:.1f} | {mean['uploads']:.0f} | {len(group)} |"
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="digits")
    parser.add_argument("--sweeps", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    path = Path(arguments.out)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if arguments.table:
        table(lines)
        return
    from flq.learning.learner import build_learner
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(line["dataset"], line["sweep"], line["name"], line["seed"]) for line in lines}
    for seed in arguments.seeds:
        overrides = TASK + DATASETS[arguments.dataset] + [f"seed={seed}"]
        settings = config.load(None, overrides).config
        learner = build_learner(settings, range(WORKERS), evaluate=True)
        one_step = build_learner(
            config.load(None, overrides + ["local_steps=1"]).config, range(WORKERS), evaluate=False)
        for sweep in arguments.sweeps:
            for name, method in SWEEPS[sweep].items():
                if (arguments.dataset, sweep, name, seed) in done:
                    continue
                accuracy, bits, uploads = train(method, settings, learner, one_step)
                line = {"dataset": arguments.dataset, "sweep": sweep, "name": name, "seed": seed,
                        "accuracy": accuracy, "bits_up": bits, "uploads": uploads}
                with open(path, "a") as file:
                    file.write(json.dumps(line) + "\n")
                print(
                    f"{arguments.dataset} {sweep} seed {seed} {name}: {accuracy:.4f}, "
                    f"{bits / 1e6:.2f} Mbit, {uploads} uploads",
                    flush=True)


if __name__ == "__main__":
    main()
