"""Small runs with known numbers."""

from pathlib import Path

from flq.config import build, to_dict
from flq.records import RoundRecord, Run, WorkerRound
from flq.reports.run_files import summarize


def round_record(round_, **changes):
    """Round k, in which three workers upload 100 (k + 1) payload bits together: 150 (k + 1) on the
    wire, 800 as float32.
    """
    values = {
        "round": round_, "version": round_ + 1, "accuracy": 0.5 + 0.1 * round_,
        "loss": 2.0 - 0.5 * round_, "train_loss": 1.9 - 0.5 * round_, "selected":
            (0, 1, 2), "skipped": (), "refused": (), "missing": (), "late":
                (), "members": 3, "nominal_bits_up": 80, "payload_bits_up": 100 * (round_ + 1),
        "wire_bits_up": 150 * (round_ + 1), "nominal_bits_down": 40, "payload_bits_down": 60,
        "wire_bits_down": 90, "float32_bits_up": 800, "float32_bits_down": 1200,
        "round_time_s": 1.0 + round_, "server_lr": 0.025, "rho": 1.0, "direction_norm2": 0.25,
        "history_sum": 0.125, "params_hash": f"{round_:016x}", "closed_at": 1700000000.0 + round_,
    }
    values.update(changes)
    return RoundRecord(**values)


def worker_round(round_, worker, state="accepted", **changes):
    values = {
        "round": round_, "worker": worker, "state": state, "b": 4,
        "payload_bits": 40 if state == "accepted" else 0, "gain": 0.5, "loss": 1.5, "clock": 0,
        "num_samples": 100 + worker, "residual_norm": None if state == "missing" else 0.25
    }
    values.update(changes)
    return WorkerRound(**values)


def make_run(records, worker_records=(), phase="FINISHED", run_id="digits-1", **config):
    """A Run as load_run would give it: JSON values, so lists instead of tuples. config:
    section__name=value.
    """
    nested = to_dict(build({key.replace("__", "."): value for key, value in config.items()}))
    nested = {section: dict(values) for section, values in nested.items()}
    rounds = [{
        name: list(value) if isinstance(value, tuple) else value
        for name, value in record.to_json().items()
    } for record in records]
    worker_rounds = [dict(row._asdict()) for row in worker_records]
    return Run(run_id, nested, rounds, worker_rounds,
               summarize(run_id, nested, rounds, worker_rounds, phase))


def three_rounds():
    """Four workers.

    Round 0 was the best; round 1 was not tested and has one worker of each kind.
    """
    records = [
        round_record(0, accuracy=0.75, missing=(3,)),
        round_record(1, accuracy=None, loss=None, selected=(1,), skipped=(0,), refused=(2,),
                     late=(3,)),
        round_record(2, selected=(1, 2, 3), missing=(0,)),
    ]
    states = [("accepted", "accepted", "accepted", "missing"),
              ("skipped", "accepted", "refused", "late"),
              ("missing", "accepted", "accepted", "accepted")]
    return make_run(
        records,
        [worker_round(k, m, state) for k, row in enumerate(states) for m, state in enumerate(row)])


def in_folders(**runs):
    """(folder, run) of each, as the commands hand them over."""
    return [(Path("results") / name, run) for name, run in runs.items()]
