"""The master process (Python 3.9 or newer): one service that owns the run, and HTTP around it."""
