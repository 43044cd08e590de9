"""The report as one JSON document: the numbers, all runs of the work folder, and the map of the tiles."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import rasterio

from mosaic_async.events import MosaicReport
from mosaic_async.events.pages.cells import TileMap

SCHEMA = "https://github.com/mosaic-async/mosaic-async/raw/main/docs/schema/report.json"


@dataclass(frozen=True, kw_only=True)
class Account:
    """What is reported of a job when a run of it has ended."""

    report: MosaicReport
    error: str | None
    """Why the output is not complete; None: it is."""
    history: Mapping[str, Any]
    """The facts of `history`; empty where they are not known."""
    map: TileMap | None


def document(account: Account, command: str | None) -> dict[str, Any]:
    """Return the report as JSON types.

    Args:
        account: what happened.
        command: that made it, without secrets; None: the library did.
    """
    runs = account.history.get("runs", [])
    totals = ("seconds", "requests", "retries", "bytes_received")
    return {
        "$schema": SCHEMA,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": account.error,
        "command": command,
        "versions": _versions(),
        "machine": {"system": platform.platform(terse=True), "processor": platform.machine(), "cores": os.cpu_count()},
        **account.report.as_dict(),
        "totals": {"runs": len(runs), **{name: sum(run[name] for run in runs) for name in totals}},
        "history": dict(account.history) or None,
        "map": asdict(account.map) if account.map else None,
    }


def _versions() -> dict[str, str]:
    return {
        "mosaic-async": version("mosaic-async"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "gdal": rasterio.__gdal_version__,
        "rasterio": rasterio.__version__,
        "numpy": np.__version__,
    }
