"""The survey of local items, kept beside the index of their folder: it counts while no file that it comes from changes.

It knows nothing of what a survey finds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from mosaic_async.tiler.scenes.kept_facts import WORTH, KeptFacts
from mosaic_async.tiler.scenes.raster_file import is_local
from mosaic_async.tiler.scenes.survey import Survey, survey


def kept_survey(names: Sequence[str], wanted: Iterable[str] | None, *, is_stac: bool, cache: Path | None) -> Survey:
    """Return the survey that an earlier run kept, or make it and keep it; it blocks.

    Args:
        names: of the scenes.
        wanted: names of bands that tiles may show; None: any.
        is_stac: whether the scenes are STAC items.
        cache: folder of what this package keeps for later runs; None keeps nothing.

    Raises:
        SourceError: a band holds complex numbers.
    """
    looked_for = None if wanted is None else list(wanted)
    if cache is None or not is_stac or len(names) < WORTH or not all(map(is_local, names)):
        return survey(names, looked_for, is_stac=is_stac)
    about = hashlib.sha256(json.dumps([list(names), looked_for]).encode()).hexdigest()[:32]
    kept = KeptFacts.at(cache / "surveys" / f"{about}.json")
    first = Path(names[0])
    if known := kept.get(first):
        return Survey.from_dict(known)
    found = survey(names, looked_for, is_stac=True)
    if all(map(is_local, found.files)):  # a file on a server may change without a trace
        kept.put(first, found.as_dict(), [Path(name) for name in (*names[1:], *found.files)])
        kept.save(least=1)
    return found
