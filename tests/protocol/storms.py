"""How many storms a test draws (docs/reliability.md says what 10,000 took)."""

import os


def number_of(default):
    """FLQ_STORMS of them, or the test's own number."""
    return int(os.environ.get("FLQ_STORMS", default))
