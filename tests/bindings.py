"""The real TensorRT bindings without TensorRT: names and signatures are theirs, what they would compute is a double's.

`tensorrt-cu13-bindings` installs anywhere, but its module wants three libraries that come with a gigabyte of TensorRT. It calls
nine C functions of them, none at import, so three libraries that hold nothing but these names let it be imported. `Double`
then stands where the module would: every name is looked up in the real one, every call is held against the real signature
(overloads, keywords, kinds of arguments), and only then answered by the behaviour a test gave. `Cuda` does likewise for
`cuda.bindings.runtime`, with a host's memory for the device's.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import importlib
import json
import platform
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

PARTS = {
    "libnvinfer.so.11": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "libnvinfer_plugin.so.11": ("initLibNvInferPlugins",),
    "libnvonnxparser.so.11": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}
"""Libraries that the bindings name, each with the functions that they take from it."""

RETURN_NULL = {"x86_64": (62, b"\x31\xc0\xc3"), "aarch64": (183, b"\x00\x00\x80\xd2\xc0\x03\x5f\xd6")}
"""ELF's number of a processor, and its code for `return 0`."""


def shared_library(name: str, functions: tuple[str, ...]) -> bytes:
    """An ELF library of that name in which every function returns 0; no compiler is needed to make it."""
    machine, code = RETURN_NULL[platform.machine()]
    strings, at = b"\0", {}
    for text in (name, *functions):
        at[text] = len(strings)
        strings += text.encode() + b"\0"
    head = 64 + 4 * 56
    symbols_at = head
    strings_at = symbols_at + 24 * (len(functions) + 1)
    hash_at = -(-(strings_at + len(strings)) // 8) * 8
    count = len(functions) + 1
    chain = [0, *range(2, count), 0]  # one bucket that holds all
    hashed = struct.pack(f"<{3 + count}I", 1, count, 1, *chain)
    code_at = -(-(hash_at + len(hashed)) // 16) * 16
    symbols = bytes(24) + b"".join(struct.pack("<IBBHQQ", at[text], 0x12, 0, 1, code_at, len(code)) for text in functions)
    dynamic_at = 0x10000
    entries = ((14, at[name]), (4, hash_at), (5, strings_at), (6, symbols_at), (10, len(strings)), (11, 24), (0, 0))
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    end = code_at + len(code)
    program = (
        struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 0x10000)
        + struct.pack("<IIQQQQQQ", 1, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 0x10000)
        + struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8)
        + struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # no executable stack
    )
    start = b"\x7fELF\x02\x01\x01" + bytes(9)
    start += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    body = start + program
    body = body.ljust(symbols_at, b"\0") + symbols
    body = body.ljust(strings_at, b"\0") + strings
    body = body.ljust(hash_at, b"\0") + hashed
    body = body.ljust(code_at, b"\0") + code
    return body.ljust(dynamic_at, b"\0") + dynamic


@functools.cache
def tensorrt() -> ModuleType:
    """The real bindings, imported over libraries without content."""
    with tempfile.TemporaryDirectory() as folder:
        for name, functions in PARTS.items():
            path = Path(folder) / name
            path.write_bytes(shared_library(name, functions))
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)  # found again by its name when the bindings ask for it
        return importlib.import_module("tensorrt_bindings")


def runtime() -> ModuleType:
    """The real bindings of the CUDA runtime."""
    return importlib.import_module("cuda.bindings.runtime")


Answer = Callable[..., Any]


def overloads(function: Any) -> list[tuple[ast.arguments, str]]:
    """The signatures that a bound function's docstring states: arguments without self, and the type it returns."""
    name, found = function.__name__, []
    for line in (function.__doc__ or "").splitlines():
        stated = re.match(rf"(?:\d+\. )?({name}\(.*\)) -> (.+)$", line.strip())
        if stated and "*args" not in line:
            text = re.sub(r"<[^<>]*>", "None", stated[1])
            parsed = ast.parse(f"def {text}: ...").body[0]
            assert isinstance(parsed, ast.FunctionDef)
            if parsed.args.args and parsed.args.args[0].arg == "self":
                del parsed.args.args[0]
            found.append((parsed.args, stated[2]))
    assert found, f"{name} states no signature"
    return found


def fits(arguments: ast.arguments, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call would be taken: number, names and kinds of its arguments."""
    names = [argument.arg for argument in arguments.args]
    if len(args) > len(names) or set(kwargs) - set(names[len(args) :]):
        return False
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    optional = names[len(names) - len(arguments.defaults) :] if arguments.defaults else []
    if [name for name in names if name not in given and name not in optional]:
        return False
    kinds = {argument.arg: ast.unparse(argument.annotation) for argument in arguments.args if argument.annotation}
    return all(is_kind(value, kinds[name]) for name, value in given.items())


def is_kind(value: Any, kind: str) -> bool:
    """Whether a value is of the kind that a signature names."""
    simple: dict[str, Any] = {
        "str": str,
        "bool": bool,
        "tuple": tuple,
        "list": list,
        "int": int,
        "typing_extensions.Buffer": bytes,
    }
    if kind == "typing.SupportsInt":
        return hasattr(value, "__int__")
    if kind in simple:
        return isinstance(value, simple[kind])
    real = getattr(tensorrt(), kind.rpartition(".")[2])
    if kind.endswith(".Dims") and isinstance(value, tuple):
        return True  # the bindings convert it
    return issubclass(value.real, real) if isinstance(value, Object) else isinstance(value, real)


class Object:
    """An instance of a real class of which only names and signatures are real; `answers` says what its methods do."""

    def __init__(self, real: type, answers: dict[str, Answer], **held: Any) -> None:
        self.real, self.answers, self.held = real, answers, held

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.real, name)
        answer = self.answers.get(f"{self.real.__name__}.{name}")
        if isinstance(real, property):
            return answer(self) if answer else 0
        return functools.partial(self._called, real, answer)

    def _called(self, real: Any, answer: Answer | None, *args: Any, **kwargs: Any) -> Any:
        returns = [returned for arguments, returned in overloads(real) if fits(arguments, args, kwargs)]
        assert returns, f"{self.real.__name__}.{real.__name__} does not take {args} {kwargs}: {real.__doc__}"
        if answer:
            return answer(self, *args, **kwargs)
        kind = returns[0].rpartition(".")[2]
        plain: dict[str, Any] = {"None": None, "bool": True, "int": 0, "str": ""}
        return plain[kind] if kind in plain else Object(getattr(tensorrt(), kind), self.answers)

    def __bytes__(self) -> bytes:
        assert self.real.__name__ == "IHostMemory"
        return self.held["content"]  # type: ignore[no-any-return]


class Double:
    """Stands where `tensorrt` would be imported; its engines hold an ONNX model, which ONNX Runtime runs."""

    def __init__(self, cuda: Cuda, **answers: Answer) -> None:
        """answers replace what a method does, as `Class_method=function(object, *args)`."""
        self._cuda = cuda
        self.built = 0
        self._answers: dict[str, Answer] = {
            "OnnxParser.parse": self._parse,
            "Builder.build_serialized_network": self._build,
            "ITimingCache.serialize": lambda _: memory(self._answers, b"timings"),
            "Runtime.deserialize_cuda_engine": self._deserialize,
            "ICudaEngine.create_execution_context": lambda engine: made("IExecutionContext", self._answers, **engine.held),
            "IExecutionContext.set_input_shape": self._shape,
            "IExecutionContext.set_tensor_address": self._address,
            "IExecutionContext.execute_async_v3": self._execute,
            **{name.replace("_", ".", 1): answer for name, answer in answers.items()},
        }

    def __getattr__(self, name: str) -> Any:
        real = getattr(tensorrt(), name)
        if not isinstance(real, type) or hasattr(real, "__members__") or name == "ILogger":
            return real
        return functools.partial(self._constructed, real)

    def _constructed(self, real: type, *args: Any, **kwargs: Any) -> Object:
        assert any(fits(arguments, args, kwargs) for arguments, _ in overloads(real.__init__)), f"{real} of {args} {kwargs}"  # type: ignore[misc]
        return Object(real, self._answers, args=args)

    def _parse(self, parser: Object, content: bytes) -> bool:
        parser.held["args"][0].held["content"] = content
        return True

    def _build(self, _: Object, network: Object, config: Object) -> Object:
        self.built += 1
        return memory(self._answers, b"engine:" + network.held["content"])

    def _deserialize(self, _: Object, engine: bytes) -> Object | None:
        if not engine.startswith(b"engine:"):
            return None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(engine[7:], options, providers=["CPUExecutionProvider"])
        return made("ICudaEngine", self._answers, session=session)

    def _shape(self, context: Object, name: str, shape: tuple[int, ...]) -> bool:
        context.held["shape"] = shape
        return name == "maps"

    def _address(self, context: Object, name: str, address: int) -> bool:
        context.held[name] = address
        return name in ("maps", "probabilities")

    def _execute(self, context: Object, stream: int) -> bool:
        assert self._cuda.memory[stream] == "stream"
        held = dict(context.held)  # as it was queued

        def compute() -> None:
            maps = floats(held["maps"], held["shape"])
            answer = held["session"].run(["probabilities"], {"maps": maps})[0]
            floats(held["probabilities"], answer.shape)[...] = answer

        return self._cuda.queue(compute)


READY = 1 << 40
"""Between the handle of a graph and that of the same graph ready to run."""


class Cuda:
    """Stands where `cuda.bindings.runtime` would: real names, argument counts and error codes, a host's memory."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.failing: dict[str, str] = {}
        """Functions that fail from now on, each with the name of the error."""
        self.calls: list[str] = []
        self._queued: list[Callable[[], None]] = []
        self._capture: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(runtime(), name)
        return functools.partial(self._called, name, real) if callable(real) and not isinstance(real, type) else real

    def _called(self, name: str, real: Any, *args: Any) -> tuple[Any, ...]:
        stated = re.match(rf"{name}\((.*)\)", real.__doc__)
        assert stated and len(args) == len([part for part in stated[1].split(",") if part.strip()]), f"{name}{args}"
        self.calls.append(name)
        errors = runtime().cudaError_t
        if name in self.failing:
            return (getattr(errors, self.failing[name]), None)
        return (errors.cudaSuccess, getattr(self, f"_{name}")(*args))

    def queue(self, work: Callable[[], None]) -> bool:
        """As the device would: later, or into the graph that is being captured."""
        (self._queued if self._capture is None else self._capture).append(work)
        return True

    def _cudaStreamCreate(self) -> int:  # noqa: N802
        stream = -1 - len(self.calls)
        self.memory[stream] = "stream"
        return stream

    def _cudaMalloc(self, size: int) -> int:  # noqa: N802
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def _cudaHostAlloc(self, size: int, flags: int) -> int:  # noqa: N802
        return self._cudaMalloc(size)

    def _freed(self, address: int) -> None:
        del self.memory[int(address)]

    _cudaFree = _cudaFreeHost = _cudaStreamDestroy = _cudaGraphDestroy = _cudaGraphExecDestroy = _freed  # noqa: N815

    def _cudaMemcpyAsync(self, to: int, of: int, size: int, kind: Any, stream: int) -> None:  # noqa: N802
        assert self.memory[stream] == "stream" and all(len(self.memory[place]) >= size for place in (to, of))
        self.queue(lambda: ctypes.memmove(to, of, size) and None)

    def _cudaStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        assert self._capture is None, "a stream that is captured cannot be waited for"
        while self._queued:
            self._queued.pop(0)()

    def _cudaStreamBeginCapture(self, stream: int, mode: Any) -> None:  # noqa: N802
        self._capture = []

    def _cudaStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        assert self._capture is not None
        graph = 1000 + len(self.calls)
        self._graphs[graph], self._capture = self._capture, None
        self.memory[graph] = "graph"
        return graph

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:  # noqa: N802
        self._graphs[graph + READY] = self._graphs[graph]
        self.memory[graph + READY] = "ready"
        return graph + READY

    def _cudaGraphLaunch(self, ready: int, stream: int) -> None:  # noqa: N802
        self._queued.extend(self._graphs[ready])


def made(name: str, answers: dict[str, Answer], **held: Any) -> Object:
    """A double of the real class of that name."""
    return Object(getattr(tensorrt(), name), answers, **held)


def memory(answers: dict[str, Answer], content: bytes) -> Object:
    """What the bindings return for something serialized."""
    return made("IHostMemory", answers, content=content)


def floats(address: int, shape: tuple[int, ...]) -> Any:
    """The float32 array at an address."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


def small_network(path: Path) -> Path:
    """Writes a network of apexstream's contract that loads at once, and returns path: one hidden layer over the whole map."""
    draw = np.random.default_rng(0)
    shapes = {"wide": (2352, 16), "wide.bias": (16,), "narrow": (16, 3), "narrow.bias": (3,)}
    values = [numpy_helper.from_array(draw.normal(0, 0.05, shape).astype(np.float32), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Flatten", ["maps"], ["flat"]),
        helper.make_node("Gemm", ["flat", "wide", "wide.bias"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["kept"]),
        helper.make_node("Gemm", ["kept", "narrow", "narrow.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    ends = [("maps", ("batch", 3, 28, 28)), ("probabilities", ("batch", 3))]
    maps, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "small", [maps], [out], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"apexstream": json.dumps({"classes": ["negative", "positive", "surprise"]})})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
