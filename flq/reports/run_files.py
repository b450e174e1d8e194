"""A run on disk: config.json, history.json and summary.json in results/<run_id>.

Standard library only.
"""

import itertools
import json
import math
import os
import statistics
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
    get_type_hints,
)

from flq.errors import ConfigError, DataError, in_one_line
from flq.keys import BY_PATH, check_value
from flq.records import RoundRecord, Run, WorkerRound
from flq.reports.json_files import fits, read_object

PathLike = Union[str, Path]

DIRECTIONS = ("up", "down")
KINDS = ("nominal", "payload", "wire", "float32")
STORE = "run.db"
"""What a run's folder has from its first moment on; the other files come with its end."""
FILES = ("config.json", "history.json", "summary.json")

_YEAR_9999 = 253370764800  # as a Unix time: beyond it nothing can show a date
# What json.load makes of the types in flq.records; bool is an int to isinstance, so types are
# compared exactly.
_JSON_TYPES: Dict[Any, Tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    Optional[int]: (int, type(None)),
    Optional[float]: (int, float, type(None)),
    Tuple[int, ...]: (list,),
}


def summarize(run_id: str, config: Dict[str, Dict[str, Any]], rounds: Sequence[Dict[str, Any]],
              worker_rounds: Sequence[Dict[str, Any]], phase: str,
              bits: Optional[Dict[str, Dict[str, Any]]] = None) -> Dict[str, Any]:
    """The numbers of a whole run.

    bits: {up, down: {nominal, payload, wire, float32}} of whoever counted what no round holds, such
    as the polls after the last one; without it the sums over the rounds, where wire is None unless
    every round measured it.

    accuracy and loss are those of the last tested round, seconds_per_round is a median, and
    compression is the float32 bits over the bits sent, None where nothing was sent or measured.
    cohorts, where there are several: the counts of the rounds of each.
    """
    tested = [record for record in rounds if record["accuracy"] is not None]
    times = [record["round_time_s"] for record in rounds]
    if bits is None:
        bits = {
            direction: {kind: _total_bits(rounds, kind, direction) for kind in KINDS}
            for direction in DIRECTIONS
        }
    return {
        "run_id": run_id, "dataset": config["dataset"]["name"], "model": config["model"]["name"],
        "mode": config["flq_algorithm"]
                ["mode"], "workers": config["system"]["total_workers"], "rounds": len(rounds),
        "phase": phase, "accuracy": tested[-1]["accuracy"] if tested else None,
        "loss": tested[-1]["loss"] if tested else None, "best_accuracy": max(
            record["accuracy"] for record in tested) if tested else None, "seconds":
                math.fsum(times), "seconds_per_round": statistics.median(times) if times else None,
        "bits": bits, "compression": {
            direction: {
                kind: compression(bits[direction]["float32"], bits[direction][kind])
                for kind in ("payload", "wire")
            } for direction in DIRECTIONS
        }, "skipped": sum(len(record["skipped"]) for record in rounds), "refused": sum(
            len(record["refused"]) for record in rounds), "missing": sum(
                len(record["missing"]) for record in rounds), "late": sum(
                    len(record["late"]) for record in rounds), "uploads": sum(
                        row["state"] == "accepted" for row in worker_rounds),
        "model_hash": rounds[-1]["params_hash"] if rounds else None,
        **_by_cohort(config["system"].get("cohorts", 1), rounds)
    }


def _by_cohort(cohorts: int, rounds: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """{cohorts: a row for each of several}, and nothing where there is one."""
    found: List[Dict[str, Any]] = []
    of_cohort: Dict[int, List[Dict[str, Any]]] = {}
    for record in rounds:
        of_cohort.setdefault(record["cohort"], []).append(record)
    for cohort in range(cohorts if cohorts > 1 else 0):
        played = of_cohort.get(cohort, [])
        row = {"cohort": cohort, "rounds": len(played)}
        for name, counted in (("uploads", "selected"), ("skipped", "skipped"),
                              ("refused", "refused"), ("missing", "missing"), ("late", "late")):
            row[name] = sum(len(record[counted]) for record in played)
        row["payload_bits_up"] = sum(record["payload_bits_up"] for record in played)
        found.append(row)
    return {"cohorts": found} if found else {}


def compression(float32_bits: Optional[int], bits: Optional[int]) -> Optional[float]:
    """How many times fewer bits than float32 were sent; None where nothing was due, sent or
    measured.
    """
    return float32_bits / bits if float32_bits and bits else None


def cumulative(values: Sequence[Any]) -> List[Any]:
    """Running sums; None from the first value on that was not measured."""
    return list(
        itertools.accumulate(
            values, lambda total, value: None if total is None or value is None else total + value))


def write_run(directory: PathLike, run: Run,
              write_reports: Optional[Callable[[Any, Run], List[Path]]] = None) -> List[Path]:
    """Write the three files, each one whole or not at all; returns the summary and the reports.

    The summary comes last and completes the run, after the files of write_reports(directory, run)
    where those are wanted. Numbers that are not finite become null. Raises DataError when the disk
    refuses.
    """
    directory = Path(directory)
    write_config(directory, run.config)
    _write_json(directory / "history.json", {"rounds": run.rounds, "workers": run.worker_rounds})
    reports = [] if write_reports is None else write_reports(directory, run)
    _write_json(directory / "summary.json", run.summary)
    return [directory / "summary.json"] + reports


def write_config(directory: PathLike, config: Dict[str, Dict[str, Any]]) -> None:
    """config.json alone, which is there as soon as the run is.

    Raises DataError when the disk refuses.
    """
    _write_json(Path(directory) / "config.json", config)


def is_written(directory: PathLike, run: Run) -> bool:
    """True when write_run wrote this run as it is, with all that was wanted then: its summary comes
    last.
    """
    try:
        return (Path(directory) / "summary.json").read_bytes() == _json_bytes(run.summary)
    except OSError:
        return False


def load_run(directory: PathLike) -> Run:
    """Read what write_run wrote. Raises ConfigError where there is no run, DataError naming a file
    that is missing, damaged or foreign.

    The summary is computed again from the history and the stored bits, so that no report can
    disagree with them; further keys of summary.json are kept.
    """
    directory = Path(directory)
    if not any((directory / name).exists() for name in FILES):
        need_run(directory)
    config = read_object(directory / "config.json")
    _check_config(directory / "config.json", config)
    path = directory / "history.json"
    history = read_object(path)
    rounds = _checked_rows(path, history, "rounds", RoundRecord)
    worker_rounds = _checked_rows(path, history, "workers", WorkerRound)
    path = directory / "summary.json"
    summary = read_object(path)
    for key in ("run_id", "phase"):
        if not isinstance(summary.get(key), str):
            raise DataError(f"{path} is damaged", f"a text {key}", json.dumps(summary.get(key)))
    _check_bits(path, summary.get("bits"))
    _check_devices(path, summary.get("devices", {}))
    computed = summarize(summary["run_id"], config, rounds, worker_rounds, summary["phase"],
                         summary["bits"])
    if "cohorts" not in computed:
        summary.pop("cohorts", None)  # no further key: it is computed where there are several
    summary.update(computed)
    return Run(summary["run_id"], config, rounds, worker_rounds, summary)


def need_run(directory: PathLike) -> None:
    """Raises ConfigError where a folder that somebody named holds no run's store, with the newest
    run near it.
    """
    directory = Path(directory)
    if (directory / STORE).exists():
        return
    got = "a folder without it" if directory.is_dir() else "a file" if directory.exists(
    ) else "no such folder"
    near = [
        path for folder in (directory, directory.parent, Path("results"))
        for path in folder.glob("*/" + STORE)
    ]
    hint = "runs are in results/<run_id>, or where logging.result_dir was"
    if near:
        hint += (
            f"; the newest near there is {max(near, key=lambda path: path.stat().st_mtime).parent}")
    raise ConfigError(f"there is no run in {directory}", "a folder with " + STORE, got, hint)


@contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the body succeeds; folders are made.

    Raises DataError with the path when the disk refuses; what was there then stays.
    """
    path = Path(path)
    sibling = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(sibling, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(sibling, path)
    except OSError as error:
        with suppress(OSError):
            # half a file helps nobody, and where the disk is full its room is wanted
            sibling.unlink()
        raise DataError(
            f"cannot write {path}", got=error.strerror or str(error),
            hint="make room or choose another folder with logging.result_dir") from error


def _total_bits(rounds: Sequence[Dict[str, Any]], kind: str, direction: str) -> Optional[int]:
    values: List[int] = [record[f"{kind}_bits_{direction}"] for record in rounds]
    if kind == "wire" and (not values or None in values):
        return None
    return sum(values)


def _write_json(path: Path, value: Any) -> None:
    with replacing(path) as file:
        file.write(_json_bytes(value))


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(_finite(value), indent=1, allow_nan=False) + "\n").encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_config(path: Path, config: Dict[str, Any]) -> None:
    for section, name, kind in (("dataset", "name", str), ("model", "name", str),
                                ("flq_algorithm", "mode", str), ("system", "total_workers", int)):
        if not isinstance(config.get(section), dict):
            raise DataError(f"{path} is damaged", f"a section {section}",
                            json.dumps(config.get(section)))
        if type(config[section].get(name)) is not kind:
            raise DataError(f"{path} is damaged", f"{section}.{name} of type {kind.__name__}",
                            json.dumps(config[section].get(name)))
    for section, keys in config.items():
        if not isinstance(keys, dict):
            raise DataError(f"{path} is damaged", f"{in_one_line(section)} as a section of keys",
                            json.dumps(keys)[:80])
    # a run has a number of them where a configuration can leave it to the other keys
    key, cohorts = BY_PATH["system.cohorts"]._replace(null_means=None), config["system"].get(
        "cohorts", 1)
    try:
        check_value(key, cohorts)
    except ConfigError:
        raise DataError(f"{path} is damaged", f"{key.path} as {key.allowed}", json.dumps(cohorts))


def _check_bits(path: Path, bits: Any) -> None:
    for direction in DIRECTIONS:
        for kind in KINDS:
            try:
                value = bits[direction][kind]
            except (KeyError, TypeError):
                raise DataError(f"{path} is damaged", f"a value bits.{direction}.{kind}", "none")
            if type(value) not in _JSON_TYPES[Optional[int] if kind == "wire" else int]:
                raise DataError(f"{path} is damaged", f"bits.{direction}.{kind} of type int",
                                json.dumps(value))
            if not fits(value):
                raise DataError(f"{path} is damaged", f"bits.{direction}.{kind} within 64 bits",
                                json.dumps(value)[:80])


def _check_devices(path: Path, devices: Any) -> None:
    if not isinstance(devices, dict) or not all(
            isinstance(report, dict) for report in devices.values()):
        raise DataError(f"{path} is damaged", "devices as an object of objects",
                        json.dumps(devices)[:80])


def _checked_rows(path: Path, history: Dict[str, Any], name: str,
                  record: Any) -> List[Dict[str, Any]]:
    rows = history.get(name)
    if not isinstance(rows, list):
        raise DataError(f"{path} is damaged", f"a list {name}", type(rows).__name__)
    fields = [(field, _JSON_TYPES[hint]) for field, hint in get_type_hints(record).items()]
    for index, row in enumerate(rows):
        where = f"{path}: {name}[{index}]"
        if not isinstance(row, dict):
            raise DataError(where + " is damaged", "a JSON object", type(row).__name__)
        for field, types in fields:
            if field not in row and field in record._field_defaults:
                row[field] = record._field_defaults[field]  # a run of before the field
            if field not in row:
                raise DataError(where + " is damaged", f"a value {field}", "none")
            value = row[field]
            if type(value) not in types or types == (list,) and any(
                    type(item) is not int for item in value):
                wanted = "integers" if types == (list,) else " or ".join(t.__name__ for t in types)
                raise DataError(where + " is damaged", f"{field} of type {wanted}",
                                json.dumps(value))
            if not fits(value):
                raise DataError(where + " is damaged", f"{field} within 64 bits",
                                json.dumps(value)[:80])
        if not 0 <= row.get("closed_at", 0) < _YEAR_9999:
            raise DataError(where + " is damaged", "closed_at as a Unix time", row["closed_at"])
    return rows
