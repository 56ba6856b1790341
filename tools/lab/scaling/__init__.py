"""How far apexstream scales: what its parts cost, measured, and a simulation of many machines on those figures.

    measure.py   one frame's service times, storing, Redis, bytes: into a record
    figures.py   that record and those of benchmarks and soaks, as numbers for the rest
    node.py      one machine, frame by frame: cores, processes, queues of frames, drops
    fleet.py     events of all machines, one by one: nodes, Redis, the hub, a browser
    tables.py    machines against hours of video, cameras, bytes, costs
    picture.py   the picture of docs/scaling.md

`python -m lab.scaling --help`. Every random draw comes from a seed.
"""
