"""The rendered benchmark: clips with known truth through the whole pipeline. `python -m tools.bench_clips --help`.

__main__.py      the commands and their options
jobs.py          many clips in worker processes, one JSON line each, resumable
watch.py         one clip: rendered, encoded, decoded, through the pipeline -> what was found beside what is true
score.py         records -> figures, pooled and by group
registration.py  how still a still face is held, against its exact geometry
tables.py        figures -> tables and lists on the terminal
"""
