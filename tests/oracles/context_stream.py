"""What a stream that was coded beside a history says, from its description (protocol.md 2)."""

import functools
import zlib

from tests.oracles import bit_stream, rans


def activity_means():
    """What the 256 activities stand for: 4 binary digits behind the first one."""
    return [code if code < 16 else (16 + code % 16) * 2 ** (code // 16 - 1) for code in range(256)]


@functools.lru_cache(maxsize=None)
def by_distance(top):
    """The levels 0 .. top without a sign: at distance 0, 1, 2 ... With a middle the upper ones."""
    upper = list(range((top + 1) // 2, top + 1))
    if top % 2 == 0:
        return upper
    return [level for high in upper for level in (high, top - high)]


def distance(level, top):
    return by_distance(top).index(max(level, top - level) if top % 2 == 0 else level)


def next_activity(activity, levels, top):
    means = activity_means()
    found = []
    for code, level in zip(activity, levels):
        after = 15 * means[code] // 16 + 256 * min(
            127, max(level, top - level) - (top + 1) // 2)
        found.append(max(code for code in range(256) if means[code] <= after))
    return found


def decode(stream, activity, bits, top):
    """The levels of a good stream."""
    assert stream[:4] == zlib.crc32(bytes(activity)).to_bytes(4, "little")
    place, count = 4, len(activity)
    classes = max(1, min(16, count // 512))
    lengths = [count * (c + 1) // classes - count * c // classes for c in range(classes)]
    planes = []
    for _ in range(min(15, len(by_distance(top)) - 1)):
        ones = []
        for length in lengths:
            number, shift = 0, 0
            while length:
                number += (stream[place] % 128) << shift
                shift, place = shift + 7, place + 1
                if stream[place - 1] < 128:
                    break
            ones.append(number)
        planes.append((lengths, ones))
        lengths = ones
    sources = [(ones, length) for plane in planes for length, ones in zip(*plane)
               if 0 < ones < length]
    rows = [row for row, (_, length) in enumerate(sources) for _ in range(-(-length // 8))]
    seed_bytes = 3 * min(1024, -(-len(rows) // 400))
    num_signs = sum(planes[0][1]) if top % 2 == 0 else 0
    more = max(0, -(-num_signs // 8) - seed_bytes)
    far = sum(planes[14][1]) if len(by_distance(top)) > 16 else 0
    excess_bytes = -(-far * bits // 8)
    excess = bit_stream.unpack(stream[place + more:place + more + excess_bytes], far, bits)
    values, seeds = rans.decode(stream[place + more + excess_bytes:], rows,
                                [rans.frequencies(*source) for source in sources])
    texts = "".join(f"{byte:08b}" for byte in values)
    signs = "".join(f"{byte:08b}" for byte in seeds + stream[place:place + more])
    distances = [0] * count
    here = list(range(count))
    for lengths, all_ones in planes:
        bits_of_plane = ""
        for length, ones in zip(lengths, all_ones):
            if 0 < ones < length:
                bits_of_plane += texts[:length]
                texts = texts[-(-length // 8) * 8:]
            else:
                bits_of_plane += ("1" if ones else "0") * length
        here = [index for index, bit in zip(here, bits_of_plane) if bit == "1"]
        for index in here:
            distances[index] += 1
    if far:
        for index, rest in zip(here, excess):
            distances[index] += rest
    order = sorted(range(count), key=lambda index: (activity[index], index))
    levels = [0] * count
    signs = iter(signs)
    reached = by_distance(top)
    for index, away in zip(order, distances):
        levels[index] = reached[away]
        if top % 2 == 0 and away and next(signs) == "1":
            levels[index] = top - levels[index]
    return levels
