"""README and the guide, as the tests read them: each page in English beside the same in Chinese."""

import os
import re
from typing import NamedTuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GUIDE = os.path.join("docs", "guide")
PAIRS = [(name + ".md", name + ".zh-CN.md") for name in ("README", "USAGE_GUIDE")] + [
    (os.path.join(GUIDE, name), os.path.join(GUIDE, "zh-CN", name))
    for name in sorted(os.listdir(os.path.join(ROOT, GUIDE))) if name.endswith(".md")
]
"""(English, Chinese), as paths from the root."""

Block = NamedTuple("Block", [("language", str), ("lines", list)])


def read(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def blocks(page):
    """The fenced blocks of a page; inside a list they are indented."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", read(page), re.MULTILINE | re.DOTALL)
    return [
        Block(language, [line[len(indent):] for line in text.splitlines()])
        for indent, language, text in found
    ]


def shown_files(page):
    """Name -> text of the files in Python that a page shows whole: their first line names them."""
    found = [(re.match(r"# (\w+\.py)$", block.lines[0]), block) for block in blocks(page)]
    return {named.group(1): "\n".join(block.lines) for named, block in found if named}


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", read(page), flags=re.MULTILINE | re.DOTALL)


def commands(page):
    """The lines of its shell blocks, without comments, continued lines in one."""
    text = "\n".join("\n".join(block.lines) for block in blocks(page) if block.language == "sh")
    lines = (re.sub(r"(^|\s+)#.*$", "", line) for line in text.replace("\\\n", " ").splitlines())
    return [line.strip() for line in lines if line.strip()]


def tables(page):
    """Every table as a list of rows of cells."""
    rows, found = [], []
    for line in prose(page).splitlines() + [""]:
        if line.strip().startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]])
        elif rows:
            found.append(rows)
            rows = []
    return found
