"""Long runs that show what a short test cannot: `python -m tests.soak.NAME --help` says what each does."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

for _folder in (f"{ROOT / 'tools'}", f"{ROOT}"):  # this checkout is run, whatever is installed
    if _folder in sys.path:
        sys.path.remove(_folder)
    sys.path.insert(0, _folder)
