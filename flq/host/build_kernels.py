"""Build the compiled kernels where something is installed, also where NumPy needs variables of its
environment before it is loaded, as on a Jetson Nano:

    python -m flq.host.build_kernels [what flq.kernels.build takes]

`python -m flq.kernels.build` has loaded NumPy before it could set them.
"""

import sys

from flq.host import variables


def main() -> int:
    variables.set_missing()
    from flq.kernels import build

    return build.main()


if __name__ == "__main__":
    sys.exit(main())
