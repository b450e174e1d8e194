"""An answer of a master as it came, and what can be read of it whatever it is."""

import json
import re
from typing import Any, Dict, Mapping, NamedTuple, Optional

from flq.protocol.messages import MAX_DEPTH


class Answer(NamedTuple):
    """An answer that came whole."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


def json_of(response: Answer) -> Optional[Dict[str, Any]]:
    """The JSON object that came, None when it is none."""
    if _is_deep(response.content):  # too deep for any answer, and Python 3.6 can die of it
        return None
    try:
        document = json.loads(response.content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def natural(text: str) -> Optional[int]:
    """The number that a header says in digits; None for any other value."""
    return int(text) if re.match(r"[0-9]{1,18}\Z", text) else None


def _is_deep(data: bytes) -> bool:
    """Whether brackets and braces are nested beyond MAX_DEPTH, those in texts left out."""
    depth, in_text = 0, False
    # An expression for a whole text would begin anew at each quote of one that does not end.
    for match in re.finditer(br'\\.|["\[\]{}]', data, re.DOTALL):
        mark = match.group()
        if mark == b'"':
            in_text = not in_text
        elif not in_text:
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark, 0)
            if depth > MAX_DEPTH:
                return True
    return False
