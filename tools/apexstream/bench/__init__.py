"""What `apexstream bench` measures, all of it in one run on one machine; on_gpu/ is what `python -m apexstream.bench gpu` does.

machine.py        the machine that is measured
timing.py         how a call is timed, on the processor and on the GPU
stages.py         each stage from frame to event, beside the library call that one would write instead
baseline.py       the script that one would write with the usual libraries
whole.py          a video analysed, beside the baseline
gpu.py            TV-L1 on the GPU, beside OpenCV's
floor.py          the least time in which a GPU could solve a batch of flows
camera.py         network cameras that show a rendered clip
live_process.py   the live service in a process of its own
service.py        the live service under such cameras, and when its client received each event
report.py         the figures in rows, with their targets
"""
