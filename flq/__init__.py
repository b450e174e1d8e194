"""FLQ: federated learning where the network is the bottleneck.

Read the packages in the order of tests/test_layers.py: words first, then what is computed
(compression, algorithm), then how machines talk (protocol), then who does it (worker, master).
"""

__version__ = "0.1.0"
