"""JSON of a run that may be somebody else's: numbers that nobody can draw are refused. Standard
library only.
"""

import json
import math
from pathlib import Path
from typing import Any, Dict

from flq.errors import DataError


def read_object(path: Path) -> Dict[str, Any]:
    """The JSON object in a file. Raises DataError with its path."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file, parse_float=_number, parse_constant=_number)
    except OSError as error:
        raise DataError(f"cannot read {path}", got=error.strerror,
                        hint="name the folder of a run, results/<run_id>") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged", "JSON as FLQ writes it", error) from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged", "a JSON object", type(value).__name__)
    return value


def _number(text: str) -> float:
    """A finite number; raises ValueError."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]}")
    return value


def fits(value: Any) -> bool:
    """Whether a value, or each of a list, is no integer beyond 64 bits, with which no table and no
    picture could go on.
    """
    if isinstance(value, list):
        return all(map(fits, value))
    return not isinstance(value, int) or -2**63 <= value < 2**63
