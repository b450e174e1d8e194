"""Everything that is written for people when a run is over, or looked at."""

import datetime
from pathlib import Path
from typing import List

from flq.records import Run
from flq.reports.plots import write_plots
from flq.reports.workbook import workbook_name, write_workbook


def write_reports(directory: Path, run: Run) -> List[Path]:
    """The workbook, named after the time of the last round, and the plots of a run; returns their
    paths.
    """
    closed_at = datetime.datetime.fromtimestamp(
        run.rounds[-1]["closed_at"]) if run.rounds else datetime.datetime.now()
    workbook = Path(directory) / workbook_name(run, closed_at)
    write_workbook(workbook, run)
    return [workbook] + write_plots(directory, run)
