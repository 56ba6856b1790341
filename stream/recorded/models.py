"""The models of the pipeline, loaded once for any number of videos, one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine import Pipeline, mesh
from engine.config import PipelineSettings
from engine.faces.landmarks import FaceLocator
from engine.mesh import MeshModels
from engine.recognition.recognizer import Recognizer


class Models:
    """Loaded in parallel where they are first needed; `close` frees them."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._settings = settings
        self._loaded: tuple[Recognizer, MeshModels] | None = None

    def pipeline(self, stream: str) -> Pipeline:
        """A pipeline that knows no face yet, for the source of that name; closing it keeps the models. Only one of these
        pipelines may run at a time.

        The code of the flow may still be loading: the first expression waits for it. Raises BackendError or WeightsError.
        """
        if self._loaded is None:
            self._loaded = self._load()
        recognizer, faces = self._loaded
        locator = FaceLocator(self._settings.landmarks, faces)
        return Pipeline(self._settings, stream=stream, recognizer=recognizer, locator=locator)

    def close(self) -> None:
        """Free the models; they are loaded again where they are needed again."""
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None

    def _load(self) -> tuple[Recognizer, MeshModels]:
        with ThreadPoolExecutor(1, "load") as pool:
            faces = pool.submit(self._load_faces)
            try:
                recognizer = Recognizer(self._settings.recognizer, prepared=False)
            except BaseException:
                faces.result().close()
                raise
            loaded = recognizer, faces.result()
        preparing = ThreadPoolExecutor(1, "load")
        preparing.submit(recognizer.prepare)  # an error is raised again by the first expression
        preparing.shutdown(wait=False)
        return loaded

    def _load_faces(self) -> MeshModels:
        settings = self._settings.landmarks
        models = mesh.load(settings.model, settings.backend)
        FaceLocator(settings, models).prepare()
        return models
