"""What the workers of a process share of the models that come: the same arrays, computed once."""

import weakref

import numpy as np
import pytest

from flq import config
from flq.algorithm import downlink
from flq.compression import codec
from flq.errors import ProtocolError
from flq.parameters import params_hash
from flq.protocol import frames
from flq.protocol.frames import Content, Expected, Place, RoundTerms
from flq.worker import received
from flq.worker.received import Held, KeyframeNeeded, SharedModels
from tests.system.quadratic import SMALL, Quadratic

TERMS = RoundTerms(0.0, 0.0, 1.0, 0.0, 100, 0)


class Master(object):
    """Makes the frames of one run of a configuration, one after another."""

    def __init__(self, settings):
        self._settings = downlink.settings_from(settings, SMALL)
        self._expected = Expected("run", SMALL, SMALL.sizes)
        self.params, self.values = Quadratic(settings).initial()
        self.version, self.activity = 0, downlink.initial_activity(self._settings)

    def frame(self, step):
        base = params_hash(self.params, self.values)
        encoded, self.params = downlink.encode(self.params + np.float32(step), self.params,
                                               self.version, self._settings, self.activity)
        body = codec.to_body(encoded, self._settings.entropy_coding, self.activity)
        self.activity = codec.next_activity(self.activity, encoded)
        self.version += 1
        assert base != params_hash(self.params, self.values)
        return frames.pack(
            Content(encoded.quantizer, encoded.bits, body, self.values),
            Place(self.version, self.version - 1, params_hash(self.params, self.values)), TERMS,
            self._expected)


def settings_of(*overrides):
    return config.load(None, ["total_workers=3", *overrides]).config


@pytest.fixture
def count(monkeypatch):
    calls, receive = [], received.receive
    monkeypatch.setattr(received, "receive",
                        lambda *arguments: calls.append(1) or receive(*arguments))
    return calls


@pytest.mark.parametrize("settings", [(), ("entropy_coding_down=context",), ("cohorts=2",)],
                         ids=str)
def test_who_holds_the_same_and_is_sent_the_same_shares_what_comes(settings, count):
    settings = settings_of(*settings)
    master, models = Master(settings), SharedModels(Quadratic(settings), settings, "run", 3)
    held = [models.first] * 3
    for step in (0.5, -0.25, 1.0):
        data = master.frame(step)
        # each has bytes of its own, as from a socket
        made = [models.receive(bytes(bytearray(data)), one) for one in held]
        held = [one for one, _, _ in made]
        assert held[0].params is held[1].params is held[2].params
        assert held[0].params_hash == params_hash(master.params, master.values)
        assert [rest for _, _, rest in made] == [b""] * 3
    assert len(count) == 3


def test_who_holds_another_model_or_is_sent_other_bytes_gets_its_own(count):
    settings = settings_of()
    master, other = Master(settings), Master(settings)
    models = SharedModels(Quadratic(settings), settings, "run", 3)
    first, second = master.frame(0.5), other.frame(2.0)
    ours, _, _ = models.receive(first, models.first)
    theirs, _, _ = models.receive(second, models.first)
    assert ours.params_hash != theirs.params_hash and len(count) == 2
    own = models.first._replace(params=models.first.params.copy())
    again, _, _ = models.receive(first, own)
    assert again.params_hash == ours.params_hash and again.params is not ours.params


@pytest.mark.parametrize("num_workers", [1, 2])
def test_no_more_models_are_kept_than_workers_can_hold_whatever_the_master_says(num_workers):
    """A master that says 60,000 cohorts must not have a small machine keep 60,000 models."""
    settings = settings_of("total_workers=60000", "cohorts=60000")
    master, models = Master(settings), SharedModels(Quadratic(settings), settings, "run",
                                                    num_workers)
    held, kept = models.first, []
    for _ in range(6):
        held, _, _ = models.receive(master.frame(0.5), held)
        kept.append(weakref.ref(held.params))
    most = 1 if num_workers == 1 else num_workers + 2  # nobody shares with one worker
    assert sum(one() is not None for one in kept) <= most


def test_a_model_that_cannot_be_received_is_refused_each_time(count):
    settings = settings_of()
    master, models = Master(settings), SharedModels(Quadratic(settings), settings, "run", 3)
    data = master.frame(0.5)
    astray = models.first._replace(params=models.first.params + np.float32(1))
    for _ in range(2):
        with pytest.raises(KeyframeNeeded):
            models.receive(data, astray)
        with pytest.raises(ProtocolError):
            models.receive(data, models.first._replace(version=7))
    assert len(count) == 4


def test_a_model_from_a_file_is_the_one_that_others_hold(count):
    settings = settings_of("entropy_coding_down=context")
    master, models = Master(settings), SharedModels(Quadratic(settings), settings, "run", 3)
    ours, _, _ = models.receive(master.frame(0.5), models.first)

    def read(held):
        return Held(held.version, held.params.copy(), held.non_trainable.copy(), held.params_hash,
                    held.activity.copy())

    assert models.same(read(ours)) is ours and models.same(read(models.first)) is models.first
    other = read(ours)._replace(activity=ours.activity + np.uint8(1))
    assert models.same(other) is other
