"""Who sets a key that changes nothing is told so, once; tests/simulation/test_idle_keys.py shows
that it changes nothing.
"""

import os

import pytest

from flq import config
from flq.idle_keys import without_effect
from flq.keys import KEYS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_a_key_that_was_set_and_changes_nothing_is_named_once_with_the_reason():
    loaded = config.load(None, ["adam_beta2=0.5", "rd_step_down=2", "b_down=0"])
    assert without_effect(loaded.config, loaded.explicit) == [
        "model.adam_beta2 0.5 has no effect: model.server_optimizer is not adam",
        "flq_algorithm.rd_step_down 2.0 has no effect: flq_algorithm.downlink is not rd"]
    loaded = config.load(
        None, ["adam_beta2=0.5", "rd_step_down=2", "server_optimizer=adam", "downlink=rd"])
    assert without_effect(loaded.config, loaded.explicit) == []


@pytest.mark.parametrize("overrides", [(), ("quorum=all",), ("mode=rd",),
                                       ("mode=rd", "entropy_coding=true"), ("b_down=32",),
                                       ("server_optimizer=adam",), ("memory=none",),
                                       ("quorum=all", "min_workers=4"),
                                       ("mode=fedavg", "entropy_coding=false", "lazy_eps=0"),
                                       ("model.name=package.module:function",)])
def test_nobody_is_warned_of_a_default_written_out(overrides):
    loaded = config.load(os.path.join(ROOT, "flq_config.json"), overrides)
    assert loaded.explicit and without_effect(loaded.config, loaded.explicit) == []


def test_a_history_is_kept_of_levels_that_are_coded_whatever_is_asked_but_of_no_float32():
    loaded = config.load(None, ["downlink=rd", "entropy_coding_down=context"])
    assert without_effect(loaded.config, loaded.explicit) == []
    loaded = config.load(None, ["b_down=0", "entropy_coding_down=context"])
    assert without_effect(loaded.config, loaded.explicit) == [
        'flq_algorithm.entropy_coding_down "context" has no effect: flq_algorithm.b_down is 0 or '
        '32, and float32 is never coded']


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_a_default_is_never_warned_of_whatever_the_others_are(key):
    for overrides in (["quorum=all"], ["b_down=0"], ["mode=rd", "downlink=rd"], ["mode=fedavg"]):
        loaded = config.load(None, overrides)
        assert without_effect(loaded.config, {key.path} - loaded.explicit) == []
