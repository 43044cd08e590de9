"""The rules of a Cloud Optimized GeoTIFF, checked in a file: those of rio-cogeo's strict `cog_validate`.

They are written anew because importing rio-cogeo takes longer than a small mosaic; the tests compare the two. It knows
nothing of how the file was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import rasterio
from rasterio.io import DatasetReader

_UNTILED = 512
"""Pixels per side up to which an image needs neither tiles nor overviews."""
_MAX_FIRST = 300
"""Bytes before the first header, at most: GDAL writes up to 200 about the layout there."""


def cog_validate(path: Path) -> tuple[bool, list[str], list[str]]:
    """Return whether a file is a COG, which rules it breaks, and what is only recommended, yet required here.

    Raises:
        rasterio.errors.RasterioError: the file cannot be read.
    """
    with rasterio.open(path) as dataset:
        if dataset.driver != "GTiff":
            return False, ["the file is not a GeoTIFF"], []
        factors: list[int] = dataset.overviews(1)
        broken = [*_broken_in_files(dataset), *_broken_order(dataset, factors)]
        warnings = ["it has no overviews"] if max(dataset.shape) > _UNTILED and not factors else []
        if _is_untiled(dataset):
            broken.append("it has no tiles")
    for level in range(len(factors)):
        with rasterio.open(path, OVERVIEW_LEVEL=level) as overview:
            if _is_untiled(overview):
                broken.append(f"overview {level} has no tiles")
    return not broken and not warnings, broken, warnings


def _is_untiled(dataset: DatasetReader) -> bool:
    return bool(max(dataset.shape) > _UNTILED and dataset.block_shapes[0][1] == dataset.width)


def _broken_in_files(dataset: DatasetReader) -> Iterator[str]:
    if any(Path(name).suffix.lower() == ".ovr" for name in dataset.files):
        yield "its overviews are in another file"
    if "KNOWN_INCOMPATIBLE_EDITION=YES" in (dataset.get_tag_item("GDAL_STRUCTURAL_METADATA", "TIFF") or ""):
        yield "it was edited, which undid its layout"


def _broken_order(dataset: DatasetReader, factors: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong in the order of headers and data: headers first, and data from the smallest level on."""
    if list(factors) != sorted(set(factors)) or any(factor < 2 for factor in factors):
        yield f"its overviews have the factors {factors}"
    levels = (None, *range(len(factors)))
    headers = [int(dataset.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, ovr=level)) for level in levels]
    if headers[0] > _MAX_FIRST:
        yield f"its first header is at byte {headers[0]}"
    if headers != sorted(headers):
        yield "its headers are not in the order of its levels"
    blocks = [offset for level in levels if (offset := _first_block(dataset, level, factors))]
    if blocks and blocks[-1] < headers[-1]:
        yield "its data begin before its last header"
    if blocks != sorted(blocks, reverse=True):
        yield "its data do not begin with the smallest level"


def _first_block(dataset: DatasetReader, level: int | None, factors: Sequence[int]) -> int:
    """Return the offset of the first block of a level that is stored; 0 if none is."""
    factor = 1 if level is None else factors[level]
    rows, columns = (
        -(-size // factor // block) for size, block in zip(dataset.shape, dataset.block_shapes[0], strict=True)
    )
    for row in range(rows):
        for column in range(columns):
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1, ovr=level)
            if offset:
                return int(offset)
    return 0
