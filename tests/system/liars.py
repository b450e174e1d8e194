"""flq_worker.py of bad workers: what the learner of quadratic.py computes, made into what ATTACK in
the environment says (benchmarks/robust_rules.py).

    ATTACK=scale python tests/system/liars.py worker [OPTIONS]
"""

import os
import sys

from benchmarks.robust_rules import Liars
from tests.system.quadratic import Quadratic


def main():
    del sys.argv[1]
    import flq.learning.learner
    import flq_worker
    flq.learning.learner.build_learner = lambda settings, *_, **__: Liars(
        Quadratic(settings), os.environ["ATTACK"])
    return flq_worker.main()


if __name__ == "__main__":
    sys.exit(main())
