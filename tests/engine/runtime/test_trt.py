"""The TensorRT backend without a GPU: every call held against the real bindings, what they compute left to ONNX Runtime.

This proves names, signatures, the order of calls and what becomes of answers and failures. It proves nothing about what
TensorRT itself does; that needs a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import ArrayError, BackendError
from engine.runtime import runner as chain
from engine.runtime import trt
from engine.runtime.gpu import Gpu
from engine.runtime.ort import OrtRunner
from engine.runtime.trt import MAX_BATCH, TOLERANCES, Libraries, TrtRunner
from engine.types import F32
from engine.weights import sha256_of
from tests.bindings import Cuda, Double, Object, made, memory, runtime, small_network, tensorrt

HERE = Gpu("NVIDIA Test", (9, 0))


class Machine:
    """A GPU's machine in doubles, and runners on it."""

    def __init__(self, gpu: Gpu = HERE, **answers: Any) -> None:
        self.cuda = Cuda()
        self.trt = Double(self.cuda, **answers)
        self.libraries = Libraries(self.trt, self.cuda, gpu)

    def runner(self, weights: Path, cache: Path | None = None) -> TrtRunner:
        return TrtRunner(weights, cache=cache, libraries=self.libraries)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return small_network(tmp_path / "net" / "net.onnx")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and its engine."""
    path = small_network(tmp_path_factory.mktemp("compiled") / "net.onnx")
    Machine().runner(path, path.parent).close()
    return path


def maps(count: int) -> F32:
    return np.random.default_rng(count).random((count, 3, 28, 28), np.float32)


def test_the_real_bindings_are_there_and_are_of_the_version_that_is_meant() -> None:
    assert tensorrt().__version__.startswith("11.")
    assert runtime().cudaGetDeviceCount()[0] in runtime().cudaError_t


@pytest.mark.parametrize("count", [0, 1, 3, 5, MAX_BATCH, MAX_BATCH + 3])
def test_any_batch_is_answered_as_onnx_runtime_answers_it(compiled: Path, count: int) -> None:
    runner = Machine().runner(compiled)
    answer = runner(maps(count))
    assert answer.shape == (count, 3) and answer.dtype == np.float32
    assert not count or np.abs(answer - OrtRunner(compiled)(maps(count))).max() < TOLERANCES["float16"]
    assert (runner.backend, runner.precision, list(runner.notes)) == ("tensorrt", "float16", [])
    assert "NVIDIA Test" in runner.device and tensorrt().__version__ in runner.device


def test_each_size_of_batch_is_recorded_once_and_then_launched(compiled: Path) -> None:
    machine = Machine()
    runner = machine.runner(compiled)
    first, second = maps(5)[:3], maps(5)[1:5]
    del machine.cuda.calls[:]
    answers = runner(first), runner(second), runner(first)
    assert machine.cuda.calls.count("cudaStreamBeginCapture") == 1  # 3 and 4 maps are both 4
    assert machine.cuda.calls.count("cudaGraphLaunch") == 3
    assert np.array_equal(answers[0], answers[2]) and np.abs(answers[0][1:] - answers[1][:2]).max() < 1e-6


def test_closing_gives_everything_back(compiled: Path) -> None:
    machine = Machine()
    runner = machine.runner(compiled)
    runner(maps(2))
    assert machine.cuda.memory
    runner.close()
    assert not machine.cuda.memory
    with pytest.raises(BackendError, match="is closed"):
        runner(maps(1))


def test_a_runner_that_is_forgotten_gives_everything_back(compiled: Path) -> None:
    machine = Machine()
    runner = machine.runner(compiled)
    del runner
    assert not machine.cuda.memory


def test_wrong_maps_are_refused_before_they_reach_the_gpu(compiled: Path) -> None:
    with pytest.raises(ArrayError, match="not finite"):
        Machine().runner(compiled)(np.full((1, 3, 28, 28), np.nan, np.float32))


def test_an_engine_is_built_once_and_kept_with_its_timings(weights: Path, tmp_path: Path) -> None:
    machine, cache = Machine(), tmp_path / "cache"
    machine.runner(weights, cache)
    again = machine.runner(weights, cache)
    assert machine.trt.built == 1 and list(again.notes) == []
    engine = f"{weights.stem}-{sha256_of(weights)[:12]}-sm_90-float16.engine"
    assert again.file_name("float16") == engine
    assert {path.name for path in cache.iterdir()} == {engine, f"timings-{tensorrt().__version__}-sm_90.cache"}


def test_without_a_cache_nothing_is_written(weights: Path) -> None:
    Machine().runner(weights)
    assert list(weights.parent.iterdir()) == [weights]


@pytest.mark.parametrize("damage", [b"", b"no engine", b"{}\nengine"])
def test_a_damaged_engine_is_built_again_and_reported(weights: Path, tmp_path: Path, damage: bytes) -> None:
    machine, cache = Machine(), tmp_path / "cache"
    path = cache / machine.runner(weights, cache).file_name("float16")
    whole = path.read_bytes()
    path.write_bytes(damage)
    notes = machine.runner(weights, cache).notes
    assert len(notes) == 1 and str(path) in notes[0] and notes[0].endswith("the network is compiled again")
    assert machine.trt.built == 2 and path.read_bytes() == whole


def test_an_engine_that_tensorrt_does_not_take_is_built_again_and_reported(weights: Path, tmp_path: Path) -> None:
    cache, refused = tmp_path / "cache", []

    def refuse_once(double: Object, engine: bytes) -> Object | None:
        refused.append(engine)
        return None if len(refused) == 2 else machine.trt._deserialize(double, engine)

    machine = Machine(Runtime_deserialize_cuda_engine=refuse_once)
    machine.runner(weights, cache)
    notes = machine.runner(weights, cache).notes
    assert len(notes) == 1 and "TensorRT does not take the compiled network" in notes[0] and machine.trt.built == 2


def test_timings_of_another_gpu_are_replaced_and_reported(weights: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"timings-{tensorrt().__version__}-sm_90.cache").write_bytes(b"foreign")
    taken: list[bool] = []

    def take(_: Object, timings: Object, ignore: bool) -> bool:
        taken.append(len(taken) > 0)
        return taken[-1]

    notes = Machine(IBuilderConfig_set_timing_cache=take).runner(weights, cache).notes
    assert taken == [False, True] and "is of another GPU or damaged" in notes[0]


def test_timings_that_cannot_be_read_cost_a_note_only(weights: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / f"timings-{tensorrt().__version__}-sm_90.cache").mkdir(parents=True)
    runner = Machine().runner(weights, cache)
    assert runner(maps(1)).shape == (1, 3)
    assert "the timings of earlier compilations are not used" in runner.notes[0]


def test_a_damaged_engine_costs_nothing_where_there_is_another(weights: Path, tmp_path: Path) -> None:
    machine, cache = Machine(), tmp_path / "cache"
    name = machine.runner(weights, cache).file_name("float16")
    (weights.parent / name).write_bytes(b"no engine")
    notes = machine.runner(weights, cache).notes
    assert list(notes) == [f"{weights.parent / name} is no engine of apexstream"] and machine.trt.built == 1


def test_a_full_disk_costs_a_note_only(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    runner = Machine().runner(weights, tmp_path / "file" / "cache")
    assert runner(maps(1)).shape == (1, 3)
    assert any("the compiled network is not kept" in note for note in runner.notes)


def spoiled(only_half: bool) -> Any:
    """Builds engines whose answers are turned around: of half precision, or all."""

    def build(builder: Object, network: Object, config: Object) -> Object:
        import onnx

        model = onnx.load_model_from_string(network.held["content"])
        is_half = any(node.op_type == "Cast" and node.name.endswith("_half") for node in model.graph.node)
        if is_half or not only_half:
            bias = next(value for value in model.graph.initializer if value.name.startswith("narrow.bias"))
            five = np.array([5, 0, 0], onnx.numpy_helper.to_array(bias).dtype)
            bias.CopyFrom(onnx.numpy_helper.from_array(five, bias.name))
        return memory(builder.answers, b"engine:" + model.SerializeToString())

    return build


def test_half_precision_that_answers_otherwise_gives_way_to_float32(weights: Path, tmp_path: Path) -> None:
    machine = Machine(Builder_build_serialized_network=spoiled(only_half=True))
    runner = machine.runner(weights, tmp_path)
    assert runner.precision == "float32" and "float16 is not used: its answers differ" in runner.notes[0]
    assert np.abs(runner(maps(4)) - OrtRunner(weights)(maps(4))).max() < 1e-5
    assert [path.suffix for path in tmp_path.glob("*float*")] == [".engine"]  # what is wrong is not kept
    assert list(machine.runner(weights, tmp_path).notes) == []


def test_an_engine_that_answers_otherwise_altogether_is_refused(weights: Path) -> None:
    with pytest.raises(BackendError, match=r"cannot run .*its answers differ from ONNX Runtime's"):
        Machine(Builder_build_serialized_network=spoiled(only_half=False)).runner(weights)


def test_what_tensorrt_cannot_read_is_reported_in_its_words(weights: Path) -> None:
    machine = Machine(
        OnnxParser_parse=lambda *_: False,
        OnnxParser_num_errors=lambda _: 1,
        OnnxParser_get_error=lambda parser, _: made("ParserError", parser.answers),
        ParserError_desc=lambda _: "no plug-in for Gelu",
    )
    with pytest.raises(BackendError, match="cannot read the network: no plug-in for Gelu"):
        machine.runner(weights)


def test_what_tensorrt_cannot_build_is_reported_with_its_last_error(weights: Path) -> None:
    def fail(builder: Object, *_: Any) -> None:
        log = builder.held["args"][0]
        log.log(tensorrt().ILogger.Severity.ERROR, "no tactic")
        log.log(tensorrt().ILogger.Severity.WARNING, "something else")

    with pytest.raises(BackendError, match=r"cannot compile the network \(no tactic\)"):
        Machine(Builder_build_serialized_network=fail).runner(weights)


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        ("cudaGraphLaunch", "cudaErrorMemoryAllocation", "MemoryAllocation"),
        ("cudaStreamSynchronize", "cudaErrorDevicesUnavailable", "DevicesUnavailable"),
        ("cudaStreamSynchronize", "cudaErrorNoDevice", "NoDevice"),
    ],
)
def test_a_gpu_lost_while_it_runs_is_replaced_by_the_cpu_and_reported(
    compiled: Path, function: str, error: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    runner = chain.FallbackRunner([("tensorrt", lambda: machine.runner(compiled)), ("ort", lambda: OrtRunner(compiled))])
    before = runner(maps(2))
    assert runner.backend == "tensorrt"
    machine.cuda.failing[function] = error
    after = runner(maps(2))
    assert runner.backend == "ort" and np.abs(before - after).max() < TOLERANCES["float16"]
    assert runner.refusals == {"tensorrt": f"CUDA says {says}"}
    assert any(says in note and "goes on" in note for note in runner.notes) and says in caplog.text
    assert machine.cuda.memory == {}


def test_a_gpu_without_room_is_refused_with_the_reason(compiled: Path) -> None:
    machine = Machine()
    machine.cuda.failing["cudaMalloc"] = "cudaErrorMemoryAllocation"
    with pytest.raises(BackendError, match="MemoryAllocation"):
        machine.runner(compiled)
    assert machine.cuda.memory == {}


def test_a_failure_while_a_graph_is_recorded_ends_the_recording(compiled: Path) -> None:
    machine = Machine()
    runner = machine.runner(compiled)
    runs: list[int] = []

    def fail_second(context: Object, stream: int) -> bool:
        runs.append(stream)
        return len(runs) < 2 and machine.trt._execute(context, stream)

    machine.trt._answers["IExecutionContext.execute_async_v3"] = fail_second
    with pytest.raises(BackendError, match="TensorRT cannot run the network"):
        runner(maps(2))
    assert machine.cuda.calls[-1] == "cudaStreamEndCapture"


def test_an_error_of_the_bindings_themselves_is_translated(compiled: Path) -> None:
    def burst(*_: Any) -> bool:
        raise RuntimeError("bad variant access")

    runner_on = Machine()
    runner = runner_on.runner(compiled)
    runner_on.trt._answers["IExecutionContext.execute_async_v3"] = burst
    with pytest.raises(BackendError, match="TensorRT failed: bad variant access"):
        runner(maps(2))


@pytest.mark.parametrize(
    "method", ["Builder_build_serialized_network", "IBuilderConfig_create_timing_cache", "Runtime_deserialize_cuda_engine"]
)
def test_an_error_of_the_bindings_while_compiling_is_a_reason_to_refuse(weights: Path, method: str) -> None:
    def burst(*_: Any) -> None:
        raise RuntimeError("bad allocation")

    with pytest.raises(BackendError, match="bad allocation"):
        Machine(**{method: burst}).runner(weights)


def test_without_tensorrt_the_reason_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(trt, "import_module", absent)
    with pytest.raises(BackendError, match=r"No module named 'tensorrt'.*install apexstream\[trt\]"):
        Libraries.here()


def test_a_call_that_the_real_bindings_would_not_take_is_found() -> None:
    """The doubles themselves: without this the tests above would pass with any name and any arguments."""
    machine = Machine()
    with pytest.raises(AttributeError, match="FP16"):
        _ = machine.trt.BuilderFlag.FP16
    with pytest.raises(AssertionError, match="Builder"):
        machine.trt.Builder("no logger")
    builder = machine.trt.Builder(tensorrt().Logger())
    config = builder.create_builder_config()
    for call in (
        lambda: builder.create_network(flags=0, explicit=True),
        lambda: builder.create_network("0"),
        lambda: config.set_timing_cache(b"timings", False),
        config.add_optimization_profile,
    ):
        with pytest.raises(AssertionError, match="does not take"):
            call()
    with pytest.raises(AttributeError, match="int8_calibrator"):
        _ = config.int8_calibrator
    with pytest.raises(AssertionError, match="cudaMalloc"):
        machine.cuda.cudaMalloc(1, 2)
