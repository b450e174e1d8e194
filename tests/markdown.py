"""The tables of docs/, as the tests read them."""

import os
import re

DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")


def table(page, name):
    """The rows below `<!-- table: NAME -->` and the table's head, as lists of cells without their
    backticks.
    """
    with open(os.path.join(DOCS, page), encoding="utf-8") as file:
        text = file.read()
    mark = f"<!-- table: {name} -->\n"
    assert text.count(mark) == 1, f"{page} must mark the table {name} once"
    lines = text.split(mark)[1].split("\n\n")[0].splitlines()
    assert set(lines[1]) == {"|", "-"}
    return [[_text(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def column(page, name, number=0):
    """One column of a table."""
    return [row[number] for row in table(page, name)]


def _text(cell):
    cell = cell.strip().replace("\\|", "|")
    return cell[1:-1] if re.match(r"`[^`]*`$", cell) else cell
