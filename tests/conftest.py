"""What all tests share: where real data lies, what programs find in their environment, and that nothing is skipped silently."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from engine.mesh import bundle

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("APEXSTREAM_DATA", ROOT.parent / "shared" / "data"))
IN_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")


# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; only for tests marked `data`."""
    return DATA


LSL_SETTINGS = """
[lab]
KnownPeers = {{127.0.0.1}}
SessionID = {session}
[multicast]
ResolveScope = machine
[log]
level = -3
"""


def pytest_configure(config: pytest.Config) -> None:
    """The face model, which most tests need, stays where it is while tests give programs data folders of their own. The Lab
    Streaming Layer stays on this machine, in a session that tests of other processes do not see. One thread for each process:
    where several processes test, threads that wait for each other cost many times the time of the work itself."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    where = bundle.place().path
    if not where.is_file():
        pytest.exit(f"the face model {where} is missing; `bash tools/test` and `{bundle.FETCH}` fetch it", returncode=4)
    os.environ[bundle.VARIABLE] = str(where)
    folder = tempfile.TemporaryDirectory(prefix="apexstream-lsl-")
    config.add_cleanup(folder.cleanup)
    settings = Path(folder.name, "lsl_api.cfg")
    settings.write_text(LSL_SETTINGS.format(session=uuid.uuid4().hex))
    os.environ["LSLAPICFG"] = str(settings)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_data = pytest.mark.skip(reason=f"no real data at {DATA}; APEXSTREAM_DATA can name its folder")
    no_gpu = pytest.mark.skip(reason="no NVIDIA GPU here (nvidia-smi is not found)")
    has_gpu = shutil.which("nvidia-smi") is not None
    for item in items:
        if "data" in item.keywords and not DATA.is_dir():
            item.add_marker(no_data)
        if "gpu" in item.keywords and not has_gpu:
            item.add_marker(no_gpu)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration a skipped test is a failed one, unless it needs a GPU."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and "gpu" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Likewise for a file that skips itself as a whole."""
    report = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def rendered_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds of a rendered face with expressions, a truth file beside it: DIR/clip.mp4, DIR/clip.truth.json."""
    from apexstream.clips import preset, write_clip

    path = tmp_path_factory.mktemp("rendered") / "clip.mp4"
    write_clip(preset("benchmark", seed=0, duration_s=8, n_events=3), path)
    return path
