"""The notebooks run as they are, and what they show is what they give today."""

import json
import os
import subprocess
import sys

import pytest

from scripts import notebooks

pytestmark = pytest.mark.skipif(sys.version_info < (3, 9), reason="a run needs Python 3.9")
PATHS = notebooks.paths()
RUN = """
import json, sys
from scripts import notebooks
notebook = notebooks.read(sys.argv[1])
notebooks.run(notebook)
json.dump(notebook, open("done.json", "w"))
"""


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cell):
    return ["".join(output.get("text") or output["data"]["text/plain"])
            for output in cell["outputs"]]


def kinds(cell):
    return [(output["output_type"], sorted(output.get("data", ()))) for output in cell["outputs"]]


def test_there_are_some():
    assert [os.path.basename(path) for path in PATHS] == ["compare_quantisers.ipynb",
                                                          "read_a_run.ipynb"]


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_it_is_whole_and_small_and_names_no_machine(path):
    notebook = notebooks.read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names) and notebook["cells"][0]["source"][0].startswith("# ")
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", ()) for cell in cells
               for output in cell["outputs"]) >= 1
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert len(text) < notebooks.LONGEST and "/home/" not in text and "/tmp/" not in text


@pytest.mark.parametrize("path", PATHS, ids=os.path.basename)
def test_it_runs_and_gives_what_it_shows(path, tmp_path):
    environment = dict(os.environ, PYTHONPATH=notebooks.ROOT)
    subprocess.run([sys.executable, "-W", "ignore", "-c", RUN, path], cwd=str(tmp_path),
                   env=environment, check=True, stderr=subprocess.DEVNULL)
    fresh = code_cells(json.loads((tmp_path / "done.json").read_text()))
    stored = code_cells(notebooks.read(path))
    assert [kinds(cell) for cell in fresh] == [kinds(cell) for cell in stored], (
        "python -m scripts.notebooks stores them again")
    if "quantisers" in path:  # of NumPy alone, and so the same everywhere
        assert [texts(cell) for cell in fresh] == [texts(cell) for cell in stored]
