import pytest

from flq.reports.terminal import (
    clip,
    columns,
    display_width,
    format_bits,
    format_bytes,
    format_duration,
    format_percent,
    format_ratio,
)


@pytest.mark.parametrize("bits, text", [(None, "-"), (0, "0 bit"), (999, "999 bit"),
                                        (1000, "1.00 kbit"), (12345, "12.3 kbit"),
                                        (999499, "999 kbit"), (999500, "1.00 Mbit"),
                                        (12345678, "12.3 Mbit"), (6.94e9, "6.94 Gbit"),
                                        (10**18, "1.00e+03 Pbit"), ])
def test_bits(bits, text):
    assert format_bits(bits) == text


def test_bytes_are_an_eighth_of_the_bits():
    assert format_bytes(12345678) == "1.54 MB"
    assert format_bytes(80) == "10 B"
    assert format_bytes(None) == "-"


@pytest.mark.parametrize("ratio, text", [(None, "-"), (7.96, "8.0x"), (99.94, "99.9x"),
                                         (99.96, "100x"), (12345.6, "12,346x")])
def test_ratio(ratio, text):
    assert format_ratio(ratio) == text


@pytest.mark.parametrize("seconds, text", [(None, "-"), (0, "0.00 s"), (0.0451, "0.0451 s"),
                                           (1.234, "1.23 s"), (59.94, "59.9 s"),
                                           (59.96, "1 min 00 s"), (725, "12 min 05 s"),
                                           (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"),
                                           (11100, "3 h 05 min"), (100 * 3600, "100 h 00 min"), ])
def test_duration(seconds, text):
    assert format_duration(seconds) == text


def test_percent():
    assert format_percent(0.9611) == "96.11 %"
    assert format_percent(None) == "-"


def test_cjk_letters_take_two_columns_and_marks_none():
    assert display_width("round") == 5
    assert display_width("轮次") == 4
    assert display_width("e\u0301\u200b") == 1


def test_clip_never_cuts_a_letter_in_half():
    assert clip("轮次数", 5) == "轮次"
    assert clip("轮次数", 6) == "轮次数"
    assert clip("abc", 0) == ""


def test_clip_lets_no_control_character_through():
    assert clip("a\x1b[2J\r\n\u202eb", 20) == "a [2J   b"


def test_columns_align_by_width():
    assert columns([["", "up"], ["轮次", "12"], ["a", "3"]]) == "      up\n轮次  12\na      3"
