"""Clips with known truth, the yardstick of spotting: rendered ones, and videos of people with expressions put in.

    spec.py     what to render (ClipSpec, presets) and what is true of it (Truth)
    plan.py     seed -> events, blinks and frame times
    portrait.py photographs with points found by hand, reshaped faces
    actions.py  facial actions as displacement fields, two families of warps
    lids.py     blinks
    motion.py   head motion and light over time
    render.py   spec -> frames
    write.py    spec -> H.264 file, truth in JSON, contact sheet
    follow.py   video -> the largest face as a portrait in every frame, and where it can be trusted
    injection.py   video -> the same with known expressions put into that face

The renderer uses no detector, landmarks or any other part of `engine` but its types and errors, so that it stays independent
of what it judges. Only follow.py uses the engine's face mesh: it needs to know where the brows of a filmed face are.
"""

from apexstream.clips.injection import put_into
from apexstream.clips.plan import plan
from apexstream.clips.render import render_frames
from apexstream.clips.spec import PHOTOS, ClipSpec, IntoSpec, Truth, preset
from apexstream.clips.write import contact_sheet, write_clip

__all__ = [
    "PHOTOS",
    "ClipSpec",
    "IntoSpec",
    "Truth",
    "contact_sheet",
    "plan",
    "preset",
    "put_into",
    "render_frames",
    "write_clip",
]
