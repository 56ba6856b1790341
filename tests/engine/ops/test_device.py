"""Whether Triton kernels can run here, and what a GPU that fails is turned into."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import BackendError
from engine.ops import device


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    device._refusal.cache_clear()


def test_without_a_driver_torch_is_not_even_imported() -> None:
    script = (
        "import sys, ctypes\n"
        "ctypes.CDLL = lambda name: (_ for _ in ()).throw(OSError(name))\n"
        "from engine.ops import device\n"
        "print(device.refusal(), 'torch' in sys.modules, 'triton' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "no CUDA GPU: this machine has no NVIDIA driver False False"


@pytest.mark.parametrize("missing", ["torch", "triton"])
def test_a_missing_package_is_named_with_what_installs_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_driver", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: None if name == missing else object())
    reason = device.refusal()
    assert reason is not None
    assert reason.startswith(f"{missing} is not installed")
    assert "apexstream[gpu]" in reason


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(device, "_driver", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA GPU" in str(device.refusal())


def test_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(device, "_driver", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GeForce GTX 1080")
    assert "GeForce GTX 1080 is older than compute capability 8.0" in str(device.refusal())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    device._refusal.cache_clear()
    assert device.refusal() is None


@pytest.mark.usefixtures("kernels")
def test_kernels_run_where_device_home_says() -> None:
    assert device.refusal() is None
    assert device.current_device().type == ("cpu" if device.interpreted() else "cuda")


def test_running_out_of_memory_is_reported_in_one_sentence() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    with (
        pytest.raises(BackendError, match=r"^Flow of 3 needs more memory than the GPU has free$"),
        device.translated("Flow of 3"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore")


class _BrokenTorch:
    """A torch whose libraries cannot be loaded."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "torch":
            raise self.error


@pytest.mark.parametrize("error", [OSError("libtorch_cuda.so: cannot open shared object file"), ImportError("no numpy")])
def test_a_torch_that_cannot_be_loaded_is_a_reason(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_driver", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_BrokenTorch(error), *sys.meta_path])
    assert device.refusal() == f"torch cannot be loaded ({error}); reinstall it"


@pytest.mark.parametrize(
    "error",
    [
        subprocess.CalledProcessError(1, ["gcc"]),  # triton compiles its launcher with what the machine has
        ImportError("cuda_utils.so"),
    ],
)
def test_a_launcher_that_cannot_be_compiled_is_a_failure_of_the_gpu(error: Exception) -> None:
    pytest.importorskip("torch")
    with pytest.raises(BackendError, match=r"^Flow failed on the GPU: "), device.translated("Flow"):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: device lost.\nCompile with"), OSError("CUDA error: device lost")])
def test_a_gpu_that_vanishes_is_reported_in_one_sentence(error: Exception) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    with pytest.raises(BackendError, match=r"^Flow failed on the GPU: CUDA error: device lost$"), device.translated("Flow"):
        raise error
