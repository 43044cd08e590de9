"""Who runs: the commands, and what each requires."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.job import ZOOM, Job

OURS, FLOOR, NOTEBOOK, GDAL = "mosaic-async", "download alone", "notebook", "GDAL tuned"
DEFAULTS = "mosaic-async, own defaults"
AUTO = "mosaic-async, auto"
_SAME = ("--co", "LEVEL=6", "--co", "PREDICTOR=NO")
"""What rio-cogeo and GDAL do unless told otherwise; ours is another level, and a predictor."""


@dataclass(frozen=True)
class Contestant:
    """A command that does a job."""

    name: str
    command: Callable[[Job], list[str]]
    kind: str = "tif"
    """The tiles that it requests."""
    is_installed: Callable[[], bool] = lambda: True
    writes: bool = True
    """Whether there is an output."""
    makes_cog: bool = True
    """Whether its output is the requested COG, so that all of it can be compared."""


def _script(*names: str) -> Callable[[Job], list[str]]:
    module, *options = names
    return lambda job: [sys.executable, "-m", f"benchmarks.{module}", *options, *job.arguments]


def _ours(*, same: bool = False, auto: bool = False) -> Callable[[Job], list[str]]:
    """Run the command as a user would; `same`: with the level and predictor that rivals have for deflate.

    With `auto` it looks for the concurrency by itself.
    """
    return lambda job: [
        *(sys.executable, "-m", "mosaic_async", "build", job.template, str(job.output)),
        *("--bounds", *(repr(degrees) for degrees in job.bounds), "--zoom", str(ZOOM)),
        *("-c", "auto" if auto else str(job.concurrency), "-p", job.profile, "--json"),
        *(_SAME if same and job.profile == "deflate" else ()),
    ]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(OURS, _ours(same=True)),
        Contestant(DEFAULTS, _ours()),
        Contestant(AUTO, _ours(same=True, auto=True)),
        Contestant(FLOOR, _script("floor"), writes=False),
        Contestant(NOTEBOOK, _script("notebook")),
        Contestant(GDAL, _script("gdal_tms")),
        Contestant(
            "gdal_translate", _script("gdal_tms", "--cli"), is_installed=lambda: bool(shutil.which("gdal_translate"))
        ),
        Contestant(
            "contextily",
            _script("peers", "contextily"),
            kind="png",
            is_installed=lambda: find_spec("contextily") is not None,
            makes_cog=False,
        ),
        Contestant(
            "rasterama",
            _script("peers", "rasterama"),
            kind="png",
            is_installed=lambda: find_spec("rasterama") is not None,
            makes_cog=False,
        ),
    )
}
