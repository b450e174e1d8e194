"""The worker process: a loop around the worker machine, a client for the master, a state that
survives.
"""
