"""FLQ as pip installs it: an sdist is made of the tree, a wheel of the sdist, and the wheel is
installed into an environment of its own, which sees this Python's packages and not the tree. Runs
without a network, on Python 3.6 too.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import flq
from flq.kernels import build, library
from scripts.requirements import installed_version, parse_requirements, parse_version
from tests.system.processes import ROOT, Master, Site, set_options

NEEDED = ("pip", "setuptools", "wheel")
HAS_COMPILER = any(map(shutil.which, build.COMPILERS))
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler here")
COMPUTES = "from flq.kernels import library; print(library.NAME)"


pytestmark = pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)),
                                reason=f"this Python lacks one of {', '.join(NEEDED)}")
runs_a_master = pytest.mark.skipif(sys.version_info < (3, 9), reason="a master needs Python 3.9")


def python(folder, *command, interpreter=sys.executable, **variables):
    """Run it in a folder that is not the tree; what it prints."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONPATH", "CC", library.SWITCH)}
    environment.update(variables)
    process = subprocess.run([str(interpreter)] + [str(word) for word in command], cwd=str(folder),
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             universal_newlines=True)
    assert process.returncode == 0, process.stdout
    return process.stdout


def copy_tree(folder):
    """A tree of its own: a build leaves files beside what it builds."""
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(str(path), str(folder / path.name))
    shutil.copytree(str(ROOT / "flq"), str(folder / "flq"),
                    ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return folder


def make_wheel(tree, folder, **variables):
    python(tree, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w",
           folder, tree, **variables)
    built, = folder.glob("flq-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What an sdist of the tree holds."""
    folder = tmp_path_factory.mktemp("sdist")
    python(copy_tree(folder / "tree"), "-c",
           "from setuptools import build_meta; build_meta.build_sdist('..')")
    sdist, = folder.glob("flq-*.tar.gz")
    python(folder, "-m", "tarfile", "-e", sdist, folder / "unpacked")
    found, = (folder / "unpacked").iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    """The path of the wheel, made of what an sdist of the tree holds."""
    return make_wheel(unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_for_all(unpacked, tmp_path_factory):
    """Made where there is no C compiler, in a folder with what an earlier build left."""
    left = unpacked / "build" / "lib" / "flq" / "kernels" / "kernels-any-0.so"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    return make_wheel(unpacked, tmp_path_factory.mktemp("wheel"), CC="/no/compiler")


def make_environment(folder):
    """An environment that sees the packages of this Python -> its interpreter."""
    python(folder, "-m", "venv", "--without-pip", folder)
    interpreter = folder / "bin" / "python"
    packages = python(folder, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])",
                      interpreter=interpreter).strip()
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (Path(packages) / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return interpreter


def install(interpreter, *what):
    """This Python may have an FLQ of its own, which is left alone."""
    python(interpreter.parent, "-m", "pip", "install", "--ignore-installed", "--no-deps",
           "--no-index", *what, interpreter=interpreter)


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The folder with the environment's python and the scripts of the wheel."""
    interpreter = make_environment(tmp_path_factory.mktemp("environment"))
    install(interpreter, wheel)
    return interpreter.parent


def metadata(wheel):
    with zipfile.ZipFile(str(wheel)) as archive:
        name, = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode("utf-8"))


# --- what is in it


def test_a_wheel_holds_every_file_of_the_package(wheel, wheel_for_all):
    expected = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "flq").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    } | {"flq_master.py", "flq_worker.py"}
    assert held(wheel_for_all) == expected
    built = {Path(library.path()).relative_to(ROOT).as_posix()} if HAS_COMPILER else set()
    assert held(wheel) == expected | built
    assert {"flq/master/http/page/index.html", "flq/master/http/page/uPlot.iife.min.js",
            "flq/master/http/page/uPlot.LICENSE.txt", "flq/reports/page/report.html",
            "flq/learning/datasets/digits.npz"} <= expected
    assert {Path(source).relative_to(ROOT).as_posix() for source in library.SOURCES} <= expected


def held(wheel):
    with zipfile.ZipFile(str(wheel)) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_a_wheel_without_compiled_kernels_is_for_every_machine(unpacked, wheel_for_all, tmp_path):
    asked_for = make_wheel(unpacked, tmp_path, FLQ_KERNELS="numpy")
    assert held(asked_for) == held(wheel_for_all)
    for wheel in (wheel_for_all, asked_for):
        assert wheel.name.endswith("-py3-none-any.whl")


@needs_compiler
def test_a_wheel_with_compiled_kernels_is_for_machines_of_this_kind_and_any_python(wheel):
    kind = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{kind}.whl")


def test_the_version_stands_in_the_package_alone(wheel):
    assert metadata(wheel)["Version"] == flq.__version__
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "CITATION.cff"):
        assert flq.__version__ not in (ROOT / name).read_text(encoding="utf-8")


# --- what it brings


def brought(wheel, extra="", machine=None):
    """What pip installs with it on a machine, as {(name, specifiers)}."""
    environment = dict({"extra": extra}, **machine or {})
    found = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist")]
    return {(need.name, frozenset(map(str, need.specifier))) for need in found
            if need.marker is None or need.marker.evaluate(environment)}


def asked_for(machine, *names):
    """What the requirements files ask for on it."""
    version = tuple(map(int, machine["python_version"].split(".")))
    return {(need.name, frozenset(sign + ".".join(map(str, bound)) for sign, bound in need.bounds))
            for name in names
            for need in parse_requirements(str(ROOT / f"requirements-{name}.txt"), version)}


def machine(version, release):
    return {"python_version": version, "platform_release": release}


PC, OLD_PC = machine("3.11", "6.1.0-18-amd64"), machine("3.8", "5.4.0-generic")
NANO, ORIN = machine("3.6", "4.9.253-tegra"), machine("3.10", "5.15.148-tegra")


@pytest.mark.parametrize("on, extra, names", [
    (PC, "", ["worker", "tensorflow", "master"]),
    (OLD_PC, "", ["worker", "tensorflow"]),
    (NANO, "", ["worker"]),
    (NANO, "worker", ["worker"]),
    (ORIN, "worker", ["worker"]),
    (ORIN, "master", ["worker", "master"]),
    (ORIN, "tensorflow", ["worker", "tensorflow"]),
    (PC, "completion", ["worker", "tensorflow", "master", "completion"]),
    (ORIN, "completion", ["worker", "completion"]),
    (PC, "tensorboard", ["worker", "tensorflow", "master", "tensorboard"]),
])
def test_pip_brings_what_the_requirements_files_ask_for(wheel, on, extra, names):
    assert brought(wheel, extra, on) == asked_for(on, *names)


def test_every_requirements_file_but_the_pinned_one_is_an_extra(wheel):
    files = {path.name[len("requirements-"):-len(".txt")]
             for path in ROOT.glob("requirements-*.txt")}
    assert set(metadata(wheel).get_all("Provides-Extra")) == files - {"fed"}


# --- what it does, outside of the tree


def test_the_installed_programs_are_those_of_the_environment(scripts, tmp_path):
    code = "import flq, flq_worker; print(flq.__file__, flq_worker.__file__)"
    for path in python(tmp_path, "-c", code, interpreter=scripts / "python").split():
        assert path.startswith(str(scripts.parent))


@pytest.mark.parametrize("program", ["flq", "flq-master", "flq-worker"])
def test_a_program_says_its_version_and_its_options(scripts, tmp_path, program):
    assert python(tmp_path, scripts / program, "--version",
                  interpreter=scripts / "python") == f"{program} {flq.__version__}\n"
    shown = python(tmp_path, scripts / program, "--help", interpreter=scripts / "python")
    assert shown.startswith(f"usage: {program} [-h] [--version]")


@needs_compiler
def test_what_pip_installed_computes_with_compiled_kernels(scripts, tmp_path):
    assert python(tmp_path, "-c", COMPUTES, interpreter=scripts / "python") == "compiled kernels\n"


def test_without_a_compiler_it_computes_with_numpy_until_they_are_built(wheel_for_all, tmp_path):
    interpreter = make_environment(tmp_path)
    install(interpreter, wheel_for_all)
    assert python(tmp_path, "-c", COMPUTES, interpreter=interpreter) == "NumPy\n"
    if HAS_COMPILER:
        python(tmp_path, "-m", "flq.kernels.build", interpreter=interpreter)
        assert python(tmp_path, "-c", COMPUTES, interpreter=interpreter) == "compiled kernels\n"


@needs_compiler
def test_an_editable_installation_has_the_kernels_of_its_tree(tmp_path):
    (tmp_path / "environment").mkdir()
    tree, interpreter = copy_tree(tmp_path / "tree"), make_environment(tmp_path / "environment")
    install(interpreter, "--no-build-isolation", "-e", tree)
    if parse_version(installed_version("setuptools")) < (64,):  # its `develop` builds nothing
        assert python(tmp_path, "-c", COMPUTES, interpreter=interpreter) == "NumPy\n"
        python(tmp_path, "-m", "flq.kernels.build", interpreter=interpreter)
    assert python(tmp_path, "-c", COMPUTES, interpreter=interpreter) == "compiled kernels\n"
    assert list((tree / "flq" / "kernels").glob("*.so"))


def test_it_makes_a_token(scripts, tmp_path):
    said = python(tmp_path, scripts / "flq", "token", "--token_file", "token",
                  interpreter=scripts / "python")
    assert said.strip() == (tmp_path / "token").read_text().strip()


def test_a_missing_package_is_named_with_the_extras_that_bring_it(wheel, tmp_path):
    python(tmp_path, "-m", "pip", "install", "--no-deps", "--no-index", "--target",
           tmp_path / "packages", wheel)
    python(tmp_path, "-m", "venv", "--without-pip", tmp_path / "bare")
    bare = str(tmp_path / "bare" / "bin" / "python")
    process = subprocess.run([bare, "-m", "flq_worker", "--worker_id", "0"], cwd=str(tmp_path),
                             env=dict(os.environ, PYTHONPATH=str(tmp_path / "packages")),
                             stderr=subprocess.PIPE, universal_newlines=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert f'{bare} -m pip install "flq[tensorflow,worker]"' in process.stderr


@pytest.fixture
def outside(tmp_path):
    """Processes of the environment, in a folder that holds nothing of FLQ."""
    site = Site(tmp_path)
    del site.environment["PYTHONPATH"]
    yield site
    site.close()


def _run_of(directory):
    return json.loads((directory / "summary.json").read_text())


@runs_a_master
def test_it_simulates_with_the_digits_and_writes_its_reports(scripts, outside):
    (outside.directory / "tiny.json").write_text(json.dumps(
        {"total_workers": 2, "max_rounds": 2, "model.name": "softmax"}))
    # counts only where it is named; without --config the defaults are those of flq.keys
    (outside.directory / "flq_config.json").write_text("{broken")
    program = outside.start("simulate", scripts / "python", scripts / "flq", "simulate",
                            "--config", "tiny.json", "--run_dir", "run")
    assert program.wait() == 0, program.text()
    run = outside.directory / "run"
    assert _run_of(run)["rounds"] == 2
    assert list(run.glob("*.xlsx")) and list(run.glob("*.png"))
    program = outside.start("report", scripts / "python", scripts / "flq", "report", "run",
                            "--html")
    assert program.wait() == 0, program.text()
    assert "2 workers" in (run / "report.html").read_text(encoding="utf-8")


@runs_a_master
def test_it_finds_a_users_own_code_in_the_current_folder(scripts, outside):
    shutil.copytree(str(ROOT / "examples"), str(outside.directory / "own"),
                    ignore=shutil.ignore_patterns("__pycache__"))
    program = outside.start(
        "simulate", scripts / "python", scripts / "flq", "simulate", "--run_dir", "run",
        *set_options(["dataset.name=own.custom_dataset:load", "partition=natural",
                      "model.name=mlp", "total_workers=2", "max_rounds=2", "save_results=false"]))
    assert program.wait() == 0, program.text()
    assert _run_of(outside.directory / "run")["rounds"] == 2


@runs_a_master
def test_a_master_and_a_worker_run_and_the_page_is_there(scripts, outside):
    master = outside.start(
        "master", scripts / "python", scripts / "flq-master", "--port", 0, "--port_file",
        "master.port", "--run_dir", "master-run", "--exit_when_done",
        *set_options(["total_workers=1", "max_rounds=2", "model.name=softmax",
                      "save_results=false"]), kind=Master)
    page = master.ask("GET", "/")
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
    assert page.text == (ROOT / "flq/master/http/page/index.html").read_text(encoding="utf-8")
    worker = outside.start("worker", scripts / "python", scripts / "flq-worker", "--worker_id", 0,
                           "--master_url", master.url)
    assert [worker.wait(), master.wait()] == [0, 0], outside.tails()
    assert _run_of(master.run_dir)["uploads"] == 2
