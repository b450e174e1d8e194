"""FLQ's own programs, whose workers write their state whole after MOST_STEPS steps (a variable of
the environment), so that a test can end them there.

    python tests/system/often_folded.py worker|simulate [OPTIONS]
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from flq.worker import state_file  # noqa: E402


def main():
    state_file.MOST_STEPS = int(os.environ["MOST_STEPS"])
    if sys.argv.pop(1) == "simulate":
        import flq.__main__
        sys.argv.insert(1, "simulate")
        return flq.__main__.main()
    import flq_worker
    return flq_worker.main()


if __name__ == "__main__":
    sys.exit(main())
