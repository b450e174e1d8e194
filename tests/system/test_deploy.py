"""deploy_jetson.sh against real sshd's: what it finds, copies, installs and starts, and what it
says of hosts that fail.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flq import revoked, tokens
from flq.host import jetson
from flq.kernels import library as kernels
from flq.master.http.certificates import make_certificates, make_client
from tests.disks import small_disk
from tests.system.hosts import MISSING, Hosts, free_port, is_alive
from tests.system.processes import ROOT, wait_until
from tests.worker.certificates import NEED_OPENSSL

pytestmark = pytest.mark.skipif(
    bool(MISSING), reason="sshd, ssh or ssh-keygen is not installed (apt install openssh-server)")
NEED_RSYNC = pytest.mark.skipif(
    shutil.which("rsync") is None, reason="rsync is not installed (apt install rsync)")
SECRET = "5e" * 32
COMPILERS = ("cc", "gcc", "clang")
# What a deployment says of the compiled kernels, where the machines have a compiler and where not.
NEW, WITH = "kernels, ", ", compiled kernels"
WITHOUT = (", NumPy computes: there is no C compiler; expected cc or gcc or clang; got none; "
           "sudo apt install gcc, then build them again")
NO_COMPILER = not any(shutil.which(name, path="/bin:/usr/bin") for name in COMPILERS)
if NO_COMPILER:
    NEW, WITH = "", WITHOUT
WORKER = ("--python", sys.executable, "--master_url", "http://127.0.0.1:5000")


@pytest.fixture
def hosts(tmp_path):
    hosts = Hosts(tmp_path)
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "token").chmod(0o600)
    yield hosts
    hosts.close()


def rows(text):
    """{name: (result, what)} of the last table."""
    table = text[text.rindex("result  what\n"):].splitlines()[1:]
    found = (re.match(r"(\S+) +\S+ +(ok|failed) +(.*)$", line) for line in table)
    return {match.group(1): match.groups()[1:] for match in found if match}


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def status_of(port, cafile, shown=None):
    """What a master says over TLS; nothing where it does not answer yet. shown: a certificate and
    its key."""
    context = ssl.create_default_context(cafile=str(cafile))
    if shown is not None:
        context.load_cert_chain(*map(str, shown))
    with contextlib.suppress(OSError), urllib.request.urlopen(
            f"https://127.0.0.1:{port}/status", context=context) as answer:
        return json.load(answer)
    return {}


def worker_files():
    """What a worker has in app/, by docs/architecture.md: everything above the line, and nothing
    below.
    """
    files = {
        str(path.relative_to(ROOT)) for folder in ("flq", "constraints")
        for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        and path.suffix != ".so"
    }
    below = ("flq/master/", "flq/reports/", "flq/simulation/", "flq/sweep/", "flq/cluster/",
             "flq/__main__.py", "flq/api/", "flq/integrations/", "flq/report_commands.py",
             "flq/run_commands.py", "flq/sweep_commands.py", "flq/identity_commands.py",
             "flq/__init__.pyi", "flq/py.typed")
    return {path for path in files if not path.startswith(below)} | {
        "flq_worker.py", "start_worker.sh", "test_environment.py", "requirements-tensorflow.txt",
        "requirements-worker.txt", "LICENSE", "scripts/runtime.sh", "scripts/requirements.py"
    }


# --- deploying
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [pytest.param((), marks=NEED_RSYNC), ("rsync",)],
                         ids=["rsync", "tar"])
def test_a_fresh_host_gets_what_a_worker_needs_and_a_second_time_nothing(hosts, without):
    machine = hosts.start("nano", without=without)
    hosts.write(machine.line(3))
    text = hosts.deploy("deploy", *WORKER)
    assert rows(text) == {
        "worker-3": ("ok", f"copied {len(worker_files())} files, new: {NEW}token, run.sh; "
                           f"stopped{WITH}")
    }
    assert ("no rsync there" in text) == bool(without)
    files = machine.files()
    built = {os.path.relpath(kernels.path(), str(ROOT))} if not NO_COMPILER else set()
    assert {path[len("flq/app/"):] for path in files
            if path.startswith("flq/app/")} == worker_files() | built
    assert set(os.listdir(str(machine.home / "flq"))) == {"app", "token", "run.sh"}
    assert files["flq/token"][0].decode().strip() == tokens.worker_token(SECRET, 3)
    assert [mode(machine.home / path)
            for path in ("flq", "flq/token", "flq/run.sh")] == [0o700, 0o600, 0o700]

    before = machine.connections()
    again = hosts.deploy("deploy", *WORKER)
    assert rows(again) == {"worker-3": ("ok", f"nothing was new; stopped{WITH}")}
    assert machine.files() == files and machine.connections() == before + 1


@NEED_RSYNC
def test_what_was_changed_on_the_host_is_as_it_was_after_the_next_deployment(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    hosts.deploy("deploy", *WORKER)
    app = machine.home / "flq" / "app"
    content = {path: data for path, (data, _) in machine.files().items()}
    (app / "flq" / "rng.py").write_text("broken")
    (app / "flq" / "config.py").unlink()
    (app / "flq" / "of_an_older_version.py").write_text("")
    (app.parent / "token").unlink()
    assert rows(hosts.deploy("deploy",
                             *WORKER))["worker-0"][1].endswith(f" files, new: token; stopped{WITH}")
    assert {path: data for path, (data, _) in machine.files().items()} == content


@NEED_RSYNC
# --- the compiled kernels


def built_on(machine):
    """{name: (content, modification time)} of the libraries there."""
    return {path: found for path, found in machine.files("flq/app/flq/kernels").items()
            if path.endswith(".so")}


@pytest.mark.skipif(NO_COMPILER, reason="there is no C compiler for the hosts")
def test_a_host_without_a_compiler_is_deployed_and_builds_once_it_has_one(hosts):
    machine = hosts.start("bare", without=COMPILERS)
    hosts.write(machine.line(0))
    result, what = rows(hosts.deploy("deploy", *WORKER))["worker-0"]
    assert result == "ok" and what.endswith("new: token, run.sh; stopped" + WITHOUT)
    assert built_on(machine) == {}
    (machine.bin / "cc").symlink_to(next(filter(None, map(shutil.which, COMPILERS))))
    again = rows(hosts.deploy("deploy", *WORKER))["worker-0"]
    assert again == ("ok", "new: kernels; stopped, compiled kernels")
    assert len(built_on(machine)) == 1


@NEED_RSYNC
@pytest.mark.skipif(NO_COMPILER, reason="there is no C compiler for the hosts")
def test_a_library_is_never_sent_and_stays_while_its_source_does(hosts, monkeypatch):
    tree = hosts.folder / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.so", "build",
                                                              "tests", "docs", "benchmarks"))
    (tree / "flq/kernels/kernels-linux-s390x-0123456789ab.so").write_text("the operator's")
    monkeypatch.setattr("tests.system.hosts.ROOT", tree)
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    hosts.deploy("deploy", *WORKER)
    first = built_on(machine)
    assert [os.path.basename(path) for path in first] == [os.path.basename(kernels.path())]

    for more in ((), ("--add", ROOT / "examples")):  # the second one copies
        what = rows(hosts.deploy("deploy", *WORKER, *more))["worker-0"][1]
        assert ("copied" in what) == bool(more) and "kernels," not in what, what
        assert built_on(machine) == first

    (path, (content, _)), = first.items()
    (machine.home / path).write_bytes(content[:1000])  # as a broken disk leaves it
    assert rows(hosts.deploy("deploy", *WORKER, "--add", ROOT / "examples"))["worker-0"] == (
        "ok", "new: kernels; stopped, compiled kernels")
    assert {name: found[0] for name, found in built_on(machine).items()} == {path: content}

    with open(str(tree / "flq/kernels/kernels.c"), "a") as file:
        file.write("/* another version */\n")
    assert "new: kernels, run.sh; " in rows(hosts.deploy("deploy", *WORKER))["worker-0"][1]
    assert len(built_on(machine)) == 1 and set(built_on(machine)) != set(first)


def test_a_model_of_ones_own_and_arguments_go_to_the_worker(hosts):
    machine = hosts.start("nano")
    data = machine.home / "my data"
    data.mkdir()
    (machine.home / "link").symlink_to(data)
    hosts.write(machine.line(0, str(machine.home / "link"), "dir=flq-test"))
    hosts.deploy("deploy", *WORKER, "--add", ROOT / "examples", "--", "--retry_for", "60", "--set",
                 "log_dir=it's here")
    app = machine.home / "flq-test" / "app"
    assert (app / "examples" / "custom_model.py").exists()
    (app /
     "start_worker.sh").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$PWD" "$PYTHON" "$@"\n')
    folder = str(machine.home / "flq-test")
    assert subprocess.run([folder + "/run.sh"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.splitlines() == [
                              folder, sys.executable, "--worker_id", "0", "--", "--master_url",
                              "http://127.0.0.1:5000", "--token_file", folder + "/token",
                              "--state_dir", folder + "/state", "--set",
                              "dataset.data_dir=" + str(machine.home / "link"), "--allow",
                              "examples", "--retry_for", "60",
                              "--set", "log_dir=it's here"
                          ]


@NEED_RSYNC
def test_hosts_that_fail_leave_the_others_deployed_and_the_table_says_why(hosts):
    with small_disk(hosts.folder / "full",
                    "size=200k") as full, small_disk(hosts.folder / "crowded",
                                                     "size=50m,nr_inodes=40") as crowded:
        good, tar_only = hosts.start("good"), hosts.start("tar_only", without=["rsync"])
        locked = hosts.start("locked", key="other_key")
        small, odd = hosts.start("small", home=full), hosts.start("odd", home=crowded)
        nowhere = good.line(2).replace(str(good.port), str(free_port()))
        hosts.write(good.line(0), tar_only.line(1), nowhere, locked.line(3), small.line(4),
                    odd.line(5), good.line(6, "/no/such/folder", "dir=6"),
                    good.line(7, "-", "dir=7", "python=/no/python"))
        text = hosts.deploy("deploy", *WORKER, "--jobs", "3", code=1)
        found = rows(text)
        assert {name for name, (result, _) in found.items()
                if result == "ok"} == {"worker-0", "worker-1"}
        for name, words in {
                "worker-2": "Connection refused", "worker-3": "Permission denied (publickey)",
                "worker-4": "disk: 0 MiB free at ", "worker-5": "No space left on device",
                "worker-6": "no folder /no/such/folder for the data",
                "worker-7": "/no/python does not run there"
        }.items():
            assert words in found[name][1], text
        assert set(os.listdir(str(full))) == set() and "app" not in os.listdir(str(crowded / "flq"))
        logs = Path(re.search("what each of them said is in (.*)", text).group(1))
        assert "Permission denied" in (logs / "worker-3.log").read_text()
        shutil.rmtree(str(logs))

        # What was in the way is mended: the next deployment does what is missing.
        shutil.copy(str(good.folder / "authorized_keys"), str(locked.folder / "authorized_keys"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(full)], check=True)
        found = rows(hosts.deploy("deploy", *WORKER, "--only", "worker-0,worker-3,worker-4"))
        assert found["worker-0"][1].startswith("nothing was new") and set(found) == {
            "worker-0", "worker-3", "worker-4"
        }
        assert all(result == "ok" and what.startswith("copied ")
                   for result, what in (found["worker-3"], found["worker-4"]))


@NEED_RSYNC
def test_a_disk_that_fills_while_it_is_copied_to_keeps_what_was_deployed(hosts):
    with small_disk(hosts.folder / "disk", "size=50m,nr_inodes=200") as home:
        machine = hosts.start("nano", home=home)
        hosts.write(machine.line(0))
        hosts.deploy("deploy", *WORKER)
        before = machine.files("flq/app")
        for number in range(200):
            with contextlib.suppress(OSError):
                (home / str(number)).touch()
        found = rows(hosts.deploy("deploy", *WORKER, "--add", ROOT / "examples", code=1))
        assert "No space left on device" in found["worker-0"][1] and machine.files(
            "flq/app") == before


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0), machine.line("master", "-", "dir=flq-master"))
    (hosts.folder / "token").unlink()
    text = hosts.deploy("deploy", "--python", sys.executable, "--dry-run", "--systemd_user", code=1)
    assert "systemd does not run there" in text
    text = hosts.deploy("deploy", "--python", sys.executable, "--dry-run")
    assert f"copy: {len(worker_files())} files" in text
    assert f"none is made, {sys.executable} is used" in text
    assert "worker: master at http://127.0.0.1:5000" in text
    assert machine.files() == {} and not (hosts.folder / "token").exists() and os.listdir(
        str(machine.home)) == []


def test_no_secret_is_in_arguments_or_logs(hosts):
    machine = hosts.start("nano", without=["bash"])
    (machine.bin / "bash").write_text(
        f"#!/bin/sh\nprintf \"%s\\n\" \"$@\" >>{machine.folder / 'arguments'}\nexec /bin/bash "
        "\"$@\"\n"
    )
    (machine.bin / "bash").chmod(0o755)
    hosts.write(machine.line(0), machine.line("master", "-", "dir=flq-master"))
    text = hosts.deploy("deploy", "--python", sys.executable)
    arguments = (machine.folder / "arguments").read_text()
    assert "role=worker" in arguments and (machine.home / "flq-master" /
                                           "token").read_text().strip() == SECRET
    for secret in (SECRET, tokens.worker_token(SECRET, 0)):
        assert secret not in arguments and secret not in text
    assert SECRET not in (machine.home / "flq" / "token").read_text()


def test_a_host_that_answers_with_another_key_is_refused(hosts):
    machine, other = hosts.start("nano"), hosts.start("other")
    hosts.write(machine.line(0))
    hosts.deploy("check", "--python", sys.executable)
    known = hosts.folder / "known_hosts"
    assert known.read_text().startswith(f"[127.0.0.1]:{machine.port} ")
    key = " ".join((other.folder / "host_key.pub").read_text().split()[:2])
    known.write_text(f"[127.0.0.1]:{machine.port} {key}\n")
    found = rows(hosts.deploy("check", "--python", sys.executable, code=1))
    assert "IDENTIFICATION HAS CHANGED" in found["worker-0"][
        1] or "Host key verification failed" in found["worker-0"][1]


@pytest.mark.parametrize(
    "lines, options, words",
    [(["me host 22"], [], "got 3 columns"),
     (["me host 22 zero -"], [], "a worker id or master; got zero"),
     (["me host 22 0-3 -"], [], "got 0-3"),
     (["me host ssh 0 -"], [], "a port or -: expected a whole number from 1 to 65535; got ssh"),
     (["me host 99999 0 -"], [], "from 1 to 65535; got 99999"),
     (["me host 22 65536 -"
       ], [], "the fourth column: expected a whole number from 0 to 65535; got 65536"),
     (["me -oProxyCommand=x 22 0 -"], [], "no user or host looks like this"),
     (["me -o 22 0 -"], [], "is a host; got -o"),
     (["me host 22 0 - colour=red"], [], "got colour=red"),
     (["me host 22 0 - dir=x;y"], [], "got 'x;y'"),
     (["me a 22 0 -", "me b 22 0 -"], [], "deploy.conf line 2: there are two lines for worker-0"),
     (["me a 22 0 -", "me a 22 1 -"], [], "dir= of its own"), ([], [], "no hosts"),
     (["me a 22 0 -"], ["--only", "worker-1"], "--only names worker-1"),
     (["me host -5 0 -"], [], "a port or -: expected a whole number from 1 to 65535; got -5"),
     (["-x host 22 0 -"], [], "is a user or -; got -x"),
     (["me a 22 0 -"], ["--jobs", "many"], "--jobs: expected a whole number from 1 to"),
     (["me a 22 0 -"], ["--jobs", "0"], "got 0"),
     (["me a 22 0 -"], ["--master_port", "65536"
                        ], "--master_port: expected a whole number from 1 to 65535; got 65536"),
     (["me a 22 0 -"], ["--lines", "-3"], "--lines: expected"),
     (["me a 22 0 -"], ["--cafile", "none.pem"], "cannot read none.pem"),
     (["me a 22 0 -"], ["--client_certs", ".", "--master_url", "http://m:1"],
      "--client_certs are shown under TLS only"),
     (["me a 22 0 -"], ["--client_certs", "c", "--master_url", "https://m:1"],
      "cannot read c/worker-0.pem: python -m flq certs --worker 0 --out c makes it"),
     (["me a 22 0 -"], ["--client_ca", "deploy.conf", "--master_url", "https://m:1"],
      "--client_ca asks for certificates under TLS"),
     (["me a 22 0 -"], ["--cafile", "deploy.conf", "--master_url", "http://m:1"
                        ], "--cafile cannot protect http://m:1"),
     (["me a 22 0 -", "me m 22 master -"], ["--cafile", "deploy.conf"
                                            ], "--cafile cannot protect http://m:5000"),
     (["me a 22 0 -"], ["--certfile", "deploy.conf"], "belong together"),
     (["me a 22 0 -"], ["--hosts", "none.conf"], "cannot read the hosts file"),
     (["me a 22 0 -"], [], "where is the master?"),
     (["me a 22 0 -"], ["--token_file", "none", "--master_url", "http://m:1"
                        ], "the operator's token is not at")])
def test_a_mistake_in_the_hosts_file_or_the_options_is_one_line_before_anything_is_done(
        tmp_path, lines, options, words):
    (tmp_path / "deploy.conf").write_text("\n".join(lines))
    process = subprocess.run([str(ROOT / "deploy_jetson.sh"), "deploy"] + options,
                             cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True)
    assert process.returncode == 2 and words in process.stdout and process.stdout.count(
        "\n") == 1, process.stdout


def test_the_example_of_a_hosts_file_can_be_read(tmp_path):
    process = subprocess.run(
        [str(ROOT / "deploy_jetson.sh"), "deploy", "--hosts",
         str(ROOT / "deploy.conf.example")], cwd=str(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)
    # the first thing after reading that is amiss
    assert process.returncode == 2 and "where is the master?" in process.stdout


def test_programs_that_start_from_the_same_tree_meanwhile_do_no_harm(tmp_path):
    """They make folders named __pycache__, and files that get another name when they are whole."""
    tree, own = tmp_path / "tree", tmp_path / "own"
    shutil.copytree(ROOT / "flq", own, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("flq", "constraints", "scripts"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("deploy_jetson.sh", "flq_worker.py", "start_worker.sh", "test_environment.py",
                 "requirements-tensorflow.txt", "requirements-worker.txt", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    done, folders = threading.Event(), (tree / "flq", tree / "flq/learning", own)
    for folder in folders:
        (folder / "__pycache__").mkdir()

    def start_programs():
        while not done.is_set():
            for folder in folders:
                (folder / "__pycache__" / "a.pyc.1").touch()
                (folder / "__pycache__" / "a.pyc.1").rename(folder / "__pycache__" / "a.pyc")
                os.utime(folder)  # as another entry does
            with tempfile.TemporaryDirectory(prefix=".kernels-", dir=tree / "flq/kernels") as made:
                Path(made, "kernels.so").touch()
                Path(made, "kernels.so").rename(tree / "flq/kernels/kernels-x-0.so")

    thread = threading.Thread(target=start_programs)
    thread.start()
    (tmp_path / "token").write_text(SECRET + "\n")
    (tmp_path / "token").chmod(0o600)
    try:
        texts = [subprocess.run(
            [str(tree / "deploy_jetson.sh"), "deploy", "--dry_run", "--add", str(own), "--host",
             f"me 127.0.0.1 {free_port()} 0 -", "--token_file", str(tmp_path / "token"), *WORKER],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout for _ in range(3)]
    finally:
        done.set()
        thread.join()
    # nobody listens there: the trees were made before
    assert all(rows(text)["worker-0"][0] == "failed" for text in texts), texts
    assert not any(word in text for text in texts for word in ("tar:", "cp:", "find:")), texts


# --- Jetsons
# ----------------------------------------------------------------------------------------------

JETPACKS = {
    "4.6": ("# R32 (release), REVISION: 7.1, GCID: 1, BOARD: t210ref", "L4T 32.7.1",
            jetson.JETPACKS[32]), "5.1": ("# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref",
                                          "L4T 35.4.1", jetson.JETPACKS[35]),
    "6": ("# R36 (release), REVISION: 3.0, GCID: 1, BOARD: generic", "L4T 36.3.0",
          jetson.JETPACKS[36]),
}
PYTHONS = re.compile(r"python3?(\.\d+)?$")


def python_of(version):
    """A Python of this version that pyenv has built."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    if not found:
        pytest.skip(f"there is no Python {version} in pyenv")
    return found[0]


def start_jetson(hosts, release, version, **variables):
    """A machine with a JetPack's system files and Python, and no other."""
    system = hosts.folder / "system"
    for folder in ("etc", "proc/device-tree", "usr/include/hdf5"):
        (system / folder).mkdir(parents=True)
    (system / "etc" / "nv_tegra_release").write_text(release + "\n")
    (system / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson \x1b[31mtest\0")
    pythons = [
        name for folder in ("/bin", "/usr/bin") for name in os.listdir(folder)
        if PYTHONS.match(name)
    ]
    machine = hosts.start("jetson", without=pythons, variables=dict({"FLQ_SYSTEM_ROOT": system},
                                                                    **variables))
    (machine.bin / "python3").symlink_to(python_of(version))
    hosts.write(machine.line(0))
    return machine


@pytest.mark.parametrize("jetpack", sorted(JETPACKS))
def test_each_jetpack_gets_the_environment_that_belongs_to_it(hosts, jetpack):
    release, l4t, expected = JETPACKS[jetpack]
    machine = start_jetson(hosts, release, expected.python)
    text = hosts.deploy("deploy", "--master_url", "http://127.0.0.1:5000", "--dry-run")
    assert ("NVIDIA Jetson [31mtest" in text
            and f"JetPack {jetpack}, {l4t}" in text), "without the terminal's control characters"
    plan = re.findall("  environment: (.*)", text)
    venv = str(machine.home / "flq" / "venv")
    assert (
        plan[0] ==
        f"constraints: {expected.constraints[:-len('.txt')]}, "
        f"{expected.tensorflow.replace('==', ' == ')}"
    )
    assert plan[1] == f"{machine.bin / 'python3'} -m venv --clear --system-site-packages {venv}"
    assert ("pip==21.3.1" in plan[2]) == (expected.python == "3.6")
    assert f"--extra-index-url {expected.index_url} -c " in plan[-1]
    assert plan[-1].endswith(
        f"requirements-tensorflow.txt -r {machine.home}/flq/app/requirements-worker.txt")
    assert os.listdir(str(machine.home)) == []


@pytest.mark.parametrize("release, version, words", [
    ("# R32 (release), REVISION: 4.3, GCID: 1", "3.6", "L4T 32.4.3 is not JetPack 4.6, 5.1 or 6"),
    ("# R32 (release), REVISION: 7.1, GCID: 1", "3.9", "no Python 3.6 here")])
def test_a_jetson_that_cannot_have_a_tensorflow_is_told_before_anything_is_copied(
        hosts, release, version, words):
    machine = start_jetson(hosts, release, version)
    assert words in rows(hosts.deploy("deploy", "--master_url", "http://127.0.0.1:5000",
                                      code=1))["worker-0"][1]
    assert os.listdir(str(machine.home)) == []


def test_a_tensorflow_of_nvidias_stays_and_an_environment_that_failed_begins_anew(hosts):
    """pip's index is a port where nobody listens: what is asked of pip is right, and a failure of
    pip is one line.
    """
    site = hosts.folder / "site"
    installed = site / "tensorflow-2.11.0+nv23.1.dist-info"
    installed.mkdir(parents=True)
    (installed /
     "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.11.0+nv23.1\n")
    release, _, expected = JETPACKS["5.1"]
    nowhere = f"http://127.0.0.1:{free_port()}/simple"
    machine = start_jetson(hosts, release, expected.python, PYTHONPATH=site, PIP_INDEX_URL=nowhere,
                           PIP_CONFIG_FILE="/dev/null", PIP_RETRIES="0")
    left = machine.home / "flq" / "venv" / "left"
    left.parent.mkdir(parents=True)
    left.touch()
    text = hosts.deploy("deploy", "--master_url", "http://127.0.0.1:5000", code=1)
    assert rows(text)["worker-0"] == (
        "failed", "pip could not install the packages; the next deployment tries again"), text
    assert not left.exists() and not (machine.home / "flq" / "venv" / "flq-installed").exists()
    wanted = [
        line for line in (ROOT / "constraints" / expected.constraints).read_text().splitlines()
        if not line.startswith("tensorflow")
    ]
    assert (machine.home / "flq" /
            "constraints.txt").read_text().splitlines() == wanted + ["tensorflow == 2.11.0+nv23.1"]


# --- systemd
# ----------------------------------------------------------------------------------------------


@pytest.fixture
def systemd_host(hosts):
    """A machine on which systemd seems to run.

    Containers have none, so systemctl and loginctl only note what they are asked.
    """
    system = hosts.folder / "system"
    (system / "run" / "systemd" / "system").mkdir(parents=True)
    (system / "etc" / "systemd" / "system").mkdir(parents=True)
    machine = hosts.start("nano", without=["systemctl", "loginctl", "sudo"],
                          variables={"FLQ_SYSTEM_ROOT": system})
    for name in ("systemctl", "loginctl"):
        (machine.bin /
         name).write_text(f"#!/bin/sh\necho \"${{0##*/}} $*\" >>{machine.folder / 'asked'}\n")
        (machine.bin / name).chmod(0o755)
    (machine.folder / "asked").touch()
    hosts.write(machine.line(1))
    return machine


def unit_of(machine):
    """The unit file that was installed, and whether it is one of the system's."""
    paths = [
        machine.home / ".config" / "systemd" / "user",
        machine.folder.parent / "system" / "etc" / "systemd" / "system"
    ]
    path, = [
        path / "flq-worker-1.service" for path in paths if (path / "flq-worker-1.service").exists()
    ]
    return path, path.parent == paths[1]


@pytest.mark.parametrize("option", ["--systemd", "--systemd_user"])
def test_a_unit_starts_on_boot_after_a_failure_and_within_its_memory(hosts, systemd_host, option):
    assert "unit" in rows(hosts.deploy("deploy", *WORKER, option, "--memory_max",
                                       "2G"))["worker-1"][1]
    path, is_system = unit_of(systemd_host)
    assert is_system == (option == "--systemd" and os.getuid() == 0)
    unit, folder = path.read_text(), systemd_host.home / "flq"
    assert f"ExecStart={folder}/run.sh\nWorkingDirectory={folder}\n" in unit
    for line in ("Restart=on-failure", "RestartPreventExitStatus=2 3 4", "MemoryMax=2G",
                 "StandardOutput=journal",
                 "WantedBy=" + ("multi-user.target" if is_system else "default.target")):
        assert line in unit.splitlines()
    if shutil.which("systemd-analyze"):
        verified = subprocess.run(
            ["systemd-analyze", "verify", str(path)], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        assert "flq-worker-1" not in verified.stdout, verified.stdout
    control = "systemctl " if is_system else "systemctl --user "
    asked = (systemd_host.folder / "asked").read_text()
    assert control + "daemon-reload\n" in asked
    assert control + "enable flq-worker-1.service\n" in asked
    assert ("loginctl enable-linger" in asked) != is_system

    (systemd_host.folder / "asked").write_text("")
    assert rows(hosts.deploy(
        "deploy",
        *WORKER))["worker-1"][1].startswith("nothing was new"), "the unit stays without the option"
    hosts.deploy("start")
    hosts.deploy("stop")
    asked = (systemd_host.folder / "asked").read_text()
    assert control + "start flq-worker-1.service\n" in asked
    assert control + "stop flq-worker-1.service\n" in asked
    assert "daemon-reload" not in asked


# --- running
# ----------------------------------------------------------------------------------------------


@NEED_RSYNC
@NEED_OPENSSL
def test_deployed_workers_train_to_the_end_also_when_one_is_killed_and_started_by_its_unit(
        hosts, systemd_host, own_site):
    """The master speaks TLS, so the CA that was handed out is needed too."""
    other = hosts.start("other", without=["rsync"])
    hosts.write(other.line(0), systemd_host.line(1))
    ca, _, server, key = make_certificates(str(hosts.folder / "certs"), ["127.0.0.1"])
    own_site.environment["FLQ_TOKEN"] = str(hosts.folder / "token")
    master = own_site.master("total_workers=2", "max_rounds=60", "quorum=all", "model.name=softmax",
                             "eval_every=60", script=(ROOT / "flq_master.py",),
                             options=("--exit_when_done", "--certfile", server, "--keyfile", key))
    options = ("--python", sys.executable, "--master_url", f"https://127.0.0.1:{master.port}",
               "--cafile", ca)
    assert set(rows(hosts.deploy("deploy", *options, "--only", "worker-0")).values()) == {
        ("ok", f"copied {len(worker_files())} files, new: {NEW}token, ca.pem, run.sh; "
                f"stopped{WITH}")}
    assert rows(hosts.deploy("deploy", *options, "--only", "worker-1",
                             "--systemd"))["worker-1"][0] == "ok"
    assert mode(other.home / "flq" / "ca.pem") == 0o600
    unit = dict(re.findall("^([A-Za-z]+)=(.*)$",
                           unit_of(systemd_host)[0].read_text(), re.MULTILINE))

    def start_by_unit(name):
        return own_site.start(name, *shlex.split(unit["ExecStart"]), HOME=str(systemd_host.home),
                              PATH=str(systemd_host.bin))

    assert rows(hosts.deploy("start", "--only",
                             "worker-0"))["worker-0"] == ("ok", f"running, pid {other.pid()}")
    pid = other.pid()
    killed = start_by_unit("killed")
    wait_until(lambda: status_of(master.port, ca).get("current_round", 0) >= 3,
               "three rounds are done")
    killed.end(signal.SIGKILL)
    assert "| " in rows(hosts.deploy("status", "--only",
                                     "worker-0"))["worker-0"][1] and other.pid() == pid
    assert rows(
        hosts.deploy("start", "--only",
                     "worker-0"))["worker-0"][1] == f"running, pid {pid}", "it is not started twice"
    assert start_by_unit("restarted").wait() == 0
    assert master.wait() == 0
    wait_until(lambda: not is_alive(pid), "the worker that was started over ssh has ended")
    summary = (own_site.directory / "master-run" / "summary.json").read_text()
    assert '"rounds": 60' in summary
    assert "worker-0" in hosts.deploy("logs", "--only", "worker-0", "--lines", "3")
    hosts.deploy("collect", "--only", "worker-0", "--out", "here")
    assert list((hosts.folder / "here" / "worker-0" / "logs").glob("worker-0-*.log"))
    assert rows(hosts.deploy("status", "--only", "worker-0"))["worker-0"][1].startswith("stopped")


def test_a_worker_that_ends_at_once_is_a_failed_start_and_one_that_runs_can_be_stopped(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    hosts.deploy("deploy", *WORKER, "--", "--set", "no_such_key=1")
    result, what = rows(hosts.deploy("start", code=1))["worker-0"]
    assert result == "failed" and "unknown key no_such_key" in what
    hosts.deploy("deploy", *WORKER)
    hosts.deploy("start")
    pid = machine.pid()
    what = rows(hosts.deploy("deploy", *WORKER, "--", "--retry_for", "90"))["worker-0"][1]
    assert what == (f"new: run.sh; running, pid {pid}, with what was there before: restart it"
                    f"{WITH}")
    assert rows(hosts.deploy(
        "restart"))["worker-0"][1] == f"running, pid {machine.pid()}" and machine.pid() != pid
    pid = machine.pid()
    assert rows(hosts.deploy("stop"))["worker-0"] == ("ok", "stopped") and not is_alive(pid)
    assert rows(hosts.deploy("stop"))["worker-0"] == ("ok", "stopped")


@NEED_OPENSSL
def test_a_master_and_its_worker_are_deployed_run_under_tls_and_the_results_come_home(hosts):
    machine = hosts.start("server")
    port = free_port()
    hosts.write(machine.line("master"), machine.line(0, "-", "dir=flq-0"))
    (hosts.folder / "my.json").write_text(
        '{"model": {"name": "softmax"}, "total_workers": 1, "max_rounds": 3, "save_results": false}'
    )
    (hosts.folder / "token").unlink()
    ca, _, server, key = make_certificates(str(hosts.folder / "certs"), ["127.0.0.1"])
    worker, worker_key = make_client(str(hosts.folder / "certs"), "worker-0", ["0"])
    operator = make_client(str(hosts.folder / "certs"), "operator-ann", ["operator-ann"])
    hosts.deploy("deploy", "--python", sys.executable, "--master_port", port, "--config", "my.json",
                 "--cafile", ca, "--certfile", server, "--keyfile", key, "--client_ca", ca,
                 "--client_certs", hosts.folder / "certs")
    folder = machine.home / "flq-0"
    assert (folder / "ca.pem").read_text() == ca.read_text()
    assert (folder / "client.pem").read_text() == worker.read_text() + worker_key.read_text()
    assert mode(folder / "client.pem") == 0o600
    assert (machine.home / "flq" / "token").read_text() == (hosts.folder / "token").read_text()
    assert [mode(machine.home / "flq" / name) for name in ("token", "server.pem")] == [0o600, 0o600]
    assert {"master", "reports", "simulation",
            "worker"} <= set(os.listdir(str(machine.home / "flq" / "app" / "flq")))
    hosts.deploy("start")

    def is_finished():
        assert is_alive(machine.pid()), (machine.home / "flq" / "logs" / "output.log").read_text()
        return status_of(port, ca, operator).get("phase") == "FINISHED"

    wait_until(is_finished, "the run is over")
    wait_until(lambda: list((machine.home / "flq" / "results").glob("*/summary.json")),
               "the results are written")
    hosts.deploy("stop")
    assert " files in collected/master" in rows(hosts.deploy("collect"))["master"][1]
    assert list((hosts.folder / "collected" / "master" / "results").glob("*/summary.json"))


# --- what was revoked
# --------------------------------------------------------------------------------------------


def revoke(token_file, key, folder=ROOT):
    subprocess.run([sys.executable, "-m", "flq", "token", "--revoke", key, "--token_file",
                    str(token_file)], cwd=str(folder), check=True, stdout=subprocess.DEVNULL)


def void(token_file):
    """{holder: how many tokens are void} of the list beside a token file."""
    found = revoked.read(revoked.beside(str(token_file)))
    return {key: found.times(key) for key in found.tokens}


def answer_to(port, token):
    """The HTTP status by which a master answers a worker with this token before it has data;
    nothing where the master is not there yet."""
    body = json.dumps({"worker_id": int(token.split(".")[1])}).encode("utf-8")
    request = urllib.request.Request(f"http://127.0.0.1:{port}/register", body,
                                     {"Authorization": "Bearer " + token,
                                      "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


def test_what_was_revoked_here_or_there_counts_on_both_sides_before_tokens_are_made(hosts):
    server, nano = hosts.start("server"), hosts.start("nano")
    port = free_port()
    hosts.write(server.line("master"), nano.line(0), nano.line(1, "-", "dir=flq-1"))
    (hosts.folder / "my.json").write_text(
        '{"model": {"name": "softmax"}, "total_workers": 2, "save_results": false}')
    options = ("--python", sys.executable, "--master_port", port, "--config", "my.json")
    here, there = hosts.folder / "token", server.home / "flq" / "token"
    revoke(here, "5")  # before there is a master
    assert ", token.revoked; stopped" in rows(hosts.deploy("deploy", *options))["master"][1]
    assert void(there) == {"5": 1}
    assert "running" in rows(hosts.deploy("start", "--only", "master"))["master"][1]
    pid = server.pid()
    first = [tokens.worker_token(SECRET, worker) for worker in (0, 1)]
    wait_until(lambda: answer_to(port, first[0]) == 200, "the master answers")

    revoke(there, "0", server.home / "flq" / "app")
    revoke(there, "0", server.home / "flq" / "app")
    revoke(here, "0")
    revoke(here, "1")
    found = rows(hosts.deploy("deploy", *options, "--only", "worker-0"))
    assert found == {
        "worker-0": ("ok", f"new: token; stopped{WITH}"),
        "master": ("ok", "left out by --only but for what was revoked: new: token.revoked")}
    assert void(here) == void(there) == {"0": 2, "1": 1, "5": 1}
    assert [mode(Path(f"{path}.revoked")) for path in (here, there)] == [0o600, 0o600]
    token = (nano.home / "flq" / "token").read_text().strip()
    assert token == tokens.token_of(SECRET, tokens.Holder("worker", "0"),
                                    revoked.read(revoked.beside(str(here))))
    assert answer_to(port, token) == 200, "the master that runs takes the next token"
    assert [answer_to(port, before) for before in first] == [401, 401]
    assert is_alive(pid)

    def written():
        return server.files()["flq/token.revoked"], Path(f"{here}.revoked").stat().st_mtime_ns

    before = written()
    found = rows(hosts.deploy("deploy", *options))
    assert found["master"][1] == f"nothing was new; running, pid {pid}{WITH}"
    assert found["worker-1"] == ("ok", f"new: token; stopped{WITH}")
    assert written() == before
    hosts.deploy("stop", "--only", "master")


def test_where_the_masters_list_cannot_be_had_no_worker_gets_a_token_that_may_be_void(hosts):
    nano = hosts.start("nano")
    away = nano.line("master").replace(str(nano.port), str(free_port()))
    hosts.write(away, nano.line(0))
    for only in ((), ("--only", "worker-0")):
        found = rows(hosts.deploy("deploy", "--python", sys.executable, *only, code=1))
        assert "Connection refused" in found["master"][1]
        assert found["worker-0"][0] == "failed" and "it got no token" in found["worker-0"][1]
    assert not (nano.home / "flq" / "token").exists()
    assert rows(hosts.deploy("deploy", "--host", nano.line(0), *WORKER))["worker-0"][0] == "ok"


def test_a_master_that_cannot_take_a_list_says_why(hosts):
    machine = hosts.start("server")
    hosts.write(machine.line("master"), machine.line(0, "-", "dir=flq-0"))
    options = ("--python", sys.executable, "--only")
    revoke(hosts.folder / "token", "3")
    found = rows(hosts.deploy("deploy", *options, "worker-0"))
    assert found["master"] == ("ok",
                               "left out by --only but for what was revoked: nothing was new")
    assert not (machine.home / "flq").exists(), "it is not deployed yet: its deployment brings all"
    hosts.deploy("deploy", *options, "master")
    assert void(machine.home / "flq" / "token") == {"3": 1}

    revoke(hosts.folder / "token", "4")
    older = machine.home / "flq" / "app" / "flq" / "identity_commands.py"
    older.write_text(older.read_text().replace('"--merge"', '"--unknown"'))
    found = rows(hosts.deploy("deploy", *options, "worker-0", code=1))
    assert found["worker-0"][0] == "ok"
    assert found["master"] == ("failed", f"the FLQ in {machine.home}/flq cannot merge lists of "
                               "what was revoked: deploy the master too")
    hosts.deploy("deploy", *options, "master")
    assert void(machine.home / "flq" / "token") == {"3": 1, "4": 1}
    (machine.home / "flq" / "token.revoked").write_text("[]")
    found = rows(hosts.deploy("deploy", *options, "worker-0", code=1))
    assert "another machine's list of what was revoked is not taken" in found["master"][1]


@pytest.mark.parametrize("kind, words", [
    ("escapes", "got other notes"), ("nobody", "got a name of nobody"), ("empty", "got no JSON"),
    ("large", "got more than 4194304 bytes"), ("endless", "it sent more than 64 MiB of log")])
def test_a_list_of_a_wrong_form_from_the_masters_host_changes_nothing(hosts, kind, words):
    machine = hosts.start("server")
    hosts.write(machine.line("master"), machine.line(0, "-", "dir=flq-0"))
    revoke(hosts.folder / "token", "3")
    path = machine.home / "flq" / "token.revoked"
    path.parent.mkdir()
    note = {"times": 1000, "at": 1, "by": "\x1b]0;title\x07" if kind == "escapes" else "ann"}
    if kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        honest = {"tokens": {"x" if kind == "nobody" else "4": note}, "certificates": {}}
        path.write_text({"empty": "", "large": " " * 2 ** 23}.get(kind, json.dumps(honest)))
    found = rows(printed(hosts, "deploy", "--python", sys.executable, code=1))
    assert found["master"][0] == "failed" and words in found["master"][1]
    assert "it got no token" in found["worker-0"][1]
    assert void(hosts.folder / "token") == {"3": 1}


def test_an_end_of_the_script_ends_its_connections(hosts):
    machine = hosts.start("nano", without=["bash"])
    (machine.bin / "bash").write_text(
        f"#!/bin/sh\necho $$ >{machine.folder / 'hangs'}.new\nmv {machine.folder / 'hangs'}.new "
        f"{machine.folder / 'hangs'}\nexec sleep 1000\n"
    )
    (machine.bin / "bash").chmod(0o755)
    hosts.write(machine.line(0))
    process = hosts.popen("check", "--python", sys.executable)
    wait_until((machine.folder / "hangs").exists, "the host hangs")
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 143, text
    os.kill(int((machine.folder / "hangs").read_text()), signal.SIGKILL)
    log = machine.folder / "sshd.log"
    wait_until(lambda: re.search("Disconnected from|Connection closed", log.read_text()),
               "the connection is closed")


# --- hosts that attack
# ------------------------------------------------------------------------------------

# What a host answers: fact, value, what is said of it. Bash evaluates PATH[$(command)] where it
# expects a number.
LIES = [
    ("path", b"relative/folder", "got relative/folder"),
    ("path", b"/home/$(touch {mark})/flq", "path is not an absolute path"),
    ("l4t", b"32.7.1 \x1b[2J", "l4t is not "),
    ("jetpack", b"7", "got 7"),
    ("clock", b"PATH[$(touch {mark})]", "clock is not a whole number: got PATH\\[\\$\\(touch\\ "),
    ("clock", b"", "got ''"),
    ("clock", b"0900000000", "got 0900000000"),
    ("clock", b"9" * 100, "got " + "9" * 60 + "..."),
    ("rsync", b"maybe", "got maybe"),
    ("sum", b"1 2 3", "got 1\\ 2\\ 3"),
    ("python", b"3.8\x1b]0;title\x07", "python is not a version"),
    ("free_kb", b"PATH[$(touch {mark})]", "free_kb is not a whole number"),
    ("free_kb", b"99999999999999999999", "got 99999999999999999999"),
    ("state", b"stopped\x9b2J", "state is not "),
]


def printed(hosts, *arguments, code):
    """What the script printed, without anything that a terminal would obey; so are the logs that it
    keeps.
    """
    text = hosts.deploy(*arguments, code=code)
    kept = re.search("what each of them said is in (.*)", text)
    logs = [path.read_text() for path in Path(kept.group(1)).iterdir()] if kept else []
    for part in [text] + logs:
        assert all(letter in "\n\t" or " " <= letter <= "~" for letter in part), ascii(part)
    return text


@pytest.mark.parametrize("fact, value, words", LIES,
                         ids=[f"{number}-{lie[0]}" for number, lie in enumerate(LIES)])
def test_an_answer_of_a_wrong_form_is_refused_and_never_evaluated(hosts, fact, value, words):
    machine, mark = hosts.start("nano"), hosts.folder / "mark"
    hosts.write(machine.line(0))
    machine.lie({fact: value.replace(b"{mark}", str(mark).encode())})
    result, what = rows(printed(hosts, "check", "--python", sys.executable, code=1))["worker-0"]
    assert not mark.exists()
    assert result == "failed" and "its answer " + fact in what and words in what


def test_a_host_that_is_refused_gets_nothing_and_the_others_are_deployed(hosts):
    good, hostile = hosts.start("good"), hosts.start("hostile")
    hosts.write(hostile.line(0), good.line(1))
    hostile.lie({"clock": b"soon"})
    found = rows(printed(hosts, "deploy", *WORKER, code=1))
    assert [found[name][0] for name in ("worker-0", "worker-1")] == ["failed", "ok"] and os.listdir(
        str(hostile.home)) == []


@pytest.mark.parametrize(
    "more, words", [(b"flq:offset=PATH[$(touch {mark})]\n", "its answer offset is not one that "),
                    (b"flq:copied=yes\n", "its answer copied is not one that "),
                    (b"flq:PATH[$(touch {mark})]=1\n", "is not one that "),
                    (b"flq:state=running, pid 1\n", "its answer state came twice"),
                    (b"flq:changed\n", "its answer changed is not "),
                    (b"x" * 2000000, "its answers are longer than")],
    ids=["computed", "copied", "subscript", "twice", "no value", "endless"])
def test_an_answer_that_was_not_asked_for_is_refused(hosts, more, words):
    machine, mark = hosts.start("nano"), hosts.folder / "mark"
    hosts.write(machine.line(0))
    machine.lie(more=more.replace(b"{mark}", str(mark).encode()))
    result, what = rows(printed(hosts, "check", "--python", sys.executable, code=1))["worker-0"]
    assert result == "failed" and words in what and not mark.exists()


def test_a_host_that_leaves_an_answer_out_is_refused(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    for fact in ("path", "model", "l4t", "jetpack", "clock", "rsync", "sum", "python", "free_kb",
                 "state"):
        machine.lie({fact: None})
        assert rows(printed(hosts, "check", "--python", sys.executable, code=1))["worker-0"] == (
            "failed", f"its answer {fact} is missing: look at that machine before you trust it")


@pytest.mark.parametrize("command, fact, value", [("deploy", "changed", b"token \x1b]0;title\x07"),
                                                  ("deploy", "kernels", b"faster"),
                                                  ("deploy", "kernels", b"$(id)"),
                                                  ("deploy", "changed", b"everything"),
                                                  ("status", "state", b"$(id)")])
def test_an_answer_to_an_order_is_refused_likewise(hosts, command, fact, value):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie({fact: value})
    text = printed(hosts, command, *(WORKER if command == "deploy" else ()), code=1)
    assert f"its answer {fact} is not " in rows(text)["worker-0"][1]


def test_no_words_of_a_host_reach_the_terminal_as_its_commands(hosts):
    colours = b"\x1b[31m red \x1b]0;title\x07 \xc2\x9b2J \x9b2J \r over\n"
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie({"model": colours[:-1], "last": colours[:-1]}, said=colours)
    assert "[31m red ]0;title" in printed(hosts, "check", "--python", sys.executable, code=0)
    printed(hosts, "deploy", *WORKER, code=0)
    (machine.home / "flq" / "logs").mkdir()
    (machine.home / "flq" / "logs" / "worker.log").write_bytes(colours)
    assert "| [31m red " in printed(hosts, "status", code=0)
    assert "[31m red " in printed(hosts, "logs", code=0)
    (machine.home / "flq" / "run.sh").unlink()
    assert "nothing is deployed" in printed(hosts, "start", code=1)
    (machine.home / "flq" / "logs" / "worker.log").unlink()
    machine.lie(said=b"x" * 5000 + colours)
    hosts.write(machine.line(0, "-", "dir=/proc/none"))
    assert max(map(len, printed(hosts, "deploy", *WORKER, code=1).splitlines())) < 1000


@pytest.mark.parametrize("command, endless", [("check", "stderr"), ("logs", "stdout"),
                                              ("logs", "stderr"), ("collect", "stderr")])
def test_a_host_that_says_things_without_end_does_not_fill_the_disk(hosts, command, endless):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie(endless=endless)
    assert rows(hosts.deploy(command, code=1))["worker-0"] == ("failed",
                                                               "it sent more than 64 MiB of log")


def test_a_home_with_other_letters_is_told_to_take_another_folder(hosts):
    machine = hosts.start("nano", home=hosts.folder / "J\u00fcrgen")
    hosts.write(machine.line(0))
    assert "(name another folder with dir=)" in rows(
        printed(hosts, "check", "--python", sys.executable, code=1))["worker-0"][1]


# What a host sends as its logs and results: (name, type, link or mode), and what is said of it.
FILE, FOLDER = tarfile.REGTYPE, tarfile.DIRTYPE
ARCHIVES = {
    "link": ([("./logs", tarfile.SYMTYPE, "{victim}")], "is a link"),
    "link first": ([("./logs/there", tarfile.SYMTYPE, "{victim}"),
                    ("./logs/there/mine", FILE, 0o644)], "is a link"),
    "hard link": ([("./logs/mine", tarfile.LNKTYPE, "{victim}/theirs")], "is a link"),
    "pipe": ([("./logs/pipe", tarfile.FIFOTYPE, "")], "is neither a file nor a folder"), "device":
        ([("./logs/null", tarfile.CHRTYPE, "")], "is neither a file nor a folder"), "absolute":
            ([("{victim}/mine", FILE, 0o644)], "is not below logs or results"), "up":
                ([("./logs/../../mine", FILE, 0o644)], "is not below logs or results"), "elsewhere":
                    ([("./.bashrc", FILE, 0o644)], "is not below logs or results"), "empty part":
                        ([("./logs//mine", FILE, 0o644)], "is not below logs or results"), "setuid":
                            ([("./logs/mine", FILE, 0o4755)], "has a setuid or setgid bit"),
    "setgid": ([("./logs/mine", FILE, 0o2755)], "has a setuid or setgid bit"), "escapes":
        ([("./logs/\x1b[2Jmine", FILE, 0o644)], "has control characters in its name"), "twice": ([
            ("./logs/mine", FILE, 0o644), ("./logs/mine", FILE, 0o644)
        ], "is in the way of"), "below a file":
            ([("./logs/mine", FILE, 0o644), ("./logs/mine/more", FILE, 0o644)], "is in the way of"),
}


def archive(hosts, entries, name="sent.tar"):
    """An archive that begins with an honest file."""
    victim = hosts.folder / "victim"
    if not victim.exists():
        victim.mkdir()
        (victim / "theirs").write_text("theirs")
    with tarfile.open(str(hosts.folder / name), "w", format=tarfile.GNU_FORMAT) as tar:
        for path, kind, more in [("./results", FOLDER, 0o755),
                                 ("./results/honest", FILE, 0o644)] + entries:
            entry = tarfile.TarInfo(path.format(victim=victim))
            entry.type, entry.size = kind, 4 if kind == FILE else 0
            if isinstance(more, int):
                entry.mode = more
            else:
                entry.linkname = more.format(victim=victim)
            tar.addfile(entry, io.BytesIO(b"mine") if kind == FILE else None)
    return hosts.folder / name


def is_untouched(hosts):
    """Whether what is the operator's own is as it was."""
    return [path.name for path in (hosts.folder / "victim").iterdir()] == ["theirs"] and (
        hosts.folder / "victim" / "theirs").read_text() == "theirs"


@pytest.mark.parametrize("kind", sorted(ARCHIVES))
def test_nothing_of_an_archive_that_holds_more_than_files_and_folders_comes_home(hosts, kind):
    entries, words = ARCHIVES[kind]
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie(archive=archive(hosts, entries))
    result, what = rows(printed(hosts, "collect", code=1))["worker-0"]
    assert result == "failed" and words in what and is_untouched(hosts)
    assert [path for path in (hosts.folder / "collected").rglob("*")
            if path.name != "worker-0"] == []


def test_a_file_does_not_come_home_through_a_link_that_an_archive_before_it_brought(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie(archive=archive(hosts, [("./logs", tarfile.SYMTYPE, "{victim}")], "first.tar"))
    hosts.deploy("collect", code=1)
    machine.lie(archive=archive(hosts, [("./logs/authorized_keys", FILE, 0o644)], "second.tar"))
    hosts.deploy("collect")
    assert is_untouched(hosts) and (hosts.folder / "collected" / "worker-0" / "logs" /
                                    "authorized_keys").read_text() == "mine"


@pytest.mark.parametrize("link", ["worker-0", "worker-0/logs", "worker-0/logs/theirs"])
def test_a_link_that_lies_in_the_target_is_not_followed(hosts, link):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    machine.lie(archive=archive(hosts, [("./logs/theirs", FILE, 0o644)]))
    path = hosts.folder / "collected" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(hosts.folder / "victim" / ("theirs" if link.endswith("theirs") else ""))
    result, what = rows(hosts.deploy("collect", code=1))["worker-0"]
    assert result == "failed" and f"'collected/{link}' is a link" in what
    assert is_untouched(hosts) and list((hosts.folder / "collected").rglob("honest")) == []


def test_an_archive_that_is_too_large_or_not_whole_is_refused(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    path = archive(hosts, [])
    entry = tarfile.TarInfo("./logs/large")
    entry.size = 2 ** 30
    path.write_bytes(path.read_bytes()[:1536] + entry.tobuf(tarfile.GNU_FORMAT))
    machine.lie(archive=path)
    assert "more than 1 GB came (--max_gb)" in rows(hosts.deploy("collect", "--max_gb", "1",
                                                                 code=1))["worker-0"][1]
    assert "its archive is broken" in rows(hosts.deploy("collect", "--max_gb", "2",
                                                        code=1))["worker-0"][1]
    path.write_bytes(path.read_bytes()[:1536])
    assert "its archive ends too early" in rows(hosts.deploy("collect", code=1))["worker-0"][1]
    assert list((hosts.folder / "collected").rglob("*")) == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_without_end_is_refused_before_it_is_read(hosts, kind):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = kind, 2 ** 32
    (hosts.folder / "sent.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
    machine.lie(archive=hosts.folder / "sent.tar")
    assert "LongLink' is neither a file nor a folder" in rows(hosts.deploy("collect",
                                                                           code=1))["worker-0"][1]


def test_long_names_without_a_file_are_refused_before_they_fill_the_stack(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 9
    one = entry.tobuf(tarfile.GNU_FORMAT) + b"logs/mine".ljust(512, b"\0")
    (hosts.folder / "sent.tar").write_bytes(one * 2 * sys.getrecursionlimit())
    machine.lie(archive=hosts.folder / "sent.tar")
    assert rows(printed(hosts, "collect", code=1))["worker-0"] == (
        "failed", "its archive has a long name without a file or folder")


def test_what_came_home_before_stays_and_what_is_new_takes_its_place(hosts):
    machine = hosts.start("nano")
    hosts.write(machine.line(0))
    logs = machine.home / "flq" / "logs"
    (logs / ("long" * 40)).mkdir(parents=True)
    for name in ("old", "changes", "long" * 40 + "/name"):
        (logs / name).write_text("first")
    os.utime(str(logs / "old"), (1000, 1000))
    assert rows(hosts.deploy("collect"))["worker-0"] == ("ok", "3 files in collected/worker-0")
    (logs / "old").unlink()
    (logs / "changes").write_text("second")
    assert rows(hosts.deploy("collect"))["worker-0"] == ("ok", "3 files in collected/worker-0")
    home = hosts.folder / "collected" / "worker-0" / "logs"
    assert [(home / name).read_text()
            for name in ("old", "changes", "long" * 40 + "/name")] == ["first", "second", "first"]
    assert (home / "old").stat().st_mtime == 1000 and mode(home / "old") == 0o600
    assert os.listdir(str(
        hosts.folder / "collected")) == ["worker-0"], "nothing that was made on the way"


@pytest.mark.parametrize("version", ["3.6", "3.9", "3.13"])
def test_every_python_of_an_operator_unpacks_long_names(tmp_path, version):
    logs = tmp_path / "there" / "logs" / ("long" * 40)
    logs.mkdir(parents=True)
    (logs / "name").write_text("whole")
    packed = subprocess.run(
        ["bash", str(ROOT / "scripts" / "on_host.sh"), "pack", f"dir={tmp_path / 'there'}"],
        check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(
        [str(python_of(version)), "-W", "error",
         str(ROOT / "scripts" / "unpack.py"), "here", "1"], cwd=str(tmp_path), input=packed,
        check=True)
    assert (tmp_path / "here" / "logs" / ("long" * 40) / "name").read_text() == "whole"
