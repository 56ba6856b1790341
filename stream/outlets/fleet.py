"""What the nodes of a fleet and its hub have in common at a Redis server: keys, and the state of a node.

    apexstream:nodes               hash       NODE:STORE -> what a node is, as JSON; removed by people alone
    apexstream:events:NODE:STORE   stream     final events; the id of an entry is SEQ-0, its field event the JSON
    apexstream:state:NODE:STORE    string     the node's state as JSON; expires after LEASE_S unless it is renewed
    apexstream:name:NODE           string     the instance that uses the name; expires likewise
    apexstream:live:NODE           channel    the state every BEAT_S, and what is not stored: signals, activities, provisional
                                              events, as they are on the websocket

An instance is one run of a service. STORE is the identity of its store, NODE its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stream.messages import SourceState
from stream.schema import LAST_SEQ, check_encodable

PROTOCOL = 1
"""Nodes and hubs of one number understand each other; it changes when existing keys or fields do."""
BEAT_S = 1.0
LEASE_S = 3.5
"""A node that has not been heard of for so long is lost."""
LONGEST = 1000
"""Characters of a sentence or name that are kept."""
NODES = "apexstream:nodes"
LIVE = "apexstream:live:*"
EVENT = "event"


def node_field(node: str, store: str) -> str:
    """The field of NODES."""
    return f"{node}:{store}"


def events_key(node: str, store: str) -> str:
    """The key of a node's events."""
    return f"apexstream:events:{node}:{store}"


def state_key(node: str, store: str) -> str:
    """The key of a node's state."""
    return f"apexstream:state:{node}:{store}"


def name_key(node: str) -> str:
    """The key of the instance that uses a name."""
    return f"apexstream:name:{node}"


def live_channel(node: str) -> str:
    """The channel of a node."""
    return LIVE.replace("*", node)


class IncompatibleError(ValueError):
    """Another version of apexstream wrote it; protocol and version are that one's."""

    def __init__(self, protocol: object, version: str) -> None:
        super().__init__(f"protocol {protocol} of apexstream {version}")
        self.protocol, self.version = protocol, version


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


S = TypeVar("S", bound=_Shape)
_Count = Annotated[int, Field(ge=0, le=LAST_SEQ)]
_Text = Annotated[str, AfterValidator(lambda text: text[:LONGEST])]


class NodeInfo(_Shape):
    """What a node is."""

    protocol: int = PROTOCOL
    node: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    store: str = Field(pattern=r"^[0-9A-Za-z-]{1,64}$")
    version: _Text = ""
    model: _Text = ""
    page: str | None = Field(None, max_length=LONGEST, pattern=r"^https?://[^\s@]+$")


class StreamState(_Shape):
    """The state of one of its sources: the fields of the websocket's status."""

    stream: str = Field(min_length=1, max_length=200)
    kind: _Text
    state: str = Field(pattern=f"^({'|'.join(get_args(SourceState))})$")
    detail: _Text = ""
    fps: float | None = 0.0
    frames: _Count = 0
    drops: _Count = 0
    reconnects: _Count = 0
    width: _Count = 0
    height: _Count = 0
    since: str = ""


class NodeState(NodeInfo):
    """A node as it is now: instance, the number of this state in it, the last event of its store, what ails it, whether it has
    ended in order, its streams."""

    type: str = Field("state", pattern="^state$")
    instance: _Text
    beat: _Count = 0
    seq: _Count = 0
    problem: _Text | None = None
    ended: bool = False
    streams: tuple[StreamState, ...] = ()

    @property
    def info(self) -> NodeInfo:
        """What does not change."""
        return NodeInfo(**{name: getattr(self, name) for name in NodeInfo.model_fields})


def read_info(text: str | bytes) -> NodeInfo:
    """What a node is, from NODES. Raises IncompatibleError for another protocol, ValueError for anything else."""
    return _read(NodeInfo, _object(text))


def read_state(message: Mapping[str, Any]) -> NodeState:
    """A node's state from its parsed JSON. Raises as `read_info`."""
    return _read(NodeState, message)


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    check_encodable(text.encode() if isinstance(text, str) else text, found)
    return found


def _read(shape: type[S], found: Mapping[str, Any]) -> S:
    if found.get("protocol") != PROTOCOL:
        raise IncompatibleError(found.get("protocol"), str(found.get("version", "of unknown version"))[:40])
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        raise ValueError(error.errors(include_input=False, include_url=False)[0]["msg"]) from None
