"""Everything that is written for people when a run is over."""

import datetime
from pathlib import Path
from typing import List

from flq.records import Run
from flq.reports.excel import workbook_name, write_workbook
from flq.reports.plots import write_plots


def write_reports(directory: Path, run: Run) -> List[Path]:
    """The workbook and the plots of a run; returns their paths."""
    workbook = Path(directory) / workbook_name(run, datetime.datetime.now())
    write_workbook(workbook, run)
    return [workbook] + write_plots(directory, run)
