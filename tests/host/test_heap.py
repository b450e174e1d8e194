"""The same pages serve every round, and every thread of a worker.

Each in a process of its own: it is a setting of the whole process.
"""

import subprocess
import sys

import pytest

# Twelve vectors of p = 467,818 float64, made and freed in each of twenty rounds; prints the page
# faults of one.
ROUNDS = """
import resource, sys
import numpy as np
from flq.host import heap
if sys.argv[1] == "kept":
    heap.keep_freed_memory()
def one_round():
    vectors = [np.zeros(467818) + 1.0 for _ in range(12)]
for _ in range(3):
    one_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    one_round()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""

# Two threads that each make and free 24 MB of pieces, one after the other; prints the MB that the
# process has more then.
THREADS = """
import sys, threading
import numpy as np
from flq.host import heap
heap.keep_freed_memory(one_arena=sys.argv[1] == "one")
def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 1000000
def use():
    pieces = [np.ones(1 << 17) for _ in range(24)]
def in_a_thread():
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
use()
before = resident_mb()
in_a_thread()
print(resident_mb() - before)
if sys.argv[1] == "one":
    heap.give_back_free_memory()
    print(before - resident_mb())
"""


def faults_of_a_round(how):
    return int(
        subprocess.run([sys.executable, "-c", ROUNDS, how], stdout=subprocess.PIPE,
                       check=True).stdout)


def grown_mb(how):
    told = subprocess.run([sys.executable, "-c", THREADS, how], stdout=subprocess.PIPE, check=True)
    return [int(number) for number in told.stdout.split()]


def test_a_round_finds_the_pages_of_the_round_before():
    given_back = faults_of_a_round("given back")
    if given_back < 1000:
        pytest.skip("this C library keeps freed memory by itself")
    assert faults_of_a_round("kept") < given_back / 50


def test_with_one_arena_a_thread_uses_what_another_has_freed():
    if grown_mb("many")[0] < 20:
        pytest.skip("this C library has one arena by itself")
    grown, given_back = grown_mb("one")
    assert grown < 5
    assert given_back > 20
