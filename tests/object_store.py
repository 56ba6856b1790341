"""A real object store on this machine: SeaweedFS with its S3 interface."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import s3fs

KEY, SECRET, BUCKET = "tester", "not-to-be-printed", "archive"
IDENTITY = {"name": "tester", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write"]}


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """The environment by which s3fs finds the store, with an empty bucket, while the block runs."""
    (folder / "s3.json").write_text(json.dumps({"identities": [IDENTITY]}))
    ports = _free_ports(4)
    named = ("master.port", "volume.port", "filer.port", "s3.port")
    options = [f"-{name}={port}" for name, port in zip(named, ports, strict=True)]
    grpc = [f"-{name}.grpc={port}" for name, port in zip(named, _free_ports(4), strict=True)]
    weed = Path(sys.executable).with_name("weed")
    command = [weed, "-alsologtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.config={folder / 's3.json'}"]
    small = ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    with subprocess.Popen([*command, *options, *grpc, *small], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            assert process.stderr is not None
            said = b""
            while b"Start Seaweed S3 API" not in said:
                line = process.stderr.readline()
                assert line, said.decode()
                said += line
            environment = {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[3]}",
            }
            s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=environment["AWS_ENDPOINT_URL"]).mkdir(BUCKET)
            yield environment
        finally:
            process.kill()


def _free_ports(number: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
