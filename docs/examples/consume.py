"""Print a fleet's expressions as a member of a consumer group: python consume.py redis://HOST GROUP MEMBER [SECONDS]
Each event goes to one member; what a member read and has not confirmed SECONDS later (60) goes to another."""

import os
import sys
import time

import redis

url, group, member, idle_s = [*sys.argv[1:], "60"][:4]
idle_ms = int(1000 * float(idle_s))
user, password = (os.environ.get(f"APEXSTREAM_REDIS_{name}") for name in ("USERNAME", "PASSWORD"))
server = redis.from_url(url, username=user, password=password, decode_responses=True, encoding_errors="replace", protocol=2)

while True:
    try:
        keys = [key for node in server.hkeys("apexstream:nodes") if server.exists(key := f"apexstream:events:{node}")]
        for key in keys:
            if group not in {known["name"] for known in server.xinfo_groups(key)}:
                server.xgroup_create(key, group, id="0")
        late = [(key, server.xautoclaim(key, group, member, idle_ms)[1]) for key in keys]
        new = server.xreadgroup(group, member, dict.fromkeys(keys, ">"), count=100, block=1000) if keys else time.sleep(1)
        for key, entries in (*late, *(new or ())):
            for entry, fields in filter(all, entries):  # Redis 6.2 has an empty one for each that was trimmed
                print(key.split(":")[2], fields.get("event"), flush=True)  # the event as JSON
                server.xack(key, group, entry)
    except redis.RedisError as error:  # it is away or was emptied: what was not confirmed is read again
        print(f"{error}; trying again", file=sys.stderr)
        time.sleep(1)
