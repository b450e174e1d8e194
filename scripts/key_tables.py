"""The tables of keys in the guide: `python -m scripts.key_tables` writes both.

The English one is made of flq/keys.py. In the Chinese one all but the last cell of a row is made of
it too; the meaning is kept from the page. Keys that have none yet, whose meaning then stands there
in English, and keys whose meaning in English has changed are named.
"""

import os
import re
from typing import Dict, List, Tuple

from flq import keys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENGLISH = os.path.join(ROOT, "docs", "guide", "configuration.md")
CHINESE = os.path.join(ROOT, "docs", "guide", "zh-CN", "configuration.md")
MARKS = ("<!-- config table -->\n", "<!-- end of config table -->")

_HEAD = "| 键 | 默认值 | 允许的值 | 含义 |\n|---|---|---|---|\n"
_WORDS = (
    (r"an integer from (\S+) to ([\d.e+]+)", r"\1 到 \2 的整数"),
    (r"a number from (\S+) to ([\d.e+]+)", r"\1 到 \2 的数"),
    ("a list of texts", "文本列表"),
    ("a text", "文本"),
    (r"\bor\b", "或"),
    (", ", "、"),
)
"""What Key.allowed says -> the same in Chinese, as expressions, one after the other."""


def table_of(page: str) -> str:
    """What stands between the marks of a page."""
    with open(page, encoding="utf-8") as file:
        return file.read().split(MARKS[0])[1].split(MARKS[1])[0]


def in_chinese(table: str) -> Tuple[str, List[str]]:
    """(The Chinese table with the meanings of `table`, the paths of the keys that it lacks.)"""
    meanings: Dict[str, str] = {}
    for row in table.splitlines()[2:]:
        name, _, _, meaning = _cells(row)
        meanings[name] = _without_mark(meaning)
    rows, missing = [], []
    for row in keys.table().splitlines()[2:]:
        name, default, allowed, meaning = _cells(row)
        for pattern, words in _WORDS:
            allowed = re.sub(pattern, words, allowed)
        said = _without_mark(meaning)
        if name not in meanings:
            missing.append(name.strip("`"))
        mark = meaning[len(said):]
        rows.append(f"| {name} | {default} | {allowed} | {meanings.get(name, said)}{mark} |\n")
    return _HEAD + "".join(rows), missing


def _cells(row: str) -> List[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def _without_mark(meaning: str) -> str:
    """Without *(local)* or *(run time)* at its end."""
    return re.sub(r" \*\([a-z, ]*\)\*$", "", meaning)


def _write(page: str, table: str) -> None:
    with open(page, encoding="utf-8") as file:
        before, rest = file.read().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    with open(page, "w", encoding="utf-8") as file:
        file.write(before + MARKS[0] + table + MARKS[1] + after)
    print("saved: " + page)


def changed(table: str) -> List[str]:
    """The paths of the keys that an English table says something else of than the code."""
    said = [_cells(row) for row in table.splitlines()[2:]]
    meanings = {cells[0]: cells[-1] for cells in said}
    rows = [_cells(row) for row in keys.table().splitlines()[2:]]
    return [name.strip("`") for name, _, _, meaning in rows
            if meanings.get(name, meaning) != meaning]


if __name__ == "__main__":
    chinese, untranslated = in_chinese(table_of(CHINESE))
    untranslated += changed(table_of(ENGLISH))
    _write(ENGLISH, keys.table())
    _write(CHINESE, chinese)
    for path in untranslated:
        print(f"translate the meaning of {path}")
