"""The same pages serve every round.

In a process of its own: it is a setting of the whole process.
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


def faults_of_a_round(how):
    return int(
        subprocess.run([sys.executable, "-c", ROUNDS, how], stdout=subprocess.PIPE,
                       check=True).stdout)


def test_a_round_finds_the_pages_of_the_round_before():
    given_back = faults_of_a_round("given back")
    if given_back < 1000:
        pytest.skip("this C library keeps freed memory by itself")
    assert faults_of_a_round("kept") < given_back / 50
