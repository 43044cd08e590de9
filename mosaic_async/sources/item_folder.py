"""STAC items written into a folder, one file each, with hrefs that can be opened from anywhere.

It knows nothing of searches and mosaics.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from mosaic_async.errors import ResourceError
from mosaic_async.sources.item_files import Scene
from mosaic_async.sources.signing import Signer, readable


def paths_in(folder: Path, scenes: Sequence[Scene]) -> list[str]:
    """Name the files of items by their ids; items of several collections with one id are kept apart by collection."""
    counts = Counter(scene.item["id"] for scene in scenes)
    names = []
    for scene in scenes:
        of_collection = [scene.item.get("collection")] if counts[scene.item["id"]] > 1 else []
        parts = [quote(str(part), safe="") for part in (*of_collection, scene.item["id"])]
        names.append(str(folder.joinpath(*parts[:-1], f"{parts[-1]}.json").absolute()))
    return names


def write_items(
    named: Iterable[tuple[str, Scene]], signer: Signer | None, write: Callable[[Path, str], object]
) -> None:
    """Write items.

    Args:
        named: path and scene.
        signer: signs their hrefs; None: they stay as they are, made absolute.
        write: writes a file, whole or not at all.

    Raises:
        SourceError: an href is malformed, or its signature is not available.
        ResourceError: a file cannot be written.
    """
    for name, scene in named:
        item = scene.absolute()
        text = json.dumps(readable(item, signer) if signer else item)
        try:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write(Path(name), text)
        except OSError as error:
            raise ResourceError(f"{Path(name).parent} cannot be written: {error.strerror}") from error
