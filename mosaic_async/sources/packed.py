"""Which sources have values without an average, packed into colours or class codes, by their descriptions and URLs.

It knows nothing of how such values are read.
"""

from __future__ import annotations

import re

_ENCODINGS = {"mapbox": "terrain-rgb", "terrain-rgb": "terrain-rgb", "terrainrgb": "terrain-rgb"} | {
    "terrarium": "terrarium"
}
_PICTURES = frozenset((None, "", "none", "raw", "rgb", "default"))
"""Encodings of plain colours."""
_IN_URLS = (
    ("terrarium", re.compile(r"terrarium", re.IGNORECASE)),
    ("terrain-rgb", re.compile(r"terrain[-_.]?(rgb|dem)|rgb[-_.]?terrain|\.pngraw\b", re.IGNORECASE)),
    ("packed", re.compile(r"/dem\d*[abc]?_png/|[-_.]?(dem|elevation|height|hillshade)[-_.]?rgb\b", re.IGNORECASE)),
)

_CLASSES = re.compile(
    r"(?<![a-z0-9])(scl|fmask|qa_?(pixel|radsat|aerosol|60)|bqa|lulc|nlcd|cdl|land[-_]?cover|world[-_]?cover"
    r"|dynamic[-_]?world|classification|cropland|corine)(?![a-z])",
    re.IGNORECASE,
)
"""Names of layers and bands of class codes or flags."""


def has_classes(template: str) -> bool:
    """Return whether the URL of a source names a layer or a band of class codes or flags."""
    return _CLASSES.search(template.partition("://")[2].partition("/")[2]) is not None


def packing_of(template: str, encoding: str | None) -> str | None:
    """Return how a source packs values into colours: terrain-rgb, terrarium, or another word; None for plain colours.

    Args:
        template: its URL.
        encoding: as its TileJSON names it; it decides if there is one.
    """
    word = encoding.lower() if encoding else None
    if word not in _PICTURES:
        return _ENCODINGS.get(word or "", word)
    return next((name for name, pattern in _IN_URLS if pattern.search(template)), None)
