"""zlib streams, honest and damaged, and what the compiled passes make of them beside zlib."""

import itertools
import zlib

import numpy as np

LENGTHS = (0, 1, 2, 3, 255, 1000, 32766, 32767, 32768, 40000, 2 * 32767, 2 * 32767 + 1)


def plains(lengths=LENGTHS):
    """uint8[n] as levels are: noise of every width, few values, and a code that grows too long."""
    for length in lengths:
        dice = np.random.RandomState(length)
        for deviation in (0.3, 2, 20, 60):
            levels = np.clip(128 + deviation * dice.standard_normal(length), 0, 255)
            yield levels.astype(np.uint8)
        for most in (1, 2, 5, 256):
            yield dice.randint(0, most, length).astype(np.uint8)
        # Each value about 1.6 times as often as the one before: Huffman's code is a chain, longer
        # than a code may be.
        steps = np.cumsum((1.618 ** np.arange(21) / 5 ** 0.5 + 0.5).astype(int))
        yield np.searchsorted(steps, np.arange(length) % steps[-1], "right").astype(np.uint8)


def deflated(plain, level=9, strategy=zlib.Z_HUFFMAN_ONLY, bits=15):
    coder = zlib.compressobj(level, zlib.DEFLATED, bits, 9, strategy)
    return coder.compress(plain.tobytes()) + coder.flush()


def every_kind(plain):
    """Streams of it that a worker could send: with codes of its own or fixed ones, with matches,
    stored, of several blocks.
    """
    for level, strategy in itertools.product((0, 1, 9), (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, 4, 0)):
        yield deflated(plain, level, strategy)
    yield deflated(plain, bits=9)
    coder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    parts = [plain[:plain.size // 3], plain[plain.size // 3:]]
    yield b"".join(coder.compress(part.tobytes()) + coder.flush(how) for part, how in zip(
        parts, (zlib.Z_FULL_FLUSH, zlib.Z_FINISH)))


def damaged(stream, seed, times):
    """The stream with bits turned, bytes lost or added, another header, or parts repeated."""
    dice = np.random.RandomState(seed)
    for number in range(times):
        data, place = bytearray(stream), dice.randint(len(stream))
        early = dice.randint(min(len(stream), 120))  # where the codes are
        kind = number % 6
        if kind == 0:
            data[early] ^= 1 << dice.randint(8)
        elif kind == 1:
            data[place] = dice.randint(256)
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            data[early:early] = dice.bytes(dice.randint(1, 9))
        elif kind == 4:
            data += dice.bytes(dice.randint(1, 20))
        else:
            data[early:] = dice.bytes(len(data) - early)
        yield bytes(data)


def mended(stream):
    """A damaged stream with the check sum of what its codes stand for now, where they stand for
    something: (stream, length).
    """
    decoder = zlib.decompressobj(-15)
    try:
        plain = decoder.decompress(stream[2:])
    except zlib.error:
        return stream, 0
    body = stream[2:len(stream) - len(decoder.unused_data)]
    return stream[:2] + body + zlib.adler32(plain).to_bytes(4, "big"), len(plain)


def inflated(stream, length):
    """What zlib makes of a stream that must be whole and hold so many bytes; None of any other."""
    decoder = zlib.decompressobj()
    try:
        plain = decoder.decompress(stream, length + 1)
    except zlib.error:
        return None
    whole = decoder.eof and not decoder.unused_data and not decoder.unconsumed_tail
    return plain if whole and len(plain) == length else None


def read_like_zlib(compiled, stream, length):
    """Whether the compiled reader left the stream to zlib, or gave what zlib gives."""
    found = compiled.inflate_literals(stream, length)
    return found is None or found.tobytes() == inflated(stream, length)


def wrong(compiled, lengths=LENGTHS, times=60):
    """What is not as zlib does it, in words."""
    for number, plain in enumerate(plains(lengths)):
        if compiled.deflate_literals(plain) not in (None, deflated(plain)):
            yield f"plain {number}: written otherwise"
        for kind, stream in enumerate(every_kind(plain)):
            for one in (stream, *damaged(stream, kind, times)):
                tries = [(one, plain.size + more) for more in (0, 1, -1)] + [mended(one)]
                if not all(read_like_zlib(compiled, *each) for each in tries if each[1] >= 0):
                    yield f"plain {number}, stream {kind}: read otherwise"
