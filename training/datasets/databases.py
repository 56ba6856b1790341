"""The databases that can be prepared, by short name."""

from __future__ import annotations

from training.datasets import casme2, casme3, samm, smic
from training.datasets.clips import Database

DATABASES: dict[str, Database] = {each.DATABASE.name: each.DATABASE for each in (casme2, samm, smic, casme3)}
