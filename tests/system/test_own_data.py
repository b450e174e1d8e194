"""Data of one's own on machines of their own: each worker has another file, and the master's
statistics, columns and classes count.
"""

import sys

import numpy as np

from tests.system.processes import ROOT, history_of

MASTER, WORKER, SIMULATE = ((ROOT / "flq_master.py",), (ROOT / "flq_worker.py",),
                            ("-m", "flq", "simulate"))
NAME = "dataset.name=csv:t.csv?label=kind&ignore=id"
SETTINGS = ("model.name=softmax", "total_workers=2", "max_rounds=4", "quorum=all", NAME,
            "standardize=true")


def write(folder, seed, columns=("size", "weight"), shift=0.0):
    folder.mkdir(exist_ok=True)
    random = np.random.RandomState(seed)
    with open(str(folder / "t.csv"), "w") as file:
        file.write(",".join(("id",) + columns + ("kind",)) + "\n")
        for row in range(90):
            kind = row % 3
            size, weight = kind + random.normal() / 2 + shift, 1000 * (random.normal() - kind)
            file.write(f"{row},{size:.4f},{weight:.2f},{'abc'[kind]}\n")


def data_dir(folder):
    return ("--set", f"dataset.data_dir={folder}")


def test_workers_with_files_of_their_own_take_the_masters_statistics(own_site):
    folders = [own_site.directory / name for name in ("master", "one", "two", "other")]
    for number, folder in enumerate(folders[:3]):
        write(folder, number, shift=number)
    write(folders[3], 1, columns=("weight", "size"))
    master = own_site.master(*SETTINGS, "partition=local", f"dataset.data_dir={folders[0]}",
                             script=MASTER)
    refused = own_site.worker("0", master, *data_dir(folders[3]), script=WORKER, name="refused")
    assert refused.wait() == 3
    assert ("the worker's file has other columns or classes (python -m flq check-data prints those "
            "of a machine); expected ") in refused.text()
    workers = [own_site.worker(str(number), master, *data_dir(folders[number + 1]), script=WORKER)
               for number in (0, 1)]
    assert [program.wait() for program in [*workers, master]] == [0, 0, 0]
    rounds, rows = history_of(master.run_dir)
    assert {row["num_samples"] for row in rows} == {72}
    # two vectors of two numbers, once to each worker
    more = rounds[0]["nominal_bits_down"] - rounds[-1]["nominal_bits_down"]
    again = own_site.start("replay", sys.executable, "-m", "flq", "replay", str(master.run_dir))
    assert again.wait() == 0, "also where the statistics are in the store"
    assert more >= 2 * 4 * 32


def test_a_shared_file_is_the_same_run_over_http_and_simulated_and_nothing_more_travels(own_site):
    folder = own_site.directory / "shared"
    write(folder, 5)
    settings = (*SETTINGS, f"dataset.data_dir={folder}", "model.num_threads=1")
    master = own_site.master(*settings, script=MASTER)
    simulation = own_site.simulate(*settings, script=SIMULATE)
    workers = [own_site.worker(ids, master, *data_dir(folder), script=WORKER) for ids in "01"]
    assert [program.wait() for program in [*workers, master, simulation]] == [0] * 4
    rounds, rows = history_of(master.run_dir)
    assert (rounds, rows) == history_of(own_site.directory / "simulation-run")
    assert rounds[-1]["accuracy"] > 0.5


def test_a_loss_that_explodes_is_explained_where_it_is_read(own_site):
    folder = own_site.directory / "shared"
    write(folder, 5)
    settings = ("model.name=softmax", "total_workers=2", "max_rounds=3", NAME,
                f"dataset.data_dir={folder}")
    simulation = own_site.simulate(*settings, script=SIMULATE)
    assert simulation.wait() == 0
    said = simulation.text()
    assert "column weight: values up to " in said and "dataset.standardize to true" in said
    assert "training diverges; in a new run lower model.local_lr, or, where features have" in said
