#!/usr/bin/env python3
"""Can this machine run FLQ? `python test_environment.py` checks it and says what to do where it
cannot.

Runs on Python 3.6 with nothing installed: every package of others is looked up, none is imported
here. What the packages must be stands in the requirements-*.txt beside this file. Exit code 1 only
when something is unusable.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from flq import command_line
from flq.host import jetson, variables
from scripts.requirements import Requirement, installed_version, parse_requirements, parse_version

ROOT = os.path.dirname(os.path.abspath(__file__))

REQUIREMENTS = {
    "worker": ("requirements-tensorflow.txt", "requirements-worker.txt"),
    "master": ("requirements-tensorflow.txt", "requirements-master.txt"),
    "both": ("requirements-tensorflow.txt", "requirements-worker.txt", "requirements-master.txt"),
    "dev": ("requirements-tensorflow.txt", "requirements-worker.txt", "requirements-master.txt",
            "requirements-completion.txt", "requirements-tensorboard.txt", "requirements-dev.txt"),
}
# One module, many distributions: the machine decides which one is there.
TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-cpu-aws", "tensorflow-intel",
              "tensorflow-macos", "tensorflow-rocm")

OLDEST_PYTHON = {"worker": (3, 6), "master": (3, 9), "both": (3, 9), "dev": (3, 9)}
NEWEST_PYTHON = (3, 13)

GIB = 2.0 ** 30
NEEDED_MEMORY = 0.5 * GIB       # resident after the import of TensorFlow
COMFORTABLE_MEMORY = 1.5 * GIB  # with a model, a shard of data and the first traced step
COMFORTABLE_DISK = 1.0 * GIB
# of a Jetson that should have swap, because its GPU takes of the same memory
SMALL_MEMORY_MB = 6 * 1024
COMFORTABLE_SWAP_MB = 1024

# Run in a process of its own, because a wrong build of TensorFlow or NumPy ends in a crash of the
# interpreter.
TRAINING_STEP = ("""
import json
import numpy as np
import tensorflow as tf
labels = np.arange(30) % 10
images = np.repeat(np.eye(28, dtype=np.float32)[labels], 28, axis=1).reshape(30, 28, 28, 1)
kernel, dense = tf.Variable(tf.ones((3, 3, 1, 4)) * 0.1), tf.Variable(tf.zeros((26 * 26 * 4, 10)))

@tf.function
def step():
    with tf.GradientTape() as tape:
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, 1, "VALID"))
        logits = tf.reshape(features, (30, -1)) @ dense
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    for variable, gradient in zip((kernel, dense), tape.gradient(loss, (kernel, dense))):
        variable.assign_sub(0.1 * gradient)
    return loss

first, second = float(step()), float(step())
build = getattr(tf.sysconfig, "get_build_info", dict)()
print(json.dumps({"version": tf.__version__, "first": first, "second": second,
                  "gpus": [gpu.name for gpu in tf.config.list_physical_devices("GPU")],
                  "cuda_build": tf.test.is_built_with_cuda(),
                  "cuda": str(build.get("cuda_version", "unknown")),
                  "cudnn": str(build.get("cudnn_version", "unknown"))}))
""")
TRAINING_STEP_TIMEOUT_S = 300


# In a process of its own too: NumPy may be missing, or crash.
ARITHMETIC = ("from flq.host import arithmetic; from flq.kernels import library; "
              "print(library.LOADED is not None); print(arithmetic.described())")


class Finding(NamedTuple):
    """One line of the report. state: ok, warning or unusable; text says what was found and, if not
    ok, what to do.
    """

    state: str
    what: str
    text: str


def check_python(role: str) -> Finding:
    oldest = OLDEST_PYTHON[role]
    found = (
        f"{platform.python_version()}, {64 if sys.maxsize > 2 ** 32 else 32} bits, "
        f"{platform.machine()}"
    )
    supported = "{}.{} to {}.{}".format(*(oldest + NEWEST_PYTHON))
    if sys.version_info[:2] < oldest or sys.maxsize <= 2 ** 32:
        return Finding("unusable", "Python", f"{found}: {supported} with 64 bits is needed here")
    if sys.version_info[:2] > NEWEST_PYTHON:
        return Finding("warning", "Python",
                       f"{found}: {supported} is supported; TensorFlow may have no wheel for it")
    return Finding("ok", "Python", found)


def check_packages(role: str) -> List[Finding]:
    findings: Dict[str, Finding] = {}
    for filename in REQUIREMENTS[role]:
        for requirement in parse_requirements(os.path.join(ROOT, filename)):
            finding = check_package(requirement, filename)
            # A package that both roles name is reported once, at its worst.
            if finding.what not in findings or findings[finding.what].state == "ok":
                findings[finding.what] = finding
    return list(findings.values())


def check_package(requirement: Requirement, filename: str) -> Finding:
    is_tensorflow = requirement.name in TENSORFLOW
    name = "tensorflow" if is_tensorflow else requirement.name
    versions = [
        installed_version(distribution)
        for distribution in (TENSORFLOW if is_tensorflow else (name,))
    ]
    version = next((found for found in versions if found), None)
    remedy = f"{sys.executable} -m pip install -r {filename}"
    if version is None:
        return Finding("unusable", name, "missing: " + remedy)
    if requirement.is_met_by(parse_version(version)):
        return Finding("ok", name, version)
    if requirement.is_below(parse_version(version)):
        return Finding("unusable", name,
                       f"{version} is older than what is supported ({requirement}): {remedy}")
    return Finding(
        "warning", name,
        f"{version} is newer than what was tested ({requirement}): if something fails, {remedy}")


def check_tensorflow() -> List[Finding]:
    """Two training steps in a process of its own, and the GPU that they saw."""
    variables.set_missing()  # it is to compute as a worker would
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL=os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"))
    process = subprocess.Popen([sys.executable, "-c", TRAINING_STEP], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment)
    try:
        output, errors = process.communicate(timeout=TRAINING_STEP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return [
            _unusable_step(
                f"not done after {TRAINING_STEP_TIMEOUT_S} s: free memory or processors and try "
                "again"
            )
        ]
    if process.returncode < 0:
        return [_unusable_step(explain_crash(-process.returncode))]
    if process.returncode > 0:
        last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no message"]
        return [
            _unusable_step(
                f"{last[0]}: install the versions of requirements-tensorflow.txt together")
        ]
    result = json.loads(output.decode("utf-8").strip().splitlines()[-1])
    if not result["second"] < result["first"]:
        return [
            _unusable_step(
                "the loss went from {first} to {second}: this build of TensorFlow computes wrong".
                format(**result))
        ]
    step = Finding("ok", "training step",
                   "TensorFlow {version}, loss {first:.4f} to {second:.4f}".format(**result))
    return [step, describe_gpu(result)]


def _unusable_step(text: str) -> Finding:
    return Finding("unusable", "training step", text)


def check_arithmetic() -> Finding:
    """What computes the passes over long vectors; NumPy does it everywhere, so never unusable."""
    variables.set_missing()
    done = subprocess.run([sys.executable, "-c", ARITHMETIC], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, universal_newlines=True)
    compiled, _, text = done.stdout.strip().partition("\n")
    if done.returncode or not text:
        return Finding("warning", "arithmetic", "unknown: NumPy does not run here")
    return Finding("ok" if compiled == "True" else "warning", "arithmetic", text)


def explain_crash(signal_number: int) -> str:
    name = signal.Signals(signal_number).name
    remedies = {
        "SIGILL":
            "the processor lacks an instruction of this build: on a Jetson Nano export "
            "OPENBLAS_CORETYPE=ARMV8 "
            "(FLQ's programs do), on an old PC install a TensorFlow built without AVX",
        "SIGKILL": "the system ended it, most often for want of memory: close other programs or "
                   "add swap",
    }
    return (
        f"TensorFlow died of {name}: "
        f"{remedies.get(name, 'install the versions of requirements-tensorflow.txt together')}"
    )


def check_jetson(root: str = "/", python: Optional[str] = None,
                 tensorflow: Optional[str] = None) -> List[Finding]:
    """What a Jetson says of itself and which TensorFlow belongs there; nothing on another machine.

    root: where its files are. python, tensorflow: versions, of this process where they are None.
    """
    release, told = jetson.release(root), jetson.describe(root)
    if release is None:
        return []
    python = python or "{}.{}".format(*sys.version_info[:2])
    tensorflow = tensorflow or next(filter(None, map(installed_version, TENSORFLOW)), None)
    name, found = told.get("model", "Jetson"), jetson.jetpack(root)
    if found is None:
        known = ", ".join(f"L4T {number} (JetPack {jetpack.name})"
                          for number, jetpack in sorted(jetson.JETPACKS.items()))
        findings = [
            Finding(
                "warning", "Jetson",
                f"{name}, L4T {release}: FLQ knows {known}; look for NVIDIA's TensorFlow wheel for "
                "this release"
            )
        ]
    else:
        findings = [Finding("ok", "Jetson", f"{name}, JetPack {found.name} (L4T {release})"),
                    _check_jetson_tensorflow(found, python, tensorflow)]
    return findings + [_check_swap(told), _check_power(told)]


def _check_jetson_tensorflow(found: jetson.JetPack, python: str,
                             tensorflow: Optional[str]) -> Finding:
    """Only NVIDIA's wheel knows a Jetson's GPU, and it is for the Python of the JetPack's system.
    """
    what = "NVIDIA wheel"
    if python == found.python and "+nv" in (tensorflow or ""):
        return Finding("ok", what, f"TensorFlow {tensorflow} for JetPack {found.name}")
    interpreter = "python" + found.python
    command = (
        f"{interpreter} -m pip install --extra-index-url {found.index_url} -c "
        f"constraints/{found.constraints} {found.tensorflow}"
    )
    if found.python == "3.6":
        command = f'{interpreter} -m pip install -U "pip==21.3.1" && {command}'
    if python != found.python:
        return Finding(
            "warning", what,
            f"none exists for Python {python}, so TensorFlow computes on the CPU; the GPU of "
            f"JetPack {found.name} needs the "
            f"system's Python {found.python}: {command}")
    return Finding("warning", what, "{}; only this one uses the GPU: {}".format(
        f"TensorFlow {tensorflow} is not NVIDIA's" if tensorflow else "missing", command))


def _check_swap(told: Dict[str, Any]) -> Finding:
    swap, memory = told.get("swap_mb", 0), told.get("memory_mb", SMALL_MEMORY_MB)
    if memory < SMALL_MEMORY_MB and swap < COMFORTABLE_SWAP_MB:
        return Finding(
            "warning", "swap",
            f"{swap} MiB beside {memory} MiB of memory that the GPU shares: sudo fallocate -l 4G "
            "/swapfile && "
            "sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile")
    return Finding("ok", "swap", f"{swap} MiB")


def _check_power(told: Dict[str, Any]) -> Finding:
    mode = told.get("power_mode")
    if mode is None:
        return Finding("warning", "power mode", "unknown: sudo nvpmodel -q shows it")
    if mode == "5W":  # of the Nano
        return Finding(
            "warning", "power mode",
            "5W turns two of the four cores off: sudo nvpmodel -m 0, with a supply of 5 V and 4 A")
    return Finding("ok", "power mode", mode)


def describe_gpu(result: Dict[str, Any], root: str = "/") -> Finding:
    """result: what the training step printed."""
    if result["gpus"]:
        return Finding("ok", "GPU",
                       "{}, CUDA {cuda}, cuDNN {cudnn}".format(", ".join(result["gpus"]), **result))
    if jetson.release(root):
        why = "not used: on a Jetson only NVIDIA's TensorFlow wheel for its JetPack can"
    elif not result["cuda_build"]:
        why = "not used: this TensorFlow was built without CUDA"
    else:
        why = "none found by this TensorFlow, which was built for CUDA {cuda}".format(**result)
    return Finding("warning", "GPU", why + "; training runs on the CPU")


def check_memory() -> Finding:
    available = available_memory()
    if available is None:
        return Finding(
            "warning", "memory",
            f"unknown on this system: {COMFORTABLE_MEMORY / GIB:.1f} GiB should be free")
    text = f"{available / GIB:.1f} GiB free"
    if available < NEEDED_MEMORY:
        return Finding(
            "unusable", "memory",
            text + ": TensorFlow alone takes half a GiB; close other programs or add swap")
    if available < COMFORTABLE_MEMORY:
        return Finding("warning", "memory",
                       text + ": enough for a small model; close other programs for more")
    return Finding("ok", "memory", text)


def available_memory() -> Optional[float]:
    """Bytes that a new process can use without swapping, None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(
                float(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def check_run_dir(path: str) -> Finding:
    """Whether a run can write there: the folder, or the nearest thing above it that exists."""
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        remedy = "free space, change its owner or name another folder with --run_dir"
        return Finding("unusable", "run folder",
                       f"cannot write to {existing} ({error.strerror}): {remedy}")
    free = shutil.disk_usage(existing).free
    text = f"{existing} can be written, {free / GIB:.1f} GiB free"
    if free < COMFORTABLE_DISK:
        return Finding("warning", "run folder", text + ": a long run may fill it")
    return Finding("ok", "run folder", text)


def check_port(port: int) -> Finding:
    with socket.socket() as listener:
        try:
            listener.bind(("", port))
        except OSError as error:
            return Finding(
                "warning", "port",
                f"{port} cannot be taken ({error.strerror}): start the master with another --port")
    return Finding("ok", "port", f"{port} is free")


def check_master(url: str, cafile: Optional[str] = None, cert: Optional[str] = None,
                 key: Optional[str] = None) -> Finding:
    if cafile and not url.startswith("https://"):
        return Finding(
            "unusable", "master",
            f"{url} has no TLS for the CA file to check: write https://, or leave --cafile out")
    try:
        trusted = ssl.create_default_context(cafile=cafile) if url.startswith("https:") else None
        if trusted is not None and cert:
            trusted.load_cert_chain(cert, key, password="")
        with urllib.request.urlopen(url.rstrip("/") + "/status", timeout=5,
                                    context=trusted) as response:
            status = json.loads(response.read().decode("utf-8"))
        text = "{} answers: round {current_round} of {max_rounds}".format(url, **status)
    except urllib.error.HTTPError as error:
        remedy = "it is not an FLQ master, or one that does not know itself by this name"
        return Finding("unusable", "master", f"{url} answers {error.code} {error.reason}: {remedy}")
    except OSError as error:
        remedy = "is it started, is the address right, does a firewall close the port?"
        return Finding("unusable", "master",
                       f"{url} does not answer ({getattr(error, 'reason', error)}): {remedy}")
    except (ValueError, KeyError, TypeError):
        return Finding(
            "unusable", "master",
            f"what answers at {url} is not an FLQ master: check the address and the port")
    return Finding("ok", "master", text)


def check_all(arguments: argparse.Namespace) -> Iterator[Finding]:
    """What the command line asks for, one after the other: the training step takes seconds."""
    yield check_python(arguments.role)
    yield from check_jetson()
    yield from check_packages(arguments.role)
    if arguments.packages_only:
        return
    yield check_arithmetic()
    yield from check_tensorflow()
    yield check_memory()
    yield check_run_dir(arguments.run_dir)
    if arguments.role != "worker":
        yield check_port(arguments.port)
    if arguments.master_url:
        yield check_master(arguments.master_url, arguments.cafile, arguments.cert, arguments.key)


def main(argv: Optional[List[str]] = None) -> int:
    parser = command_line.Parser(
        description="Check whether this machine can run FLQ: each line says ok or what to do.")
    parser.add_argument("--role", choices=sorted(REQUIREMENTS), default="both",
                        help="what runs here (both); dev adds the tests' tools")
    parser.add_argument("--master_url", metavar="URL",
                        help="also check this master, such as http://192.168.1.10:5000")
    command_line.add_tls(parser, "those of this machine")
    parser.add_argument("--port", type=command_line.whole_number(1, 65535), default=5000,
                        help="the port that a master here would take (5000)")
    parser.add_argument("--run_dir", default="results", metavar="D",
                        help="the folder that runs are written to (results)")
    parser.add_argument("--packages_only", action="store_true",
                        help="only look at Python and the installed packages: quick")
    counts = {"ok": 0, "warning": 0, "unusable": 0}
    for finding in check_all(parser.parse_args(argv)):
        counts[finding.state] += 1
        print(f"{finding.state:<9} {finding.what:<15} {finding.text}", flush=True)
    print("{ok} ok, {warning} warning, {unusable} unusable".format(**counts))
    return 1 if counts["unusable"] else 0


if __name__ == "__main__":
    sys.exit(main())
