"""How the output's pixels are stored: bands, mask, codec, overviews; checked before the first request.

It knows which combinations GDAL's COG driver can write. It does not know files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from rasterio.dtypes import in_dtype_range

from mosaic_async.errors import UsageError
from mosaic_async.raster.form import Palette, TileFormat

MaskMode = Literal["auto", "internal", "alpha", "nodata", "none"]
StoredMask = Literal["internal", "alpha", "nodata", "none"]
OverviewResampling = Literal["average", "nearest", "mode", "rms"]
"""Methods that compute a pixel from exactly the four pixels below it, so that parts meet without a seam."""
OverviewChoice = Literal["auto", "average", "nearest", "mode", "rms"]
"""Auto is average, but nearest for values that are packed into colours, and mode for classes and colour tables."""

Values = Literal["quantities", "packed", "classes"]
"""What numbers are: quantities, which have an average; values packed into colours; or class codes and flags."""

MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)
OVERVIEW_RESAMPLINGS: tuple[OverviewResampling, ...] = get_args(OverviewResampling)
OVERVIEW_CHOICES: tuple[OverviewChoice, ...] = get_args(OverviewChoice)
_CODECS = {
    "jpeg": "JPEG",
    "webp": "WEBP",
    "zstd": "ZSTD",
    "lzw": "LZW",
    "deflate": "DEFLATE",
    "packbits": "PACKBITS",
    "lzma": "LZMA",
    "lerc": "LERC",
    "lerc_deflate": "LERC_DEFLATE",
    "lerc_zstd": "LERC_ZSTD",
    "raw": "NONE",
}
PROFILES: tuple[str, ...] = tuple(_CODECS)
"""rio-cogeo's names. Its own table is not imported, because `--help` would take as long again."""
_BLOCK_SIZE = 512
DEFAULT_PROFILE = "deflate"
DEFAULT_MASK: MaskMode = "auto"
DEFAULT_OVERVIEW_RESAMPLING: OverviewChoice = "auto"
_FITTING: dict[Values, OverviewResampling] = {"quantities": "average", "packed": "nearest", "classes": "mode"}

_CREATION_OPTIONS = frozenset(
    {
        "BIGTIFF",
        "BLOCKSIZE",
        "LEVEL",
        "MAX_Z_ERROR",
        "MAX_Z_ERROR_OVERVIEW",
        "NUM_THREADS",
        "OVERVIEW_QUALITY",
        "PREDICTOR",
        "QUALITY",
        "SPARSE_OK",
    }
)
"""Options of GDAL's COG driver. GDAL ignores unknown names, so a misspelt name is refused here."""
_WITH_PREDICTOR = ("DEFLATE", "LZW", "ZSTD")
_WITH_LEVEL = ("DEFLATE", "ZSTD")
_LOSSLESS = frozenset(("NONE", "DEFLATE", "LZW", "ZSTD", "LZMA", "PACKBITS"))
_ALIASES = {
    "BLOCKXSIZE": "BLOCKSIZE",
    "ZLEVEL": "LEVEL",
    "ZSTD_LEVEL": "LEVEL",
    "JPEG_QUALITY": "QUALITY",
    "WEBP_LEVEL": "QUALITY",
}
"""Options of GDAL's GTiff driver, which users of rio-cogeo know, and their names in the COG driver."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How the output is stored."""

    count: int
    """Bands of data; an alpha band is not counted."""
    dtype: str
    mask: StoredMask
    nodata: float | None = None
    colorinterp: tuple[str, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    scales: tuple[tuple[float, float], ...] = ()
    """As in `TileFormat`."""
    units: tuple[str, ...] = ()
    """Units of the values; "" for a band without one."""
    palette: Palette | None = None
    """Colours by index, where the output holds indices."""
    overview_resampling: OverviewResampling = "average"
    block_size: int = 512
    """Pixels per side."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Creation options of GDAL's COG driver."""

    @classmethod
    def of(
        cls,
        tile: TileFormat,
        *,
        profile: str = DEFAULT_PROFILE,
        creation_options: Mapping[str, str] | None = None,
        mask: MaskMode = DEFAULT_MASK,
        nodata: float | None = None,
        dtype: str | None = None,
        overview_resampling: OverviewChoice = DEFAULT_OVERVIEW_RESAMPLING,
        values: Values = "quantities",
    ) -> Encoding:
        """Decide how tiles like `tile` are stored; `mask="auto"` loses nothing and never turns a valid 0 into nodata.

        Args:
            tile: what the tiles look like.
            profile: a name of rio-cogeo.
            creation_options: of GDAL's GTiff or COG driver.
            mask: how to mark pixels without data.
            nodata: the value of pixels without data.
            dtype: of the output; None: that of the tiles.
            overview_resampling: the method, or auto.
            values: what the numbers are.

        Raises:
            UsageError: a name is unknown, or the codec cannot hold the combination.
        """
        keeps_palette = (
            (tile.palette is not None and nodata is None and dtype is None and values != "packed")
            and (overview_resampling in ("auto", "nearest", "mode") and mask in ("auto", "internal", "none"))
            and _compression(profile) in _LOSSLESS
        )
        has_indices = keeps_palette or "palette" in tile.colorinterp  # 16 bits of them have no colours here
        resampling = _resampling(overview_resampling, "classes" if has_indices else values)
        options = _cog_options(profile, creation_options or {}, is_picture=resampling in ("average", "rms"))
        if keeps_palette:
            tile = replace(tile, count=1, colorinterp=("palette",), descriptions=())
        dtype = _dtype(dtype or tile.dtype)
        given_nodata, nodata = nodata, _nodata_of(tile, dtype) if nodata is None else nodata
        mode = _mask_mode(mask, profile, tile.count, nodata)
        if given_nodata is not None and mode != "nodata":
            raise UsageError(f"nodata {given_nodata:g} and mask {mode} exclude each other", hint="omit ``mask``")
        encoding = cls(
            count=tile.count,
            dtype=dtype,
            mask=mode,
            nodata=nodata if mode == "nodata" else None,
            colorinterp=tile.colorinterp,
            descriptions=tile.descriptions,
            scales=tile.scales,
            palette=tile.palette if keeps_palette else None,
            overview_resampling=resampling,
            block_size=_block_size(options.pop("BLOCKSIZE")),
            options=options,
        )
        encoding._check(profile)
        return encoding

    @property
    def bands(self) -> int:
        """Bands in the file, an alpha band included."""
        return self.count + 1 if self.mask == "alpha" else self.count

    @property
    def is_lossless(self) -> bool:
        """Whether all pixels are stored as they are."""
        return self.options["COMPRESS"].upper() in _LOSSLESS

    @property
    def all_colors(self) -> tuple[str, ...]:
        """The meaning of every band, an alpha band included; GDAL alone takes the fourth of four bytes for one."""
        rest = ("undefined" if self.colorinterp else "gray", *["undefined"] * self.count)
        return (*self.colorinterp, *rest)[: self.count] + ("alpha",) * (self.mask == "alpha")

    @property
    def pixel_bytes(self) -> float:
        """Bytes per pixel in memory, an internal mask's bit included."""
        return self.bands * np.dtype(self.dtype).itemsize + (self.mask == "internal") / 8

    def images(self, levels: int) -> int:
        """Return how many images a file with that many overview levels has, masks counted."""
        return (levels + 1) * (2 if self.mask == "internal" else 1)

    @property
    def is_sparse(self) -> bool:
        """Whether blocks without data are left out of the file."""
        return self.options.get("SPARSE_OK", "NO").upper() in ("YES", "TRUE", "ON", "1")

    def dense(self) -> Encoding:
        """Return the same encoding with all blocks in the file."""
        return replace(self, options={**self.options, "SPARSE_OK": "NO"})

    @property
    def overview_settings(self) -> Mapping[str, str]:
        """GDAL's settings with which its COG driver compresses overviews as it does the image."""
        predictor = self.options.get("PREDICTOR", "NO").upper()
        of_dtype = "3" if np.dtype(self.dtype).kind == "f" else "2"
        known = {"NO": "1", "YES": of_dtype, "STANDARD": "2", "FLOATING_POINT": "3"}
        return {
            "COMPRESS_OVERVIEW": self.options.get("COMPRESS", "NONE"),
            "PREDICTOR_OVERVIEW": known.get(predictor, predictor),
        }

    def _check(self, profile: str) -> None:
        if self.overview_resampling not in OVERVIEW_RESAMPLINGS:
            raise UsageError(
                f"overview resampling {self.overview_resampling!r} is not supported",
                hint=f"use one of {', '.join(OVERVIEW_RESAMPLINGS)}; others read across part edges and leave a seam",
            )
        if profile in ("jpeg", "webp") and self.dtype != "uint8":
            raise UsageError(
                f"profile {profile} holds uint8 only, the pixels are {self.dtype}", hint="use deflate, zstd or lzw"
            )
        if profile == "jpeg" and (self.bands > 4 or self.mask == "alpha"):
            raise UsageError(
                "profile jpeg holds up to four bands and cannot hold an alpha band",
                hint="set ``mask`` to internal, or use another profile",
            )
        if profile == "webp" and self.bands not in (3, 4):
            raise UsageError(
                f"profile webp holds 3 bands, with or without alpha, or 4, not {self.bands}",
                hint="use deflate, zstd or lzw",
            )
        if self.mask == "alpha" and self.dtype not in ("uint8", "uint16"):
            raise UsageError(f"readers do not support an alpha band of {self.dtype}", hint="set ``mask`` to internal")
        if self.mask == "nodata" and self.nodata is None:
            raise UsageError("mask nodata requires a nodata value", hint="set ``nodata``")
        if self.nodata is not None and not in_dtype_range(self.nodata, self.dtype):
            raise UsageError(f"nodata {self.nodata:g} does not fit into {self.dtype}")


def _resampling(choice: OverviewChoice, values: Values) -> OverviewResampling:
    return _FITTING[values] if choice == "auto" else choice


def _compression(profile: str) -> str:
    return _CODECS.get(profile, "")


def _nodata_of(tile: TileFormat, dtype: str) -> float | None:
    """Return the nodata value of the tiles; where they differ in it, floats have one of their own."""
    return math.nan if tile.nodata_differs and np.dtype(dtype).kind == "f" else tile.nodata


def _mask_mode(mask: MaskMode, profile: str, count: int, nodata: float | None) -> StoredMask:
    if mask not in MASK_MODES:
        raise UsageError(f"mask {mask!r} is unknown", hint=f"use one of {', '.join(MASK_MODES)}")
    if mask != "auto":
        return mask
    if nodata is not None:
        return "nodata"
    return "alpha" if profile == "webp" and count == 3 else "internal"


def _cog_options(profile: str, creation_options: Mapping[str, str], *, is_picture: bool) -> dict[str, str]:
    """Translate a rio-cogeo profile and GTiff or COG creation options to the COG driver's.

    Pictures and measurements (anything that may be averaged) use a predictor for their dtype and the fastest level. The
    result is smaller than with GDAL's defaults, in a half to a quarter of the time (docs/performance.md). Classes use
    GDAL's defaults.
    """
    if profile not in PROFILES:
        raise UsageError(f"profile {profile!r} is unknown", hint=f"use one of {', '.join(PROFILES)}")
    options = {
        "COMPRESS": _CODECS[profile],
        "BLOCKSIZE": str(_BLOCK_SIZE),
        "NUM_THREADS": "ALL_CPUS",
        "BIGTIFF": "IF_SAFER",
    }
    if is_picture and options["COMPRESS"] in _WITH_PREDICTOR:
        options["PREDICTOR"] = "YES"
    if is_picture and options["COMPRESS"] in _WITH_LEVEL:
        options["LEVEL"] = "1"
    for given_name, value in creation_options.items():
        name = _ALIASES.get(given_name.upper(), given_name.upper())
        if name not in _CREATION_OPTIONS:
            raise UsageError(
                f"creation option {name} is unknown", hint=f"use one of {', '.join(sorted(_CREATION_OPTIONS))}"
            )
        options[name] = str(value)
    return options


def _block_size(value: str) -> int:
    if not value.isdigit() or (size := int(value)) & (size - 1) or not 128 <= size <= 4096:
        raise UsageError(f"BLOCKSIZE must be a power of two from 128 to 4096, got {value}")
    return size


def _dtype(name: str) -> str:
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise UsageError(f"dtype {name!r} is unknown", hint="use uint8, uint16, int16, float32, ...") from error
    if dtype.kind not in "uif" or dtype.name in ("float16", "longdouble"):
        raise UsageError(f"a GeoTIFF cannot hold dtype {name!r}", hint="use uint8, uint16, int16, float32, ...")
    return dtype.name
