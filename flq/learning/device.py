"""TensorFlow's settings of this process: threads, GPU memory, precision, determinism; and what the
machine is.
"""

import platform
import random
import socket
import threading
from typing import Any, Dict, Optional

import numpy as np

from flq.errors import ConfigError
from flq.host import jetson
from flq.learning import banners
from flq.settings import Config

_lock = threading.Lock()
_num_threads: Optional[int] = None  # what this process's TensorFlow was started with


def configure(config: Config, replicas: int = 1) -> None:
    """Set TensorFlow up before its first use; again with the same model.num_threads it changes
    nothing but seeds and precision.

    replicas: how many local updates run at the same time. Raises ConfigError when TensorFlow
    already runs with another number of threads, since that changes the last bits of a sum.
    """
    global _num_threads
    tf = banners.load_tensorflow()
    with _lock:
        if _num_threads is None:
            _start(tf, config, replicas)
            _num_threads = config.model.num_threads
        elif _num_threads != config.model.num_threads:
            raise ConfigError(
                "TensorFlow already runs in this process with another number of threads",
                f"model.num_threads {_num_threads}", config.model.num_threads,
                "start a new process")
        _seed(tf, config.dataset.seed)
        mixed = config.jetson_optimization.enable_mixed_precision
        tf.keras.mixed_precision.set_global_policy("mixed_float16" if mixed else "float32")


def has_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def describe(root: str = "/") -> Dict[str, Any]:
    """What this machine is, as JSON values: host, machine, python, tensorflow, gpus, and what
    jetson.describe finds under root.
    """
    import tensorflow as tf

    details = [
        tf.config.experimental.get_device_details(gpu)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return dict(
        program(), tensorflow=tf.__version__,
        gpus=[detail.get("device_name", "GPU") for detail in details], **jetson.describe(root))


def program() -> Dict[str, Any]:
    """host, machine and python."""
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "python": platform.python_version()
    }


def _start(tf: Any, config: Config, replicas: int) -> None:
    section = config.jetson_optimization
    try:
        tf.config.threading.set_intra_op_parallelism_threads(config.model.num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(replicas + section.num_parallel_calls)
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            if section.gpu_memory_limit_mb:
                limit = tf.config.LogicalDeviceConfiguration(
                    memory_limit=section.gpu_memory_limit_mb)
                tf.config.set_logical_device_configuration(gpu, [limit])
            else:
                tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise ConfigError(
            "TensorFlow was used in this process before FLQ could set it up", got=error,
            hint="call flq.learning.device.configure before anything else uses TensorFlow")
    # From TensorFlow 2.8. On a GPU it is slow and refuses some operations, and bit-identity is not
    # promised there.
    if not gpus and hasattr(tf.config.experimental, "enable_op_determinism"):
        tf.config.experimental.enable_op_determinism()


def _seed(tf: Any, seed: int) -> None:
    """For what a user's model draws by itself; FLQ draws from flq.rng only."""
    seed %= 2 ** 32
    if hasattr(tf.keras.utils, "set_random_seed"):  # from TensorFlow 2.7
        tf.keras.utils.set_random_seed(seed)
    else:
        random.seed(seed)
        np.random.seed(seed)
        tf.random.set_seed(seed)
