"""In a process of its own: it is a setting of the whole process."""

import subprocess
import sys

import pytest

# Limits of 100 and what the first argument says; opens the second argument's number of files.
OPENS = """
import os, resource, sys
from flq.errors import ConfigError
from flq.host import open_files
hard, number = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
try:
    open_files.allow(number, "so many workers")
except ConfigError as error:
    print(error)
else:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]
    print("opened", resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""


def opened(hard, number):
    return subprocess.run([sys.executable, "-c", OPENS, str(hard), str(number)], check=True,
                          stdout=subprocess.PIPE, universal_newlines=True).stdout


@pytest.mark.parametrize("hard, number", [(500, 200), (500, 10)])
def test_the_limit_is_raised_as_far_as_it_must(hard, number):
    assert opened(hard, number) == f"opened {hard}\n"


def test_a_system_that_does_not_allow_it_is_told_in_one_line():
    told = opened(300, 200)
    assert told.count("\n") == 1
    assert all(part in told for part in ("so many workers", "at least 456", "300", "ulimit -n 456"))
