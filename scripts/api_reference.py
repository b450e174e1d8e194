"""docs/api.md, made of the docstrings: `python -m scripts.api_reference` writes it.

Reads the sources and imports none of what it describes, so that it says the same on every Python.
"""

import ast
import inspect
import os
import re
import textwrap
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple, Union

import flq

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "docs", "api.md")

Described = Union[ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign]


class Section(NamedTuple):
    """A heading, what is said under it, and the names of each module in the order of the page."""

    title: str
    words: str
    modules: Dict[str, Tuple[str, ...]]


SECTIONS = (
    Section("From a program", "`import flq` has these names; each is loaded when it is first used.",
            flq._MODULES),
    Section("What they give", "Rows and records that the functions above hand out.",
            {"flq.api.quantizing": ("Description",), "flq.records": ("RoundRecord",
                                                                    "WorkerRound")}),
    Section("A quantiser of your own", "Named as `mode: package.module:NAME`; "
            "[examples/custom_quantizer.py](../examples/custom_quantizer.py) runs as it is.",
            {"flq.compression.quantizer": ("Quantizer", "Draw", "SMALLEST_SCALE", "radius",
                                           "grid_step", "level_dtype"),
             "flq.modes": ("Mode", "Parameter"),
             "flq.compression.codec": ("Encoded", "Body", "encode", "decode", "to_body",
                                       "from_body")}),
    Section("A data set or model of your own", "Named as `dataset.name` and `model.name`; "
            "[examples/custom_dataset.py](../examples/custom_dataset.py) and "
            "[examples/custom_model.py](../examples/custom_model.py) run as they are.",
            {"flq.learning.datasets": ("load_dataset",),
             "flq.learning.datasets.dataset": ("Dataset", "from_arrays"),
             "flq.learning.models": ("build_model",),
             "flq.learning.interface": ("Learner",)}),
    Section("A training program of your own", "[frameworks.md](frameworks.md) explains it; "
            "flq.Learner stands above.",
            {"flq.worker": ("run",), "flq.master": ("serve",),
             "flq.integrations.torch": ("TorchLearner", "sgd")}),
    Section("On Flower", "[engines.md](engines.md) explains it; "
            "[examples/flower_quickstart](../examples/flower_quickstart) runs as it is.",
            {"flq.integrations.flower": ("flq_mod", "FlqStrategy")}),
    Section("On NVFlare", "[engines.md](engines.md) explains it; "
            "[examples/nvflare_job](../examples/nvflare_job) runs as it is.",
            {"flq.integrations.nvflare": ("add_flq",)}),
    Section("Rounds without a network", "`flq.algorithm.play`, for experiments on the algorithm.",
            {"flq.algorithm.play": ("begin", "play_round", "propose", "lazy_terms", "close",
                                    "Position", "Played"),
             "flq.records": ("LocalResult", "Evaluation")}),
    Section("Errors", "Each is one line: what was expected, what came, what to do.",
            {"flq.errors": ("FlqError", "ConfigError", "DataError", "UnreachableError",
                            "ProtocolError", "FrameError")}),
)


def page() -> str:
    """The text of docs/api.md."""
    parts = ["# API reference", "<!-- Made by `python -m scripts.api_reference` from the "
             "docstrings. Change those. -->",
             "What the words mean is in [algorithm.md](algorithm.md), how FLQ is built in "
             "[architecture.md](architecture.md)."]
    for section in SECTIONS:
        parts += [f"## {section.title}", section.words]
        for module, names in section.modules.items():
            source = _read(module)
            found = {name: node for node in ast.parse(source).body for name in _names(node)}
            prefix = "flq" if section.modules is flq._MODULES else module
            for name in names:
                parts += _described(found[name], f"{prefix}.{name}", source, "###")
    return "\n\n".join(parts) + "\n"


def _read(module: str) -> str:
    path = os.path.join(ROOT, *module.split("."))
    path = os.path.join(path, "__init__.py") if os.path.isdir(path) else path + ".py"
    with open(path, encoding="utf-8") as file:
        return file.read()


def _names(node: ast.AST) -> List[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _described(node: Described, name: str, source: str, heading: str) -> Iterator[str]:
    lines = source.splitlines()
    yield f"{heading} {name}"
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        yield _markdown(_behind(node, source))
        return
    yield f"```python\n{_signature(node, lines)}\n```"
    yield _markdown(ast.get_docstring(node) or "")
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if (isinstance(member, ast.FunctionDef) and not member.name.startswith("_")
                    and ast.get_docstring(member)):
                yield from _described(member, f"{name}.{member.name}", source, "####")


def _behind(node: Union[ast.Assign, ast.AnnAssign], source: str) -> str:
    """The text that stands behind an assignment and says what the value is."""
    body = ast.parse(source).body
    after = next(other for other in body if other.lineno > node.lineno)
    assert isinstance(after, ast.Expr), f"line {node.lineno} has no text behind it"
    return inspect.cleandoc(ast.literal_eval(after.value))


def _signature(node: Union[ast.FunctionDef, ast.ClassDef], lines: Sequence[str]) -> str:
    """How it is declared, as the source has it: the decorators and arguments of a function, the
    fields of a named tuple.
    """
    first = min([node.lineno] + [decorator.lineno for decorator in node.decorator_list])
    declared = lines[first - 1:node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and not _names(field)[0].startswith("_"):
                declared += lines[field.lineno - 1:field.end_lineno]
    return textwrap.dedent("\n".join(declared)).strip().rstrip(":")


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: examples and what is indented stay as they are."""
    blocks = []
    for block in docstring.split("\n\n"):
        if block.startswith(">>>"):
            blocks.append(f"```python\n{block}\n```")
        elif block.startswith("    "):
            blocks.append(block)
        else:
            pieces = re.split(r"(`[^`]*`)", block)  # the second, fourth, ... are code
            pieces[::2] = [re.sub(r"([<*])", r"\\\1", piece) for piece in pieces[::2]]
            blocks.append("".join(pieces))
    return "\n\n".join(blocks)


if __name__ == "__main__":
    with open(PAGE, "w", encoding="utf-8") as written:
        written.write(page())
    print("saved: " + PAGE)
