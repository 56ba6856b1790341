"""The published schema of the messages, as something to check messages against."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker

PATH = Path(__file__).resolve().parent.parent / "docs" / "asyncapi.yaml"
FROM_SERVER = {
    **{name: name for name in ("hello", "expression", "activity", "status", "signal", "heartbeat", "error", "removed", "pong")},
    "node": "node",
    "preview": "previewHeader",
}
FROM_CLIENT = {"subscribe": "subscribe", "preview": "previewRequest", "ping": "ping", "camera": "camera"}


@cache
def document() -> dict[str, Any]:
    """The whole file."""
    return dict(yaml.safe_load(PATH.read_text(encoding="utf-8")))


@cache
def validator(schema: str) -> Draft202012Validator:
    """The validator of one of the document's schemas."""
    return Draft202012Validator({**document(), "$ref": f"#/components/schemas/{schema}"}, format_checker=FormatChecker())


def problems(message: dict[str, Any], schemas: dict[str, str] = FROM_SERVER) -> list[str]:
    """What the schema has against a message; nothing if it fits."""
    name = schemas.get(str(message.get("type")))
    if name is None:
        return [f"no message is of type {message.get('type')!r}"]
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(message)]
