"""A crash point kills its process at the right time, and only there."""

import os
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = """
from flq.host import crash_points
for count in range(3):
    crash_points.reach("here")
    print(count, flush=True)
    crash_points.reach("there")
"""


def run(crash_at):
    environment = dict(os.environ, PYTHONPATH=ROOT, FLQ_CRASH_AT=crash_at)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment,
                               stdout=subprocess.PIPE)
    output = process.communicate()[0].split()
    return process.returncode, [int(word) for word in output]


def test_without_the_variable_nothing_happens():
    assert run("") == (0, [0, 1, 2])


def test_the_process_dies_when_it_comes_there_for_the_nth_time():
    assert run("here:2") == (-signal.SIGKILL, [0])
    assert run("there:2") == (-signal.SIGKILL, [0, 1])
    assert run("elsewhere:1") == (0, [0, 1, 2])
