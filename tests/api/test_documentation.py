"""What the pages show of `import flq` is what happens, and the example runs."""

import doctest
import os
import re
import subprocess
import sys

import pytest

from tests.guide_pages import ROOT, blocks

pytestmark = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")


class AboutAsShown(doctest.OutputChecker):
    """Numbers with a point may differ by a fifth: another TensorFlow trains a little differently.
    """
    def check_output(self, want, got, optionflags):
        pairs = list(zip(NUMBER.findall(want), NUMBER.findall(got)))
        if any("." in wanted and abs(float(wanted) - float(given)) > float(wanted) / 5
               for wanted, given in pairs):
            return False
        close = iter(given if "." in wanted else wanted for wanted, given in pairs)
        return super().check_output(NUMBER.sub(lambda number: next(close, number.group()), want),
                                    got, optionflags)


@pytest.mark.parametrize("page, examples, checker",
                         [("README.md", 2, AboutAsShown()),
                          ("docs/guide/python.md", 19, doctest.OutputChecker())])
def test_what_a_page_shows_of_it_is_what_happens(page, examples, checker):
    text = "\n".join("\n".join(block.lines) for block in blocks(page) if block.language == "python")
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    said = []
    runner = doctest.DocTestRunner(checker, optionflags=doctest.ELLIPSIS)
    results = runner.run(test, out=said.append)
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
