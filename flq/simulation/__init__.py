"""Master and workers in one process: the same service, the same worker loop, no network in between.
"""
