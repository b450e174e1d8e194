"""A cluster: how it is reached, what its nodes are given, and how much fits on them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, Iterator, NamedTuple

import flq
from flq.errors import ConfigError, in_one_line

_PACKAGE = Path(flq.__file__).resolve().parent
# What the programs read of their environment; the nodes read the same.
_TOLD = ("FLQ_DATA_DIR", "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")

_log = logging.getLogger("flq.cluster")


class Share(NamedTuple):
    """What one piece of work takes of a node: processors and GPUs, which may be parts of one."""

    cpus: float = 1.0
    gpus: float = 0.0


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module ray, connected to the cluster at HOST:PORT, to the one that this machine belongs
    to with "auto", or to one of this machine alone that ends with the block (None).

    The nodes get this copy of flq; the other packages and the data must be there. Raises
    ConfigError where Ray is missing or nobody answers.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ConfigError("the package ray is missing", "it, for --engine ray", sys.executable,
                          f"install it: {sys.executable} -m pip install ray")
    told = {name: os.environ[name] for name in _TOLD if name in os.environ}
    try:
        ray.init(address=address or "local", log_to_driver=False, include_dashboard=False
                 if address is None else None, logging_level=logging.ERROR,
                 runtime_env={"py_modules": [str(_PACKAGE)], "env_vars": told})
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = in_one_line(str(error).strip().split("\n")[0]) or type(error).__name__
        raise ConfigError("there is no Ray cluster", "one that answers", address or "none here",
                          f"start one with `ray start --head` ({why})")
    try:
        yield ray
    finally:
        ray.shutdown()


def room(ray: Any, share: Share) -> int:
    """How many pieces of work fit on the nodes that are there. Raises ConfigError where none does.
    """
    fits = sum(
        min(int(node["Resources"].get(name, 0.0) / wanted)
            for name, wanted in (("CPU", share.cpus), ("GPU", share.gpus)) if wanted > 0)
        for node in ray.nodes() if node["Alive"])
    if not fits:
        total = ray.cluster_resources()
        raise ConfigError("nothing fits on a node of the cluster",
                          f"a node with {share.cpus:g} CPUs and {share.gpus:g} GPUs",
                          f"together {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs",
                          "--cpus and --gpus say what one takes")
    return fits
