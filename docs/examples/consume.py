"""Print a fleet's expressions as a member of a consumer group: python consume.py redis://HOST GROUP MEMBER [SECONDS]
Each event goes to one member; what a member read and has not confirmed SECONDS later (60) goes to another."""

import json
import os
import sys
import time

import redis

url, group, member, *seconds = sys.argv[1:]
idle_ms = int(1000 * float(seconds[0] if seconds else 60))
user, password = (os.environ.get(f"APEXSTREAM_REDIS_{name}") for name in ("USERNAME", "PASSWORD"))
server = redis.from_url(url, username=user, password=password, decode_responses=True, encoding_errors="replace", protocol=2)
known: dict[str, str] = {}

while True:
    try:
        for key in {f"apexstream:events:{node}" for node in server.hkeys("apexstream:nodes")} - known.keys():
            if server.exists(key):
                known[key] = ">"
                server.xgroup_create(key, group, id="0")
        late = [(key, server.xautoclaim(key, group, member, idle_ms)[1]) for key in known]
        new = server.xreadgroup(group, member, known, count=100, block=1000) if known else time.sleep(1)
        for key, entries in (*late, *(new or ())):
            for entry, fields in filter(all, entries):  # Redis 6.2 has an empty one for each that was trimmed
                try:
                    event = json.loads(fields["event"])
                    print(key.split(":")[2], event["seq"], event["stream"], event["kind"], event["label"], flush=True)
                except (ValueError, KeyError, TypeError) as error:
                    print(f"{key} {entry} is no event ({error!r})", file=sys.stderr)
                server.xack(key, group, entry)
    except redis.AuthenticationError:
        raise
    except (redis.ConnectionError, redis.TimeoutError):  # what was not confirmed is read again
        time.sleep(1)
    except redis.ResponseError as error:
        if str(error).startswith(("NOGROUP", "UNBLOCKED", "The XGROUP")):  # Redis was emptied, or a node is gone for good
            known.clear()
        elif not str(error).startswith("BUSYGROUP"):  # which says that the group is there
            raise
