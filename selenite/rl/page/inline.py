"""What stands inside the page: JSON that cannot leave its element, and hashes that name the only
styles and scripts a browser may use there (Content Security Policy, level 3)."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any


def to_json(value: Any) -> str:
    """JSON in ASCII without ``<``: no text in it can end a script element or begin a comment.

    ``value`` has no NaN (``number``).
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def number(value: float, digits: int = 5) -> float | None:
    """A number in few digits; none for what JSON has no number for."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def policy(style: str, scripts: list[str]) -> str:
    """Nothing is loaded, nothing is sent, and no other script or style counts than these."""
    allowed = " ".join(map(_source, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
