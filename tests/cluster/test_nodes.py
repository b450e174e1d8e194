"""A cluster that cannot be reached is one line, whatever Ray says of it."""

import sys
import types

import pytest

from flq.cluster.nodes import connected
from flq.errors import ConfigError


@pytest.mark.parametrize("said, told", [("", "(ConnectionError)"),
                                        ("nobody answers\nTraceback", "(nobody answers)")])
def test_what_ray_says_is_told_where_it_says_something(monkeypatch, said, told):
    def init(**options):
        raise ConnectionError(said)

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=init))
    with pytest.raises(ConfigError) as refused, connected("127.0.0.1:1"):
        pass
    assert str(refused.value).endswith(told) and "\n" not in str(refused.value)
