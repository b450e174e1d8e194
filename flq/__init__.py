"""FLQ: federated learning where the network is the bottleneck.

From a program:

    flq.simulate                    a whole run in this process
    flq.load_run                    a run that is in a folder
    flq.Result                      what is known of either
    flq.Config                      a configuration, built from keywords
    flq.quantize, flq.dequantize    arrays to the bytes that would travel, and back
    flq.Quantized                   what quantize gives
    flq.QUANTIZERS                  every mode with what it does
    flq.Learner                     what FLQ needs of a training program of your own

A name is loaded when it is first used; `import flq` alone loads nothing. docs/guide/python.md shows
each of them with its output.

To read the code, read the packages in the order of tests/test_layers.py: words first, then what is
computed (compression, algorithm), then how machines talk (protocol), then who does it (worker,
master).
"""

import importlib
import sys
import types
from typing import Any, List

__version__ = "0.1.0"

_MODULES = {
    "flq.api.configuration": ("Config",),
    "flq.api.quantizing": ("quantize", "dequantize", "Quantized", "QUANTIZERS"),
    "flq.api.runs": ("simulate", "load_run", "Result"),
    "flq.learning.own": ("Learner",),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "__version__", "simulate", "load_run", "Result", "Config", "quantize", "dequantize",
    "Quantized", "QUANTIZERS", "Learner"
]


class _Package(types.ModuleType):
    """This module, whose names are looked up when they are used.

    A module's own __getattr__ would need Python 3.7.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module 'flq' has no attribute {name!r}")
        value = getattr(importlib.import_module(_PLACES[name]), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> List[str]:
        return sorted(set(super().__dir__()) | set(_PLACES))


sys.modules[__name__].__class__ = _Package
