"""What `import flq` gives: names that are loaded when they are used, the same to a person, to
help() and to a type checker.
"""

import ast
import json
import os
import pydoc
import subprocess
import sys

import pytest

import flq

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _python(code):
    return json.loads(
        subprocess.check_output([sys.executable, "-c", "import json, sys\n" + code],
                                cwd=ROOT).decode("ascii"))


def test_importing_it_loads_nothing_of_it():
    assert _python(
        "import flq; print(json.dumps([name for name in sys.modules if name.startswith('flq.') or "
        "name == 'numpy']))"
    ) == []


def test_every_name_is_there_and_loaded_once():
    for name in flq.__all__:
        assert getattr(flq, name) is getattr(
            flq, name) is not None and name in dir(flq) and name in vars(flq)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError) as error:
        flq.simulat  # noqa: B018
    assert str(error.value) == "module 'flq' has no attribute 'simulat'"
    assert not hasattr(flq, "__wrapped__")


def test_help_shows_every_name_with_its_docstring():
    shown = pydoc.plain(pydoc.render_doc(flq))
    for name in flq.__all__:
        assert name in shown
    assert "A whole run in this process, as `python -m flq simulate` plays it" in shown


def test_type_checkers_see_the_same_names():
    with open(os.path.join(ROOT, "flq", "__init__.pyi"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    names = {
        alias.asname for node in tree.body if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names | {"__version__"} == set(flq.__all__) == set(flq._PLACES) | {"__version__"}
    assert os.path.exists(os.path.join(ROOT, "flq", "py.typed"))


def test_quantising_loads_neither_tensorflow_nor_a_master():
    loaded = _python("import flq; flq.quantize([1.0, 2.0]); print(json.dumps(sorted(sys.modules)))")
    assert not {name.partition(".")[0]
                for name in loaded} & {"tensorflow", "pandas", "flask", "requests", "matplotlib"}
    assert not [
        name for name in loaded
        if name.startswith(("flq.master", "flq.simulation", "flq.reports", "flq.learning"))
    ]


@pytest.mark.skipif(sys.version_info >= (3, 9), reason="this Python is new enough")
def test_a_run_says_that_it_needs_a_newer_python():
    from flq.errors import ConfigError
    for call in (flq.simulate, lambda: flq.load_run("results/run")):
        with pytest.raises(ConfigError) as refusal:
            call()
        assert str(
            refusal.value).startswith("this Python is too old; expected Python 3.9 or newer; got ")
