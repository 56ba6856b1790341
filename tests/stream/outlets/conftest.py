"""LSL on this machine alone, in a session of its own, so that tests that run side by side do not see each other's streams."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture(scope="session")
def lsl() -> object:
    import pylsl

    pylsl.set_config_content(
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = {uuid.uuid4().hex}\n[multicast]\nResolveScope = machine\n"
        "[log]\nlevel = -3\n"
    )
    return pylsl
