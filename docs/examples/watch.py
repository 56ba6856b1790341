"""Print the expressions of a live service, each once, until stopped: python watch.py ws://127.0.0.1:8765 [SINCE]"""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

HEADERS = {"Authorization": f"Bearer {os.environ['APEXSTREAM_TOKEN']}"} if "APEXSTREAM_TOKEN" in os.environ else {}


async def watch(url: str, since: int) -> None:
    """Print the final events after since: stored ones first, then live ones. A heartbeat comes every 5 s."""
    while True:
        try:
            address = f"{url}/?type=expression&since={since}"
            async with connect(address, subprotocols=["apexstream.v1"], additional_headers=HEADERS) as socket:
                while message := json.loads(await asyncio.wait_for(socket.recv(), 15)):
                    if message["type"] == "expression" and message["state"] == "final":
                        since = message["seq"]
                        print(message["seq"], message["stream"], message["kind"], message["label"], flush=True)
        except (OSError, ConnectionClosed, InvalidHandshake, TimeoutError) as error:
            print(f"no connection ({error}), retrying", file=sys.stderr)
            await asyncio.sleep(1)


asyncio.run(watch(sys.argv[1].rstrip("/"), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
