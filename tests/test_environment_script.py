"""test_environment.py and the requirements that it reads. Runs on Python 3.6 too."""

import functools
import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

import test_environment
from flq.kernels import library
from scripts import requirements
from scripts.requirements import Requirement, parse_requirements, parse_version
from tests.jetson_trees import NANO, ORIN, XAVIER, plant

ROOT = test_environment.ROOT
SCRIPT = os.path.join(ROOT, "test_environment.py")
FILES = sorted(name for name in os.listdir(ROOT) if name.startswith("requirements-"))


def requirements_of(name, python=None):
    return parse_requirements(os.path.join(ROOT, name), python)


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.fixture
def closed_port():
    """A port of this machine that nobody listens on, held so that nobody else can take it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def foreign_server(tmp_path):
    """The URL of an HTTP server that knows nothing of FLQ, and the folder that it serves."""
    handler = functools.partial(QuietHandler, tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Answers the files of a folder."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        super().__init__(*arguments)

    def do_GET(self):
        path = self.folder / self.path.strip("/")
        self.send_response(200 if path.exists() else 404)
        self.end_headers()
        if path.exists():
            self.wfile.write(path.read_bytes())

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("text, version", [("2.12.0", (2, 12, 0)), ("2.7.0+nv22.1", (2, 7, 0)),
                                           ("3.0.0rc1", (3, 0, 0)), ("dev", ())])
def test_a_version_is_its_leading_numbers(text, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("entry", [
    "Some_Package-1.19.5.dist-info", "some.package-1.19.5.egg-info",
    "some_package-1.19.5-py3.6.egg-info", "some_package-1.19.5-py3.6-linux-aarch64.egg"
])
def test_an_installed_version_is_read_without_setuptools(tmp_path, entry):
    for name in (entry, "some_package_more-2.0.dist-info", "some_package-data", "some_package"):
        (tmp_path / name).mkdir()
    folders = [str(tmp_path / "not there"), write(tmp_path / "a.zip", ""), str(tmp_path)]
    assert requirements._version_in_folders("some-package", folders) == "1.19.5"
    assert requirements._version_in_folders("some", folders) is None


def test_the_folders_of_this_python_say_what_its_own_words_say():
    found = {
        name: requirements._version_in_folders(name, sys.path)
        for name in ("numpy", "requests", "pytest", "no-such-package")
    }
    assert found == {name: requirements.installed_version(name) for name in found}
    assert found["no-such-package"] is None and None not in list(found.values())[:3]


def test_a_requirement_knows_what_meets_it_and_what_is_too_old():
    numpy = Requirement("numpy", ((">=", (1, 19, 5)), ("<", (3,))))
    assert [
        numpy.is_met_by(version) for version in [(1, 19, 4), (1, 19, 5), (2, 99), (3,), (3, 0, 1)]
    ] == [False, True, True, False, False]
    assert [numpy.is_below(version)
            for version in [(1, 19, 4), (1, 19, 5), (3, 0, 1)]] == [True, False, False]
    ruff = Requirement("ruff", (("==", (0, 17)),))
    assert [ruff.is_met_by(version) for version in [(0, 16, 9), (0, 17), (0, 17, 6), (0, 18)]
            ] == [False, True, True, False]
    assert (str(numpy), str(ruff), str(Requirement("pytest", ()))
            ) == ("numpy >= 1.19.5, < 3", "ruff == 0.17", "pytest")


@pytest.mark.parametrize("marker, applies",
                         [('python_version >= "3.6"', True), ('python_version >= "3.99"', False),
                          ('python_version >= "3.6" and sys_platform == "amiga"', False),
                          ('sys_platform != "amiga" or python_version >= "3.99"', True),
                          ('python_version < "3.99"', True), ('python_version < "3.6"', False)])
def test_a_line_counts_where_its_marker_holds(tmp_path, marker, applies):
    found = parse_requirements(
        write(tmp_path / "r.txt", f"# a comment\n\nnumpy >= 1.19.5, < 3; {marker}  # another\n"))
    assert found == ([Requirement("numpy", ((">=", (1, 19, 5)), ("<", (3,))))] if applies else [])


@pytest.mark.parametrize("python, applies", [((3, 6), False), ((3, 8), True), ((3, 9), True),
                                             ((3, 10), False)])
def test_a_line_counts_for_the_python_that_is_asked_about(tmp_path, python, applies):
    path = write(tmp_path / "r.txt",
                 'numpy < 2; python_version >= "3.8" and python_version < "3.10"\n')
    assert bool(parse_requirements(path, python)) == applies


@pytest.mark.parametrize(
    "line",
    ["-r other.txt", "numpy ~= 1.19", "numpy >= 1.19; os_name == 'nt'", "numpy[extra] >= 1"])
def test_a_line_that_cannot_be_read_is_an_error_not_a_guess(tmp_path, line):
    with pytest.raises(ValueError, match="cannot read"):
        parse_requirements(write(tmp_path / "r.txt", line))


@pytest.mark.parametrize("name", FILES)
def test_every_requirements_file_can_be_read(name):
    assert requirements_of(name)


@pytest.mark.parametrize("role", sorted(test_environment.REQUIREMENTS))
def test_a_role_names_files_that_exist(role):
    assert set(test_environment.REQUIREMENTS[role]) <= set(FILES)


def test_the_conda_environment_meets_what_master_and_worker_require():
    pins = {pin.name: pin.bounds[0][1] for pin in requirements_of("requirements-fed.txt")}
    pins["tensorflow-cpu"] = pins["tensorflow"]
    required = [
        requirement for name in test_environment.REQUIREMENTS["both"]
        for requirement in requirements_of(name, (3, 9))
    ]
    assert [
        str(requirement) for requirement in required
        if not requirement.is_met_by(pins[requirement.name])
    ] == []


def test_the_conda_environment_is_made_of_the_lock_of_its_requirements_file():
    with open(os.path.join(ROOT, "environment.yml"), encoding="utf-8") as file:
        lines = [line.strip() for line in file if not line.startswith("#")]
    assert "name: fed" in lines and "- python=3.9" in lines and lines[-2:] == [
        "- pip:", "- -r locks/fed.txt"
    ]


def test_packages_that_are_missing_too_old_or_too_new_are_told_apart():
    version = parse_version(requirements.installed_version("numpy"))
    newer, older = ((">=", (version[0] + 1,)),), (("<", version),)

    def state(name, bounds):
        return test_environment.check_package(Requirement(name, bounds),
                                              "requirements-worker.txt").state

    assert [
        state("numpy", ((">=", version),)),
        state("numpy", older),
        state("numpy", newer),
        state("no-such-package", ())
    ] == ["ok", "warning", "unusable", "unusable"]


def test_a_missing_package_ends_with_1_and_the_command_that_installs_it(
        tmp_path, monkeypatch, capsys):
    write(tmp_path / "requirements-none.txt", "no-such-package >= 1\n")
    monkeypatch.setattr(test_environment, "ROOT", str(tmp_path))
    monkeypatch.setitem(test_environment.REQUIREMENTS, "worker", ("requirements-none.txt",))
    assert test_environment.main(["--role", "worker", "--packages_only"]) == 1
    assert (
        f"unusable  no-such-package missing: {sys.executable} -m pip install -r "
        "requirements-none.txt"
        in capsys.readouterr().out)


def test_this_machine_can_be_a_worker(tmp_path):
    process = subprocess.Popen(
        [sys.executable, SCRIPT, "--role", "worker", "--run_dir",
         str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    output, _ = process.communicate()
    lines = output.splitlines()
    assert process.returncode == 0, output
    assert [line for line in lines if line.startswith("ok        training step   TensorFlow 2.")
            ] and lines[-1].endswith(" 0 unusable")
    assert all(line.startswith(("ok ", "warning ")) for line in lines[:-1]), output


@pytest.mark.parametrize("switch, state, words", [("numpy", "warning", "NumPy, as FLQ_KERNELS"),
                                                  ("", None, "")])
def test_the_arithmetic_is_a_row_and_never_unusable(monkeypatch, switch, state, words):
    monkeypatch.setenv(library.SWITCH, switch)
    finding = test_environment.check_arithmetic()
    if not switch:  # a NumPy without compiled kernels is a warning that names the command
        compiled = library.load(library.path()) is not None
        state, words = (("ok", "compiled kernels") if compiled else
                        ("warning", "-m flq.kernels.build builds them or says why not"))
    assert (finding.state, finding.what) == (state, "arithmetic") and words in finding.text


@pytest.mark.parametrize("text", ["import no_such_numpy", "import os; os.abort()", ""])
def test_an_arithmetic_that_cannot_be_asked_is_a_warning(monkeypatch, text):
    monkeypatch.setattr(test_environment, "ARITHMETIC", text)
    assert test_environment.check_arithmetic() == (
        "warning", "arithmetic", "unknown: NumPy does not run here")


def test_a_tensorflow_that_crashes_is_a_finding_not_a_crash(monkeypatch):
    monkeypatch.setattr(test_environment, "TRAINING_STEP",
                        "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    finding, = test_environment.check_tensorflow()
    assert finding.state == "unusable" and "SIGILL" in finding.text
    assert "OPENBLAS_CORETYPE=ARMV8" in finding.text


def test_a_tensorflow_that_cannot_be_imported_is_told_by_its_last_line(monkeypatch):
    monkeypatch.setattr(test_environment, "TRAINING_STEP", "import no_such_tensorflow")
    finding, = test_environment.check_tensorflow()
    assert finding.state == "unusable" and "No module named 'no_such_tensorflow'" in finding.text


@pytest.mark.parametrize(
    "result, state, words",
    [({"gpus": ["GPU:0"], "cuda_build": True, "cuda": "12.5", "cudnn": "9"
       }, "ok", "GPU:0, CUDA 12.5"),
     ({"gpus": [], "cuda_build": True, "cuda": "12.5", "cudnn": "9"}, "warning", "none found"),
     ({"gpus": [], "cuda_build": False, "cuda": "unknown", "cudnn": "unknown"
       }, "warning", "built without CUDA")])
def test_no_gpu_is_a_warning(result, state, words):
    finding = test_environment.describe_gpu(result)
    assert finding.state == state and words in finding.text


def test_a_jetson_whose_tensorflow_does_not_know_its_gpu_says_so(tmp_path):
    finding = test_environment.describe_gpu({"gpus": [], "cuda_build": False},
                                            plant(tmp_path, NANO))
    assert finding.state == "warning" and "only NVIDIA's TensorFlow wheel" in finding.text


@pytest.mark.parametrize("tree, python, tensorflow, states, words", [
    (NANO, "3.6", "2.7.0+nv22.1", "ok ok ok warning", [
        "Nano Developer Kit, JetPack 4.6 (L4T 32.7.1)", "TensorFlow 2.7.0+nv22.1 for JetPack 4.6",
        "1978 MiB", "5W turns two of the four cores off: sudo nvpmodel -m 0"
    ]),
    (NANO, "3.6", "2.6.2", "ok warning ok warning", [
        "TensorFlow 2.6.2 is not NVIDIA's; only this one uses the GPU: python3.6 -m pip install -U "
        "\"pip==21.3.1\" && "
        "python3.6 -m pip install --extra-index-url "
        "https://developer.download.nvidia.com/compute/redist/jp/v461 "
        "-c constraints/py36-tf2.6.txt tensorflow==2.7.0+nv22.1"
    ]),
    (NANO, "3.9", "2.12.0", "ok warning ok warning", [
        "none exists for Python 3.9, so TensorFlow computes on the CPU",
        "system's Python 3.6: python3.6"
    ]), (XAVIER, "3.8", "2.12.0+nv23.06", "ok ok ok warning", ["JetPack 5.1 (L4T 35.4.1)"]),
    (ORIN, "3.10", "2.16.2", "ok warning ok ok",
     ["jp/v61 -c constraints/py310-tf2.16.txt tensorflow==2.16.1+nv24.08", "15W"]),
])
def test_a_jetson_hears_which_tensorflow_belongs_there(tmp_path, tree, python, tensorflow, states,
                                                       words):
    findings = test_environment.check_jetson(plant(tmp_path, tree), python, tensorflow)
    assert [finding.what
            for finding in findings] == ["Jetson", "NVIDIA wheel", "swap", "power mode"]
    assert " ".join(finding.state for finding in findings) == states
    for word in words:
        assert any(word in finding.text for finding in findings), findings


def test_a_jetson_without_tensorflow_without_swap_and_of_an_unknown_release(tmp_path):
    tree = dict(
        NANO, **{
            "proc/meminfo": "MemTotal:        4051048 kB\nSwapTotal:             0 kB\n",
            "var/lib/nvpmodel/status": ""
        })
    _, wheel, swap, power = test_environment.check_jetson(plant(tmp_path, tree), "3.6", "")
    assert wheel.state == swap.state == power.state == "warning"
    assert "mkswap /swapfile" in swap.text and "nvpmodel -q" in power.text
    root = plant(tmp_path, {"etc/nv_tegra_release": "# R99 (release), REVISION: 1.0\n"})
    unknown, _, _ = test_environment.check_jetson(root, "3.6", None)
    assert unknown.state == "warning"
    assert "L4T 32 (JetPack 4.6), L4T 35 (JetPack 5.1), L4T 36 (JetPack 6)" in unknown.text


def test_another_machine_is_no_jetson(tmp_path):
    assert test_environment.check_jetson(str(tmp_path)) == []


@pytest.mark.parametrize("name", sorted(os.listdir(os.path.join(ROOT, "constraints"))))
def test_constraints_are_within_what_is_required(name):
    """Each row's versions are versions that the requirements ask for."""
    python = (3, int(name[len("py3"):name.index("-")]))
    role = "both" if python >= test_environment.OLDEST_PYTHON["master"] else "worker"
    required = {}
    for file in test_environment.REQUIREMENTS[role]:
        for requirement in requirements_of(file, python):
            required.setdefault(requirement.name, []).append(requirement)
    pins = requirements_of(os.path.join("constraints", name), python)
    assert any(pin.name.startswith("tensorflow") for pin in pins)
    for pin in pins:
        exact = [bound for sign, bound in pin.bounds if sign == "=="]
        asked = required.get("tensorflow-cpu" if pin.name.startswith("tensorflow") else pin.name,
                             [])
        for version in exact:
            assert [
                str(requirement) for requirement in asked if not requirement.is_met_by(version)
            ] == []


def test_the_row_of_the_conda_environment_has_its_versions():
    row = {pin.name: pin.bounds for pin in requirements_of("constraints/py39-tf2.12.txt")}
    assert all(row[pin.name] == pin.bounds for pin in requirements_of("requirements-fed.txt"))


PYTHONS = [(3, minor) for minor in range(6, test_environment.NEWEST_PYTHON[1] + 1)]
# File, package, Python, and the first version without a published flaw for it and newer ones
# (docs/compatibility.md).
REPAIRED = [("requirements-master.txt", "waitress", (3, 9), (3, 0, 1)),
            ("requirements-master.txt", "werkzeug", (3, 9), (3, 1, 9)),
            ("requirements-master.txt", "flask", (3, 9), (3, 1, 3)),
            ("requirements-master.txt", "jinja2", (3, 9), (3, 1, 6)),
            ("requirements-worker.txt", "requests", (3, 7), (2, 31)),
            ("requirements-worker.txt", "requests", (3, 8), (2, 32, 4)),
            ("requirements-worker.txt", "requests", (3, 10), (2, 33))]


@pytest.mark.parametrize("file, name, oldest, version", REPAIRED)
def test_no_version_with_a_published_flaw_is_let_in_where_there_is_one_without(
        file, name, oldest, version):
    before = version[:-1] + (version[-1] - 1, 99)
    for python in PYTHONS:
        if python >= oldest:
            requirement, = [found for found in requirements_of(file, python) if found.name == name]
            assert requirement.is_met_by(version) or python > oldest
            assert requirement.is_below(before), python


@pytest.mark.parametrize("python", PYTHONS)
def test_a_worker_needs_numpy_and_requests_and_nothing_more(python):
    assert [requirement.name for requirement in requirements_of("requirements-worker.txt", python)
            ] == ["numpy", "requests"]


def test_master_and_worker_ask_for_the_same_requests():
    for python in PYTHONS:
        if python >= test_environment.OLDEST_PYTHON["master"]:
            asked = [[
                str(found) for found in requirements_of(file, python) if found.name == "requests"
            ] for file in ("requirements-worker.txt", "requirements-master.txt")]
            assert asked[0] == asked[1] != []


def test_the_run_folder_may_be_made_later_but_not_inside_a_file(tmp_path):
    assert test_environment.check_run_dir(str(
        tmp_path / "results" / "run")).state in ("ok", "warning")
    assert os.listdir(str(tmp_path)) == []
    file = write(tmp_path / "file", "")
    assert test_environment.check_run_dir(os.path.join(file, "run")).state == "unusable"


def test_a_busy_port_is_a_warning_that_names_it(closed_port):
    finding = test_environment.check_port(closed_port)
    assert finding.state == "warning" and str(closed_port) in finding.text


def test_a_master_that_does_not_answer_is_unusable(closed_port):
    finding = test_environment.check_master(f"http://127.0.0.1:{closed_port}")
    assert finding.state == "unusable" and "does not answer" in finding.text


def test_a_ca_file_for_a_master_without_tls_is_unusable(foreign_server):
    finding = test_environment.check_master(foreign_server, "ca.pem")
    assert finding.state == "unusable" and "write https://" in finding.text


@pytest.mark.parametrize("status, words", [(None, "answers 404"), ("<html>", "not an FLQ master"),
                                           ("[1]", "not an FLQ master"),
                                           ("{}", "not an FLQ master")])
def test_something_else_on_the_port_is_not_taken_for_a_master(foreign_server, tmp_path, status,
                                                              words):
    if status is not None:
        write(tmp_path / "status", status)
    finding = test_environment.check_master(foreign_server)
    assert finding.state == "unusable" and words in finding.text


def test_a_usage_error_ends_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        test_environment.main(["--role", "guest"])
    assert caught.value.code == 2
