from __future__ import annotations

import pytest

from stream.settings import TOKEN_VARIABLE


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """No access token in the environment."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
