"""How numbers and columns read on a terminal: units, and widths where a CJK letter takes two
columns.
"""

import unicodedata
from typing import Optional, Sequence

from flq.errors import printable

_PREFIXES = "kMGTP"


def format_bits(bits: Optional[int]) -> str:
    """12345678 -> 12.3 Mbit (1 Mbit is 10^6 bits); None -> -."""
    return "-" if bits is None else _with_prefix(bits, "bit")


def format_bytes(bits: Optional[int]) -> str:
    """The same amount in bytes: 12345678 bits -> 1.54 MB (10^6 bytes)."""
    return "-" if bits is None else _with_prefix(bits / 8, "B")


def format_ratio(ratio: Optional[float]) -> str:
    """7.96 -> 8.0x; None -> -."""
    if ratio is None:
        return "-"
    return f"{ratio:.1f}x" if ratio < 99.95 else f"{ratio:,.0f}x"


def format_duration(seconds: Optional[float]) -> str:
    """1.234 -> 1.23 s, 725 -> 12 min 05 s, 11100 -> 3 h 05 min; None -> -."""
    if seconds is None:
        return "-"
    if seconds < 59.95:
        return _three_digits(seconds) + " s"
    if seconds < 3599.5:
        return "{} min {:02d} s".format(*divmod(round(seconds), 60))
    return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))


def format_percent(fraction: Optional[float]) -> str:
    """0.9611 -> 96.11 %; None -> -."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(_letter_width(letter) for letter in text)


def clip(text: str, width: int) -> str:
    """The start of a text that fits into `width` columns.

    Control characters, which could move the cursor, become spaces.
    """
    clipped, taken = [], 0
    for letter in text:
        letter = letter if letter.isprintable() else " "
        taken += _letter_width(letter)
        if taken > width:
            break
        clipped.append(letter)
    return "".join(clipped)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of texts -> lines with aligned columns, the first one to the left and the others to the
    right. Control characters become spaces, as in `clip`.
    """
    rows = [[printable(text).replace("\n", " ") for text in row] for row in rows]
    widths = [max(display_width(text) for text in column) for column in zip(*rows)]
    lines = []
    for row in rows:
        spaces = [" " * (width - display_width(text)) for text, width in zip(row, widths)]
        cells = [row[0] + spaces[0]] + [space + text for space, text in zip(spaces[1:], row[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _with_prefix(value: float, unit: str) -> str:
    if value < 1000:
        return f"{value:.0f} {unit}"
    power = 0
    while value >= 999.5 and power < len(_PREFIXES):
        value /= 1000
        power += 1
    return f"{_three_digits(value)} {_PREFIXES[power - 1]}{unit}"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _letter_width(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
