"""Levels as one stream of bits, least significant bit first, padded once with zeros (algorithm.md
2, protocol.md 2).
"""


def pack(levels, b):
    stream = []
    for level in levels:
        for position in range(b):
            stream.append(level >> position & 1)
    while len(stream) % 8:
        stream.append(0)
    packed = []
    for start in range(0, len(stream), 8):
        byte = 0
        for position in range(8):
            byte += stream[start + position] << position
        packed.append(byte)
    return bytes(packed)


def unpack(packed, n, b):
    stream = []
    for byte in bytearray(packed):
        for position in range(8):
            stream.append(byte >> position & 1)
    levels = []
    for i in range(n):
        level = 0
        for position in range(b):
            level += stream[i * b + position] << position
        levels.append(level)
    return levels
