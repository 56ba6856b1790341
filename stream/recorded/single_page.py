"""A page that is one file: style and scripts are in it, and nothing else may run or be requested."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources

THEME = "dashboard/theme.js"
"""The script that chooses light or dark before the page is painted."""


def packaged(name: str) -> str:
    """The text of a file of this package, such as dashboard/style.css."""
    return (resources.files("stream") / name).read_text(encoding="utf-8")


def filled(template: str, named: dict[str, str]) -> str:
    """The template with each {{name}} replaced. Raises KeyError for a name that is not there."""
    first, *rest = template.split("{{")
    pieces = [first]
    for part in rest:
        name, _, after = part.partition("}}")
        pieces += [named[name], after]
    return "".join(pieces)


def policy(styles: Iterable[str], scripts: Iterable[str]) -> str:
    """A content security policy that allows inline styles and scripts of just this text, and pictures that are in the page."""
    style, script = (" ".join(map(_hash, texts)) for texts in (styles, scripts))
    return f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
