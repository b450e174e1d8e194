"""What check-data found, as text, as JSON and as a picture of the partition."""

from typing import Any, Dict, List

import numpy as np

from flq.learning.data_check import Checked, class_name, form
from flq.reports.terminal import clip, columns
from flq.settings import Config

_MOST_ROWS = 32     # workers, or columns, that are shown
_MOST_COUNTS = 12   # classes whose numbers of samples are shown; more are drawn as shades
_SHADES = " .:-=+*#%@"
_BAR = 24


def text(config: Config, checked: Checked) -> str:
    """The tables, and a line for each warning and each reason why the data cannot be used."""
    parts = []
    if checked.dataset is not None:
        rows = form(config, checked)
        width = max(len(name) for name, _ in rows)
        parts.append([f"{name.ljust(width)}  {clip(value, 400)}" for name, value in rows])
        parts.append(_partition(config, checked))
        parts.append(_features(checked))
    said = [f"warning: {line}" for line in checked.warnings]
    said += [f"unusable: {line}" for line in checked.errors]
    parts.append([clip(line, 1000) for line in said or ["ok: nothing is wrong with these data"]])
    return "\n\n".join("\n".join(part) for part in parts if part)


def to_json(config: Config, checked: Checked) -> Dict[str, Any]:
    """The same as JSON values."""
    shown: Dict[str, Any] = {"dataset": config.dataset.name, "usable": not checked.errors,
                             "errors": checked.errors, "warnings": checked.warnings}
    dataset, features = checked.dataset, checked.columns
    if dataset is not None and features is not None:
        shown.update(
            num_train=len(dataset.y_train), num_test=len(dataset.y_test),
            shape=list(dataset.x_train.shape[1:]), dtype=str(dataset.x_train.dtype),
            classes=[class_name(dataset, label) for label in range(dataset.num_classes)],
            compared=checked.hash, test_counts=_list(checked.test_counts),
            workers=None if checked.counts is None else checked.counts.tolist(), columns=[{
                "name": dataset.features[place] if dataset.features else str(place),
                "low": features.low[place], "high": features.high[place],
                "mean": features.mean[place], "deviation": features.deviation[place]
            } for place in range(len(features.low))])
    return shown


def _list(values: Any) -> Any:
    return None if values is None else values.tolist()


def _partition(config: Config, checked: Checked) -> List[str]:
    """Each worker's samples: how many, as a bar, and of which labels."""
    if checked.counts is None or checked.dataset is None:
        return []
    counts = checked.counts
    names = [class_name(checked.dataset, label) for label in range(counts.shape[1])]
    shaded = len(names) > _MOST_COUNTS
    rows = [["worker", "samples", ""] + (["labels from the first to the last"]
                                         if shaded else [clip(name, 12) for name in names])]
    most, deepest = max(1, int(counts.sum(axis=1).max())), max(1, int(counts.max()))
    for worker, row in enumerate(counts[:_MOST_ROWS]):
        bar = "#" * max(1, round(_BAR * int(row.sum()) / most)) if row.sum() else ""
        cells = ["".join(_shade(int(count), deepest) for count in row)
                 ] if shaded else [str(count) for count in row]
        name = "this one" if config.dataset.partition == "local" else str(worker)
        rows.append([name, str(row.sum()), bar.ljust(_BAR)] + cells)
    sizes = counts.sum(axis=1)
    lines = columns(rows).split("\n")
    if len(counts) > _MOST_ROWS:
        lines.append(f"... {len(counts) - _MOST_ROWS} more workers; all have {sizes.min()} to "
                     f"{sizes.max()} samples")
    return [f"partition {config.dataset.partition}"] + lines


def _shade(count: int, most: int) -> str:
    if not count:
        return _SHADES[0]
    return _SHADES[1 + int((len(_SHADES) - 2) * count / most)]


def _features(checked: Checked) -> List[str]:
    features, dataset = checked.columns, checked.dataset
    if features is None or dataset is None:
        return []
    rows = [["feature", "lowest", "highest", "mean", "deviation"]]
    for place in range(min(len(features.low), _MOST_ROWS)):
        name = clip(dataset.features[place], 40) if dataset.features else str(place)
        rows.append([name] + [f"{values[place]:.4g}" for values in features])
    lines = columns(rows).split("\n")
    if len(features.low) > _MOST_ROWS:
        lines.append(f"... {len(features.low) - _MOST_ROWS} more features")
    return lines


def draw(path: str, config: Config, checked: Checked) -> None:
    """A PNG of the partition: a row a worker, a column a label, and beside it each worker's size.

    Raises DataError when the disk refuses.
    """
    from pathlib import Path

    from flq.reports.plots import COLOURS, label, new_figure, save
    assert checked.counts is not None and checked.dataset is not None
    counts = checked.counts
    figure, (shares, sizes) = new_figure(
        f"{config.dataset.name}, partition {config.dataset.partition}", 2)
    figure.set_size_inches(10, min(12.0, max(3.0, 1.6 + 0.28 * len(counts))))
    picture = shares.imshow(counts, cmap="Blues", aspect="auto", interpolation="nearest", vmin=0)
    shares.grid(False)
    figure.colorbar(picture, ax=shares, label="training samples")
    shares.set(xlabel="label", ylabel="worker")
    if counts.shape[1] <= _MOST_ROWS:
        names = [label(class_name(checked.dataset, k)[:12]) for k in range(counts.shape[1])]
        shares.set_xticks(range(counts.shape[1]), names,
                          rotation=90 if max(map(len, names)) > 3 else 0)
    if counts.size <= 160:
        for (worker, k), count in np.ndenumerate(counts):
            shares.text(k, worker, str(count), ha="center", va="center", fontsize=7,
                        color="white" if 2 * count > counts.max() else "black")
    sizes.barh(range(len(counts)), counts.sum(axis=1), color=COLOURS[0])
    sizes.set(xlabel="training samples", ylim=(len(counts) - 0.5, -0.5))
    for ax in (shares, sizes):
        if len(counts) <= _MOST_ROWS:
            ax.set_yticks(range(len(counts)))
    save(figure, Path(path))
