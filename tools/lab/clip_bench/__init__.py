"""The benchmarks on clips, rendered ones with known truth and real ones. `python -m lab.clip_bench --help`.

__main__.py      the commands and their options
jobs.py          many clips in worker processes, one JSON line each, resumable
watch.py         one clip: rendered, encoded, decoded, through the pipeline -> what was found beside what is true
score.py         records -> figures, pooled and by group
registration.py  how still a still face is held, against its exact geometry
tables.py        figures -> tables and lists on the terminal
terminal.py      a run on the terminal: progress, failures, the record of the figures
real/            real clips: what is found in a folder of videos, as figures and as an HTML page
"""
