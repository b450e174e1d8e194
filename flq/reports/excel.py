"""Excel sheets of columns, with charts that Excel draws."""

import io
import math
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.chart import Reference, ScatterChart, Series
from openpyxl.chart.series import SeriesLabel
from openpyxl.styles import Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties

from flq.reports.run_files import PathLike, replacing
from flq.reports.terminal import display_width

TEXT, INTEGER, REAL, PERCENT, RATIO, SECONDS, NUMBER = (
    "@", "#,##0", "0.0000", "0.00%", '0.0"x"', '#,##0.000" s"', "General")

_MAX_ROWS = 2 ** 20 - 1        # of one sheet, below its header
MAX_COLUMNS = 2 ** 14          # of one sheet
_MAX_TEXT = 32767              # of one cell, in UTF-16 units
_CHART_CM, _CHART_ROWS = (16.0, 8.0), 18
_NARROW = 6                    # columns, beside which a chart is still in sight
_ON_A_PAGE = 12                # columns that can be read on a page's width
_WIDTHS = (9, 60)              # of a column, in letters
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# half of a pair too: no file can hold it
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Column(NamedTuple):
    """One column of a sheet: its header, an Excel number format, or one for each row, and the
    values of its rows; None is an empty cell.
    """

    name: str
    number_format: Union[str, Sequence[str]]
    values: Sequence[Any]


class Curve(NamedTuple):
    """One curve of a chart: two columns of a sheet by their headers, and of their rows those from
    the first to before the last, all without `rows`.
    """

    title: str
    sheet: str
    x: str
    y: str
    rows: Optional[Tuple[int, int]] = None


class Chart(NamedTuple):
    """A chart that Excel draws of cells. y_format: the number format of its y axis; log_x: a
    logarithmic x axis.
    """

    title: str
    x_title: str
    y_title: str
    y_format: str
    curves: List[Curve]
    log_x: bool = False


class Sheet(NamedTuple):
    """One sheet: a name and columns of one length. charts: shown beside a few columns, below many.
    """

    name: str
    columns: List[Column]
    charts: Sequence[Chart] = ()


def write_sheets(path: PathLike, sheets: Sequence[Sheet]) -> None:
    """Write sheets with a frozen header and a filter for each column. Rows beyond Excel's limit go
    to further sheets, <name>_2 and so on; charts show those of the first.

    A text is written as a text whatever it starts with, in a header too, so that no cell becomes a
    formula; what no workbook can hold of it is replaced or, beyond Excel's limit, cut off.
    """
    with replacing(path) as file:
        book = Workbook(write_only=True)     # streams the rows: a long run has a million of them
        by_name = {sheet.name: sheet for sheet in sheets}
        for sheet in sheets:
            rows = len(sheet.columns[0].values)
            for part, start in enumerate(range(0, max(1, rows), _MAX_ROWS), 1):
                name = sheet.name if part == 1 else f"{sheet.name}_{part}"
                written = book.create_sheet(name)
                _write_sheet(written, sheet.columns, start, min(rows, start + _MAX_ROWS))
                for number, chart in enumerate(sheet.charts if part == 1 else ()):
                    written.add_chart(_chart(chart, by_name), _place(sheet, number))
        # Not into the file itself: what openpyxl left open when the disk refused would write to it
        # after it was closed, and say so.
        data = io.BytesIO()
        book.save(data)
        file.write(data.getbuffer())


def _place(sheet: Sheet, number: int) -> str:
    """The cell at the upper left corner of a sheet's chart."""
    is_narrow = len(sheet.columns) <= _NARROW
    column = len(sheet.columns) + 2 if is_narrow else 1
    row = 2 if is_narrow else len(sheet.columns[0].values) + 3
    return f"{get_column_letter(column)}{row + _CHART_ROWS * number}"


def _chart(spec: Chart, sheets: Dict[str, Sheet]) -> ScatterChart:
    chart = ScatterChart(scatterStyle="lineMarker")
    chart.title, chart.width, chart.height = spec.title, *_CHART_CM
    chart.x_axis.title, chart.y_axis.title = spec.x_title, spec.y_title
    chart.x_axis.number_format, chart.y_axis.number_format = "General", spec.y_format
    # Without these words a newer Excel leaves the axes out.
    chart.x_axis.delete = chart.y_axis.delete = False
    chart.display_blanks = "span"  # over rounds that were not tested
    smallest = math.inf
    for curve in spec.curves:
        columns = sheets[curve.sheet].columns
        names = [column.name for column in columns]
        first, last = curve.rows or (0, len(columns[0].values))
        last = min(last, _MAX_ROWS)
        if first >= last:
            continue
        x, y = (Reference(_Titled(curve.sheet), names.index(name) + 1, first + 2, max_row=last + 1)
                for name in (curve.x, curve.y))
        series = Series(y, x)
        series.tx = SeriesLabel(v=_NOT_XML.sub("\ufffd", curve.title))
        series.marker.symbol, series.smooth = "none", False
        chart.series.append(series)
        smallest = min([smallest, *(value for value in columns[names.index(curve.x)].
                                    values[first:last] if value)])
    if spec.log_x and 0 < smallest < math.inf:
        chart.x_axis.scaling.logBase = 10
        chart.x_axis.scaling.min = 10.0 ** math.floor(math.log10(smallest))
        chart.x_axis.number_format = "0E+0"
    return chart


class _Titled(NamedTuple):
    """What a Reference reads of a sheet."""

    title: str


def _write_sheet(sheet: Any, columns: Sequence[Column], start: int, stop: int) -> None:
    sheet.freeze_panes = "A2"
    if len(columns) <= _ON_A_PAGE:
        sheet.page_setup.orientation, sheet.page_setup.fitToHeight = "landscape", 0
        sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{stop - start + 1}"
    for number, column in enumerate(columns, 1):
        sheet.column_dimensions[get_column_letter(number)].width = _width(column, start, stop)
    header = [_text_cell(sheet, column.name) for column in columns]
    for cell in header:
        cell.font, cell.fill = Font(bold=True), PatternFill("solid", fgColor="DCE6F1")
    sheet.append(header)
    for index in range(start, stop):
        sheet.append([
            _cell(sheet, column.values[index], column.number_format if isinstance(
                column.number_format, str) else column.number_format[index]) for column in columns
        ])


def _cell(sheet: Any, value: Any, number_format: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        value = None                     # Excel has no such number
    if not isinstance(value, str):
        cell = WriteOnlyCell(sheet, value)
        cell.number_format = number_format
        return cell
    return _text_cell(sheet, value)


def _text_cell(sheet: Any, text: str) -> Any:
    encoded = _NOT_XML.sub("\ufffd", text).encode("utf-16-le")
    # a pair that was cut in two goes whole
    cell = WriteOnlyCell(sheet, encoded[:2 * _MAX_TEXT].decode("utf-16-le", "ignore"))
    cell.data_type = "s"
    cell.number_format = TEXT
    # stays a text when somebody edits the cell
    cell.quotePrefix = text.startswith(_STARTS_A_FORMULA)
    return cell


def _width(column: Column, start: int, stop: int) -> int:
    """Letters that the header and the longest of the part's first and last values need."""
    shown = [
        column.values[index] for index in sorted(
            {*range(start, min(start + 100, stop)), *range(max(start, stop - 100), stop)})
    ]
    texts = [
        f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else "0.000000"
        for value in shown
    ]
    longest = max(display_width(text) for text in texts + [column.name])
    return min(max(longest + 2, _WIDTHS[0]), _WIDTHS[1])
