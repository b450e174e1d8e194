"""The records of the configuration are those of the table of keys."""

from typing import List, Optional, Union, get_type_hints

import pytest

from flq import config
from flq.keys import KEYS, SECTIONS
from flq.settings import Config

SECTION_TYPES = get_type_hints(Config)
TYPES = {section: get_type_hints(SECTION_TYPES[section]) for section in Config._fields}
WITH_NULLS = [
    config.build({key.path: None for key in KEYS if key.null_means and key.name != "local_steps"}),
    config.build({"model.local_epochs": 1}),
]


def test_they_have_the_tables_sections_and_keys_in_its_order():
    assert Config._fields == SECTIONS
    for section in SECTIONS:
        assert list(
            SECTION_TYPES[section]._fields) == [key.name for key in KEYS if key.section == section]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_a_key_has_the_type_of_its_values_and_is_optional_where_null_can_be_left(key):
    kind = List[str] if key.kind is list else key.kind
    if key.kind is bool and key.choices:
        kind = Union[bool, str]
    null_stays = any(config.flat(built)[key.path] is None for built in WITH_NULLS)
    assert TYPES[key.section][key.name] == (Optional[kind] if null_stays else kind)


@pytest.mark.parametrize("hosts", [["a", "b"], ("a", "b")])
def test_a_built_configuration_is_of_these_types(hosts):
    built = config.build({
        "security.allowed_hosts": hosts, "model.lr": 1, "system.round_deadline_s": 5,
        "security.cafile": "ca.pem", "dataset.data_dir": "data", "flq_algorithm.rho_max": 2,
        "flq_algorithm.rd_target_bits": 1, "flq_algorithm.rd_target_bits_down": 2,
            "system.start_workers": 2
    })
    assert type(built) is Config
    for key in KEYS:
        value = config.flat(built)[key.path]
        assert type(getattr(built, key.section)) is SECTION_TYPES[key.section]
        assert type(value) is key.kind or key.path == "model.local_epochs" and value is None


def test_no_two_configurations_share_a_list():
    first, second = config.build({}).security, config.build({}).security
    assert first.allowed_hosts == second.allowed_hosts
    assert first.allowed_hosts is not second.allowed_hosts
