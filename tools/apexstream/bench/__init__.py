"""What `apexstream bench` measures, all of it in one run on one machine.

machine.py        the machine that is measured
stages.py    each stage of the way, beside the library call that one would write instead
whole.py     a video analysed, beside `apexstream.bench.baseline`
camera.py    network cameras that show a rendered clip
service.py   the live service, as a user starts it, under such cameras
report.py    the figures in rows, with what was aimed at
"""
