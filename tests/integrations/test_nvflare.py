"""FLQ's updates on NVIDIA FLARE: the model of flq.simulate bit for bit, and every fault repaired
within a round without anything counted twice. NVFlare's controller and messages, in one process;
test_nvflare_processes.py has a server and clients as processes.
"""

import copy
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="nvflare is not installed here, tests/integrations/run.sh "
                    "nvflare makes an environment with it")

from nvflare.apis.dxo import DXO, DataKind, from_shareable  # noqa: E402
from nvflare.apis.fl_context import FLContext  # noqa: E402
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator  # noqa: E402
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe  # noqa: E402
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe  # noqa: E402
from nvflare.fuel.utils import fobs  # noqa: E402
from nvflare.job_config.script_runner import ScriptRunner  # noqa: E402

import flq  # noqa: E402
from benchmarks.peers import nvflare_wire  # noqa: E402
from benchmarks.peers.nvflare_wire import ROOT  # noqa: E402
from flq.errors import ConfigError, DataError  # noqa: E402
from flq.integrations.exchange_node import Node  # noqa: E402
from flq.integrations.nvflare import add_flq  # noqa: E402
from flq.integrations.nvflare_dxo import arrays_of, given_as, node_of  # noqa: E402
from flq.integrations.nvflare_server import ModelEncoder  # noqa: E402
from tests.integrations.nvflare_clients import Controller, Fleet, holds  # noqa: E402
from tests.system.own_learner import LeastSquares  # noqa: E402


def learners(count):
    return [LeastSquares(worker) for worker in range(count)]


def site(number):
    return f"site-{number + 1}"


class Played(Fleet):
    """A fleet whose two ends are compared after each round."""

    def __init__(self, folder, count=3, **config):
        super().__init__(learners(count), str(folder), config)
        self.dead = set()

    def play(self, rounds=1):
        for _ in range(rounds):
            arrays = super().play()
            self.check()
        assert not self.engine.panics
        return arrays

    def account(self, number):
        return self.server.model.accounts[number]

    def clocks(self):
        return {account.clock for account in self.server.model.accounts.values()}

    def check(self):
        """Both sides hold the same reference of each client, and the sum is that of the members."""
        server = self.server
        total = np.zeros(server.form.layout.num_params)
        for worker in server.model.members:
            reference = server._references.get(worker)
            if reference is not None:
                total += server.model.accounts[worker].weight * reference
        if server.model.reference_sum is not None:
            np.testing.assert_allclose(server.model.reference_sum, total, rtol=1e-9, atol=1e-9)
        for worker in server.model.accounts:
            name = site(worker)
            try:
                with open(self.state_file(name), "rb") as file:
                    kept = fobs.loads(file.read())
            except OSError:
                continue  # it lost its state and has not answered since
            held = Node.load(kept, node_of(name))
            account = server.model.accounts[worker]
            held._settle(account.reference_hash, account.epoch, account.clock == 2**31 - 1)
            reference, memory = server._references.get(worker), held._record.uplink.memory
            if memory is not None and reference is not None and not held._reset:
                assert (memory == reference).all()
                assert held._record.uplink.reference_hash == account.reference_hash


@pytest.mark.parametrize("config", [
    {"mode": "laq"}, {"mode": "bin"}, {"mode": "rd", "entropy_coding_down": "context"},
    {"mode": "qsgd", "averaging": 0}, {"mode": "fedavg", "b_down": 32},
    {"mode": "laq", "memory": "residual", "entropy_coding": "context"},
    {"mode": "laq", "thr_scale": 1.0}, {"mode": "bbit", "server_optimizer": "adam"},
    {"mode": "laq", "weighting": "uniform", "radius": "block", "block_size": 16},
    {"mode": "laq", "aggregation": "median", "bad_workers": 1},
], ids=str)
def test_the_model_is_that_of_a_simulation_bit_for_bit(tmp_path, config):
    fleet = Played(tmp_path, 4, **config)
    draw = random.Random(1)
    # In whatever order they ask and answer.
    fleet.order = lambda names: draw.sample(sorted(names), len(names))
    found = fleet.play(7)
    simulated = flq.simulate(learners=learners(4), max_rounds=7, **config)
    for left, right in zip(found, simulated.weights):
        assert (left == right).all()
    if config == {"mode": "laq", "thr_scale": 1.0}:
        assert simulated.rounds.skipped.map(len).sum() > 5, "silence is part of it"


def test_clients_are_numbered_by_their_names_as_people_read_them(tmp_path):
    fleet = Fleet(learners(11), str(tmp_path), {"mode": "laq"})
    fleet.order = lambda names: sorted(names)
    fleet.play()
    assert [fleet.encoder._numbers[site(number)] for number in range(11)] == list(range(11))


def test_what_a_client_holds_is_not_sent_again(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(3)
    first, later = fleet.seen[:3], fleet.seen[3:]
    assert all("about" in fields for _, fields in first)
    assert not any("about" in fields for _, fields in later)
    assert max(len(fields["frames"]) for _, fields in later) < min(
        len(fields["frames"]) for _, fields in first) + 1


@pytest.mark.parametrize("config", [{"mode": "laq"}, {"mode": "bin"}, {"mode": "qsgd"},
                                    {"mode": "laq", "memory": "residual"}], ids=str)
def test_a_client_that_is_killed_and_started_again_goes_on_with_its_state(tmp_path, config):
    fleet = Played(tmp_path, **config)
    fleet.play(3)
    fleet.start(site(1), LeastSquares(1), keep=True)
    found = fleet.play(3)
    assert fleet.account(1).epoch == 0 and fleet.clocks() == {0}
    assert not any("about" in fields for _, fields in fleet.seen[3:])
    simulated = flq.simulate(learners=learners(3), max_rounds=6, **config)
    assert all((left == right).all() for left, right in zip(found, simulated.weights))


@pytest.mark.parametrize("config", [{"mode": "laq"}, {"mode": "bin"}, {"mode": "qsgd"},
                                    {"mode": "laq", "memory": "residual"}], ids=str)
def test_a_client_that_lost_its_state_counts_again_in_the_same_round(tmp_path, config):
    fleet = Played(tmp_path, **config)
    fleet.play(3)
    fleet.start(site(1), LeastSquares(1))
    fleet.play()
    assert "about" in dict(fleet.seen[-3:])[site(1)], "it said so before it was sent anything"
    account = fleet.account(1)
    assert (account.epoch, account.clock, account.member) == (1, 0, True)
    fleet.play(2)
    assert fleet.clocks() == {0}


@pytest.mark.parametrize("mode", ["laq", "bin", "qsgd"])
def test_an_answer_that_is_lost_is_not_counted_and_the_client_keeps_its_reference(tmp_path, mode):
    fleet = Played(tmp_path, mode=mode)
    fleet.play(3)
    fleet.after = lambda name, result: None if name == site(2) else result
    before = fleet.account(2).reference_hash
    fleet.play()
    account = fleet.account(2)
    assert (account.reference_hash, account.clock, account.epoch) == (before, 1, 0)
    fleet.after = lambda name, result: result
    fleet.play()
    account = fleet.account(2)
    assert (account.clock, account.epoch) == (0, 0) and account.reference_hash != before


def test_an_answer_that_comes_twice_counts_once(tmp_path):
    once, twice = Played(tmp_path / "once", mode="laq"), Played(tmp_path / "twice", mode="laq")
    submit = twice.submit

    def again(name, client_task, result):
        second = copy.deepcopy(result)
        submit(name, client_task, result)
        found = twice.decoder.process(second, twice.submission(name, client_task))
        assert from_shareable(found).data == {}

    twice.submit = again
    assert all((left == right).all() for left, right in zip(once.play(4), twice.play(4)))


def test_an_answer_that_comes_after_its_round_does_not_count(tmp_path):
    fleet, late = Played(tmp_path, mode="laq"), []
    fleet.play(2)

    def keep(name, result):
        return late.append(result) if name == site(0) else result

    fleet.after = keep
    fleet.play()
    old, fleet.after = fleet.tasks[site(0)], lambda name, result: result

    def arrives(name, data):
        if late:
            found = fleet.decoder.process(late.pop(), fleet.submission(site(0), old))
            assert from_shareable(found).data == {}
        return data

    fleet.before = arrives
    fleet.play()
    assert not late and fleet.account(0).epoch == 0 and fleet.clocks() == {0}


def test_a_message_that_is_lost_is_made_up_for_by_the_next_one(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)
    fleet.before = lambda name, data: None if name == site(0) else data
    fleet.play(2)
    fleet.before = lambda name, data: data
    fleet.play()
    assert fleet.account(0).clock == 0
    assert "about" not in dict(fleet.seen[-3:])[site(0)]


def test_a_round_that_nobody_answers_changes_nothing(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    before = fleet.play(2)
    fleet.after = lambda name, result: None
    model = fleet.server.model
    after = fleet.play()
    assert fleet.server.model.version == model.version
    assert all((left == right).all() for left, right in zip(before, after))
    fleet.after = lambda name, result: result
    fleet.play(2)
    assert {account.epoch for account in fleet.server.model.accounts.values()} == {0}


def test_frames_that_do_not_fit_bring_a_keyframe_in_the_next_round(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)

    def damaged(name, data):
        if name == site(0):
            fields = data["DXO"]["data"]["flq"]
            fields["frames"] = fields["frames"][:-1] + bytes([fields["frames"][-1] ^ 1])
        return data

    fleet.before = damaged
    fleet.play()
    assert holds(fleet.sites[site(0)]) == "" and fleet.account(0).clock == 1
    fleet.before = lambda name, data: data
    fleet.play()
    assert "about" in dict(fleet.seen[-3:])[site(0)]
    assert (fleet.account(0).clock, fleet.account(0).member) == (0, True)


def test_a_damaged_state_file_counts_as_a_lost_one(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)
    for damage in (lambda data: data[:len(data) // 2], lambda data: b"",
                   lambda data: fobs.dumps({"run": 3}), lambda data: fobs.dumps([1])):
        with open(fleet.state_file(site(0)), "rb") as file:
            data = damage(file.read())
        with open(fleet.state_file(site(0)), "wb") as file:
            file.write(data)
        fleet.start(site(0), LeastSquares(0), keep=True)
        assert holds(fleet.sites[site(0)]) == ""
        fleet.play()
        assert (fleet.account(0).clock, fleet.account(0).member) == (0, True)


def test_a_client_that_cannot_write_its_state_counts_until_it_ends(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)
    shutil.move(tmp_path / site(0), tmp_path / "gone")
    fleet.play(2)
    assert fleet.account(0).epoch == 0 and fleet.clocks() == {0}
    shutil.move(tmp_path / "gone", tmp_path / site(0))
    fleet.start(site(0), LeastSquares(0), keep=True)
    fleet.play(2)
    assert fleet.account(0).epoch == 1 and fleet.clocks() == {0}


def test_a_client_with_another_number_of_steps_starts_from_zero_with_its_new_weight(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)
    more = fleet.sites[site(2)].learner
    more.x, more.y = np.tile(more.x, (2, 1)), np.tile(more.y, 2)
    fleet.play()
    assert (fleet.account(2).weight, fleet.account(2).member) == (120, False)
    fleet.play()
    assert fleet.account(2).member


def test_who_does_not_ask_any_more_leaves_the_average_and_may_come_back(tmp_path):
    fleet = Played(tmp_path, mode="laq", absent_rounds=2)
    fleet.play(2)
    fleet.dead = {site(0)}
    fleet.play(2)
    assert fleet.server.model.members == (1, 2)
    fleet.dead = set()
    fleet.play(2)
    assert fleet.server.model.members == (0, 1, 2)


def test_whom_the_workflow_leaves_out_stays_in_the_average(tmp_path):
    fleet = Fleet(learners(6), str(tmp_path), {"mode": "laq", "absent_rounds": 1}, num_clients=3)
    fleet.play(12)
    assert not fleet.engine.panics and len(fleet.server.model.members) == 6
    assert max(account.absent for account in fleet.server.model.accounts.values()) == 0


@pytest.mark.parametrize("config", [
    {"mode": "laq"}, {"mode": "bin", "memory_rate": 0.5}, {"mode": "rd"},
    {"mode": "laq", "memory": "residual"}, {"mode": "laq", "thr_scale": 0.5},
    {"mode": "qsgd", "entropy_coding_down": "context"},
], ids=str)
def test_random_faults_never_make_the_two_sides_disagree(tmp_path, config):
    draw = random.Random(str(config))
    fleet = Played(tmp_path, 4, **config)
    fleet.order = lambda names: draw.sample(sorted(names), len(names))
    fleet.before = lambda name, data: None if draw.random() < 0.15 else data
    fleet.after = lambda name, result: None if draw.random() < 0.15 else result
    for _ in range(40):
        fleet.play()
        if draw.random() < 0.3:
            number = draw.randrange(4)
            fleet.start(site(number), LeastSquares(number), keep=draw.random() < 0.5)
    fleet.before = fleet.after = lambda name, message: message
    fleet.play(2)
    assert fleet.clocks() == {0} or "thr_scale" in config


@pytest.mark.parametrize("change", [
    {"state": "lost?"}, {"state": 3}, {"version": 99}, {"frame": b""},
    {"frame": b"FLQ1" + bytes(200)}, {"reset": "yes"}, {"params_hash": 7}, {}, "text", None,
], ids=str)
def test_an_answer_that_no_client_gives_counts_as_missing(tmp_path, change):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)

    def lie(name, result):
        if name == site(1):
            data = result["DXO"]["data"]
            told = dict(data["flq"], **change) if change and isinstance(change, dict) else change
            data["flq"] = told
        return result

    fleet.after = lie
    version = fleet.server.model.version
    fleet.play()
    assert fleet.server.model.version == version + 1
    assert [fleet.account(worker).clock for worker in range(3)] == [0, 1, 0]
    fleet.after = lambda name, result: result
    fleet.play(2)
    assert fleet.clocks() == {0}


def test_a_client_cannot_speak_for_another_one(tmp_path):
    fleet = Played(tmp_path, mode="laq")

    def lie(name, result):
        if name == site(1):
            result["DXO"]["data"]["flq"]["worker"] = 0
        return result

    fleet.after = lie
    fleet.play(3)
    assert fleet.clocks() == {0} and fleet.server.model.members == (0, 1, 2)


@pytest.mark.parametrize("said", ["", "x", 3, "0" * 16 + " 1 " + "0" * 16, "{run} 99 " + "0" * 16])
def test_a_client_that_says_it_holds_what_it_cannot_harms_itself_alone(tmp_path, said):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)
    contexts = fleet.sites[site(1)].contexts
    told = said.format(run=fleet.server.run) if isinstance(said, str) else said
    contexts.new_context().set_prop("flq.holds", told, private=False, sticky=True)
    fleet.play()
    assert (fleet.account(0).clock, fleet.account(2).clock) == (0, 0)
    fleet.play(2)
    assert fleet.clocks() == {0}


def test_a_client_without_the_filters_does_not_count(tmp_path):
    fleet = Played(tmp_path, mode="laq")
    fleet.play(2)

    def plain(name, result):
        if name == site(1):
            DXO(DataKind.WEIGHTS, {"layer.bias": np.zeros(1)}).update_shareable(result)
        return result

    fleet.after = plain
    with pytest.raises(AssertionError):  # FedAvg ends a job whose clients all have to answer
        fleet.play()
    assert "TASK_RESULT_FILTER_ERROR" in fleet.engine.panics[0]


def test_differences_of_weights_come_back_as_differences(tmp_path):
    whole = Fleet(learners(3), str(tmp_path / "whole"), {"mode": "laq", "b_up": 8})
    kinds = set()
    parts = Fleet(learners(3), str(tmp_path / "parts"), {"mode": "laq", "b_up": 8}, diff=True)
    process = parts.decoder.process

    def noted(shareable, fl_ctx):
        found = process(shareable, fl_ctx)
        kinds.add(from_shareable(found).data_kind)
        return found

    parts.decoder.process = noted
    for left, right in zip(whole.play(5), parts.play(5)):
        np.testing.assert_allclose(left, right, atol=0.02)
    assert kinds == {DataKind.WEIGHT_DIFF}


class Mean(ModelAggregator):
    """Another's step: the plain mean, whatever the weights."""

    def reset_stats(self):
        self.models = []

    def accept_model(self, model):
        self.models.append(model)

    def aggregate_model(self):
        model = self.models[0]
        model.params = {name: np.mean([other.params[name] for other in self.models], axis=0)
                        for name in model.params}
        return model


class WithMean(Controller):
    def __init__(self, **options):
        super().__init__(aggregator=Mean(), **options)


def test_the_workflow_makes_the_step_from_what_arrived(tmp_path):
    exact = {"mode": "fedavg", "b_down": 32, "averaging": 0}
    ours = Fleet(learners(4), str(tmp_path / "ours"), exact)
    theirs = Fleet(learners(4), str(tmp_path / "theirs"), exact, aggregate="engine")
    for left, right in zip(ours.play(5), theirs.play(5)):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    mean = Fleet(learners(4), str(tmp_path / "mean"), dict(exact, mode="laq", b_up=8, b_down=8),
                 aggregate="engine", controller=WithMean)
    reached = LeastSquares(0).evaluate(mean.play(20))[1]
    assert reached < LeastSquares(0).evaluate(LeastSquares(0).weights())[1] / 3
    assert not theirs.engine.panics and not mean.engine.panics


class Deaf(Controller):
    def fire_event_with_data(self, event_type, fl_ctx, key, data):
        return None


def test_a_workflow_that_keeps_its_step_to_itself_is_named(tmp_path):
    fleet = Fleet(learners(2), str(tmp_path), {"mode": "laq"}, controller=Deaf)
    fleet.play()
    with pytest.raises(DataError, match="the step of this workflow cannot be FLQ's"):
        fleet.play()
    assert "aggregate=" in fleet.engine.panics[0]


class Eager(Controller):
    def update_model(self, model, result):
        model = super().update_model(model, result)
        model.params = {name: array + 1 for name, array in model.params.items()}
        return model


def test_a_workflow_that_makes_a_step_after_flqs_is_named(tmp_path):
    fleet = Fleet(learners(2), str(tmp_path), {"mode": "laq"}, controller=Eager)
    fleet.play()
    with pytest.raises(DataError, match="the step of this workflow cannot be FLQ's"):
        fleet.play()


def test_an_update_that_the_workflow_refuses_is_not_committed(tmp_path):
    class Picky(Controller):
        def _aggregate_one_result(self, result):
            if result.meta["client_name"] == site(0) and self.current_round == 2:
                return False
            return super()._aggregate_one_result(result)

    fleet = Fleet(learners(3), str(tmp_path), {"mode": "laq"}, controller=Picky)
    fleet.play(2)
    before = fleet.server.model.accounts[0].reference_hash
    fleet.play()
    account = fleet.server.model.accounts[0]
    assert (account.reference_hash, account.clock) == (before, 1)
    fleet.play()
    assert fleet.server.model.accounts[0].clock == 0


def config_of(recipe, folder, side):
    recipe.export(str(folder))
    file = next(folder.rglob(f"config_fed_{side}.json"))
    assert not list(folder.rglob("custom/flq")), "flq is installed, not packed"
    return json.loads(file.read_text())


def test_a_recipe_gets_its_filters(tmp_path):
    script = tmp_path / "client.py"
    script.write_text("pass\n")
    recipe = NumpyFedAvgRecipe(name="job", model=[[0.0]], min_clients=2, num_rounds=1,
                               train_script=str(script))
    add_flq(recipe, {"mode": "rd"}, b_down=4, moving=["*.mean"])
    server = config_of(recipe, tmp_path / "job", "server")
    out = server["task_data_filters"][0]
    assert out["tasks"] == ["train"] and out["filters"][0] == {
        "path": "flq.integrations.nvflare_server.ModelEncoder",
        "args": {"config": {"flq_algorithm.mode": "rd", "flq_algorithm.b_down": 4},
                 "moving": ["*.mean"]}}
    encoder = ModelEncoder(**out["filters"][0]["args"])
    assert encoder._checked.flq_algorithm.mode == "rd"
    client = config_of(recipe, tmp_path / "job", "client")
    for side, chain, name in ((server, "task_result_filters", "UpdateDecoder"),
                              (client, "task_data_filters", "ModelDecoder"),
                              (client, "task_result_filters", "UpdateEncoder")):
        assert side[chain][0]["filters"][0]["path"].endswith("." + name)


def test_a_job_gets_its_filters(tmp_path):
    from nvflare.app_common.workflows.fedavg import FedAvg
    from nvflare.job_config.api import FedJob
    script = tmp_path / "client.py"
    script.write_text("pass\n")
    job = FedJob(name="job", min_clients=2)
    job.to_server(FedAvg(num_clients=2, num_rounds=1))
    job.to_clients(ScriptRunner(script=str(script)))
    add_flq(job, mode="bin", tasks=["train", "more"])
    job.export_job(str(tmp_path / "out"))
    server = json.loads(next((tmp_path / "out").rglob("config_fed_server.json")).read_text())
    assert set(server["task_data_filters"][0]["tasks"]) == {"train", "more"}


@pytest.mark.parametrize("keywords, words", [
    ({"sel_clients": 2}, "budget_selection.sel_clients does not fit an engine"),
    ({"up_budget_bits": 10**6}, "up_budget_bits does not fit an engine"),
    ({"total_workers": 4, "cohorts": 2}, "system.cohorts does not fit an engine"),
    ({"batch_size": 3}, "dataset.batch_size does not fit a learner of your own"),
    ({"mode": "lag"}, "flq_algorithm.mode"),
])
def test_what_one_message_cannot_do_is_refused(tmp_path, keywords, words):
    recipe = FedAvgRecipe(name="job", model={"class_path": "torch.nn.Linear", "args": {}},
                          min_clients=2, num_rounds=1, train_script=__file__)
    with pytest.raises(ConfigError, match=words):
        add_flq(recipe, **keywords)


def test_another_step_than_there_is_is_refused():
    with pytest.raises(DataError, match="flq or engine"):
        ModelEncoder(aggregate="fedadam")


def test_tensors_come_back_as_tensors():
    torch = pytest.importorskip("torch")
    arrays, kind = arrays_of(
        DXO(DataKind.WEIGHTS, {"a": torch.ones(2, 3), "steps": torch.tensor(7)}))
    assert kind == "tensors" and isinstance(arrays["a"], np.ndarray)
    again = given_as(kind, arrays)
    assert torch.equal(again["a"], torch.ones(2, 3)) and again["steps"].item() == 7


def test_nvflares_quantiser_on_the_same_task_is_named():
    pytest.importorskip("bitsandbytes", reason="nvflare's own quantiser imports it")
    from nvflare.app_opt.pt.quantization.quantizer import ModelQuantizer
    quantizer, fl_ctx = ModelQuantizer("adaquant"), FLContext()
    theirs = DXO(DataKind.WEIGHTS, {"a": np.arange(4, dtype=np.float32)}).to_shareable()
    with pytest.raises(DataError, match="another filter changed the model.*adaquant"):
        arrays_of(from_shareable(quantizer.process(theirs, fl_ctx)))
    ours = DXO(DataKind.APP_DEFINED, {"flq": {"frame": b"bytes"}}).to_shareable()
    assert from_shareable(quantizer.process(ours, fl_ctx)).data == {"flq": {"frame": b"bytes"}}


def test_the_example_exports_its_job(tmp_path):
    subprocess.run([sys.executable, "job.py", "--mode", "rd", "--export", "--export-dir",
                    str(tmp_path)], cwd=str(ROOT / "examples" / "nvflare_job"), check=True,
                   stdout=subprocess.DEVNULL, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    server = json.loads(next(tmp_path.rglob("config_fed_server.json")).read_text())
    assert server["task_data_filters"][0]["filters"][0]["args"]["config"] == {
        "flq_algorithm.mode": "rd"}


@pytest.mark.parametrize("mode, filters", [("float32", 0), ("laq", 1), ("adaquant", 1)])
def test_the_rows_of_the_wire_are_jobs_with_their_own_filters(tmp_path, monkeypatch, mode, filters):
    if mode == "adaquant":
        pytest.importorskip("bitsandbytes", reason="nvflare's own quantiser imports it")
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = nvflare_wire.prepared(tmp_path)
    assert "ROUNDS_FILE" in (code / "client.py").read_text()
    # The module is loaded once, from the first of these folders.
    monkeypatch.delitem(sys.modules, "model", raising=False)
    nvflare_wire.recipe_of(code, mode, 2, 3).export(str(tmp_path / "job"))
    for side in ("server", "client"):
        file = next((tmp_path / "job").rglob(f"config_fed_{side}.json"))
        config = json.loads(file.read_text())
        assert len(config["task_data_filters"]) == len(config["task_result_filters"]) == filters
