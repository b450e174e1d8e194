"""What the pages show of `import flq` is what happens, and the example runs."""

import doctest
import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.mark.parametrize("page, examples", [("README.md", 4), ("USAGE_GUIDE.md", 19)])
def test_what_a_page_shows_of_it_is_what_happens(page, examples):
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        section = file.read().split("\n## From Python\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page, page, 0)
    said = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert results.failed == 0, "".join(said)
    assert results.attempted >= examples


def test_the_example_compares_three_modes(tmp_path):
    environment = dict(os.environ, ROUNDS="2", WORKERS="2", PICTURE=str(tmp_path / "picture.png"),
                       TF_CPP_MIN_LOG_LEVEL="3")
    output = subprocess.check_output([sys.executable, "-m", "examples.from_python"], cwd=ROOT,
                                     env=environment, stderr=subprocess.DEVNULL,
                                     universal_newlines=True)
    for mode in ("fedavg", "laq", "rd"):
        assert f"Result(mode {mode}, 2 rounds, accuracy " in output
        assert f"Quantized(mode {mode}, 9258 values" in output
    assert (tmp_path / "picture.png").stat().st_size > 1000
