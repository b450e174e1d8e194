"""What a round computes (algorithm.md): pure NumPy functions of their arguments.

No clock, no files, no threads, no logging, no global random state may enter here, so that
simulation, HTTP, replay and tests run the same code. Read round.py first: it is the table of
contents.
"""
