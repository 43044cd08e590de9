"""Tile bodies that cost what real ones cost: rendered once, then replayed.

Each is a GeoTIFF as TiTiler sends it (striped, pixel-interleaved, uncompressed, the mask an extra last band): 1.05 MB
for 512 x 512 pixels. Three quarters are windows of the sample scenes at their own resolution, one quarter is synthetic
texture whose deflated size is that of the real ones; one of them has an edge without data.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

SCENES = Path(__file__).parents[1] / "examples" / "scenes" / "landsat8-parana-2020-60m"
REAL, SYNTHETIC = 12, 4
HALF_WORLD = 20037508.342789244
_RANGES = ((5500, 10500), (6200, 10000), (7100, 9600))
"""Raw counts of red, green and blue that become 0 to 255."""
_CORNER = (-1234567.0, 7654321.0)
"""Marks the place of the georeference in a header, which is overwritten for each tile."""


@dataclass(frozen=True)
class Body:
    """One body, cut where the georeference goes."""

    pixels: NDArray[np.uint8]
    """(3, size, size)."""
    mask: NDArray[np.uint8]
    """(size, size), 255 where valid."""
    tif: tuple[bytes, bytes]
    """Before and behind the corner's two doubles; the pixel size that follows them is that of `zoom`."""
    png: bytes

    def at(self, z: int, x: int, y: int) -> tuple[bytes, bytes, bytes]:
        """Return the GeoTIFF of a tile in three pieces."""
        side = 2 * HALF_WORLD / 2**z
        return self.tif[0], struct.pack("<dd", x * side - HALF_WORLD, HALF_WORLD - y * side), self.tif[1]


def index_of(x: int, y: int) -> int:
    """Return which body a tile has; neighbours differ."""
    return (x * 7 + y * 3) % (REAL + SYNTHETIC)


def make_bodies(zoom: int, size: int = 512) -> list[Body]:
    """Render all bodies for one zoom."""
    random = np.random.default_rng(2026)
    scene = _scene()
    pictures = [_window(scene, size, random) for _ in range(REAL)] + [_texture(size, random) for _ in range(SYNTHETIC)]
    masks = [np.full((size, size), 255, np.uint8) for _ in pictures]
    masks[0][:, : size // 5] = 0
    pictures[0][:, :, : size // 5] = 0
    return [_body(pixels, mask, zoom) for pixels, mask in zip(pictures, masks, strict=True)]


def small_body(size: int = 128) -> bytes:
    """Make a body of one band that compresses to nothing and lies nowhere, for runs of very many tiles."""
    pixels = np.broadcast_to((np.arange(size, dtype=np.uint8) // 16)[np.newaxis, np.newaxis], (1, size, size))
    return _encode(pixels, np.full((size, size), 255, np.uint8), None)


def _scene() -> NDArray[np.uint8]:
    """Read a scene as (3, height, width) of 0 to 255."""
    bands = []
    for band, (low, high) in zip("432", _RANGES, strict=True):
        (path,) = SCENES.rglob(f"*224078*_B{band}.tif")
        with rasterio.open(path) as dataset:
            counts = dataset.read(1).astype("float32")
        bands.append(np.clip((counts - low) / (high - low) * 255, 0, 255))
    return np.stack(bands).astype(np.uint8)


def _window(scene: NDArray[np.uint8], size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Cut a window that is valid everywhere."""
    while True:
        row = int(random.integers(0, scene.shape[1] - size))
        col = int(random.integers(0, scene.shape[2] - size))
        window = scene[:, row : row + size, col : col + size]
        if (window.max(axis=0) > 0).mean() > 0.999:
            return window.copy()


def _texture(size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Make noise whose power falls with frequency as in a landscape, alike in all bands, with a little of its own."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, np.newaxis], np.fft.fftfreq(size)[np.newaxis])
    frequency[0, 0] = 1
    shape = np.fft.ifft2(np.fft.fft2(random.normal(size=(size, size))) / frequency**1.1).real
    bands = np.stack([shape / shape.std() + random.normal(scale=0.035, size=(size, size)) for _ in range(3)])
    return np.clip(110 + 32 * bands, 0, 255).astype(np.uint8)


def _body(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], zoom: int) -> Body:
    whole = _encode(pixels, mask, zoom)
    corner = struct.pack("<dd", *_CORNER)
    before, _, behind = whole.partition(corner)
    assert behind, "the header has no georeference"
    return Body(pixels, mask, (before, behind), _encode_png(pixels, mask))


def _encode(pixels: NDArray[np.uint8], mask: NDArray[np.uint8], zoom: int | None) -> bytes:
    count, height, width = pixels.shape
    profile = {
        "driver": "GTiff",
        "count": count + 1,
        "height": height,
        "width": width,
        "dtype": "uint8",
        "interleave": "pixel",
        "photometric": "RGB" if count == 3 else "MINISBLACK",
    }
    if zoom is not None:
        resolution = 2 * HALF_WORLD / 2**zoom / width
        profile |= {"crs": "EPSG:3857", "transform": from_origin(*_CORNER, resolution, resolution)}
    with MemoryFile() as file:
        with file.open(**profile) as dataset:
            dataset.colorinterp = [*dataset.colorinterp[:count], ColorInterp.alpha]
            dataset.write(np.concatenate([pixels, mask[np.newaxis]]))
        return bytes(file.getbuffer())


def _encode_png(pixels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bytes:
    count, height, width = pixels.shape
    with MemoryFile() as file:
        with file.open(driver="PNG", count=count + 1, height=height, width=width, dtype="uint8") as dataset:
            dataset.write(np.concatenate([pixels, mask[np.newaxis]]))
        return io.BytesIO(file.getbuffer()).getvalue()
