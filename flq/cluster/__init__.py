"""The work of a simulation or a sweep on a Ray cluster: the only package that knows Ray.

    pip install "flq[ray]"
"""
