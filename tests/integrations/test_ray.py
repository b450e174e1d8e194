"""A simulation and a sweep on a Ray cluster of two nodes, one of which is killed."""

import json
import sys

import pytest

pytest.importorskip("ray", reason="ray is not installed here, tests/integrations/run.sh ray makes "
                    "an environment with it")

from ray.cluster_utils import Cluster  # noqa: E402

from flq import config as configuration  # noqa: E402
from flq.cluster.nodes import Share, connected, room  # noqa: E402
from flq.errors import ConfigError  # noqa: E402
from tests.system.conftest import own_site  # noqa: E402, F401  # a fixture
from tests.system.processes import ROOT, history_of, wait_until  # noqa: E402

PATIENCE_S = 600
KEYS = {"dataset.name": "digits", "model.name": "mlp", "total_workers": 4, "mode": "rd",
        "save_results": False}
SETTINGS = [word for key, value in KEYS.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture
def cluster():
    """Two nodes of a processor each, which are processes of this machine."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.second = cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def simulate(site, name, *options):
    return site.start(name, sys.executable, "-m", "flq", "simulate", "--verbose", "--run_dir", name,
                      *SETTINGS, *options)


def test_a_node_that_dies_costs_time_and_changes_no_bit(own_site, cluster):  # noqa: F811
    rounds = ("--set", "max_rounds=300")
    here = simulate(own_site, "here", *rounds)
    assert here.wait(PATIENCE_S) == 0
    there = simulate(own_site, "there", *rounds, "--engine", "ray", "--address", cluster.address)
    wait_until(lambda: "2 trainers on 2 nodes" in there.text(), "the cluster is there", PATIENCE_S)
    wait_until(lambda: "round 5: " in there.text(), "some rounds are played", PATIENCE_S)
    cluster.remove_node(cluster.second, allow_graceful=False)
    assert there.wait(PATIENCE_S) == 0
    assert "a trainer ended (" in there.text() and "Traceback" not in there.text()
    assert history_of(own_site.directory / "there") == history_of(own_site.directory / "here")


def test_a_sweep_whose_node_dies_plays_its_run_elsewhere(own_site, cluster):  # noqa: F811
    document = {"config": dict(KEYS, max_rounds=40), "grid": {"seed": [0, 1, 2]}}
    (own_site.directory / "sweep.json").write_text(json.dumps(document))
    words = [sys.executable, "-m", "flq", "sweep", "sweep.json", "--out"]
    program = own_site.start("there", *words, "there", "--engine", "ray", "--address",
                             cluster.address)
    stores = own_site.directory / "there"
    wait_until(lambda: len(list(stores.glob("seed=*/run.db"))) == 2, "two runs are played",
               PATIENCE_S)
    cluster.remove_node(cluster.second, allow_graceful=False)
    code = program.wait(PATIENCE_S)
    if code:  # the run of the dead node still held its folder when it was begun again
        assert "another process" in program.text(), program.text()
        program = own_site.start("again", *words, "there", "--engine", "ray", "--address",
                                 cluster.address)
        assert program.wait(PATIENCE_S) == 0
    assert own_site.start("here", *words, "here").wait(PATIENCE_S) == 0
    for seed in range(3):
        assert history_of(stores / f"seed={seed}") == history_of(
            own_site.directory / "here" / f"seed={seed}")


def test_what_a_node_lacks_is_one_line(own_site, cluster):  # noqa: F811
    """The module is on this machine's path and on nobody else's."""
    (own_site.directory / "ours").mkdir()
    (own_site.directory / "ours" / "our_data.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    x, y = np.zeros((8, 4), np.float32), np.arange(8) % 2\n"
        "    return (x, y), (x, y)\n")
    own_site.environment["PYTHONPATH"] = f"{own_site.directory / 'ours'}:{ROOT}"
    program = simulate(own_site, "run", "--set", "dataset.name=our_data:load", "--engine", "ray",
                       "--address", cluster.address)
    assert program.wait(PATIENCE_S) != 0
    assert "our_data" in program.errors()[-1] or "our_data" in program.text().splitlines()[-2]
    assert "Traceback" not in program.text()


def test_room_is_what_fits_on_each_node(cluster):
    with connected(cluster.address) as ray:
        assert room(ray, Share(1)) == 2 and room(ray, Share(0.25)) == 8
        with pytest.raises(ConfigError, match="nothing fits on a node of the cluster"):
            room(ray, Share(1.5))
        with pytest.raises(ConfigError, match="nothing fits on a node of the cluster"):
            room(ray, Share(1, 1))


def test_a_cluster_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match="there is no Ray cluster") as refused, connected(
            "127.0.0.1:1"):
        pass
    assert "\n" not in str(refused.value)


def test_the_configuration_reaches_a_node_as_it_is_here():
    config = configuration.load(None, values=KEYS).config
    assert configuration.build(dict(configuration.flat(config))) == config
