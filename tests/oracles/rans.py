"""Asymmetric numeral systems with Python's integers, one byte at a time (protocol.md 2)."""


def frequencies(ones, length):
    """(byte, frequency, where it begins), in the order in which bytes begin."""
    q = min(65535, max(1, ones * 65536 // length))

    def powers(factor):
        found = [2 ** 30]
        for _ in range(8):
            found.append(found[-1] * factor // 2 ** 16)
        return found

    one, zero = powers(q), powers(65536 - q)
    by_ones = [max(1, one[k] * zero[8 - k] // 2 ** 45) for k in range(9)]
    found = {byte: by_ones[bin(byte).count("1")] for byte in range(256)}
    found[0 if q < 32768 else 255] += 32768 - sum(found.values())
    table, start = [], 0
    for byte in sorted(range(256), key=lambda byte: (bin(byte).count("1"), byte)):
        table.append((byte, found[byte], start))
        start += found[byte]
    return table


def decode(stream, rows, tables):
    """rows: the source of each byte -> the bytes, and the 3 seed bytes of each lane."""
    lanes = min(1024, -(-len(rows) // 400))
    states = [int.from_bytes(stream[5 * lane:5 * lane + 5], "little") for lane in range(lanes)]
    words = [int.from_bytes(stream[place:place + 2], "little")
             for place in range(5 * lanes, len(stream), 2)]
    values = []
    for step in range(0, len(rows), lanes or 1):
        here = rows[step:step + lanes]
        for lane, row in enumerate(here):
            slot = states[lane] % 32768
            value, frequency, start = next(
                entry for entry in tables[row] if entry[2] <= slot < entry[2] + entry[1])
            values.append(value)
            states[lane] = frequency * (states[lane] // 32768) + slot - start
        for lane in range(len(here)):
            if states[lane] < 2 ** 24:
                states[lane] = states[lane] * 65536 + words.pop(0)
    assert not words and all(2 ** 24 <= state < 2 ** 25 for state in states)
    return values, b"".join((state - 2 ** 24).to_bytes(3, "little") for state in states)
