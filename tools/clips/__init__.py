"""Rendered clips with known truth: the yardstick of spotting.

    spec.py     what to render (ClipSpec, presets) and what is true of it (Truth)
    plan.py     seed -> events, blinks and frame times
    portrait.py photographs with points found by hand, reshaped faces
    actions.py  facial actions as displacement fields, two families of warps
    lids.py     blinks
    motion.py   head motion and light over time
    render.py   spec -> frames
    write.py    spec -> H.264 file, truth in JSON, contact sheet

Nothing here uses a detector, landmarks or any other part of `engine` but its types and errors, so that the renderer stays
independent of what it judges.
"""

from tools.clips.plan import plan
from tools.clips.render import render_frames
from tools.clips.spec import PHOTOS, ClipSpec, Truth, preset
from tools.clips.write import contact_sheet, write_clip

__all__ = ["PHOTOS", "ClipSpec", "Truth", "contact_sheet", "plan", "preset", "render_frames", "write_clip"]
