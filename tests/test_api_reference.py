"""docs/api.md is what the docstrings say."""

import ast
import sys

import pytest

import flq
from scripts import api_reference

pytestmark = pytest.mark.skipif(sys.version_info < (3, 8),
                                reason="before 3.8 Python does not say where a docstring begins")


def test_the_page_is_the_generated_one():
    with open(api_reference.PAGE, encoding="utf-8") as file:
        assert file.read() == api_reference.page(), "python -m scripts.api_reference writes it"


def test_every_name_of_the_package_is_on_it():
    for name in set(flq.__all__) - {"__version__"}:
        assert f"\n### flq.{name}\n" in api_reference.page()


def test_a_function_and_a_class_are_shown_as_they_are_declared():
    source = '''class Row(NamedTuple):
    """A row of `a * b`, with <bits>.

    >>> Row(1, 2 * 3)
    Row(1, 6)

        kept *as it is*
    """

    bits: int  # of a level
    _hidden: int
    more: Dict[str,
               int] = {}

    @property
    def total(self) -> int:
        """All * of it."""
        return 1

    def _private(self) -> int:
        """Not shown."""
'''
    row = ast.parse(source).body[0]
    assert list(api_reference._described(row, "x.Row", source, "###")) == [
        "### x.Row",
        "```python\nclass Row(NamedTuple):\n    bits: int  # of a level\n    more: Dict[str,\n"
        "               int] = {}\n```",
        "A row of `a * b`, with \\<bits>.\n\n```python\n>>> Row(1, 2 * 3)\nRow(1, 6)\n```\n\n"
        "    kept *as it is*",
        "#### x.Row.total",
        "```python\n@property\ndef total(self) -> int\n```",
        "All \\* of it."]


@pytest.mark.parametrize("source", ["X = 1\nY = 2\n", "X = 1\n\ndef f():\n    pass\n"])
def test_a_value_without_a_text_is_refused(source):
    with pytest.raises(AssertionError, match="line 1 has no text behind it"):
        list(api_reference._described(ast.parse(source).body[0], "x.X", source, "###"))
