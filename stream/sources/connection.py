"""One connection to a source: a thread that opens it and reads until it ends, fails, or its frames are no longer taken.

FFmpeg cannot be interrupted from outside. A connection that takes too long is abandoned, and another may be opened at once; the
thread left behind notices within the timeouts, closes what it holds, and ends.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing

from engine.errors import SourceError
from stream.messages import Arrival
from stream.queues import BoundedQueue, ClosedError
from stream.sources.address import Address, RefusedError, Source, Timeouts

OPEN_S = 5.0
"""How long a source may take to answer, and as long again to show what it sends."""

_QUEUED = 2


class Connection(threading.Thread):
    """A source being opened, then read; its frames come out of `frames`, which is closed when it has ended.

    detail is one sentence on why it ended; finished is whether a recording was read to its end; refused is whether another
    attempt will hardly differ.
    """

    def __init__(self, address: Address, *, read_s: float, open_s: float = OPEN_S) -> None:
        super().__init__(name=f"read {address.shown}", daemon=True)
        self.frames: BoundedQueue[Arrival] = BoundedQueue(_QUEUED)
        self.detail = ""
        self.finished = self.refused = False
        self._address, self._timeouts = address, Timeouts(open_s, read_s)
        self._source: Source | None = None
        self.start()

    @property
    def packets(self) -> int:
        """How many packets came so far."""
        return 0 if self._source is None else self._source.packets

    @property
    def paced(self) -> bool:
        """Whether frames come faster than they are to be shown."""
        return self._address.paced if self._source is None else self._source.paced

    def run(self) -> None:
        """Read until the source ends or `frames` is abandoned."""
        address = self._address
        try:
            with closing(address.opener(address, self._timeouts)) as self._source:
                for frame in self._source:
                    self.frames.put(Arrival(frame, time.monotonic(), time.time()))
                self.finished, self.detail = self._source.finished, self._source.problem or ""
        except ClosedError:
            return
        except SourceError as error:
            self.refused, self.detail = isinstance(error, RefusedError), str(error)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong concerns this source alone, and is shown as its state
            self.detail = f"{address.shown} cannot be read ({type(error).__name__})"
        finally:
            self.frames.close()
