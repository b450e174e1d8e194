"""A user's own model, data set or quantiser, named `package.module:function` or `:NAME`: found,
called, and blamed in one line for what it does wrong."""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import traceback
from typing import Any, Callable, Iterable, Iterator, Optional

from flq.errors import DataError, FlqError

_log = logging.getLogger("flq.user_code")


FUNCTION = "package.module:function"


def check_module(name: str, form: str = FUNCTION) -> None:
    """Refuse a module that is not there, without running it.

    Raises DataError. form: how such a name is written.
    """
    module = name.partition(":")[0]
    if "" not in sys.path:  # pip's flq-worker, and flq_worker.py, begin with the folder they lie in
        sys.path.append("")
    try:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise ImportError(f"No module named {module!r}")
    except Exception as error:  # a package that holds the module is run, and may raise anything
        raise _not_there(
            name, form,
            _said(error) if not isinstance(error, (ImportError, ValueError)) else error)


def load(name: str, form: str) -> Any:
    """What `package.module:NAME` names, on Python's module path, then in the current folder. Raises
    DataError.
    """
    check_module(name, form)
    module_name, _, inner = name.partition(":")
    with blamed(name, "a module that can be imported"):
        module = importlib.import_module(module_name)
    if not hasattr(module, inner):
        raise _not_there(name, form,
                         f"{module_name} has no {inner}" if inner else "no name behind the colon",
                         did_you_mean(inner, dir(module), module_name + ":"))
    return getattr(module, inner)


def load_function(name: str) -> Callable[..., Any]:
    """The function that `package.module:function` names. Raises DataError."""
    function: Callable[..., Any] = load(name, FUNCTION)
    if not callable(function):
        raise DataError(f"{name} cannot be called", "a function", type(function).__name__)
    return function


def source_hash(name: str) -> str:
    """16 hex digits of the source of the module that is named, the same wherever the text is.

    Raises DataError.
    """
    module = sys.modules[name.partition(":")[0]]
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError) as error:
        raise DataError(f"the source of {name} cannot be read", "a module in a .py file", error)
    return hashlib.sha256(source.encode("utf-8")).hexdigest()[:16]


def check_signature(name: str, function: Callable[..., Any], expected: str, *arguments: Any,
                    **options: Any) -> None:
    """Raises DataError where the function does not take the arguments. expected: how it should be
    declared, in words.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some built-in functions Python does not know it
        return
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        raise DataError(f"{name} takes other arguments", expected,
                        f"{name.partition(':')[2]}{signature} ({error})")


@contextlib.contextmanager
def blamed(name: str, expected: str) -> Iterator[None]:
    """What the user's code raises becomes one DataError with the place in it; its traceback goes to
    the log at DEBUG.

    expected: what the code should have done, in words. Under a name of FLQ's own nothing is caught:
    that is a bug.
    """
    try:
        yield
    except FlqError:
        raise
    except Exception as error:  # a user's code may raise anything
        if ":" not in name:
            raise
        _log.debug("%s raised:", name, exc_info=True)
        raise DataError(f"{name} failed", expected, _said(error),
                        "logging.log_level DEBUG shows its traceback")


def did_you_mean(given: str, known: Iterable[str], prefix: str = "") -> Optional[str]:
    """A hint, where something known is near."""
    near = difflib.get_close_matches(given, list(known), 1)
    return f"did you mean {prefix}{near[0]}?" if near else None


def _not_there(name: str, form: str, said: Any, hint: Optional[str] = None) -> DataError:
    return DataError(
        f"cannot import {name}", form, said, hint
        or "start from the folder that holds the package, or add it to PYTHONPATH")


def _said(error: Exception) -> str:
    """The exception in one line, with the place that raised it."""
    # Keras sets its words in bold, over many lines
    words = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split()) or "nothing more"
    if isinstance(error, SyntaxError):  # it names its place itself
        return f"{type(error).__name__}: {words[:300]}"
    frames = traceback.extract_tb(error.__traceback__)
    place = ([frame for frame in frames if not _is_library(frame.filename)] or frames)[-1]
    return f"{type(error).__name__}: {words[:300]} ({place.filename}:{place.lineno})"


def _is_library(path: str) -> bool:
    """Whether a file is Python's, an installed package's or FLQ's own: whoever reads the line looks
    for a line of theirs.
    """
    folders = [os.path.dirname(os.__file__), os.path.dirname(os.path.abspath(__file__))]
    installed = {"site-packages", "dist-packages"} & set(path.split(os.sep))
    return path.startswith("<") or bool(installed) or any(
        path.startswith(folder + os.sep) for folder in folders)
