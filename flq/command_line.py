"""What FLQ's command lines share: an option that cannot be used, an error and a missing package are
each one line.
"""

import argparse
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Callable

import flq
from flq import completion
from flq.errors import ConfigError, FlqError, in_one_line
from flq.host import jetson

if TYPE_CHECKING:
    # what add_subparsers returns; it has no public name
    Commands = argparse._SubParsersAction["Parser"]

PACKAGES = frozenset(("tensorflow", "numpy", "requests", "flask", "werkzeug", "waitress", "pandas",
                      "openpyxl", "matplotlib", "jinja2"))
"""What the requirements files bring, by the names that are imported."""

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Parser(argparse.ArgumentParser):
    """argparse, but a refusal is one line: the usage, which --help shows, would hide it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}; {self.prog} --help shows the options\n")


def add_common(parser: Parser, program: str) -> None:
    """The options that every program has. program: the name under which pip installs it."""
    parser.add_argument("--version", action="version", version=f"{program} {flq.__version__}")
    parser.add_argument("--print_completion", metavar="SHELL", action=_PrintCompletion,
                        const=program, help="print what makes a shell (bash, zsh, ...) complete "
                        f"{program}, and exit")


def add_tls(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """What a client of a master needs where that one serves TLS. otherwise: whom it trusts without
    --cafile.
    """
    parser.add_argument("--cafile", help="PEM file of the CA that signed an https:// master's "
                        f"certificate (default: {otherwise})")
    parser.add_argument("--cert", help="PEM file with this client's certificate, for a master that "
                        "asks for one (`python -m flq certs --worker M` makes it)")
    parser.add_argument("--key", help="the key of --cert, where it does not stand in the same file")


class _PrintCompletion(argparse.Action):
    """An option that, like --help, prints and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: Any = None) -> None:
        try:
            print(completion.script(parser, self.const, values))
        except ConfigError as error:
            refusal = error
        except ModuleNotFoundError:
            refusal = ConfigError("the package shtab is missing", "it, to make a completion",
                                  sys.executable,
                                  f"install it: {sys.executable} -m pip install shtab")
        else:
            parser.exit()
        parser.exit(refusal.exit_code, f"error: {refusal}\n")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a number from low to high, written in digits."""
    def parse(text: str) -> int:
        if not re.match(r"[0-9]{1,18}\Z", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"expected a whole number from {low} to {high}; got {text}")
        return int(text)
    return parse


def number(what: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """An argument's type: a number that fits. what: as an error says what was expected."""
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected {what}; got {text}")
        return value
    return parse


def is_amount(value: float) -> bool:
    """Whether a number is no less than 0, and finite."""
    return 0.0 <= value < math.inf


seconds = number("a number of seconds, 0 or more", is_amount)
share = number("a number, 0 or more", is_amount)
port = whole_number(0, 65535)
worker_id = whole_number(0, 65535)


def run(role: str, program: Callable[[], int]) -> int:
    """The exit code of a program. What it raises for people goes to standard error.

    role: `worker` or `master`, whose requirements are named when a package is missing.
    """
    try:
        return program()
    except FlqError as error:
        refusal = error
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        refusal = _missing(role, error.name)
    print(f"error: {in_one_line(refusal)}", file=sys.stderr)
    return refusal.exit_code


def need_python(*oldest: int) -> None:
    """Raises ConfigError where this Python is older."""
    if sys.version_info < oldest:
        raise ConfigError("this Python is too old", f"Python {'.'.join(map(str, oldest))} or newer",
                          f"{'.'.join(map(str, sys.version_info[:2]))} ({sys.executable})",
                          "of FLQ only a worker runs here; ./quick_test.sh looks for a newer one")


def _missing(role: str, package: str) -> ConfigError:
    names = ("tensorflow", role)
    files = [os.path.join(_ROOT, f"requirements-{name}.txt") for name in names]
    if all(os.path.exists(file) for file in files):
        what = " ".join("-r " + file for file in files)
    else:  # installed by pip: FLQ itself is there, and the extras' packages come
        what = f'"flq[{",".join(names)}]"'
    hint = f"install them: {sys.executable} -m pip install {what}"
    if jetson.release() is not None:
        hint += f" (NVIDIA's TensorFlow first: {_nvidia()})"
    return ConfigError(f"the package {package} is missing", "the packages of a " + role,
                       sys.executable, hint)


def _nvidia() -> str:
    found = jetson.jetpack()
    if os.path.exists(os.path.join(_ROOT, "test_environment.py")):
        return "python3 test_environment.py names its command"
    if found is None:
        return "look for its wheel for this L4T"
    return (f"python{found.python} -m pip install --extra-index-url {found.index_url} "
            f"{found.tensorflow}")
