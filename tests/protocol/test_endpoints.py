"""The list of endpoints: what it says of itself, and that nothing in flq writes a path a second
time.
"""

import os
import re

import pytest

from flq.protocol import endpoints
from flq.protocol.endpoints import ENDPOINTS, Endpoint
from flq.protocol.fields import Message

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_the_list_has_every_endpoint_that_is_declared():
    declared = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]
    assert declared == list(ENDPOINTS)


def test_each_says_what_travels():
    for endpoint in ENDPOINTS:
        assert endpoint.who in ("anyone", "worker", "session", "operator", "viewer", "reader")
        assert endpoint.answers and all(
            isinstance(content, Message) or "/" in content
            for content in endpoint.takes + endpoint.answers)
        assert not (endpoint.method == "GET" and endpoint.takes)


def test_an_address_has_its_query_in_the_order_of_the_list():
    assert endpoints.LEAVE.url() == "/leave"
    assert endpoints.GET_GLOBAL_MODEL.url(wait="2.5", have=-1,
                                          hash="ab") == "/get_global_model?have=-1&hash=ab&wait=2.5"
    with pytest.raises(AssertionError):
        endpoints.LEAVE.url(wait=1)


def test_no_path_is_written_anywhere_else():
    words = {
        re.sub("[^a-z_.]", " ", endpoint.path).split()[0] for endpoint in ENDPOINTS
        if endpoint.path != "/"
    }
    literal = re.compile(rf"""["'{{}}]/({'|'.join(sorted(words))})\b""")
    found = []
    for folder, _, files in os.walk(os.path.join(ROOT, "flq")):
        for file in sorted(files):
            path = os.path.join(folder, file)
            if file.endswith(".py") and path != endpoints.__file__:
                with open(path, encoding="utf-8") as text:
                    found += [f"{path}: {line.strip()}" for line in text if literal.search(line)]
    assert found == []
