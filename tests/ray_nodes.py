"""Nodes of a Ray cluster on this machine, as `ray start` makes them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Self

import psutil

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""What processes of a cluster get: no statistics or token, and the loss of a node is noticed within seconds."""


class LocalNodes:
    """A head and further nodes, each of which is a process group of its own; all end with the block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nodes-", ignore_cleanup_errors=True)  # short, as sockets lie in it
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        self._folder.cleanup()

    def start(self, cpus: int, gpus: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        """Start a node, the first of which is the head, and wait until it takes part. Its GPUs need not exist."""
        where = [f"--address={self.address}"]
        if not self.nodes:
            where = ["--head", f"--port={self.port}", f"--temp-dir={self._folder.name}"]
            where += ["--include-dashboard=false", "--no-monitor"]
        store = "--object-store-memory=80000000"
        sizes = f"--num-cpus={cpus}", f"--num-gpus={gpus}", store, "--include-log-monitor=false"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *where, *sizes]
        everything = {**os.environ, **ENVIRONMENT, **environment}
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=everything)
        self.nodes.append(node)
        assert node.stdout is not None
        said = b""
        while b"Ray runtime started" not in said:
            line = node.stdout.readline()
            assert line, said.decode()
            said += line
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """End all processes of a node by SIGKILL: at once, as a loss of power does."""
        if node.poll() is None:
            for process in [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]:
                process.send_signal(signal.SIGKILL)
        node.wait()
