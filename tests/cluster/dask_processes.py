"""A scheduler and workers as processes of their own, as people start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_QUIET = {"DASK_LOGGING__DISTRIBUTED": "error", "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "60s"}


@dataclass
class DaskProcesses:
    """One scheduler, and workers under a nanny each."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    address: str = ""

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def start_scheduler(self) -> None:
        file = self.folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
        deadline = time.monotonic() + 60
        while not self.address and time.monotonic() < deadline:
            with suppress(FileNotFoundError, json.JSONDecodeError):
                self.address = json.loads(file.read_text())["address"]
            time.sleep(0.1)

    def start_worker(self, *, memory: str = "2GiB", threads: int = 1) -> subprocess.Popen[bytes]:
        return self._start(
            "worker",
            self.address,
            *("--nworkers", "1", "--nthreads", str(threads), "--memory-limit", memory),
            *("--local-directory", str(self.scratch), "--host", "127.0.0.1"),
        )

    def kill_scheduler(self) -> None:
        self.started[0].kill()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        process = subprocess.Popen(
            command, env={**os.environ, **_QUIET}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.started.append(process)
        return process


@contextmanager
def dask_processes(folder: Path, workers: int) -> Iterator[DaskProcesses]:
    """Start a cluster that ends with the block."""
    folder.mkdir(exist_ok=True)
    cluster = DaskProcesses(folder)
    try:
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster
    finally:
        for process in reversed(cluster.started):
            process.send_signal(signal.SIGTERM)
        for process in cluster.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
