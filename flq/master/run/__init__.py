"""A run as its master knows it: values and steps, without locks, threads, sockets or clocks."""
