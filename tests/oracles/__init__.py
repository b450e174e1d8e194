"""Slow second opinions: plain loops over Python floats, written from docs/algorithm.md and the
papers it cites.

An oracle never imports flq, so that the same mistake would have to be made twice. Vectors are lists
of floats. A float32 operation is computed in double and rounded once: for + - * / and the square
root of float32 operands that gives the float32 result exactly (53 >= 2 x 24 + 2, Figueroa 1995).
"""
