"""What a worker reads of an answer, whatever a master sent."""

import pytest

from flq.worker.answers import Answer, json_of, natural


def document_of(content):
    return json_of(Answer(200, {}, content))


@pytest.mark.parametrize("content, document", [
    (b'{"a": 1}', {"a": 1}),
    (b'{"a": "[[[[[[[[[[[["}', {"a": "[" * 12}),
    (b'{"a": "\\"[[[[[[[[[[[["}', {"a": '"' + "[" * 12}),
    (b'{"a": "\\\\", "b": [[[[[[[]]]]]]]}', {"a": "\\", "b": [[[[[[[]]]]]]]}),
    (b'{"a": "\\\\", "b": [[[[[[[[]]]]]]]]}', None),
    (b"[" * 9 + b"]" * 9, None),
    (b"[]", None), (b"5", None), (b"", None), (b"\xff", None), (b'{"a": ', None),
    (b"{}" + b"\\[" * 100000, None),
])
def test_only_an_object_that_is_not_deep_is_one(content, document):
    assert document_of(content) == document


@pytest.mark.parametrize("content", [b'"' + b'\\"' * 2**19, b'{"a": "' + b"\\\n" * 2**19,
                                     b'"' * 2**20, b"[" * 2**20])
def test_an_answer_as_long_as_one_can_be_is_looked_through_once(content):
    """Each quote with the rest of the text behind it would take hours, and no signal ends that."""
    assert document_of(content) is None


@pytest.mark.parametrize("text, number", [("0", 0), ("17", 17), ("", None), ("-1", None),
                                          ("1.5", None), ("9" * 19, None), ("1\n", None),
                                          ("\u0663", None)])
def test_a_natural_number_is_digits(text, number):
    assert natural(text) == number
