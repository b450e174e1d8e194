"""Imports TensorFlow before a test does, as tests/learning/conftest.py does, where there are tests
that need it.
"""

import sys

if sys.version_info >= (3, 9):
    from tests.learning import conftest  # noqa: F401
