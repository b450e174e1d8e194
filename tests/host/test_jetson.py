"""What a machine says of itself, read from file trees like those of real Jetsons."""

import os

import pytest

from flq.host import jetson
from tests.jetson_trees import NANO, NANO_REPORT, ORIN, XAVIER, plant

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_a_nano_says_what_it_is(tmp_path):
    assert jetson.describe(plant(tmp_path, NANO)) == NANO_REPORT


@pytest.mark.parametrize("tree, release, name, python", [(NANO, "32.7.1", "4.6", "3.6"),
                                                         (XAVIER, "35.4.1", "5.1", "3.8"),
                                                         (ORIN, "36.4.3", "6", "3.10")])
def test_the_release_gives_the_jetpack(tmp_path, tree, release, name, python):
    root = plant(tmp_path, tree)
    found = jetson.jetpack(root)
    assert (jetson.release(root), found.name, found.python) == (release, name, python)


def test_a_machine_that_says_nothing_has_an_empty_report(tmp_path):
    assert jetson.describe(str(tmp_path)) == {}


def test_a_release_that_nobody_knows_has_no_jetpack(tmp_path):
    root = plant(tmp_path, {"etc/nv_tegra_release": "# R99 (release), REVISION: 1.0, GCID: 1\n"})
    assert jetson.describe(root) == {"l4t": "99.1.0"}


@pytest.mark.parametrize("path, text", [("etc/nv_tegra_release", "R32\n"),
                                        ("proc/meminfo", "MemTotal: lots\n"),
                                        ("proc/device-tree/model", ""),
                                        ("sys/class/thermal/thermal_zone0/temp", "hot\n"),
                                        ("var/lib/nvpmodel/status", "\0\0")])
def test_what_is_damaged_is_unknown(tmp_path, path, text):
    assert jetson.describe(plant(tmp_path, {path: text})) == {}


def test_bytes_that_cannot_be_read_or_shown_do_no_harm(tmp_path):
    root = plant(tmp_path, {"etc/nv_tegra_release": ""})
    os.makedirs(os.path.join(root, "proc/device-tree"))
    with open(os.path.join(root, "proc/device-tree/model"), "wb") as file:
        file.write(b"Board \xff\x1b[2J " + b"x" * 500)
    os.makedirs(os.path.join(root, "proc/meminfo"))  # a folder where a file should be
    report = jetson.describe(root)
    assert list(report) == ["model"] and report["model"].isprintable() and len(
        report["model"]) == 100


def test_a_mode_without_a_name_is_its_number(tmp_path):
    assert jetson.power_mode(plant(tmp_path,
                                   {"var/lib/nvpmodel/status": "pmode:0007 fmode:quiet"})) == "7"


def test_every_jetpack_names_constraints_that_are_there():
    for found in jetson.JETPACKS.values():
        assert found.constraints.startswith("py" + found.python.replace(".", ""))
        assert os.path.isfile(os.path.join(ROOT, "constraints", found.constraints))
