"""The table of modes: its rows agree with each other, with the quantisers, and with everything that
is written from them.
"""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys

import pytest

import flq.compression
from flq import config
from flq.compression import BY_WIRE_ID, QUANTIZERS, quantizer_of
from flq.compression.quantizer import Quantizer
from flq.modes import (
    ALWAYS,
    CODINGS,
    LOWEST_MEMORY_RATE,
    MEMORIES,
    MODES,
    NEVER,
    OFF,
    ON,
    OWN_WIRE_IDS,
    QUANTIZER_ROWS,
    RADII,
)
from tests.markdown import table

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EVERY_ROW = pytest.mark.parametrize("row", MODES.values(), ids=list(MODES))


@EVERY_ROW
def test_the_facts_of_a_row_agree_with_each_other(row):
    assert MODES[row.name] is row and row.wire_id < OWN_WIRE_IDS[0]
    assert row.takes(row.bits) and row.min_bits >= 1 and (row.max_bits <= 16
                                                          or row.min_bits == row.max_bits == 32)
    assert row.memory in row.memories and set(row.memories) <= set(MEMORIES)
    assert row.radius in row.radii and set(row.radii) <= set(RADII)
    assert row.coding in CODINGS and (row.down_bits is None or row.takes(row.down_bits))
    assert row.fine_from is None or row.fine_from <= row.max_bits
    assert LOWEST_MEMORY_RATE <= row.memory_rate <= 1
    for parameter in row.parameters:
        for value in (parameter.default, parameter.default_down):
            assert parameter.null_means if value is None else (parameter.low <= value <=
                                                               parameter.high)
        assert parameter.replaces in {"", *(other.name for other in row.parameters)}


@EVERY_ROW
def test_every_row_has_its_quantiser(row):
    quantizer = quantizer_of(row.name)
    assert quantizer is QUANTIZERS[QUANTIZER_ROWS[row.code].name] is BY_WIRE_ID[row.wire_id]
    assert quantizer.mode is QUANTIZER_ROWS[row.code] and quantizer.mode.wire_id == row.wire_id
    assert quantizer.min_bits <= row.min_bits <= row.max_bits <= quantizer.max_bits


def test_no_quantiser_is_without_a_row():
    there = {
        value.name for module in pkgutil.iter_modules(flq.compression.__path__)
        for value in vars(importlib.import_module("flq.compression." + module.name)).values()
        if isinstance(value, Quantizer)
    }
    assert there == set(QUANTIZERS) and len(BY_WIRE_ID) == len(QUANTIZERS)


@pytest.mark.parametrize("coding, unasked, asked", [(ALWAYS, True, True), (ON, False, True),
                                                    (OFF, False, True), (NEVER, False, False)])
def test_the_row_can_overrule_whether_levels_are_coded(coding, unasked, asked):
    row = MODES["laq"]._replace(coding=coding)
    assert (row.is_coded(False), row.is_coded(True)) == (unasked, asked)
    assert row.defaults["entropy_coding"] == (coding in (ALWAYS, ON))


def test_the_configuration_knows_the_modes_without_numpy():
    code = "import sys; from flq import config; config.build({}); print('numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code],
                                   cwd=ROOT).decode("ascii").strip() == "False"


@EVERY_ROW
def test_the_configuration_takes_what_the_row_allows(row):
    for key, values in (("b_up", range(
            row.min_bits, row.max_bits + 1)), ("memory", row.memories), ("radius", row.radii)):
        for value in values:
            flq_algorithm = config.build(
                {"flq_algorithm.mode": row.name, "flq_algorithm." + key: value}).flq_algorithm
            assert getattr(flq_algorithm, key) == value


# The defaults of mode and downlink, also where a program calls, and the one rule of a key that is
# retired. Each quantiser's file names its own row.
NAMED = {"flq/keys.py": {"bbit", "laq"}, "flq/api/quantizing.py": {"laq"}}


def _text(node):
    """The text that a node of the syntax tree stands for."""
    text = vars(node).get("value")
    return text if isinstance(text, str) else ""


@pytest.mark.skipif(sys.version_info < (3, 9), reason="the master's files need Python 3.9")
def test_nothing_else_knows_a_mode_by_its_name():
    named = {}
    for folder, _, files in os.walk(os.path.join(ROOT, "flq")):
        for path in (os.path.join(folder, file) for file in files if file.endswith(".py")):
            with open(path, encoding="utf-8") as file:
                found = {
                    text for text in map(_text, ast.walk(ast.parse(file.read()))) if text in MODES
                }
            if found:
                named[os.path.relpath(path, ROOT).replace(os.sep, "/")] = found
    assert named.pop("flq/modes.py") == set(MODES)
    own = {
        row.code.partition(":")[0].replace(".", "/") + ".py": {row.name}
        for row in QUANTIZER_ROWS.values()
    }
    assert named == dict(own, **NAMED)


# --- the pages


def _choices(default, allowed):
    return ", ".join([default] + [choice for choice in allowed if choice != default])


def test_the_table_of_the_algorithms_page_is_this_one():
    rows = []
    for row in MODES.values():
        more = ["adds bits"] * row.adds_bits
        more += [
            f"{parameter.name} {parameter.default}, down {parameter.default_down}"
            for parameter in row.parameters if parameter.default is not None
        ]
        more += [f"memory_rate {row.memory_rate}"] * (row.memory_rate != 1)
        more += ["contexts"] * row.contexts
        more += [f"lazy_eps 3 with b >= {row.fine_from}"] * (row.fine_from is not None)
        rows.append([
            row.name,
            str(row.wire_id),
            row.widths if row.min_bits == row.max_bits else f"{row.bits} of {row.widths}",
            _choices(row.memory, row.memories),
            _choices(row.radius, row.radii), row.coding,
            "" if row.down_bits is None else str(row.down_bits), "; ".join(more)
        ])
    assert table("algorithm.md", "modes") == rows


def test_the_defaults_that_were_measured_are_these():
    words = {ALWAYS: "always", ON: "yes", OFF: "no", NEVER: "no"}
    measured = table("benchmarks.md", "defaults of the modes")
    assert [[name, bits.split(",")[0], memory, coded] for name, bits, memory, coded, _ in measured
            ] == [[row.name, str(row.bits), row.memory, words[row.coding]]
                  for row in MODES.values()]
