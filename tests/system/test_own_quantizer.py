"""A user's own quantiser, named in the configuration: the same run simulated and over HTTP, and
only with the same source on both sides.
"""

import pytest

from tests.system.processes import ROOT, history_of
from tests.system.quadratic import QUADRATIC_REPLAY

ALLOW = ("--allow", "examples.custom_quantizer")
MODE = "mode=examples.custom_quantizer:TERNARY"
SETTINGS = ("total_workers=3", "max_rounds=5", "quorum=all", MODE)
SOURCE = (ROOT / "examples" / "custom_quantizer.py").read_text()


def with_another_source(directory):
    """A folder whose `examples` holds the example with another threshold, for PYTHONPATH."""
    package = directory / "other" / "examples"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "custom_quantizer.py").write_text(SOURCE.replace("0.7 *", "0.6 *"))
    return f"{package.parent}:{ROOT}"


@pytest.mark.parametrize("case", [
    "", "memory=residual entropy_coding=false", "thr_scale=10 sel_clients=2 b_down=32",
    "memory=none"
])
def test_it_is_the_same_run_over_http_and_simulated(own_site, case):
    settings = SETTINGS + tuple(case.split())
    master = own_site.master(*settings)
    simulation = own_site.simulate(*settings)
    workers = [own_site.worker(ids, master, *ALLOW) for ids in ("0", "1-2")]
    assert [program.wait() for program in workers + [master, simulation]] == [0, 0, 0, 0]
    rounds, rows = history_of(master.run_dir)
    assert (rounds, rows) == history_of(own_site.directory / "simulation-run")
    assert len({record["params_hash"] for record in rounds}) == 5


def test_it_is_computed_again_from_the_store(own_site):
    assert own_site.simulate(*SETTINGS).wait() == 0
    assert own_site.start("replay", *QUADRATIC_REPLAY, "simulation-run").wait() == 0


def test_a_worker_with_another_source_is_refused(own_site):
    master = own_site.master(*SETTINGS)
    path = with_another_source(own_site.directory)
    worker = own_site.worker("0", master, *ALLOW, PYTHONPATH=path)
    assert worker.wait() == 3
    line, = [line for line in worker.text().splitlines() if "another one" in line]
    assert ("the worker's source of examples.custom_quantizer:TERNARY is another one; expected "
            in line)
    assert line.endswith(
        "copy the master's file to the worker's machine") and "Traceback" not in worker.text()


def test_a_worker_that_was_not_told_to_run_it_refuses_and_imports_nothing(own_site):
    package = own_site.directory / "theirs"
    package.mkdir()
    ran = own_site.directory / "ran"
    (package / "theirs.py").write_text(SOURCE + f"\nopen({str(ran)!r}, 'a').close()\n")
    path = f"{package}:{ROOT}"
    master = own_site.master(*SETTINGS[:3], "mode=theirs:TERNARY", PYTHONPATH=path)
    assert master.url and ran.exists()
    ran.unlink()
    worker = own_site.worker("0", master, PYTHONPATH=path)
    assert worker.wait() == 2 and not ran.exists()
    assert worker.errors() == [
        "error: the master wants this worker to run flq_algorithm.mode theirs:TERNARY; expected "
        "code that --allow or security.allow names; got none; --allow theirs grants it, if you "
        "trust that module"]
    file = own_site.directory / "worker.json"
    file.write_text('{"security": {"allow": ["theirs"]}}')
    named = [own_site.worker("1", master, "--config", file, PYTHONPATH=path),
             own_site.worker("2", master, "--set", "mode=theirs:TERNARY", PYTHONPATH=path),
             own_site.worker("0", master, "--allow", "theirs:TERNARY", PYTHONPATH=path)]
    assert [program.wait() for program in [*named, master]] == [0] * 4


def test_a_worker_without_the_module_is_told_where_it_is_looked_for(own_site):
    settings = SETTINGS[:3] + ("mode=only_on_the_master:TERNARY",)
    (own_site.directory / "only").mkdir()
    (own_site.directory / "only" / "only_on_the_master.py").write_text(SOURCE)
    master = own_site.master(*settings, PYTHONPATH=f"{own_site.directory / 'only'}:{ROOT}")
    worker = own_site.worker("0", master, "--allow", "only_on_the_master")
    assert worker.wait() == 4
    assert worker.errors() == [
        "error: cannot import only_on_the_master:TERNARY; expected package.module:NAME; got No "
        "module named "
        "'only_on_the_master'; start from the folder that holds the package, or add it to "
        "PYTHONPATH"
    ]


def test_what_cannot_be_used_ends_the_master_before_anything_starts(own_site):
    master = own_site.master("mode=examples.custom_quantizer:TERNARI")
    assert master.wait(
    ) == 4 and "did you mean examples.custom_quantizer:TERNARY?" in master.errors()[0]
    assert not master.run_dir.exists()
