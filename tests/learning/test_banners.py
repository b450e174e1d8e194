"""What TensorFlow's libraries say of themselves while they are loaded stays away; errors and what a
user asked for do not.
"""

import os
import signal
import subprocess
import sys

import pytest

from flq.learning import banners

CONFIGURE = """
import os, sys
from flq import config
from flq.learning import device
device.configure(config.build({}))
import tensorflow as tf
tf.function(lambda x: x + 1)(tf.zeros(3))
os.write(2, b"after\\n")
"""
ABORT = ("""
import os
from flq.learning import banners
with banners.filtered():
    os.write(2, b"I0000 00:00:1700000000.000001    42 port.cc:153] "
             b"oneDNN custom operations are on.\\n")
    os.write(2, b"F0000 00:00:1700000000.000001    42 cpu_feature_guard.cc:164] "
             b"compiled to use AVX instructions")
    os.abort()
""")
NOTHING_TO_WRITE_TO = """
import os
from flq.learning import banners
os.close(2)
with banners.filtered():
    os.write(1, b"loaded")
"""


def errors_of(program, **variables):
    """-> (exit code, what came on standard error)."""
    environment = dict({name: value for name, value in os.environ.items() if name != banners.LEVEL},
                       CUDA_VISIBLE_DEVICES="", **variables)
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             universal_newlines=True)
    return process.returncode, process.stderr


def test_tensorflow_is_loaded_without_a_word():
    assert errors_of(CONFIGURE) == (0, "after\n")


def test_what_the_user_set_counts():
    code, text = errors_of(CONFIGURE, TF_CPP_MIN_LOG_LEVEL="0")
    assert code == 0 and "oneDNN" in text and text.endswith("after\n")


def test_the_last_words_of_a_tensorflow_that_aborts_arrive():
    code, text = errors_of(ABORT)
    assert code == -signal.SIGABRT and text.endswith("compiled to use AVX instructions")
    assert sys.version_info < (3, 9) or "oneDNN" not in text


def test_without_a_standard_error_it_is_loaded_as_well():
    assert errors_of(NOTHING_TO_WRITE_TO) == (0, "")


@pytest.mark.parametrize("words, shown_up_to", [
    (b"I0000 00:00:1795556340.664822    9394 port.cc:153] oneDNN custom operations are on.", 0),
    (b"W0000 00:00:1743000000.123456   12345 computation_placer.cc:177] computation placer already "
     b"registered.",
     1), (b"E0000 00:00:1743000000.123456   12345 cuda_platform.cc:51] failed call to cuInit", 2),
    (b"E0000 00:00:1743000000.123456   12345 cuda_dnn.cc:8310] Unable to register cuDNN factory: "
     b"Attempting to register factory for plugin "
     b"cuDNN when one has already been registered", -1),
    (b"F0000 00:00:1743000000.123456   12345 cpu_feature_guard.cc:164] The TensorFlow library was "
     b"compiled to use AVX instructions",
     3),
    (b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR", -1),
    (b"Traceback (most recent call last):", 3),
    (b"2026-11-24 21:10:13,314 WARNING flq.worker: no answer", 3), (b"", 3)
])
def test_a_line_is_shown_up_to_its_level(words, shown_up_to):
    assert [level for level in (0, 1, 2, 3) if banners.passes(words + b"\n", level)] == list(
        range(shown_up_to + 1))
