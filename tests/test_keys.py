"""The one table of keys, and everything that repeats it."""

import json
import os

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


def test_every_row_of_the_table_has_four_cells():
    rows = keys.table().replace("\\|", "").splitlines()
    assert len(rows) == len(KEYS) + 2 and all(row.count("|") == 5 for row in rows)
