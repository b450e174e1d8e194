"""A user's own quantiser by name: found, checked, and blamed in one line for what breaks the
contract.
"""

import itertools

import numpy as np
import pytest

from flq import config, rng
from flq.algorithm import uplink
from flq.compression import QUANTIZERS, codec, quantizer_of
from flq.errors import DataError
from flq.idle_keys import without_effect
from flq.modes import MODES, OWN_WIRE_IDS, mode_of, own_hash
from flq.parameters import Layout
from tests.vectors import same_bits

EXAMPLE = "examples.custom_quantizer:TERNARY"
LAYOUT = Layout(((5, 3), (3,)))
MODULE = """
import numpy as np
from flq.compression.quantizer import Quantizer
from flq.modes import Mode

def encode(values, bits, draw):
    scale = np.float32(np.abs(values).max())
    levels = np.round(values / (scale or 1) + 1).astype(np.uint8)
    return scale, levels

def decode(scale, levels, bits):
    return (levels.astype(np.float32) - np.float32(1)) * scale

MINE = Quantizer(Mode("mine", wire_id=200, min_bits=2, max_bits=4, bits=3),
                 has_scale=True, max_level=lambda bits: 2, encode=encode, decode=decode)
"""
_numbers = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """module(before, after...) -> the mode of a new module with other words in it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(*changes):
        text = MODULE
        for before, after in zip(changes[::2], changes[1::2]):
            assert text.count(before) == 1
            text = text.replace(before, after)
        name = f"own_quantizer_{next(_numbers)}"
        (tmp_path / (name + ".py")).write_bytes(text.encode("utf-8"))
        return name + ":MINE"

    return write


def _refusal(mode):
    with pytest.raises(DataError) as refused:
        config.build({"flq_algorithm.mode": mode})
        quantizer_of(mode)
    line = str(refused.value)
    assert "\n" not in line and line.startswith(
        (mode, "cannot import " + mode, "the source of " + mode))
    return line


def test_it_is_a_mode_like_the_others(module):
    mode = module()
    flq = config.build({"flq_algorithm.mode": mode}).flq_algorithm
    assert (flq.mode, flq.b_up, flq.memory, flq.radius, flq.entropy_coding) == (mode, 3, "none",
                                                                                "tensor", True)
    settings = uplink.settings_from(
        config.build({"flq_algorithm.mode": mode, "flq_algorithm.b_up": 2}), LAYOUT)
    assert settings.quantizer.mode is mode_of(mode) and settings.quantizer.name not in QUANTIZERS


def test_its_row_decides_what_the_configuration_takes(module):
    mode = module(
        'wire_id=200',
        'wire_id=200, memory="residual", memories=("residual",), coding="always", fine_from=3')
    assert config.build({"flq_algorithm.mode": mode}).lazy_selection.lazy_eps == 3
    for path, value, words in (
        ("b_up", 5, "flq_algorithm.b_up does not fit mode {}; expected 2 to 4; got 5"),
        ("memory", "none",
         "flq_algorithm.memory does not fit mode {}; expected residual; got none"),
        ("radius", "vector",
         "flq_algorithm.radius vector is for modes laq and rd; expected tensor; got vector")):
        with pytest.raises(config.ConfigError) as refused:
            config.build({"flq_algorithm.mode": mode, "flq_algorithm." + path: value})
        assert str(refused.value).startswith(words.format(mode))
    loaded = config.load(None, ["mode=" + mode, "entropy_coding=false"])
    assert without_effect(loaded.config, loaded.explicit) == [
        "flq_algorithm.entropy_coding false has no effect: the mode is always coded"]


@pytest.mark.parametrize("coding, asked, coded", [("never", "true", False),
                                                  ("always", "false", True), ("on", "false", False),
                                                  ("off", "true", True)])
def test_its_row_can_overrule_entropy_coding(module, coding, asked, coded):
    loaded = config.load(None, [
        "mode=" + module("wire_id=200", f"wire_id=200, coding={coding!r}"),
        "entropy_coding=" + asked
    ])
    assert uplink.settings_from(loaded.config, LAYOUT).entropy_coding is coded


@pytest.mark.parametrize("entropy_coding", [False, True])
def test_the_example_survives_the_way_through_bytes(entropy_coding):
    quantizer, sizes = quantizer_of(EXAMPLE), (15, 3)
    vector = rng.Stream(3, rng.UPLINK).uniform(18).astype(np.float32) - np.float32(0.5)
    encoded = codec.encode(quantizer, vector, sizes, 2, rng.Stream(1, rng.UPLINK).uniform)
    back = codec.from_body(codec.to_body(encoded, entropy_coding), quantizer, 2, sizes)
    assert same_bits(codec.decode(back, sizes), codec.decode(encoded, sizes))
    assert 0 < np.linalg.norm(vector - codec.decode(back, sizes)) < 0.6 * np.linalg.norm(vector)


# --- what is refused at once


@pytest.mark.parametrize(
    "changes, words",
    [(("wire_id=200", "wire_id=1"),
      "cannot be used: wire_id of its Mode; expected 128 to 255; those below are FLQ's; got 1"),
     (("wire_id=200", "wire_id=256"), "wire_id of its Mode; expected 128 to 255"),
     (("wire_id=200", "wire_id='x'"),
      "wire_id of its Mode; expected 128 to 255; those below are FLQ's; got 'x'"),
     (("min_bits=2", "min_bits=0"), "min_bits of its Mode; expected 1 to 16; got 0"),
     (("max_bits=4", "max_bits=32"), "max_bits of its Mode; expected 2 to 16; got 32"),
     (("bits=3", "bits=5"), "bits of its Mode; expected 2 to 4; got 5"),
     (("wire_id=200", "wire_id=200, memory='much'"),
      "memory of its Mode; expected one of its memories; got 'much'"),
     (("wire_id=200", "wire_id=200, memories='none'"),
      "memories of its Mode; expected a tuple of reference, residual, none; got 'none'"),
     (("wire_id=200", "wire_id=200, radius='vector'"),
      "radius of its Mode; expected one of its radii; got 'vector'"),
     (("wire_id=200", "wire_id=200, radii=('ball',)"),
      "radii of its Mode; expected a tuple of tensor, vector; got ('ball',)"),
     (("wire_id=200", "wire_id=200, radii=('tensor', 'block')"),
      "radii of its Mode; expected a tuple of tensor, vector; got ('tensor', 'block')"),
     (("wire_id=200", "wire_id=200, coding='some'"),
      "coding of its Mode; expected always, on, off, never; got 'some'"),
     (("wire_id=200", "wire_id=200, parameters=(1,)"),
      "expected none: a quantiser of your own has no keys; got (1,)"),
     (("wire_id=200", "wire_id=200, memory_rate=0"),
      "memory_rate of its Mode; expected a number from 0.001 to 1; got 0"),
     (("wire_id=200", "wire_id=200, memory_rate='slow'"),
      "memory_rate of its Mode; expected a number from 0.001 to 1; got 'slow'"),
     (("MINE = Quantizer(", "MINE = dict(mode="),
      "is no quantiser; expected a Quantizer made from a Mode; got dict"),
     (("MINE = Quantizer(", "import argparse\nMINE = argparse.Namespace(mode="),
      "is no quantiser; expected a Quantizer made from a Mode; got Namespace"),
     (('"mine"', "5"), "name of its Mode; expected a text; got 5"),
     (("lambda bits: 2", "lambda bits: 4"),
      "breaks its contract: max_level(2); expected 1 to 3; got 4"),
     (("lambda bits: 2", "lambda bits: 1 / 0"),
      "failed; expected max_level(bits) -> the largest level; got ZeroDivisionError"),
     (("has_scale=True", "has_scale=True, coder='morse'"),
      "cannot be used: its coder; expected base_n, escape; got 'morse'"),
     (("import numpy as np", "import numpi as np"),
      "a module that can be imported; got ModuleNotFoundError: No module named 'numpi'"),
     (("return scale, levels", "return levels"),
      "failed; expected encode(values, bits, draw) -> (scale, levels); got ValueError"),
     (("return scale, levels", "return scale, list(levels)"),
      "the levels of encode; expected uint8 of shape (3,); got list"),
     (("astype(np.uint8)", "astype(np.int64)"),
      "the levels of encode; expected uint8 of shape (3,); got int64 of shape (3,)"),
     (("return scale, levels", "return scale, levels[1:]"),
      "the levels of encode; expected uint8 of shape (3,); got uint8 of shape (2,)"),
     (("return scale, levels", "return scale, levels + np.uint8(1)"),
      "the levels of encode; expected at most max_level(2) = 2; got 3"),
     (("return scale, levels", "return -scale, levels"),
      "the scale of encode; expected a finite float32 of at least 0"),
     (("return scale, levels", "return None, levels"),
      "the scale of encode; expected a finite float32 of at least 0; got None"),
     (("return scale, levels", "return 1e39, levels"),
      "the scale of encode; expected a finite float32 of at least 0; got 1e+39"),
     (("has_scale=True", "has_scale=False"),
      "the scale of encode; expected None, because has_scale is False"),
     (("return scale, levels", "values *= 2; return scale, levels"),
      "got ValueError: output array is read-only ("),
     (("levels.astype(np.float32)", "levels.astype(np.float64)"),
      "the values of decode; expected float32 of shape (3,); got float64 of"),
     (("    return (levels", "    levels = levels[:, None]\n    return (levels"),
      "expected float32 of shape (3,); got float32 of shape (3, 1)"),
     (("* scale", "* scale + np.float32('inf')"),
      "the values of decode; expected finite values; got inf or nan"),
     (("    return (levels", "    raise RuntimeError('no')\n    return (levels"),
      "expected decode(scale, levels, bits) -> float32 values; got RuntimeError: no"), ])
def test_what_breaks_the_contract_is_said_in_one_line_before_anything_starts(
        module, changes, words):
    line = _refusal(module(*changes))
    assert words in line


@pytest.mark.parametrize("mode, words", [
    ("no_such_module:MINE",
     "cannot import no_such_module:MINE; expected package.module:NAME; got No module named "
     "'no_such_module'"
     ),
    ("examples.custom_quantizer:TERNARI",
     "examples.custom_quantizer has no TERNARI; did you mean examples.custom_quantizer:TERNARY?"),
    ("examples.custom_quantizer:", "got no name behind the colon"),
    ("examples.custom_quantizer:encode",
     "is no quantiser; expected a Quantizer made from a Mode; got function")
])
def test_a_name_that_leads_nowhere_is_refused(mode, words):
    assert words in _refusal(mode)


def test_what_goes_wrong_later_is_said_in_the_same_way(module):
    """It behaves while it is tried, on three values."""
    quantizer = quantizer_of(
        module("    return scale, levels",
               "    return scale, levels if values.size == 3 else levels + np.uint8(9)"))
    with pytest.raises(DataError) as refused:
        codec.encode(quantizer, np.ones(4, np.float32), (4,), 3, np.zeros)
    assert ("breaks its contract: the levels of encode; expected at most max_level(3) = 2; got 11"
            in str(refused.value))


# --- what master and worker compare


def test_the_hash_is_that_of_the_source_whatever_ends_its_lines(module):
    first, other = module(), module("np.round", "np.rint")
    windows = module("\n\ndef decode", "\n\r\ndef decode".replace("\n\r\n", "\r\n\r\n"))
    assert own_hash(first) == own_hash(windows) != own_hash(other) and len(own_hash(first)) == 16
    assert {own_hash(mode) for mode in MODES} == {""}


def test_the_ids_of_users_are_not_those_of_flq():
    assert OWN_WIRE_IDS == (128, 255) and max(row.wire_id for row in MODES.values()) < 128
