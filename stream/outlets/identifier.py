"""Names of sources as other systems take them in topics and identifiers."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache


@lru_cache(maxsize=256)
def identifier(text: str) -> str:
    """The text in letters, digits, _ and -, as topics of discovery need; texts that differ have identifiers that differ."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", ascii_text).strip("-")
    if plain == text and plain:
        return plain
    return f"{plain or 'source'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
