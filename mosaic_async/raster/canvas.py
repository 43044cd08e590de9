"""One part of the output while it is being filled: a rasterio MemoryFile that is sealed to a COG.

It does not know tiles or where its part lies in the output. GDAL datasets are not thread-safe, so only one thread at a
time may use a canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter, MemoryFile
from rasterio.windows import Window

from mosaic_async.errors import ResourceError
from mosaic_async.raster import whole_file
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.environment import pinned
from mosaic_async.raster.fitting import converted, fit, is_fit, read_stored
from mosaic_async.raster.form import RGB, Mask, Pixels
from mosaic_async.raster.halving import halve, is_exact
from mosaic_async.raster.readback import check_blocks
from mosaic_async.raster.statistics import Statistics, of_levels

_CRS = "EPSG:3857"
_SIDE = 512
"""Pixels per side of the squares in which an overview is made."""


class Canvas:
    """A raster in memory: place arrays, then seal it to a file. Pixels that are not placed are masked, nodata or 0.

    Args:
        height: pixels.
        width: pixels.
        levels: overview levels that `seal` makes.
        transform: from (column, row) to the CRS.
        encoding: bands, dtype, mask and codec.
        crs: AUTHORITY:CODE or WKT.
    """

    def __init__(
        self, height: int, width: int, levels: int, transform: Affine, encoding: Encoding, *, crs: str = _CRS
    ) -> None:
        self.height = height
        self.width = width
        self.levels = levels
        self.encoding = encoding
        self._transform = transform
        self._crs = crs
        self._memory = MemoryFile(ext=".tif")
        self._overviews: list[MemoryFile] = []
        """The overviews that `halve` makes, largest first; GDAL stores its own inside the canvas."""
        with pinned():
            self._dataset: DatasetWriter = self._memory.open(**self._creation())
            self._dataset.colorinterp = [ColorInterp[name] for name in encoding.all_colors]
            if encoding.palette is not None:
                self._dataset.write_colormap(1, dict(enumerate(encoding.palette)))
            self._label(encoding)
            if encoding.mask == "internal":
                self._dataset.write_mask(np.zeros((1, 1), np.uint8), window=Window(0, 0, 1, 1))

    def _label(self, encoding: Encoding) -> None:
        """Write names, scales, offsets and units of the data bands; an alpha band has none."""
        rest = encoding.bands - encoding.count
        for index, name in enumerate(encoding.descriptions, start=1):
            if name:
                self._dataset.set_band_description(index, name)
        if encoding.scales:
            self._dataset.scales, self._dataset.offsets = zip(*encoding.scales, *[(1.0, 0.0)] * rest, strict=True)
        if any(encoding.units):
            self._dataset.units = (*encoding.units, *[""] * rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def place(self, pixels: Pixels, mask: Mask | None, window: Window) -> None:
        """Write pixels, (bands, height, width), and their mask, (height, width) and 0 where invalid, into a window."""
        bands = list(range(1, self.encoding.count + 1))
        pixels = converted(pixels, np.dtype(self.encoding.dtype))
        if self.encoding.mask == "nodata" and mask is not None:
            pixels = np.where(mask > 0, pixels, np.asarray(self.encoding.nodata).astype(self.encoding.dtype))
        self._dataset.write(pixels, bands, window=window)
        if self.encoding.mask in ("internal", "alpha"):
            self._place_mask(np.full(pixels.shape[1:], 255, np.uint8) if mask is None else mask, window)

    def place_top(self, path: Path, row_off: int, col_off: int) -> None:
        """Place the smallest level of another canvas, as `seal` stored it: all bands and the mask, unchanged."""
        with pinned(), rasterio.open(path) as source:
            window = Window(col_off, row_off, source.width, source.height)
            self._dataset.write(source.read(), window=window)
            if self.encoding.mask == "internal":
                self._dataset.write_mask(source.dataset_mask(), window=window)

    def keep(self, path: Path) -> None:
        """Write all pixels and masks without loss, for `restore`; the canvas stays open.

        Raises:
            ResourceError: the file cannot be written.
        """
        try:
            with pinned(), whole_file.aside(path) as partial:
                self._dataset.close()
                try:
                    rasterio.shutil.copy(self._memory.name, partial, driver="GTiff", **self._kept_options())
                finally:
                    self._dataset = rasterio.open(self._memory.name, "r+")
                check_blocks(partial, 2 if self.encoding.mask == "internal" else 1)
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise ResourceError(f"{path} cannot be written: {error}", hint="free disk space, then resume") from error

    def restore(self, path: Path) -> None:
        """Place what another canvas of this size kept or sealed, in this encoding or in a narrower one.

        Raises:
            TileError: this encoding cannot mark the pixels without data.
        """
        with pinned(), rasterio.open(path) as source:
            self.take(source)

    def widened(self, encoding: Encoding) -> Canvas:
        """Return a canvas with these pixels in a wider encoding; this one is closed.

        Raises:
            TileError: as for `restore`.
        """
        with ExitStack() as stack:
            wider = Canvas(self.height, self.width, self.levels, self._transform, encoding, crs=self._crs)
            stack.enter_context(wider)
            with pinned():
                wider.take(self._dataset)
            stack.pop_all()
        self.close()
        return wider

    def take(self, source: DatasetReader) -> None:
        """Place all pixels of a dataset of this size, in this encoding or in a narrower one.

        Raises:
            TileError: as for `restore`.
        """
        is_same = is_fit(source, self.encoding)
        for row_off in range(0, source.height, self.encoding.block_size):
            window = Window(0, row_off, source.width, min(self.encoding.block_size, source.height - row_off))
            if not is_same:
                self.place(*fit(read_stored(source, window), self.encoding), window)
                continue
            self._dataset.write(source.read(window=window), window=window)
            if self.encoding.mask == "internal":
                self._dataset.write_mask(source.dataset_mask(window=window), window=window)

    def cut(self, inside: Callable[[Window], NDArray[np.bool_]]) -> None:
        """Invalidate every pixel that a function of windows does not hold; it returns (height, width)."""
        for row_off in range(0, self.height, self.encoding.block_size):
            window = Window(0, row_off, self.width, min(self.encoding.block_size, self.height - row_off))
            outside = ~inside(window)
            if outside.any():
                self._blank(window, outside)

    def _blank(self, window: Window, outside: NDArray[np.bool_]) -> None:
        pixels = self._dataset.read(window=window)
        pixels[:, outside] = 0 if self.encoding.nodata is None else self.encoding.nodata
        self._dataset.write(pixels, window=window)
        if self.encoding.mask == "internal":
            mask = self._dataset.dataset_mask(window=window)
            self._dataset.write_mask(np.where(outside, np.uint8(0), mask), window=window)

    def count(self, statistics: Statistics) -> None:
        """Count the pixels that are placed so far."""
        statistics.add(self._dataset, height=self.height, width=self.width)

    def seal(
        self,
        path: Path,
        *,
        tags: Mapping[str, str] | None = None,
        of_bands: Sequence[Mapping[str, str]] | None = None,
        top: Path | None = None,
    ) -> None:
        """Make each overview from the level above it, write the COG in one pass, then close the canvas.

        Args:
            path: the COG; it appears whole or not at all.
            tags: GDAL metadata for its header; None where the header is not used.
            of_bands: GDAL metadata of each band; None: the statistics of its pixels, if the header is used.
            top: the file for a lossless copy of the smallest level, from which the levels above are made.

        Raises:
            ResourceError: the file cannot be written.
        """
        try:
            with pinned(GDAL_TIFF_OVR_BLOCKSIZE=self.encoding.block_size, CPL_TMPDIR=str(path.parent)):
                self._fill_padding()
                self._dataset.update_tags(**(tags or {}))
                self._dataset.close()
                self._make_overviews()
                if tags is not None:
                    self._describe(self._statistics() if of_bands is None else of_bands)
                with whole_file.aside(path) as partial:
                    self._encode(partial)
                    if top is not None:
                        self._keep_top(top)
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise ResourceError(f"{path} cannot be written: {error}", hint="free disk space, then resume") from error
        finally:
            self.close()

    def close(self) -> None:
        """Free the memory; closing twice does no harm."""
        self._dataset.close()
        for memory in reversed(self._overviews):
            memory.close()
        self._memory.close()

    @property
    def _padded_shape(self) -> tuple[int, int]:
        """Height and width, rounded up so that every level has exactly half the height and width of the level above."""
        step = 1 << self.levels
        return -(-self.height // step) * step, -(-self.width // step) * step

    def _creation(self, level: int = 0) -> dict[str, Any]:
        encoding = self.encoding
        height, width = self._padded_shape
        return {
            "driver": "GTiff",
            "height": height >> level,
            "width": width >> level,
            "count": encoding.bands,
            "dtype": encoding.dtype,
            "nodata": encoding.nodata,
            "crs": self._crs,
            "transform": self._transform,
            "tiled": True,
            "blockxsize": encoding.block_size,
            "blockysize": encoding.block_size,
            "interleave": "pixel",
            "photometric": self._photometric,
            "sparse_ok": True,
            "bigtiff": "IF_SAFER",
        }

    @property
    def _photometric(self) -> str:
        if self.encoding.palette is not None:
            return "PALETTE"
        return "RGB" if self.encoding.colorinterp[:3] == RGB else "MINISBLACK"

    def _kept_options(self) -> dict[str, Any]:
        block = self.encoding.block_size
        layout = {"TILED": True, "BLOCKXSIZE": block, "BLOCKYSIZE": block, "INTERLEAVE": "PIXEL", "SPARSE_OK": True}
        return {"COMPRESS": "DEFLATE", "ZLEVEL": 1, "BIGTIFF": "IF_SAFER", **layout}

    def _place_mask(self, mask: Mask, window: Window) -> None:
        if self.encoding.mask == "internal":
            self._dataset.write_mask(mask, window=window)
        else:
            opaque = np.iinfo(self.encoding.dtype).max
            self._dataset.write(
                np.where(mask > 0, opaque, 0).astype(self.encoding.dtype), self.encoding.bands, window=window
            )

    def _fill_padding(self) -> None:
        """Fill the padding so that on every level it repeats that level's last column and row.

        Then the padding does not change the overviews, whatever the size of the canvas. Where a level has an odd number
        of columns, all pixels that its last column is made from are repeated.
        """
        for start, size in _repeats(self.width, self.levels):
            self._copy(Window(start, 0, size, self.height), Window(start + size, 0, size, self.height))
        _, width = self._padded_shape
        for start, size in _repeats(self.height, self.levels):
            self._copy(Window(0, start, width, size), Window(0, start + size, width, size))

    def _copy(self, source: Window, target: Window) -> None:
        self._dataset.write(self._dataset.read(window=source), window=target)
        if self.encoding.mask == "internal":
            self._dataset.write_mask(self._dataset.dataset_mask(window=source), window=target)

    def _make_overviews(self) -> None:
        encoding = self.encoding
        masked = encoding.mask == "internal"
        can_halve = encoding.overview_resampling == "average" and encoding.mask in ("internal", "none")
        if can_halve and is_exact(encoding.dtype, masked=masked):
            self._halve_down()
        elif self.levels:
            with rasterio.open(self._memory.name, "r+") as dataset:
                factors = [2**level for level in range(1, self.levels + 1)]
                dataset.build_overviews(factors, Resampling[encoding.overview_resampling])

    def _statistics(self) -> Sequence[Mapping[str, str]]:
        """Return the statistics of each band; indices of colours have none."""
        if self.encoding.palette is not None:
            return []
        size = {"height": self.height, "width": self.width, "levels": self.levels}
        return of_levels(self._memory.name, bands=self.encoding.count, **size)

    def _describe(self, of_bands: Sequence[Mapping[str, str]]) -> None:
        with rasterio.open(self._memory.name, "r+") as dataset:
            for index, tags in enumerate(of_bands, start=1):
                dataset.update_tags(index, **tags)

    def _halve_down(self) -> None:
        """Make each level from the level above it, as a file whose name makes GDAL treat it as an overview."""
        folder, name = self._memory.name.rsplit("/", 2)[1:]
        above = self._memory
        for level in range(1, self.levels + 1):
            name += ".ovr"
            memory = MemoryFile(dirname=folder, filename=name)
            self._overviews.append(memory)
            with above.open() as source, memory.open(**self._creation(level)) as target:
                self._halve(source, target)
            above = memory

    def _halve(self, source: DatasetReader, target: DatasetWriter) -> None:
        """Fill a level from the level above it, in squares that fit into the processor's cache."""
        masked = self.encoding.mask == "internal"
        for row_off, col_off in product(range(0, target.height, _SIDE), range(0, target.width, _SIDE)):
            height, width = min(_SIDE, target.height - row_off), min(_SIDE, target.width - col_off)
            above = Window(2 * col_off, 2 * row_off, 2 * width, 2 * height)
            pixels, mask = halve(source.read(window=above), source.read_masks(1, window=above) if masked else None)
            window = Window(col_off, row_off, width, height)
            target.write(pixels, window=window)
            if mask is not None:
                target.write_mask(mask, window=window)

    def _encode(self, path: Path) -> None:
        """Write the COG in one pass, and check that all of it arrived."""
        options = {**self.encoding.options, "BLOCKSIZE": str(self.encoding.block_size)}
        with rasterio.Env(**self.encoding.overview_settings):  # of which `pinned` knows nothing
            rasterio.shutil.copy(self._memory.name, path, driver="COG", OVERVIEWS="FORCE_USE_EXISTING", **options)
        check_blocks(path, self.encoding.images(self.levels))

    def _keep_top(self, path: Path) -> None:
        """Write the smallest level as a plain GeoTIFF, uncompressed: it is read once and is one block."""
        level = {"overview_level": self.levels - 1} if self.levels else {}
        with (
            whole_file.aside(path) as partial,
            rasterio.open(self._memory.name, **level) as source,
            rasterio.open(partial, "w", **source.profile) as target,
        ):
            target.write(source.read())
            if self.encoding.mask == "internal":
                target.write_mask(source.dataset_mask())


def _repeats(size: int, levels: int) -> Iterator[tuple[int, int]]:
    """Yield (start, length) of each run of pixels to repeat directly after itself, in this order."""
    for level in range(levels):
        units = -(-size >> level)  # columns, or rows, of the level
        if units % 2:
            yield (units - 1) << level, 1 << level
