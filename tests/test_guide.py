"""README and the guide: both languages say the same, every command can be given as it stands, and
figures are those of docs/benchmarks.md.
"""

import functools
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from flq import config, keys
from scripts import key_tables
from tests.guide_pages import PAIRS, ROOT, blocks, commands, prose, read, shown_files, tables

PAGES = [english for english, _ in PAIRS]
OTHER_PAGES = sorted(
    os.path.join("docs", name) for name in os.listdir(os.path.join(ROOT, "docs"))
    if name.endswith(".md"))
"""In English only."""


def test_every_page_of_the_guide_is_there_in_chinese_and_no_other():
    chinese = os.listdir(os.path.join(ROOT, "docs", "guide", "zh-CN"))
    assert sorted(chinese) == sorted(
        os.path.basename(page) for page in PAGES if page.startswith("docs"))


def _headings(page):
    """The levels of its headings, and the code in each."""
    return [(len(marks), re.findall("`.*?`", text))
            for marks, text in re.findall(r"^(#+) (.*)$", prose(page), re.MULTILINE)]


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_have_the_same_headings(english, chinese):
    assert _headings(chinese) == _headings(english)


def _code(page):
    """Its blocks without comments, which are in the page's language."""
    return [(block.language, [re.sub(r"\s*#.*", "", line) for line in block.lines])
            for block in blocks(page)]


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_show_the_same_code(english, chinese):
    assert _code(chinese) == _code(english)


def _rows(page):
    """What a table says in any language: the code in each row, in the order of the first cell's,
    and the cells that are a number.
    """
    return [[(re.findall("`.*?`", row[0]), sorted(re.findall("`.*?`", " ".join(row))),
              [cell for cell in row if re.match(r"[\d.]+(e\d+)?$", cell)]) for row in rows]
            for rows in tables(page)]


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_have_the_same_rows_in_their_tables(english, chinese):
    assert _rows(chinese) == _rows(english)


@pytest.mark.parametrize("english, chinese", PAIRS)
def test_both_languages_lead_to_each_other(english, chinese):
    for page, other in ((english, chinese), (chinese, english)):
        assert f"]({os.path.relpath(other, os.path.dirname(page))})" in read(page)


# --- the tables of keys


def test_both_tables_of_keys_are_those_of_the_code():
    english, chinese = key_tables.table_of(key_tables.ENGLISH), key_tables.table_of(
        key_tables.CHINESE)
    hint = "python -m scripts.key_tables writes both"
    assert english == keys.table(), hint
    assert key_tables.in_chinese(chinese) == (chinese, []), hint


def test_every_meaning_in_the_chinese_table_is_in_chinese():
    for row in key_tables.table_of(key_tables.CHINESE).splitlines():
        meaning = row.split(" | ", 3)[-1]
        assert re.search("[\u4e00-\u9fff]", meaning) or set(row) == set("|-"), row


def test_a_new_key_keeps_its_english_meaning_until_somebody_translates_it():
    written, _ = key_tables.in_chinese(key_tables.table_of(key_tables.CHINESE))
    lines = written.splitlines(keepends=True)
    (row,) = [line for line in lines if line.startswith("| `model.l2` |")]
    table, missing = key_tables.in_chinese("".join(line for line in lines if line != row))
    assert missing == ["model.l2"] and "each worker's loss" in table
    assert table.replace(keys.BY_PATH["model.l2"].doc.replace("||", "\\|\\|"),
                         row.split(" | ")[-1][:-3]) == "".join(lines)


def test_a_key_whose_meaning_has_changed_is_named():
    table = keys.table()
    assert key_tables.changed(table) == []
    assert key_tables.changed(table.replace("beta_2 of adam", "beta of adam")) == [
        "model.adam_beta2"
    ]


# --- commands


SCRIPT = re.compile(r"\./(\w+\.sh)$")
PYTHON_FILE = re.compile(r"\w+\.py$")
PASSED_ON = {"start_master.sh": "flq_master.py", "start_worker.sh": "flq_worker.py"}


@functools.lru_cache(maxsize=None)
def _help_of(*command):
    """What a program says of its options."""
    environment = dict(os.environ, PYTHON=sys.executable)
    return subprocess.check_output([*command, "--help"], cwd=ROOT, env=environment,
                                   universal_newlines=True)


def _programs(words):
    """(command that has --help, the words it is given), of what this project brings."""
    script = SCRIPT.match(words[0])
    if script:
        rest = words[1:]
        cut = rest.index("--") if "--" in rest else len(rest)
        yield ("bash", script.group(1)), rest[:cut]
        if rest[cut + 1:]:
            yield (sys.executable, PASSED_ON[script.group(1)]), rest[cut + 1:]
    elif words[:3] == ["python", "-m", "flq"]:
        yield (sys.executable, "-m", "flq", words[3]), words[4:]
    elif words[0] == "python" and PYTHON_FILE.match(words[1]):
        yield (sys.executable, words[1]), words[2:]
    elif words[:2] == ["python", "-m"]:
        assert os.path.exists(os.path.join(ROOT, *words[2].split(".")) + ".py"), words


needs_a_master = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")


@needs_a_master
@pytest.mark.parametrize("page", PAGES + OTHER_PAGES)
def test_every_command_can_be_given_as_it_stands(page, tmp_path, monkeypatch):
    """bash reads it, the program knows its options, and the configuration takes what it sets."""
    for name, text in shown_files(page).items():
        (tmp_path / name).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
    for command in commands(page):
        assert subprocess.call(["bash", "-n", "-c", command]) == 0, command
        words = shlex.split(command)
        for program, given in _programs(words):
            for option in (word.split("=")[0] for word in given if word.startswith("--")):
                assert re.search(re.escape(option) + r"\b", _help_of(*program)), (command, option)
            config.load(None, [given[i + 1] for i, word in enumerate(given) if word == "--set"])


@pytest.mark.parametrize("page", PAGES)
def test_every_configuration_that_is_shown_whole_is_one(page):
    for block in blocks(page):
        for line in block.lines if block.language == "json" else ():
            document = json.loads(line)
            assert "effective_round" in document or config.build(document)


# --- messages

OF_OTHERS = {"Permission denied (publickey)", "Host key verification failed",
             "Illegal instruction"}
"""Of ssh and the kernel."""


def _sources():
    """What the programs are written in: text that goes on in the next line is one, and what a
    message puts in is left out.
    """
    folders = [ROOT] + [
        directory for top in ("flq", "scripts")
        for directory, _, _ in os.walk(os.path.join(ROOT, top))
    ]
    text = "\n".join(
        read(os.path.join(folder, name)) for folder in folders for name in os.listdir(folder)
        if name.endswith((".py", ".sh")))
    return re.sub(r"\{[^{}]*\}", "<>", re.sub(r'"\s*\n\s*f?"', "", text))


def test_every_message_in_the_table_is_one_that_a_program_has():
    sources = _sources()
    messages = [
        message for rows in tables("docs/guide/troubleshooting.md") for row in rows
        for message in re.findall("`(.*?)`", row[0])
    ]
    put_in = r"<\w+>|the run pauses: | is not finite$"
    parts = {
        part.strip() for message in messages for part in re.split(put_in, message)
        if len(part.strip()) > 2
    }
    assert len(parts) > 50 and {part for part in parts if part not in sources} <= OF_OTHERS


# --- figures


@pytest.mark.parametrize("mark", ["figures", "comparison"])
@pytest.mark.parametrize("page", PAIRS[0])
def test_the_figures_of_the_first_page_are_those_of_the_benchmarks(page, mark):
    table = read(page).split(f"<!-- {mark} -->\n")[1].split(f"<!-- end of {mark} -->")[0]
    numbers = set(re.findall(r"\d+\.\d+(?:e\d+)?", "\n".join(table.splitlines()[2:])))
    measured = set(re.findall(r"\d+\.\d+(?:e\d+)?", read("docs/benchmarks.md")))
    assert len(numbers) > 6 and numbers - measured == set()
