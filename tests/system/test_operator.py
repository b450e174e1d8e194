"""What a person does with a running master: read, pause, change, remove, stop."""

import csv
import io
import json
import re
import time

import numpy as np
import pytest

from flq import config
from flq.errors import ERROR_KINDS
from flq.master.http.guard import Access
from flq.master.http.http_api import create_app
from flq.master.service import Service
from flq.master.store.run_store import RunStore
from flq.parameters import flatten, params_hash
from tests.system.processes import wait_until
from tests.system.quadratic import STATELESS, Quadratic


@pytest.fixture(scope="module")
def master(site):
    """A run that lasts until it is stopped, with workers 0 and 1 in one process and worker 2 in
    another.
    """
    master = site.master("total_workers=3", "max_rounds=1000000", "model.name=softmax", "mode=laq",
                         "save_results=true", "averaging=0", options=())
    site.worker("0-1", master, SECONDS_OF_TRAINING="0.03")
    site.worker("2", master, SECONDS_OF_TRAINING="0.03")
    wait_until(lambda: master.status()["members"] == 3, "all three take part")
    return master


def refused(answer, name):
    document = answer.json()
    assert (document["error"], answer.status_code) == (name, ERROR_KINDS[name].status), answer.text
    return document


def two_rounds_later(master, round_):
    """The record of the first round that was opened after that one: a change takes effect with it
    at the latest.
    """
    master.wait_for_round(round_ + 3)
    return master.get(f"/history?since={round_ + 2}")["rounds"][0]


# --- reading
# ----------------------------------------------------------------------------------------------


def test_the_history_is_read_from_a_round_on_as_json_and_as_csv(master):
    master.wait_for_round(3)
    rounds = master.get("/history?since=2")["rounds"]
    assert [record["round"] for record in rounds] == list(range(2, 2 + len(rounds)))
    text = master.ask("GET", "/history?format=csv&since=2").text
    row, record = next(csv.DictReader(io.StringIO(text))), rounds[0]
    assert list(row) == list(record)
    assert row["params_hash"] == record["params_hash"] and float(
        row["direction_norm2"]) == record["direction_norm2"]
    assert [int(worker) for worker in row["selected"].split()] == record["selected"]


def test_the_metrics_are_prometheus_text_and_agree_with_the_status(master):
    answer = master.ask("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    types, samples = {}, {}
    for line in answer.text.splitlines():
        if line.startswith("# HELP "):
            continue
        declared = re.fullmatch(r"# TYPE (\w+) (gauge|counter)", line)
        sample = re.fullmatch(r'(\w+)(\{(?:\w+="[^"]*",?)+\})? (\S+)', line)
        assert declared or sample, line
        if declared:
            types[declared.group(1)] = declared.group(2)
        else:
            assert sample.group(1) in types, line
            samples[sample.group(1) + (sample.group(2) or "")] = float(sample.group(3))
    assert samples["flq_max_rounds"] == master.status()["max_rounds"]
    assert 0 < samples["flq_round"] <= master.status()["current_round"]
    assert 0 < samples['flq_bits_total{direction="up",kind="payload"}'] < samples[
        'flq_bits_total{direction="up",kind="wire"}']
    assert samples['flq_worker_uploads_total{worker="2"}'] > 0


def test_the_model_comes_as_json_and_as_npz_with_the_hash_of_the_history(master):
    assert set(master.get("/get_global_model")) == {
        "round", "version", "accuracy", "loss", "num_parameters", "shapes"
    }
    as_json = master.get("/get_global_model?format=json")
    with np.load(io.BytesIO(master.ask("GET", "/get_global_model?format=npz").content)) as file:
        as_npz = {name: file[name] for name in file}
    tensors = [as_npz[f"p{i}"] for i in range(len(STATELESS.shapes))]
    assert set(as_npz) == {"version", "p0", "p1"} and {tensor.dtype for tensor in tensors
                                                       } == {np.dtype(np.float32)}
    for version, weights in ((as_json["version"], as_json["weights"]), (int(
            as_npz["version"]), tensors)):
        params = flatten([np.asarray(tensor, np.float32) for tensor in weights], STATELESS.shapes)
        record, = master.get(f"/history?since={version - 1}")["rounds"][:1]
        assert record["version"] == version and params_hash(params, np.zeros(
            0, np.float32)).hex() == record["params_hash"]


def test_the_description_lists_every_endpoint_and_no_other(master, tmp_path):
    settings = config.load(None, []).config
    service = Service(settings, Quadratic(settings), RunStore(tmp_path, {}), "run")
    app = create_app(service, Access("secret", True), dict)
    routes = {(method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
              for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}
    service.store.close()
    description = master.get("/openapi.json")
    assert {(method, path) for path, methods in description["paths"].items()
            for method in methods} == routes
    assert description["openapi"].startswith("3.")


def test_status_has_what_was_promised(master):
    status = master.status()
    assert {
        "current_round", "max_rounds", "connected_workers", "pending_updates", "worker_status",
        "phase", "mode", "dataset", "accuracy", "loss", "bits", "eta_s"
    } <= set(status)
    assert {
        "state", "last_seen_s", "round", "loss", "clock", "skipped", "uploads", "bits_up",
        "bits_down", "device"
    } <= set(status["worker_status"]["0"])
    for direction in ("up", "down"):
        assert {"nominal", "payload", "wire"} <= set(status["bits"][direction])


# --- changing
# ---------------------------------------------------------------------------------------------


def test_a_paused_run_closes_no_round_until_it_is_resumed(master):
    assert master.order("POST", "/pause").json() == {"status": "paused"}
    wait_until(lambda: master.status()["phase"] in ("WAITING", "BIDDING"),
               "the round that was being closed is closed")
    status = master.status()
    time.sleep(0.5)  # a dozen rounds
    assert status["paused"] and master.status()["current_round"] == status["current_round"]
    assert master.order("POST", "/resume").json() == {"status": "running"}
    master.wait_for_round(status["current_round"] + 1)
    assert not master.status()["paused"]


def test_the_number_of_uploads_is_changed_and_changed_back(master):
    answer = master.order("PATCH", "/config", {"budget_selection": {"sel_clients": 1}}).json()
    assert answer["changed"] == {"budget_selection.sel_clients": {"old": 0, "new": 1}}
    assert master.get("/config")["budget_selection"]["sel_clients"] == 1
    record = two_rounds_later(master, answer["effective_round"])
    assert (len(record["selected"]), len(record["refused"])) == (1, 2)
    answer = master.order("PATCH", "/config", {"sel_clients": 0}).json()
    assert len(two_rounds_later(master, answer["effective_round"])["selected"]) == 3


def test_the_threshold_of_the_lazy_rule_reaches_the_workers(master):
    answer = master.order("PATCH", "/config", {"thr_scale": 1e9}).json()
    assert two_rounds_later(master, answer["effective_round"])["skipped"] == [0, 1, 2]
    answer = master.order("PATCH", "/config", {"thr_scale": 0}).json()
    assert two_rounds_later(master, answer["effective_round"])["skipped"] == []


@pytest.mark.parametrize(
    "name, change, words",
    [("cannot_change", {"mode": "bin"}, "flq_algorithm.mode cannot be changed"),
     ("cannot_change", {"dataset": {"seed": 1}}, "dataset.seed cannot"),
     ("cannot_change", {"thr_scael": 1}, "unknown key thr_scael"),
     ("cannot_change", {"system": 1}, "system is a section"),
     ("bad_value", {"thr_scale": -1}, "lazy_selection.thr_scale"),
     ("bad_value", {"lazy_selection": {"thr_scale": "much"}}, "lazy_selection.thr_scale"),
     ("bad_value", {"max_rounds": 1}, "system.max_rounds is in the past"),
     ("bad_value", {"min_workers": 4}, "min_workers is larger"),
     ("bad_value", {"lr": None, "C": 0}, "lazy_selection.C"),
     ("cannot_change", {"thr_scale": 7, "mode": "bin"}, "flq_algorithm.mode")])
def test_a_change_that_cannot_be_is_refused_by_name_and_changes_nothing(
        master, name, change, words):
    before = master.get("/config")
    assert words in refused(master.order("PATCH", "/config", change), name)["message"]
    assert master.get("/config") == before


def test_a_removed_worker_is_told_and_does_not_come_back(site, master):
    assert master.order("POST", "/workers/2/remove").json() == {"status": "removed", "worker": 2}
    record = two_rounds_later(master, master.status()["current_round"])
    assert (record["selected"], record["members"]) == ([0, 1], 2)
    assert master.status()["worker_status"]["2"]["state"] == "removed"
    worker = site.programs[-1]
    assert worker.wait() == 3 and "removed from this run by its operator" in worker.text()
    again = site.worker("2", master, name="again-2")
    assert again.wait() == 3 and "removed from this run by its operator" in again.text()
    refused(master.order("POST", "/workers/3/remove"), "not_found")


# --- the end
# ----------------------------------------------------------------------------------------------


def test_stop_saves_the_results_and_ends_the_master_and_its_workers(site, master):
    rounds = master.status()["current_round"]
    assert master.order("POST", "/stop").json() == {
        "status": "stopped", "results_saved": True, "results": master.run_dir.name
    }
    assert [program.wait() for program in site.programs[:2]] == [0, 0]
    summary = json.loads((master.run_dir / "summary.json").read_text())
    history = json.loads((master.run_dir / "history.json").read_text())["rounds"]
    assert summary["phase"] == "STOPPED" and summary["rounds"] == len(history) >= rounds
    assert summary["bits"]["up"]["wire"] == sum(record["wire_bits_up"] for record in history)
    assert {path.suffix for path in master.run_dir.iterdir()} >= {".json", ".xlsx", ".png"}


def test_a_finished_master_serves_until_it_is_stopped(own_site):
    master = own_site.master("total_workers=2", "max_rounds=1000000", "quorum=all",
                             "protect_reads=always", options=())
    worker = own_site.worker("0-1", master)
    master.wait_for_round(2)
    refused(master.ask("GET", "/config"), "unauthorized")
    assert master.order("GET", "/config").json()["security"]["protect_reads"] == "always"
    # Rounds go on meanwhile, so the new end lies a little ahead.
    assert master.order("PATCH", "/config",
                        {"max_rounds": master.status()["current_round"] + 50}).status_code == 200
    assert worker.wait() == 0
    master.wait_for_phase("FINISHED")
    status = master.status()
    assert status["current_round"] == status["max_rounds"] and status["worker_status"]["1"][
        "state"] == "done"
    # it hears that there is nothing left to do
    assert own_site.worker("0", master, name="late-0").wait() == 0
    assert master.order("POST", "/stop").json()["results_saved"]
    assert master.wait() == 0
    assert json.loads((master.run_dir / "summary.json").read_text())["phase"] == "FINISHED"


def test_stop_ends_a_run_that_nobody_has_answered(own_site):
    master = own_site.master("total_workers=2", "max_rounds=3", "quorum=all")
    workers = [own_site.worker(m, master, SECONDS_OF_TRAINING="1") for m in range(2)]
    master.wait_for_phase("BIDDING")
    assert master.order("POST", "/stop").json()["results_saved"]
    assert [program.wait() for program in [master] + workers] == [0, 0, 0]


def test_a_run_that_diverged_pauses_with_its_reason_and_can_be_stopped(own_site):
    master = own_site.master("total_workers=2", "max_rounds=50", "quorum=all", "lr=1e6",
                             "server_optimizer=sgd", "eval_every=1000")
    worker = own_site.worker("0-1", master)
    wait_until(lambda: master.status()["paused"], "the run pauses")
    assert "the run diverges" in master.status()["error"]
    assert master.order("POST", "/stop").json()["results_saved"]
    assert [master.wait(), worker.wait()] == [0, 0]
