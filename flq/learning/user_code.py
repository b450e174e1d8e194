"""A user's own model or data set, named `package.module:function`."""

import importlib
from typing import Any, Callable

from flq.errors import DataError


def load_function(name: str) -> Callable[..., Any]:
    """The function that `package.module:function` names, on Python's module path. Raises DataError."""
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError("cannot import {}".format(name), "package.module:function", error,
                        "start from the folder that holds the package, or add it to PYTHONPATH")
    if not callable(function):
        raise DataError("{} cannot be called".format(name), "a function", type(function).__name__)
    return function
