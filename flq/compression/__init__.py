"""Quantisers: vector <-> levels <-> bytes. Pure NumPy: no clock, no files, no global random state.

A new quantiser is one file with two functions of one tensor, and a row in flq/modes.py that names
it. The contract test in tests/contracts/test_quantizers.py then covers it.
"""

import importlib
from typing import Any, Dict, Optional

from flq.compression.own import checked
from flq.compression.quantizer import Quantizer
from flq.modes import BLOCK, MODES, QUANTIZER_ROWS


def _named(code: str) -> Quantizer:
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)


_BY_CODE = {code: _named(code) for code in QUANTIZER_ROWS}
QUANTIZERS = {quantizer.name: quantizer for quantizer in _BY_CODE.values()}
BY_WIRE_ID = {quantizer.wire_id: quantizer for quantizer in QUANTIZERS.values()}


def by_wire_id(own: Optional[Quantizer] = None) -> Dict[int, Quantizer]:
    """What a frame's wire id can stand for: FLQ's quantisers, and a user's own where there is one.
    """
    return BY_WIRE_ID if own is None else {own.wire_id: own, **BY_WIRE_ID}


def quantizer_of(mode: str) -> Quantizer:
    """The quantiser of a mode, or a user's own, `package.module:NAME`.

    Raises DataError where that cannot be used.
    """
    return _BY_CODE[MODES[mode].code] if mode in MODES else checked(mode)


def configured(mode: str, keys: Any, suffix: str = "") -> Quantizer:
    """A mode's quantiser with its parameters and its blocks from the section flq_algorithm. suffix:
    what stands behind their names there.
    """
    quantizer = quantizer_of(mode)
    values = [getattr(keys, parameter.name + suffix) for parameter in quantizer.mode.parameters]
    if values and quantizer.with_parameters:
        quantizer = quantizer.with_parameters(*values)
    if getattr(keys, "radius" + suffix) == BLOCK:
        quantizer = quantizer._replace(block_size=getattr(keys, "block_size" + suffix))
    return quantizer
