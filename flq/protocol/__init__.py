"""How machines talk: bytes, messages and the two state machines that own all of time.

No socket, clock, thread or file may enter here: time and bytes are arguments.
"""

PROTOCOL_VERSION = 1
