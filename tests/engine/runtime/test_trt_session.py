from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BackendError
from engine.runtime import gpu
from engine.runtime.trt_session import Stream
from tests.bindings import Cuda, runtime


def test_copies_go_to_the_device_and_back_in_order() -> None:
    stream = Stream(Cuda())
    (there, there_at), (back, back_at) = stream.on_host(2, 3), stream.on_host(2, 3)
    device = stream.on_device(there.nbytes)
    there[...] = np.arange(6).reshape(2, 3)
    stream.to_device(device, there_at, there.nbytes)
    stream.to_host(back_at, device, back.nbytes)
    assert not back.any()  # queued, not done
    stream.wait()
    assert np.array_equal(there, back)


def test_what_is_recorded_runs_at_each_launch_and_not_before() -> None:
    stream = Stream(Cuda())
    (there, there_at), (back, back_at) = stream.on_host(4), stream.on_host(4)
    device = stream.on_device(16)

    def work() -> None:
        stream.to_device(device, there_at, 16)
        stream.to_host(back_at, device, 16)

    launch = stream.recorded(work)
    for value in (1, 2):
        there[...] = value
        stream.wait()
        assert not (back == value).any()
        launch()
        stream.wait()
        assert (back == value).all()


@pytest.mark.parametrize("function", ["cudaStreamCreate", "cudaMalloc", "cudaHostAlloc", "cudaStreamSynchronize"])
def test_each_failure_is_reported_by_its_name(function: str) -> None:
    cuda = Cuda()
    cuda.failing[function] = "cudaErrorMemoryAllocation"
    with pytest.raises(BackendError, match="CUDA says MemoryAllocation"):
        stream = Stream(cuda)
        stream.on_host(4)
        stream.on_device(16)
        stream.wait()


def test_closing_twice_is_closing_once() -> None:
    cuda = Cuda()
    stream = Stream(cuda)
    stream.on_device(16)
    stream.close()
    stream.close()
    assert cuda.memory == {} and cuda.calls.count("cudaFree") == 1


@pytest.mark.skipif(gpu.refusal() is None, reason="there is a GPU here")
def test_the_real_cuda_runtime_without_a_gpu_is_translated() -> None:
    with pytest.raises(BackendError, match="CUDA says "):
        Stream(runtime())
