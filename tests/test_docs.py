"""The pages agree with each other and with the code: links lead somewhere, and what is named is
there.
"""

import ast
import os
import re

import pytest

from flq import keys
from flq.algorithm.server_optimizers import SERVER_OPTIMIZERS
from flq.compression import QUANTIZERS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = sorted(name for name in os.listdir(ROOT) if name.endswith(".md")) + sorted(
    os.path.relpath(os.path.join(directory, name), ROOT)
    for directory, _, names in os.walk(os.path.join(ROOT, "docs")) for name in names
    if name.endswith(".md"))


def _read(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def _anchors(page):
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _read(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", _read(page)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, target)), link
        assert not anchor or anchor in _anchors(target), link


def test_every_quantiser_and_server_optimiser_has_its_formula():
    rows = {
        name for row in re.findall(r"^ *\| (`.*?) \|", _read("docs/algorithm.md"), re.MULTILINE)
        for name in re.findall("`(.*?)`", row)
    }
    assert set(QUANTIZERS) | set(SERVER_OPTIMIZERS) <= rows


# --- what the normative pages cite of the code


def _assigned(node):
    """The names that a statement gives a value to, and those of self.x."""
    targets = node.targets if isinstance(
        node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        for inner in ast.walk(target):
            if isinstance(inner, ast.Name):
                yield inner.id
            elif isinstance(inner, ast.Attribute) and isinstance(
                    inner.value, ast.Name) and inner.value.id == "self":
                yield inner.attr


def _members(node):
    """Name -> its own members, of a module or a class."""
    found = {}
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            found[child.name] = _members(child)
        elif isinstance(child, ast.FunctionDef):
            found[child.name] = {}
            if isinstance(node, ast.ClassDef):
                found.update((name, {}) for inner in ast.walk(child) for name in _assigned(inner))
        elif isinstance(child, ast.ImportFrom):
            # what a package hands on
            found.update((alias.asname or alias.name, {}) for alias in child.names)
        else:
            found.update((name, {}) for name in _assigned(child))
    return found


def _package():
    """(module name -> its members, class name -> its members, every identifier) of flq."""
    modules, classes, identifiers = {}, {}, set()
    for directory, _, names in os.walk(os.path.join(ROOT, "flq")):
        for name in names:
            if name.endswith(".py"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    tree = ast.parse(file.read())
                path = os.path.relpath(os.path.join(directory, name[:-3]), ROOT).split(os.sep)
                members = modules[".".join(path[:-1] if path[-1] ==
                                           "__init__" else path)] = _members(tree)
                classes.update((inner.name, members.get(inner.name, {})) for inner in tree.body
                               if isinstance(inner, ast.ClassDef))
                identifiers.update(
                    getattr(node, key, None) for node in ast.walk(tree)
                    for key in ("id", "attr", "arg", "name"))
    return modules, classes, identifiers


MODULES, CLASSES, IDENTIFIERS = _package()
KEYS = {key.path for key in keys.KEYS}


def _has(members, path):
    for part in path:
        if part not in members:
            return False
        members = members[part]
    return True


def _is_there(cited):
    """Whether a dotted name leads to something: a key, Class.member, or module.member with the
    module's path or the end of it.
    """
    parts = cited.split(".")
    if cited in KEYS or (parts[0] in CLASSES and _has(CLASSES[parts[0]], parts[1:])):
        return True
    for cut in range(1, len(parts) + 1):
        module = ".".join(parts[:cut])
        if any((name == module or name.endswith("." + module)) and _has(members, parts[cut:])
               for name, members in MODULES.items()):
            return True
    return False


def _is_a_file(cited):
    """Whether there is such a file or folder, by its path or the end of its path in flq."""
    return os.path.exists(os.path.join(ROOT, cited)) or any(
        os.path.join(directory, name).endswith(os.sep + cited.rstrip("/"))
        for directory, folders, names in os.walk(os.path.join(ROOT, "flq"))
        for name in folders + names)


OWN_FILE = r"\w[\w./]*\.(?:py|sh|md|json)|[a-z]+/[\w./]*"
OWN_NAME = r"_?[A-Za-z]\w*(?:\.\w+)+"
# Of a run, of another project, and the page's own examples.
NOT_OURS = {"run.db", "run.lock", "run.wire", "numpy.load", "flq/compression/mine.py",
            "flq/learning/models/mine.py", "flq/learning/datasets/mine.py"}


@pytest.mark.parametrize("page", ["docs/algorithm.md", "docs/architecture.md", "docs/protocol.md"])
def test_what_is_cited_of_the_code_is_there(page):
    missing = []
    for cited in re.findall(r"`([^`\n]+)`", _read(page)):
        cited = re.sub(r"\(.*\)$|\[.*\]$", "", cited)
        if cited in NOT_OURS:
            continue
        if re.fullmatch(OWN_FILE, cited):
            good = _is_a_file(cited)
        else:
            good = not re.fullmatch(OWN_NAME, cited) or _is_there(cited)
        if not good:
            missing.append(cited)
    assert missing == []


OWN_PATH = (r"(?<![\w/.~$-])(?:benchmarks|docs|examples|flq|scripts|tests)/[\w./-]*"
            r"\.(?:py|sh|md|json|txt|png|npz)\b")
TEXTS = (".py", ".md", ".sh")
# the pages' own examples, and what a worker's machine has
NO_PATHS = {"flq/compression/mine.py", "flq/learning/models/mine.py",
            "flq/learning/datasets/mine.py", "benchmarks/peers/NAME.txt", "flq/run.sh"}


def _texts():
    """Every page, program and script, by its path from the root."""
    folders = ("benchmarks", "docs", "examples", "flq", "scripts", "tests")
    for name in sorted(os.listdir(ROOT)):
        if name.endswith(TEXTS):
            yield name
    for top in folders:
        for directory, _, names in os.walk(os.path.join(ROOT, top)):
            for name in sorted(names):
                if name.endswith(TEXTS):
                    yield os.path.relpath(os.path.join(directory, name), ROOT)


def test_every_path_that_is_named_exists():
    missing = {(page, cited) for page in _texts() for cited in re.findall(OWN_PATH, _read(page))
               if cited not in NO_PATHS and not os.path.exists(os.path.join(ROOT, cited))}
    assert missing == set()


def test_every_symbol_of_the_papers_has_its_name_in_the_code():
    table = _read("docs/algorithm.md").split("| paper | meaning | code | configuration |")[1].split(
        "\n\n")[0]
    names = {
        part for row in table.splitlines()[2:]
        for cited in re.findall("`(.*?)`",
                                row.split("|")[3]) for part in cited.split(".")
    }
    assert names and names - IDENTIFIERS - {name.split(".")[-1] for name in MODULES} == set()
