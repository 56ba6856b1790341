"""The bench of real clips: videos with little or no truth through the pipeline. `python -m lab.clip_bench real --help`.

folder.py    a folder of videos, its manifest.csv, labels.csv and truth files -> clips
watch.py     one clip through the pipeline -> its events, and a strip of pictures for each
score.py     clips and events -> figures by kind of clip and by person
page.py      clips, events and strips -> an HTML page
command.py   the command, and figures -> tables on the terminal
"""
