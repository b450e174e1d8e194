"""Pieces cover what they cut, in order."""

from hypothesis import given
from hypothesis import strategies as st

from flq.pieces import PIECE, pieces


@given(st.integers(0, 10**6), st.integers(0, 5 * PIECE))
def test_pieces_cover_all_once_in_order(start, length):
    found, end = list(pieces(start, start + length)), start
    for part in found:
        assert part.start == end < part.stop <= part.start + PIECE
        end = part.stop
    assert end == start + length
    assert all(part.stop - part.start == PIECE for part in found[:-1])
