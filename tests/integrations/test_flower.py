"""FLQ's updates on Flower: the model of flq.simulate bit for bit, and every fault repaired within a
round without anything counted twice. Real ClientApps and strategies, in one process;
test_flower_processes.py has SuperLink and SuperNodes.
"""

import random

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed here, tests/integrations/run.sh flower "
                    "makes an environment with it")

from flwr.app import ConfigRecord  # noqa: E402
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum  # noqa: E402

import flq  # noqa: E402
from flq.errors import ConfigError, DataError  # noqa: E402
from flq.integrations.exchange import form_of  # noqa: E402
from flq.integrations.exchange_node import Node  # noqa: E402
from flq.integrations.flower import FlqStrategy  # noqa: E402
from tests.integrations.flower_nodes import NAMES, Nodes, first_arrays  # noqa: E402
from tests.system.own_learner import LeastSquares  # noqa: E402


def learners(count):
    return [LeastSquares(worker) for worker in range(count)]


def fed_avg(count, evaluate=0.0, kind=FedAvg, **options):
    return kind(fraction_evaluate=evaluate, min_train_nodes=count, min_available_nodes=count,
                **options)


def play(nodes, strategy, rounds):
    """The last arrays of so many rounds."""
    result = strategy.start(nodes, first_arrays(), num_rounds=rounds)
    return [array.numpy() for array in result.arrays.values()]


class Played:
    """A strategy and its nodes, round by round."""

    def __init__(self, count=3, **keywords):
        self.nodes = Nodes(learners(count))
        self.strategy = FlqStrategy(fed_avg(count, min_evaluate_nodes=0), **keywords)
        self.strategy._strategy.min_available_nodes = 1
        self.strategy._strategy.min_train_nodes = 1
        self.arrays, self.round = first_arrays(), 0

    @property
    def server(self):
        return self.strategy.server

    def play(self, rounds=1):
        for _ in range(rounds):
            self.round += 1
            messages = self.strategy.configure_train(self.round, self.arrays, ConfigRecord(),
                                                     self.nodes)
            found, _ = self.strategy.aggregate_train(self.round,
                                                     self.nodes.send_and_receive(messages))
            self.arrays = found or self.arrays
            self.check()

    def check(self):
        """Both sides hold the same reference of each node, and the sum is that of the members."""
        server = self.server
        total = np.zeros(server.form.layout.num_params)
        for worker in server.model.members:
            reference = server._references.get(worker)
            if reference is not None:
                total += server.model.accounts[worker].weight * reference
        if server.model.reference_sum is not None:
            np.testing.assert_allclose(server.model.reference_sum, total, rtol=1e-9, atol=1e-9)
        for node, context in self.nodes.contexts.items():
            known = server._nodes.get(node)
            if known is None or known.worker is None or "flq" not in context.state:
                continue
            held = Node.load(context.state["flq"], node, known.worker)
            if not held.state():
                continue  # it was damaged
            account = server.model.accounts[known.worker]
            held._settle(account.reference_hash, account.epoch, account.clock == 2**31 - 1)
            reference = server._references.get(known.worker)
            memory = held._record.uplink.memory
            if memory is not None and reference is not None and not held._reset:
                assert (memory == reference).all()
                assert held._record.uplink.reference_hash == account.reference_hash


@pytest.mark.parametrize("keywords", [
    {"mode": "laq"}, {"mode": "bin"}, {"mode": "rd", "entropy_coding_down": "context"},
    {"mode": "qsgd", "averaging": 0}, {"mode": "fedavg", "b_down": 32},
    {"mode": "laq", "memory": "residual", "entropy_coding": "context"},
    {"mode": "laq", "thr_scale": 1.0}, {"mode": "bbit", "server_optimizer": "adam"},
    {"mode": "laq", "weighting": "uniform", "radius": "block", "block_size": 16},
    {"mode": "laq", "aggregation": "median", "bad_workers": 1},
], ids=str)
def test_the_model_is_that_of_a_simulation_bit_for_bit(keywords):
    nodes = Nodes(learners(4))
    found = play(nodes, FlqStrategy(fed_avg(4), **keywords), 7)
    simulated = flq.simulate(learners=learners(4), max_rounds=7, **keywords)
    for left, right in zip(found, simulated.weights):
        assert (left == right).all()
    if keywords == {"mode": "laq", "thr_scale": 1.0}:
        assert simulated.rounds.skipped.map(len).sum() > 5, "silence is part of it"


def test_nodes_without_a_number_get_one():
    nodes = Nodes(learners(3), numbered=False)
    strategy = FlqStrategy(fed_avg(3), mode="laq")
    play(nodes, strategy, 3)
    assert sorted(strategy.server.model.members) == [65536, 65537, 65538]


def test_what_was_sent_for_a_test_is_not_sent_again_for_the_training():
    nodes = Nodes(learners(2))
    strategy = FlqStrategy(fed_avg(2, evaluate=1.0), mode="laq")
    result = strategy.start(nodes, first_arrays(), num_rounds=4)
    sent = [(kind, len(fields["frames"]), "about" in fields) for kind, _, fields in nodes.seen]
    assert [kind for kind, *_ in sent] == (["train"] * 2 + ["evaluate"] * 2) * 4
    assert [about for _, _, about in sent] == [True] * 2 + [False] * 14
    assert all(length > 0 for kind, length, _ in sent[2:] if kind == "evaluate")
    assert all(length == 0 for kind, length, _ in sent[2:] if kind == "train")
    assert set(result.evaluate_metrics_clientapp[4]) == {"loss", "accuracy"}


@pytest.mark.parametrize("keywords", [{"mode": "laq"}, {"mode": "bin"}, {"mode": "qsgd"},
                                      {"mode": "laq", "memory": "residual"}], ids=str)
def test_a_node_that_lost_its_state_is_back_a_round_later(keywords):
    played = Played(**keywords)
    played.play(3)
    played.nodes.start(1001, LeastSquares(1), 1)
    played.play()
    fields = played.nodes.seen[-2][2]
    assert "about" not in fields, "the server could not know"
    assert played.server._nodes[1001].version == -1 and played.server.model.accounts[1].clock > 0
    played.play()
    assert "about" in played.nodes.seen[-2][2]
    account = played.server.model.accounts[1]
    assert (account.epoch, account.clock, account.member) == (1, 0, True)
    played.play(3)
    assert {account.clock for account in played.server.model.accounts.values()} == {0}


@pytest.mark.parametrize("mode", ["laq", "bin", "qsgd"])
def test_a_reply_that_is_lost_is_not_counted_and_the_node_goes_on_with_its_reference(mode):
    played = Played(mode=mode)
    played.play(3)
    played.nodes.after = lambda reply: None if reply.metadata.src_node_id == 1002 else reply
    before = played.server.model.accounts[2].reference_hash
    played.play()
    account = played.server.model.accounts[2]
    assert (account.reference_hash, account.clock, account.epoch) == (before, 1, 0)
    played.nodes.after = lambda reply: reply
    played.play()
    account = played.server.model.accounts[2]
    assert (account.clock, account.epoch) == (0, 0) and account.reference_hash != before


def test_a_message_that_is_lost_is_made_up_for_by_the_next_one():
    played = Played(mode="laq")
    played.play(2)
    played.nodes.before = lambda message: (None if message.metadata.dst_node_id == 1000 else
                                           message)
    played.play(2)
    played.nodes.before = lambda message: message
    played.play()
    assert played.server.model.accounts[0].clock == 0
    assert "about" not in played.nodes.seen[-3][2]


def test_a_round_that_nobody_answers_stays_open():
    played = Played(mode="laq")
    played.play(2)
    played.nodes.after = lambda reply: None
    model = played.server.model
    played.play()
    assert played.server.model.version == model.version
    assert (played.server.model.params == model.params).all()
    played.nodes.after = lambda reply: reply
    played.play(2)
    assert {account.epoch for account in played.server.model.accounts.values()} == {0}


def test_a_node_that_comes_back_with_another_id_takes_its_place_at_once():
    played = Played(mode="laq")
    played.play(3)
    played.nodes.stop(1001)
    played.nodes.start(2001, LeastSquares(1), 1)
    played.play()
    assert played.server._owner[1] == 2001 and played.server.model.accounts[1].clock == 0
    assert played.server.model.members == (0, 1, 2)
    played.play(2)


def test_of_two_nodes_with_one_number_the_first_one_counts():
    played = Played(mode="laq")
    played.play(2)
    played.nodes.start(2001, LeastSquares(1), 1)
    played.play(2)
    assert played.server._owner[1] == 1001 and played.server.model.members == (0, 1, 2)


def test_a_node_with_another_number_of_samples_starts_from_zero_with_its_new_weight():
    played = Played(mode="laq")
    played.play(2)
    more = LeastSquares(2)
    more.x, more.y = np.tile(more.x, (2, 1)), np.tile(more.y, 2)
    kept = played.nodes.contexts[1002].state
    played.nodes.start(1002, more, 2)
    played.nodes.contexts[1002].state = kept
    played.play()
    assert (played.server.model.accounts[2].weight, played.server.model.accounts[2].member) == (
        120, False)
    played.play()
    assert played.server.model.accounts[2].member


def test_who_is_away_too_long_leaves_the_average_and_may_come_back():
    played = Played(mode="laq", absent_rounds=2)
    played.play(2)
    played.nodes.before = lambda message: (None if message.metadata.dst_node_id == 1000 else
                                           message)
    played.play(2)
    assert played.server.model.members == (1, 2)
    played.nodes.before = lambda message: message
    played.play(2)
    assert played.server.model.members == (0, 1, 2)


@pytest.mark.parametrize("keywords", [
    {"mode": "laq"}, {"mode": "bin", "memory_rate": 0.5}, {"mode": "rd"},
    {"mode": "laq", "memory": "residual"}, {"mode": "laq", "thr_scale": 0.5},
    {"mode": "qsgd", "entropy_coding_down": "context"},
], ids=str)
def test_random_faults_never_make_the_two_sides_disagree(keywords):
    draw = random.Random(str(keywords))
    played = Played(4, **keywords)
    played.nodes.before = lambda message: None if draw.random() < 0.15 else message
    played.nodes.after = lambda reply: None if draw.random() < 0.15 else reply
    next_id = 2000
    for _ in range(40):
        played.play()
        if draw.random() < 0.2:
            node = draw.choice(sorted(played.nodes.apps))
            number = played.nodes.contexts[node].node_config["partition-id"]
            if draw.random() < 0.5:
                played.nodes.stop(node)
                node, next_id = next_id, next_id + 1
            played.nodes.start(node, LeastSquares(number), number)
    played.nodes.before = played.nodes.after = lambda message: message
    played.play(2)
    clocks = {account.clock for account in played.server.model.accounts.values()}
    assert clocks == {0} or "thr_scale" in keywords


@pytest.mark.parametrize("change", [
    {"state": "lost?"}, {"state": 3}, {"version": 99}, {"worker": -1}, {"worker": 2},
    {"frame": b""}, {"frame": b"FLQ1" + bytes(200)}, {"reset": "yes"}, {"params_hash": 7}, {},
], ids=str)
def test_an_answer_that_no_node_gives_counts_as_missing(change):
    played = Played(mode="laq")
    played.play(2)

    def lie(reply):
        if reply.metadata.src_node_id == 1001:
            fields = dict(reply.content["flq"])
            reply.content["flq"] = ConfigRecord(dict(fields, **change) if change else {})
        return reply

    played.nodes.after = lie
    version = played.server.model.version
    played.play()
    model = played.server.model
    assert model.version == version + 1
    assert [model.accounts[worker].clock for worker in range(3)] == [0, 1, 0]
    played.nodes.after = lambda reply: reply
    played.play(2)
    assert {account.clock for account in played.server.model.accounts.values()} == {0}


def test_a_damaged_state_counts_as_a_lost_one():
    played = Played(mode="laq")
    played.play(2)
    state = dict(played.nodes.contexts[1000].state["flq"])
    record = bytearray(state["record"])
    record[-40] ^= 1
    played.nodes.contexts[1000].state["flq"] = ConfigRecord(dict(state, record=bytes(record)))
    played.play(2)
    assert played.server.model.accounts[0].epoch == 1 and played.server.model.accounts[0].member


def test_flowers_own_strategies_make_the_step_from_what_arrived():
    exact = {"mode": "fedavg", "b_down": 32}
    plain = Nodes(learners(4))
    theirs = play(plain, FlqStrategy(fed_avg(4), aggregate="strategy", **exact), 5)
    ours = play(Nodes(learners(4)), FlqStrategy(fed_avg(4), **exact), 5)
    for left, right in zip(theirs, ours):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    for kind, options in ((FedAdam, {"eta": 0.1}), (Krum, {"num_malicious_nodes": 0})):
        coded = play(Nodes(learners(4)), FlqStrategy(fed_avg(4, kind=kind, **options), mode="laq",
                                                     b_up=8, b_down=8), 20)
        reached = LeastSquares(0).evaluate(coded)[1]
        assert reached < LeastSquares(0).evaluate(LeastSquares(0).weights())[1] / 3, kind


def test_strategies_that_leave_nodes_out_leave_their_references_in_the_average():
    nodes = Nodes(learners(6))
    strategy = FlqStrategy(FedAvg(fraction_train=0.5, fraction_evaluate=0.0), mode="laq",
                           absent_rounds=1)
    play(nodes, strategy, 12)
    assert len(strategy.server.model.members) == 6
    assert max(account.absent for account in strategy.server.model.accounts.values()) == 0


def test_whole_numbers_come_down_once_and_other_floats_keep_their_dtype():
    arrays = {"a": np.ones((2, 2), np.float64), "n.running_mean": np.ones(2, np.float32),
              "steps": np.array(7, np.int64), "flags": np.array([True, False])}
    form = form_of(arrays)
    assert form.kinds == ("trained", "moving", "fixed", "fixed") and form.fixed_bytes == 10
    params, moving = form.split(arrays)
    again = form.join(params * 3, moving, b"".join(
        arrays[name].tobytes() for name in ("steps", "flags")))
    assert again["a"].dtype == np.float64 and again["a"].tolist() == [[3, 3], [3, 3]]
    assert again["steps"] == 7 and again["flags"].tolist() == [True, False]
    with pytest.raises(DataError, match="other names"):
        form.split({"b": arrays["a"]})


@pytest.mark.parametrize("keywords, words", [
    ({"sel_clients": 2}, "budget_selection.sel_clients does not fit an engine"),
    ({"up_budget_bits": 10**6}, "up_budget_bits does not fit an engine"),
    ({"total_workers": 4, "cohorts": 2}, "system.cohorts does not fit an engine"),
    ({"batch_size": 3}, "dataset.batch_size does not fit a learner of your own"),
    ({"mode": "lag"}, "flq_algorithm.mode"),
])
def test_what_one_message_cannot_do_is_refused(keywords, words):
    with pytest.raises(ConfigError, match=words):
        FlqStrategy(FedAvg(), **keywords)


def test_cohorts_that_a_run_over_http_would_take_by_itself_are_none_here():
    strategy = FlqStrategy(FedAvg(), quorum="all", total_workers=64)
    assert strategy._config.system.cohorts == 1


def test_an_app_without_the_number_of_samples_is_told_what_is_missing():
    nodes = Nodes(learners(2))
    strategy = FlqStrategy(fed_avg(2, weighted_by_key="samples"), mode="laq")
    messages = strategy.configure_train(1, first_arrays(), ConfigRecord(), nodes)
    with pytest.raises(DataError, match="the answer's metrics have no samples"):
        nodes.send_and_receive(messages)


def test_a_message_without_flq_goes_through_the_mod_as_it_is():
    from flwr.app import Message, RecordDict
    nodes = Nodes(learners(1))
    message = Message(RecordDict({"arrays": first_arrays(), "config": ConfigRecord()}), 1000,
                      "train")
    reply = nodes.apps[1000](message, nodes.contexts[1000])
    assert list(reply.content.array_records) == ["arrays"] and "flq" not in reply.content
    assert tuple(reply.content["arrays"]) == NAMES


def test_names_of_arrays_that_move_can_be_given():
    strategy = FlqStrategy(fed_avg(2), mode="laq", moving=("*.bias",))
    play(Nodes(learners(2)), strategy, 2)
    assert strategy.server.form.kinds == ("trained", "moving", "trained")
