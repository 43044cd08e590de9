"""The replay server as the harness uses it: started, read for its counts, stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.job import ZOOM


class Endpoint:
    """A running replay server."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def template(self, kind: str) -> str:
        """Return the XYZ template of a kind of tile, tif or png."""
        return f"{self._url}/{{z}}/{{x}}/{{y}}.{kind}"

    def obey(self, law: str) -> None:
        """Change the law and begin to count anew."""
        self._get(f"/law/{law}")

    def stats(self) -> dict[str, Any]:
        """Return the counts since the last call."""
        return self._get("/stats")

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self._url + path, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run a replay server until the block is left."""
    command = [sys.executable, "-m", "benchmarks.server", str(ZOOM), "none"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Endpoint(int(process.stdout.readline()))
        finally:
            process.stdin.close()
