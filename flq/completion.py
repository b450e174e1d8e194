"""Completion of FLQ's commands in a shell: the script that `--print_completion SHELL` prints.

shtab (the extra `completion`) makes it of the program's own parser, so that it knows every option
that --help shows. The shell runs no Python while a person types.
"""

import argparse
from typing import Any

from flq import keys
from flq.errors import ConfigError

_KEYS = [key.path + "=" for key in keys.KEYS]


def script(parser: argparse.ArgumentParser, program: str, shell: str) -> str:
    """The text that a shell is to evaluate.

    program: the name under which pip installed it. Raises ConfigError for a shell that shtab does
    not know, and ModuleNotFoundError where there is no shtab.
    """
    import shtab
    if shell not in shtab.SUPPORTED_SHELLS:
        raise ConfigError("there is no completion for this shell",
                          ", ".join(shtab.SUPPORTED_SHELLS), shell)
    parser.prog = program
    _mark(parser, shtab)
    words = "\n".join(_KEYS)  # older releases of shtab split at newlines only
    text: str = shtab.complete(parser, shell,
                               preamble={"bash": f"_flq_keys() {{ compgen -W '{words}' -- $1; }}"})
    return text


def _mark(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Say of each option that takes a path or a key what stands there, also of those of the
    commands: shtab reads it in `complete`.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark(command, shtab)
        elif action.dest.endswith(("file", "config")):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest.endswith(("dir", "dirs", "out")):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest == "set":
            action.complete = {  # type: ignore[attr-defined]
                "bash": "_flq_keys", "zsh": f"({' '.join(_KEYS)})"
            }
