"""The values of frozen layers on the master: told by a hash, sent once to who holds others, and the
same after a restart.
"""

import io

import numpy as np
import pytest

from flq.errors import ProtocolError
from flq.master.http.guard import Access
from flq.master.http.http_api import create_app
from flq.master.process import run_meta
from flq.master.store.run_store import RunStore, StoreError
from flq.master.stored.stored_run import check_model
from flq.parameters import Layout, constants_hash
from tests.system.quadratic import SMALL, Quadratic

ALL = ("total_workers=2", "quorum=all", "max_rounds=9")


class Frozen(Quadratic):
    """Draws other values for its frozen layers in each process."""

    def __init__(self, settings):
        super().__init__(settings)
        self.layout = SMALL._replace(constant_shapes=((2, 3), (4,)))
        self.constants = np.random.RandomState().standard_normal(10).astype("<f4").tobytes()

    def hold_constants(self, digest, fetch):
        held = constants_hash(self.constants) == digest
        if not held:
            self.constants = fetch()
        return not held


def down(run):
    return run.service.run.history.accounting.down


def test_the_values_are_told_by_their_hash_and_counted_once_for_each_worker(start):
    run = start(*ALL, learner=Frozen)
    hands = run.hands(0, 1)
    answer = hands[0].register()
    assert answer["constants_hash"] == constants_hash(run.learner.constants)
    before = down(run)
    for _ in range(2):  # an answer that was lost
        assert run.service.constants(hands[0].session) == run.learner.constants
    assert down(run) == before.plus((320, 320, 0))
    run.service.constants(hands[1].session)
    assert down(run) == before.plus((640, 640, 0))
    run.play(*hands)
    assert run.service.run.history.rows()[0].payload_bits_down == down(run).payload
    run.close()
    run = start(*ALL, learner=Frozen)
    run.service.constants(run.hand(0, like=hands[0]).session)
    assert down(
        run).payload == before.payload + 640, "a master that was started again knows who has them"


@pytest.mark.parametrize("rounds", [0, 1])
def test_what_was_sent_to_who_holds_it_now_is_counted_after_a_kill_too(start, rounds):
    run = start(*ALL, learner=Frozen)
    hands = run.hands(0, 1)
    for _ in range(rounds):
        run.play(*hands)
    for hand in hands:
        run.service.constants(hand.session)
    told = down(run)
    assert told.payload >= 640
    run.close()
    run = start(*ALL, learner=Frozen)
    hands = [run.hand(worker, like=hands[worker]) for worker in (0, 1)]
    assert down(run) == told
    run.play(*hands)
    rows = run.service.run.history.rows()
    assert sum(row.payload_bits_down for row in rows) == down(run).payload >= told.payload
    run.close()
    run = start(*ALL, learner=Frozen)
    assert sum(row.payload_bits_down
               for row in run.service.run.history.rows()) == down(run).payload


def test_what_is_frozen_is_no_part_of_any_frame(start):
    frozen, plain = start(*ALL, learner=Frozen, name="frozen"), start(*ALL, name="plain")
    for run in (frozen, plain):
        run.play(*run.hands(0, 1))
    rows = [run.service.run.history.rows()[0] for run in (frozen, plain)]
    assert rows[0].payload_bits_up == rows[1].payload_bits_up and rows[0].nominal_bits_up == rows[
        1].nominal_bits_up
    assert rows[0].params_hash == rows[1].params_hash


def test_a_master_that_starts_again_keeps_the_values_of_the_run(start):
    run = start(*ALL, learner=Frozen)
    before = run.learner.constants
    run.close()
    again = start(*ALL, learner=Frozen)
    assert again.learner is not run.learner and again.learner.constants == before
    again.close()
    store = RunStore(again.directory)
    store._write("UPDATE constants SET data = ?", (b"damaged",))
    with pytest.raises(StoreError, match="the values of the frozen layers in .* are damaged"):
        store.constants()
    store.close()


def test_a_saved_model_is_whole(start):
    run = start(*ALL, learner=Frozen)
    client = create_app(run.service, Access("secret", True), dict).test_client()
    arrays = np.load(io.BytesIO(client.get("/get_global_model?format=npz").data),
                     allow_pickle=False)
    assert sorted(arrays.files) == ["c0", "c1", "p0", "p1", "s0", "version"]
    assert arrays["c0"].shape == (2, 3) and arrays["c1"].shape == (4,)
    assert np.concatenate([arrays["c0"].ravel(),
                           arrays["c1"]]).astype("<f4").tobytes() == run.learner.constants


def test_the_values_travel_over_http(start):
    run = start(*ALL, learner=Frozen)
    client, hand = create_app(run.service, Access("secret", True), dict).test_client(), run.hand(0)
    answer = client.get("/get_constants", headers={"Authorization": "Bearer " + hand.session})
    assert answer.data == run.learner.constants and answer.mimetype == "application/octet-stream"
    assert client.get("/get_constants",
                      headers={"Authorization": "Bearer foreign"}).status_code == 401


def test_without_frozen_layers_nothing_is_different(start):
    run = start(*ALL)
    hand = run.hand(0)
    assert "constants_hash" not in hand.register() and "constant_shapes" not in run_meta(
        "run", run.config, run.learner)
    with pytest.raises(ProtocolError) as refusal:
        run.service.constants(hand.session)
    assert refusal.value.name == "not_found"
    assert run.store.constants() is None and set(
        run.service.run.history.save()) == {"delivered", "worker_down"}


def test_a_run_that_sent_frozen_layers_in_every_message_is_refused(start):
    """An older version counted their values among the ones that travel."""
    run = start(*ALL)
    check_model(run.store, run.learner.layout)
    frozen = Layout(SMALL.shapes, (), SMALL.non_trainable_shapes)
    with pytest.raises(StoreError,
                       match="cannot be built here.*must end with the version that began it"):
        check_model(run.store, frozen)
