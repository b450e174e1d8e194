"""The module that writes and reads DEFLATE streams: zlib-ng, or Python's own where that is missing,
as on a stock Jetson Nano.

Both write the same bytes and take the same streams, damaged ones included (tests/compression/
test_deflate.py); zlib-ng writes them in half of the time (docs/decisions/0040).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # zlib-ng has the same interface
    import zlib
else:
    try:
        from zlib_ng import zlib_ng as zlib
    except ImportError:
        import zlib

__all__ = ["zlib"]
