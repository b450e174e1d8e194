# %% [markdown]
# # Three modes by accuracy per bit
#
# Each cell is one step: run them in an editor that knows `# %%`, or all of them with
#
#     python -m examples.from_python
#
# ROUNDS and WORKERS in the environment make it smaller or larger, PICTURE names the file.

# %%
import os

from matplotlib import pyplot

import flq

rounds, workers = int(os.environ.get("ROUNDS", "30")), int(os.environ.get("WORKERS", "4"))
common = flq.Config(max_rounds=rounds, total_workers=workers, partition="non_iid")
print(common)

# %% What the modes are
for mode in ("fedavg", "laq", "rd"):
    print(f"{flq.QUANTIZERS[mode].mode}: {flq.QUANTIZERS[mode].meaning}")

# %% What one update costs: the same numbers as every mode would send them
start = flq.simulate(common, max_rounds=1)
for mode in ("fedavg", "laq", "rd"):
    print(flq.quantize(start.weights, mode))

# %% Train with each
results = {mode: flq.simulate(common, mode=mode) for mode in ("fedavg", "laq", "rd")}
for result in results.values():
    print(result)

# %% Early stopping: the run ends with the first round that is good enough
target = results["laq"].rounds["accuracy"].max() / 2
short = flq.simulate(common, on_round=lambda record: record.accuracy < target)
print(f"accuracy {short.summary['accuracy']:.2f} after {len(short.rounds)} rounds")

# %% Accuracy against all bits, up and down
figure, axes = pyplot.subplots(figsize=(7, 4))
for mode, result in results.items():
    bits = (result.rounds["payload_bits_up"] + result.rounds["payload_bits_down"]).cumsum()
    axes.semilogx(bits, result.rounds["accuracy"], marker=".", label=mode)
axes.set(xlabel="bits, up and down, all workers", ylabel="test accuracy")
axes.grid(alpha=0.3)
axes.legend()
figure.tight_layout()
figure.savefig(os.environ.get("PICTURE", "from_python.png"), dpi=100)

# %% The model goes on as any Keras model does; it gives logits
best = max(results.values(), key=lambda result: result.summary["accuracy"])
best.model.summary()
