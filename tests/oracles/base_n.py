"""What goes into the entropy coder: digits in base n, or two byte planes (algorithm.md 2)."""


def digits_per_byte(n):
    """The largest m <= 8 with n^m <= 256; 0 where one level needs more than a byte."""
    fitting = [m for m in range(1, 9) if n ** m <= 256]
    return fitting[-1] if fitting else 0


def plain_bytes(levels, n):
    """The first level of a byte is its least significant digit; the last byte is filled with zero
    digits.
    """
    m = digits_per_byte(n)
    if m == 0:
        return bytes([level % 256 for level in levels] + [level // 256 for level in levels])
    padded = list(levels) + [0] * (-len(levels) % m)
    return bytes([
        sum(padded[start + place] * n**place for place in range(m))
        for start in range(0, len(padded), m)
    ])
