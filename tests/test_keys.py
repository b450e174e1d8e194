"""The one table of keys, and everything that repeats it."""

import json
import os

import pytest

from flq import config, keys
from flq.keys import KEYS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_every_key_has_a_path_a_meaning_and_a_default_that_it_takes():
    assert len({key.path for key in KEYS}) == len(KEYS)
    for key in KEYS:
        assert key.doc and config.build({key.path: key.default})


def test_the_shipped_file_holds_every_default():
    with open(os.path.join(ROOT, "flq_config.json"), encoding="utf-8") as file:
        shipped = json.load(file)
    assert shipped == keys.defaults()
    assert config.load(os.path.join(ROOT, "flq_config.json")).config == config.build({})


def test_the_table_in_the_guide_is_that_of_the_code():
    path = os.path.join(ROOT, "USAGE_GUIDE.md")
    if not os.path.exists(path):
        pytest.skip("USAGE_GUIDE.md does not exist yet")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert text.split("<!-- config table -->\n")[1].split(
        "<!-- end of config table -->")[0].strip() == keys.table().strip()


def test_every_row_of_the_table_has_four_cells():
    rows = keys.table().replace("\\|", "").splitlines()
    assert len(rows) == len(KEYS) + 2 and all(row.count("|") == 5 for row in rows)
