"""The pages agree with each other and with the code: links lead somewhere, and the table of keys is the generated one."""

import os
import re

import pytest

from flq import config
from flq.algorithm.server_optimizers import SERVER_OPTIMIZERS
from flq.compression import QUANTIZERS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCS = os.path.join(ROOT, "docs")
PAGES = (["README.md", "USAGE_GUIDE.md", "CHANGELOG.md"] + sorted("docs/" + name for name in os.listdir(DOCS) if name.endswith(".md"))
         + sorted("docs/decisions/" + name for name in os.listdir(os.path.join(DOCS, "decisions"))))


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


def test_the_table_of_keys_is_the_generated_one():
    between = _read("USAGE_GUIDE.md").split("<!-- config table -->\n")[1].split("<!-- end of config table -->")[0]
    assert between == config.table(), "paste what python -c \"from flq import config; print(config.table(), end='')\" prints"


def test_every_quantiser_and_server_optimiser_has_its_formula():
    rows = {name for row in re.findall(r"^ *\| (`.*?) \|", _read("docs/algorithm.md"), re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    assert set(QUANTIZERS) | set(SERVER_OPTIMIZERS) <= rows
