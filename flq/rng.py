"""All randomness of FLQ: counter-based, the same words on every NumPy, CPU and Python.

Philox (Salmon et al. 2011) with key = [seed, purpose] and counter = [0, 0, worker, round]. Only
`random_raw` is used: what NumPy's Generator makes of the words differs between its versions.
"""

import numpy as np

# One number per use, so that no two uses see the same words. Never renumber: runs would change.
INIT = 1        # initial weights
PARTITION = 2   # order of the samples before they are dealt out, draws of who gets which
BATCHES = 3     # local batch order of one worker in one round
UPLINK = 4      # stochastic rounding and drawn signs of one worker in one round
DOWNLINK = 5    # drawn signs of the master in one round
DIRICHLET = 6   # the table of class proportions of the non-iid partition
SKETCH = 7      # buckets and signs of the sketches of references


class Stream(object):
    """The random words of one (seed, purpose, worker, round), drawn in order."""

    def __init__(self, seed: int, purpose: int, worker: int = 0, round_: int = 0) -> None:
        self._bits = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64),
                                      counter=np.array([0, 0, worker, round_], dtype=np.uint64))

    def raw(self, n: int) -> np.ndarray:
        """n words, uint64[n]."""
        return self._bits.random_raw(n)

    def uniform(self, n: int) -> np.ndarray:
        """n numbers of [0, 1) with 24 random bits each, float64[n] (exact in float32 too)."""
        return (self.raw(n) >> np.uint64(40)).astype(np.float64) * 2.0 ** -24

    def permutation(self, n: int) -> np.ndarray:
        """A permutation of 0..n-1, int64[n]: the stable order of n random words."""
        return np.argsort(self.raw(n), kind="stable")

    def generator(self) -> np.random.Generator:
        """NumPy's own distributions on this stream.

        Not portable: only for the Dirichlet table, whose result is hashed.
        """
        return np.random.Generator(self._bits)
