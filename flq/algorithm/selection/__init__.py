"""Whose update may travel: a pure function of bids and budget (algorithm.md 5)."""

from flq.algorithm.selection.greedy import Candidate, select

__all__ = ["Candidate", "select"]
