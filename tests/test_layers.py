"""The layers of FLQ, and the rules of what each may import and be.

Read LAYERS from top to bottom: each imports only what stands above it.
"""

import ast
import json
import os
import re
import socket
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

LAYERS = (
    ("flq", "the package: a version, and names that are loaded when they are used"),
    # words: what every layer speaks with
    ("flq.errors", "every way to say no, in one line"),
    ("flq.records", "what one package hands to the next"),
    ("flq.pieces", "long vectors in pieces that the cache holds"),
    ("flq.kernels", "the passes over long vectors, compiled where they can be"),
    ("flq.parameters", "the model as one flat vector, its hashes"),
    ("flq.user_code", "a user's own code by name: found, called, blamed in one line"),
    ("flq.modes", "the one table of modes"),
    ("flq.settings", "the configuration as records"),
    ("flq.keys", "the one table of keys"),
    ("flq.robust_keys", "what keys must say together beside a rule against bad workers"),
    ("flq.config", "the configuration, read strictly"),
    ("flq.idle_keys", "keys that change nothing beside others"),
    ("flq.rng", "all randomness, counter-based"),
    ("flq.host", "what FLQ needs of its machine: log, signals, files, memory, sensors"),
    ("flq.revoked", "what was revoked of tokens and certificates"),
    ("flq.tokens", "who may do what"),
    ("flq.completion", "what a shell completes of the command lines"),
    ("flq.command_line", "how the programs take options and end with an error"),
    # what is computed: functions of their arguments
    ("flq.compression", "vector <-> levels <-> bytes"),
    ("flq.algorithm", "what a round computes"),
    # how machines talk: bytes, messages and the two machines that own all of time
    ("flq.protocol", "frames, messages, endpoints, round machine, worker machine"),
    # who does it
    ("flq.learning", "data, models, local training: the only package that knows TensorFlow"),
    ("flq.worker", "the worker process"),
    ("flq_worker", "its command line"),
    # ---- everything above runs on Python 3.6; below, Python 3.9 or newer ----
    ("flq.reports", "a run as files, tables, plots"),
    ("flq.master.store", "what a run leaves on the disk"),
    ("flq.master.run", "the run itself, without locks, threads, sockets or clocks"),
    ("flq.master.stored", "what is done with a run that no master serves"),
    ("flq.master.coder", "a thread beside the driver's, for parts of a round"),
    ("flq.master.evaluator", "tests models on a thread of its own"),
    ("flq.master.questions", "workers' questions that wait without a thread"),
    ("flq.master.service", "a run as it is served: the lock, the clock, the threads"),
    ("flq.master.status", "what people may see of a run"),
    ("flq.master.http", "the run over HTTP, with its page"),
    ("flq.master", "the master process"),
    ("flq.simulation", "master and workers in one process"),
    ("flq.sweep", "many simulations from one file, as processes"),
    ("flq.cluster", "simulations and sweeps on a Ray cluster"),
    ("flq.report_commands", "what python -m flq makes of runs that were played"),
    ("flq.run_commands", "what python -m flq computes in its own process"),
    ("flq.sweep_commands", "python -m flq sweep"),
    ("flq.identity_commands", "python -m flq token, certs and audit"),
    ("flq.__main__", "python -m flq"),
    ("flq_master", "the master's command line"),
    # ---- on Python 3.6 again, where what needs a newer one says so when it is called ----
    ("flq.api", "what a program uses: import flq"),
    # ---- on the Python that each of these systems needs ----
    ("flq.integrations", "FLQ inside PyTorch, Flower and NVFlare: extras, imported by nobody"),
)
ORDER = {name: place for place, (name, _) in enumerate(LAYERS)}

# What only some places may import.
KEPT_IN = {
    "tensorflow": ("flq.learning",),
    "keras": ("flq.learning",),
    "flask": ("flq.master.http.http_api", "flq.master.http.answers", "flq.master.http.guard",
              "flq.master.http.history_answers"),
    "werkzeug": ("flq.master.http.http_api", "flq.master.http.answers", "flq.master.http.guard"),
    "waitress": ("flq.master.http.server", "flq.master.http.parking", "flq.master.http.event_loop"),
    "requests": ("flq.worker.master_client",),
    "sqlite3": ("flq.master.store.run_store",),
    "pandas": ("flq.reports",),
    "openpyxl": ("flq.reports",),
    "matplotlib": ("flq.reports",),
    "jinja2": ("flq.reports.html_report",),
    "tensorboardX": ("flq.reports.tensorboard",),
    "shtab": ("flq.completion",),
    "zlib_ng": ("flq.compression.deflate",),
    "torch": ("flq.integrations.torch", "flq.integrations.nvflare_dxo"),
    "flwr": ("flq.integrations.flower",),
    "nvflare": tuple("flq.integrations.nvflare" + part
                     for part in ("", "_dxo", "_server", "_client")),
    "ray": ("flq.cluster",),
}
HEAVY = sorted(set(KEPT_IN) - {"zlib_ng"})  # which is small, and loaded with what uses it

# What is computed has no clock, no threads, no files, no sockets, no global random state.
PURE = ("flq.compression", "flq.algorithm", "flq.protocol")
IMPURE = {
    "time", "datetime", "threading", "queue", "asyncio", "logging", "random", "secrets", "os", "io",
    "pathlib", "socket", "subprocess"
}

# The run has none of these either; what it says goes to the log, and its sessions are drawn.
RUN = "flq.master.run"
WAITING = {
    "time", "datetime", "threading", "concurrent", "queue", "asyncio", "socket", "select", "signal",
    "subprocess"
}

LONGEST = 350
LONGER_FILES = {
    "flq/keys.py": "the one table of keys, and how a name and a value are looked up in it",
    "flq/master/store/run_store.py": "the only file that knows SQLite: every statement on the "
                                     "tables stands beside them",
    "flq/master/run/run.py": "the master's side of every request, beside the state that they share",
    "flq/protocol/frames.py": "the one binary message: its tables, what writes and what reads it",
    "flq/protocol/round_machine.py": "the table of every event in every phase, and its handlers",
}
NAMES_OF_NOTHING = {
    "utils", "util", "common", "helpers", "helper", "core", "manager", "misc", "base"
}


def _sources():
    """Module name -> path, of the package and the two entry points."""
    sources = {name: os.path.join(ROOT, name + ".py") for name in ("flq_master", "flq_worker")}
    for folder, _, files in os.walk(os.path.join(ROOT, "flq")):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, ROOT)[:-len(".py")].replace(os.sep, ".")
                sources[name[:-len(".__init__")] if name.endswith(".__init__") else name] = path
    return sources


SOURCES = _sources()


def _imports(name):
    """Every module that a module names in an import, wherever it stands, as (module, line)."""
    with open(SOURCES[name], encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{SOURCES[name]}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in SOURCES else node.module), node.lineno


IMPORTS = {name: sorted(set(_imports(name))) for name in SOURCES}


def _layer(name):
    """The entry of LAYERS that a module belongs to."""
    while name not in ORDER:
        name = name.rpartition(".")[0]
    return name


def _inside(name, place):
    return name == place or name.startswith(place + ".")


WORDS = "words and host"
"""One box of the picture: what everybody imports."""


def _box(name):
    """The box of the picture that a module is in, None for the package itself."""
    layer = _layer(name)
    if layer == "flq":
        return None
    if ORDER[layer] < ORDER["flq.compression"]:
        return WORDS
    return layer[len("flq."):] if layer.startswith("flq.") else layer


def picture():
    """The layers as docs/architecture.md shows them, a Mermaid graph made from the imports.

    An arrow from A to B: B imports A, and there is no longer way.
    """
    boxes = list(dict.fromkeys(filter(None, map(_box, ORDER))))
    users = {box: set() for box in boxes}
    for name in SOURCES:
        for imported, _ in IMPORTS[name]:
            box, other = _box(name), _box(imported) if imported in SOURCES else None
            if box and other and box != other:
                users[other].add(box)
    reached = {}  # in the order of layers every import leads up: the last box is used by nobody
    for box in reversed(boxes):
        reached[box] = set(users[box]).union(*(reached[user] for user in users[box]))
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'    {number}["{box}"]' for number, box in enumerate(boxes)]
    for number, box in enumerate(boxes):
        direct = users[box] - set().union(*(reached[user] for user in users[box]))
        lines += [f"    {number} --> {boxes.index(user)}" for user in sorted(direct,
                                                                           key=boxes.index)]
    return "\n".join(lines + ["```"]) + "\n"


def test_the_picture_in_the_docs_is_made_from_the_imports():
    with open(os.path.join(ROOT, "docs", "architecture.md"), encoding="utf-8") as file:
        shown = file.read().split("<!-- picture -->\n")[1].split("<!-- end of picture -->")[0]
    assert shown == picture(), (
        "paste what python -c \"from tests.test_layers import picture; print(picture(), end='')\""
        " prints")


def test_every_module_has_its_place_in_the_layers():
    assert [name for name in SOURCES if _layer(name) == "flq"] == ["flq"]
    assert not [name for name in ORDER if name not in SOURCES]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_what_stands_above_it(name):
    for imported, line in IMPORTS[name]:
        if imported in SOURCES and _layer(imported) != _layer(name):
            assert ORDER[_layer(imported)] < ORDER[_layer(
                name)], f"{SOURCES[name]}:{line} imports {imported}"


def test_no_two_modules_import_each_other_even_by_a_detour():
    done, path = set(), []

    def visit(name):
        assert (
            name
            not in path), f"a circle of imports: {' -> '.join(path[path.index(name):] + [name])}"
        if name not in done:
            path.append(name)
            for imported, _ in IMPORTS[name]:
                if imported in SOURCES:
                    visit(imported)
            done.add(path.pop())

    for name in sorted(SOURCES):
        visit(name)


@pytest.mark.parametrize("package", sorted(KEPT_IN))
def test_a_package_is_imported_only_where_it_belongs(package):
    importers = {
        name for name in SOURCES for imported, _ in IMPORTS[name] if _inside(imported, package)
    }
    assert not [
        name for name in importers if not any(_inside(name, place) for place in KEPT_IN[package])
    ]


@pytest.mark.parametrize(
    "name", sorted(name for name in SOURCES if any(_inside(name, layer) for layer in PURE)))
def test_what_is_computed_is_a_function_of_its_arguments(name):
    assert not {imported.partition(".")[0] for imported, _ in IMPORTS[name]} & IMPURE


@pytest.mark.parametrize("name", sorted(name for name in SOURCES if _inside(name, RUN)))
def test_the_run_has_no_lock_thread_socket_or_clock(name):
    assert not {imported.partition(".")[0] for imported, _ in IMPORTS[name]} & WAITING


@pytest.mark.parametrize("module", ["flq", "flq.worker.loop"])
def test_importing_it_loads_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)
    assert loaded.decode("ascii").strip() == "[]"


@pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")
@pytest.mark.parametrize("save_results", [True, False])
def test_a_master_loads_what_draws_and_tabulates_only_to_save_results(tmp_path, save_results):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        busy = str(holder.getsockname()[1])
        process = subprocess.run([
            sys.executable, "-X", "importtime",
            os.path.join(ROOT, "flq_master.py"), "--port", busy, "--token_file", "token", "--set",
            f"save_results={json.dumps(save_results)}"
        ], cwd=str(tmp_path), stderr=subprocess.PIPE, universal_newlines=True)
    assert "cannot listen on" in process.stderr, "it ends there, before TensorFlow is loaded"
    loaded = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert {"pandas", "openpyxl", "matplotlib"} & loaded == ({"openpyxl", "matplotlib"}
                                                             if save_results else set())


def test_a_workers_host_gets_every_package_above_the_line():
    """Also where there is no sshd for tests/system/test_deploy.py."""
    with open(os.path.join(ROOT, "deploy_jetson.sh"), encoding="utf-8") as file:
        left_out = re.search(r"^not_for_workers=\(flq/\{([a-z_.,]+)\}\)", file.read(), re.MULTILINE)
    below = [name.split(".")[1] for name, _ in LAYERS[ORDER["flq_worker"] + 1:] if "." in name]
    assert {name for name in left_out.group(1).split(",") if "." not in name} == {
        name for name in below if os.path.isdir(os.path.join(ROOT, "flq", name))}


def test_a_file_holds_one_idea():
    lengths = {}
    for path in SOURCES.values():
        with open(path, encoding="utf-8") as file:
            lengths[os.path.relpath(path, ROOT).replace(os.sep, "/")] = sum(1 for _ in file)
    longer = {path for path, length in lengths.items() if length > LONGEST}
    assert longer == set(LONGER_FILES), "split it, or say in LONGER_FILES why it stays whole"


@pytest.mark.parametrize("entry", ["flq_master.py", "flq_worker.py"])
def test_an_entry_point_is_short(entry):
    with open(os.path.join(ROOT, entry), encoding="utf-8") as file:
        assert sum(1 for _ in file) < 75


def test_a_module_is_named_after_what_it_does():
    assert not {part for name in SOURCES for part in name.split(".")} & NAMES_OF_NOTHING


def test_nobody_asks_what_a_memory_is_called():
    """Its entry in flq.algorithm.memories says what is so, and above it flq.modes: another memory
    is one value there.
    """
    def is_memory(side):
        return any(
            getattr(node, "attr", getattr(node, "id", None)) == "memory" for node in ast.walk(side))

    found = []
    for name in sorted(SOURCES):
        with open(SOURCES[name], encoding="utf-8") as file:
            compared = [
                node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Compare)
            ]
        found += [
            f"{SOURCES[name]}:{node.lineno}" for node in compared
            if any(map(is_memory, [node.left] +
                       node.comparators)) and any(map(_holds_text, [node.left] + node.comparators))
        ]
    assert not found


def _holds_text(node):
    """Whether it is a text, or a tuple, list or set with one in it."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False
    return isinstance(value, str) or isinstance(value, (tuple, list, set)) and any(
        isinstance(item, str) for item in value)
