"""Small disks for tests of what happens on a full or read-only one."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, options):
    """A tmpfs in a new folder; where this user cannot mount one the test is skipped."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
                             stderr=subprocess.PIPE, universal_newlines=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here: " + mounted.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
