"""`python -m apexstream.bench gpu`: checks and times on a borrowed GPU, in order of worth, within a time budget.

run.py          one check after the other, while there is time
check.py        what a check is
record.py       the results on disk, and on what they were measured
pictures.py     pairs of pictures with motion between them, by numpy alone
correctness.py  flow, strain and network inputs beside their readable equivalents
speed.py        the time of flows
answers.py      the time from crops to network inputs and to probabilities
fitting.py      evaluations of published recipes, as far as the time goes

Nothing here needs more than numpy, PyTorch and Triton at its import.
"""

from __future__ import annotations

PARTS = ("correctness", "timing", "candidates", "chain", "training")
"""In order of worth."""
