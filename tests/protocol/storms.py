"""How many storms: 300 examples of each, or FLQ_STORMS of them (docs/reliability.md says what 10,000 took)."""

import os

STORMS = int(os.environ.get("FLQ_STORMS", "300"))
