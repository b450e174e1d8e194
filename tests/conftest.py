"""Settings of all tests: the environment variables are those of FLQ's programs, and property tests
draw the same examples on every run, however slow the machine is.
"""

import hypothesis

from flq.host import variables

variables.set_missing()

hypothesis.settings.register_profile("same_every_time", derandomize=True, deadline=None,
                                     database=None,
                                     suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("same_every_time")
