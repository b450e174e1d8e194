"""Pictures of a run. Matplotlib's objects only, no pyplot and so no state: safe in any thread."""

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from flq.errors import in_one_line
from flq.records import Run
from flq.reports.comparison import total_bits
from flq.reports.run_files import DIRECTIONS, PathLike, replacing

# Okabe and Ito (2008): told apart by colour-blind eyes too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
_ANSWERS = (("selected", "#0072B2"), ("skipped", "#B8C4CC"), ("refused", "#E69F00"),
            ("missing", "#D55E00"), ("late", "#CC79A7"))
_ANSWERS_BY_ROUND, _BITS_BY_ROUND = "selected_skipped_by_round", "bits_by_round"
_LONGEST_LABEL = 90
_INCHES = {1: (10, 3.6), 2: (10, 4.2), 3: (15, 4.6)}


def write_plots(directory: PathLike, run: Run) -> List[Path]:
    """Draw accuracy_loss_by_round.png, accuracy_loss_by_bits.png and selected_skipped_by_round.png;
    in place of the last one bits_by_round.png, where all that answered was selected.

    Bits are those of both directions together but in the last one. Raises DataError when the disk
    refuses.
    """
    directory = Path(directory)
    paths = [save(figure, directory / (name + ".png")) for name, figure in figures(run)]
    for name in {_ANSWERS_BY_ROUND, _BITS_BY_ROUND} - {path.stem for path in paths}:
        with suppress(OSError):
            (directory / (name + ".png")).unlink()  # of an earlier look, when it was the other one
    return paths


def figures(run: Run) -> List[Tuple[str, Figure]]:
    """The three pictures of a run with their names."""
    last = (_BITS_BY_ROUND, _bits(run)) if _all_are_selected(run) else (_ANSWERS_BY_ROUND,
                                                                        _answers(run))
    return [("accuracy_loss_by_round", _by_round(run)), ("accuracy_loss_by_bits", _by_bits(run)),
            last]


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or SVG, as the path ends, and return the path."""
    with replacing(path) as file:
        if path.suffix == ".svg":
            file.write(svg(figure))
        else:
            FigureCanvasAgg(figure).print_png(file)
    return path


def svg(figure: Figure) -> bytes:
    """A figure as an SVG document; its letters are drawn, so that it looks the same everywhere."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return buffer.getvalue()


def new_figure(title: str, panels: int) -> Tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=_INCHES[panels], dpi=130, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.grid(True, color="#E3E7EA", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(label(title), fontsize=11, x=0.01, ha="left")
    return figure, axes


def label(text: str) -> str:
    """A text that Matplotlib draws as it stands: its own font has no CJK letters, and $ starts a
    formula. Longer ones are cut: they would leave no room for the curves.
    """
    text = in_one_line(text)
    if len(text) > _LONGEST_LABEL:
        text = text[:_LONGEST_LABEL - 3] + "..."
    return text.encode("ascii", "replace").decode("ascii").replace("$", r"\$")


def draw_curve(ax: Axes, x: Sequence[Optional[float]], y: Sequence[Optional[float]],
               name: str, colour: str, line: str = "-") -> None:
    """One curve of what was measured: pairs where x or y is None are left out."""
    points = [(a, b) for a, b in zip(x, y) if a is not None and b is not None]
    marker = "o" if len(points) <= 40 else None
    ax.plot([a for a, _ in points], [b for _, b in points], line, color=colour, label=label(name),
            marker=marker, markersize=3.5, linewidth=1.6)


def finish(ax: Axes, x_name: str, y_name: str, legend: bool = True) -> None:
    """Names, and a legend where something was drawn or a word where nothing was."""
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    if _drawn(ax, 0):
        if legend:
            ax.legend(frameon=False, fontsize=9)
    elif ax.patches:
        ax.legend(frameon=False, fontsize=9, loc="lower right", bbox_to_anchor=(1, 1),
                  ncols=len(ax.patches))
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(0.5, 0.5, "nothing was measured", transform=ax.transAxes, ha="center", va="center",
                color="#6B7780")


def draw_mean(ax: Axes, rows: Sequence[Tuple[float, ...]], name: str, colour: str,
              line: str = "-") -> None:
    """The first two columns of what comparison.band makes."""
    draw_curve(ax, [row[0] for row in rows], [row[1] for row in rows], name, colour, line)


def draw_band(ax: Axes, rows: Sequence[Tuple[float, ...]], name: str, colour: str,
              line: str = "-") -> None:
    """The same, on the area from the lowest to the highest of the curves."""
    ax.fill_between([row[0] for row in rows], [row[2] for row in rows], [row[3] for row in rows],
                    color=colour, alpha=0.18, linewidth=0)
    draw_mean(ax, rows, name, colour, line)


def time_unit(seconds: float) -> Tuple[str, int]:
    """The unit in which times up to this one read well, and how many seconds it has."""
    return next((pair for pair in (("hours", 3600), ("minutes", 60)) if seconds >= 3 * pair[1]),
                ("seconds", 1))


def round_axis(ax: Axes) -> None:
    """Whole numbers of rounds."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def accuracy_axis(ax: Axes) -> None:
    """Percent; from 0 to 100 where a single value sets no scale. Call it after drawing."""
    if len(set(_drawn(ax, 1))) < 2:
        ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))


def bits_axis(ax: Axes) -> None:
    """Logarithmic bits, with a tick at either end so that a short run has some too.

    Call it after drawing.
    """
    drawn = [bits for bits in _drawn(ax, 0) if bits > 0]
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(EngFormatter(unit="bit"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=9)
    if not drawn:
        return
    low, high = min(drawn), max(drawn)
    steps = (1, 2, 5) if high / low < 30 else (1,)
    ticks = [
        step * 10.0**power for power in range(int(math.log10(low)) - 1,
                                              int(math.log10(high)) + 2) for step in steps
    ]
    ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=30))
    ax.set_xlim(
        max(tick for tick in ticks if tick <= low) * 0.95,
        min(tick for tick in ticks if tick >= high) * 1.05)


def _drawn(ax: Axes, axis: int) -> List[float]:
    """The x (0) or y (1) values of all curves."""
    return [
        float(value) for line in ax.lines for value in np.asarray(line.get_data()[axis], np.float64)
    ]


def _by_round(run: Run) -> Figure:
    figure, (left, right) = new_figure(_title(run), 2)
    x = _values(run, "round")
    draw_curve(left, x, _values(run, "accuracy"), "test", COLOURS[0])
    draw_curve(right, x, _values(run, "loss"), "test", COLOURS[0])
    draw_curve(right, x, _values(run, "train_loss"), "training (workers)", COLOURS[1], "--")
    for ax, name in ((left, "accuracy"), (right, "loss")):
        round_axis(ax)
        finish(ax, "round", name)
    accuracy_axis(left)
    return figure


def _by_bits(run: Run) -> Figure:
    figure, axes = new_figure(_title(run), 2)
    for ax, name in zip(axes, ("accuracy", "loss")):
        draw_curve(ax, total_bits(run.rounds, "payload"), _values(run, name), "payload", COLOURS[0])
        wire = total_bits(run.rounds, "wire")
        if any(bits is not None for bits in wire):
            draw_curve(ax, wire, _values(run, name), "wire (payload, headers and polls)",
                       COLOURS[1], "--")
        bits_axis(ax)
        finish(ax, "bits sent, both directions", name)
    accuracy_axis(axes[0])
    return figure


def _answers(run: Run) -> Figure:
    figure, (ax,) = new_figure(_title(run), 1)
    base = [0] * len(run.rounds)
    edges = [record["round"] - 0.5
             for record in run.rounds] + [run.rounds[-1]["round"] + 0.5] if run.rounds else []
    for name, colour in _ANSWERS:
        top = [below + len(record[name]) for below, record in zip(base, run.rounds)]
        if top != base:
            ax.stairs(top, edges, baseline=base, fill=True, color=colour, label=name)
        base = top
    round_axis(ax)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    finish(ax, "round", "workers")
    return figure


def _all_are_selected(run: Run) -> bool:
    return not any(record[name] for record in run.rounds for name, _ in _ANSWERS[1:])


def _bits(run: Run) -> Figure:
    """Payload bits of each round, up and down."""
    figure, (ax,) = new_figure(_title(run), 1)
    for direction, colour in zip(DIRECTIONS, COLOURS):
        draw_curve(ax, _values(run, "round"), _values(run, f"payload_bits_{direction}"), direction,
                   colour)
    round_axis(ax)
    ax.yaxis.set_major_formatter(EngFormatter(unit="bit"))
    ax.set_ylim(bottom=0)
    finish(ax, "round", "payload bits of a round")
    return figure


def _values(run: Run, name: str) -> List[Any]:
    return [record[name] for record in run.rounds]


def _title(run: Run) -> str:
    return "{dataset}, {model}, mode {mode}, {workers} workers".format(**run.summary)
