"""Print a fleet's expressions as a member of a consumer group: python consume.py redis://HOST GROUP MEMBER [SECONDS]

Each event goes to one member; what a member read and has not confirmed SECONDS later (60) goes to another.
"""

import json
import os
import sys

import redis

url, group, member, *seconds = sys.argv[1:]
idle_ms = int(1000 * float(seconds[0] if seconds else 60))
server = redis.from_url(url, password=os.environ.get("APEXSTREAM_REDIS_PASSWORD"), decode_responses=True, protocol=2)
known: dict[str, str] = {}

while True:
    for node in set(server.hkeys("apexstream:nodes")) - {key.split(":", 2)[2] for key in known}:
        key = f"apexstream:events:{node}"
        if server.exists(key):
            known[key] = ">"
            if group not in [one["name"] for one in server.xinfo_groups(key)]:
                server.xgroup_create(key, group, id="0")
    late = [(key, server.xautoclaim(key, group, member, idle_ms)[1]) for key in known]
    new = server.xreadgroup(group, member, known, count=100, block=1000) if known else []
    for key, entries in (*late, *new):
        for entry, fields in entries:
            event = json.loads(fields["event"])
            print(key.split(":")[2], event["seq"], event["stream"], event["kind"], event["label"], flush=True)
            server.xack(key, group, entry)
