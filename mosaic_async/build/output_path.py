"""Which names can be the output: a regular file, or a name that nothing has yet, of a GeoTIFF on this machine.

A collection is a folder in the same way.

The output takes its place by a rename, which replaces whatever has the name: as root, even a device.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from mosaic_async.build.collection_folder import check_replaceable
from mosaic_async.build.publication import publication_path
from mosaic_async.build.work_folder import work_path
from mosaic_async.errors import UsageError
from mosaic_async.safety.safe_json import parse

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/|/vsi[a-z0-9_]+/")
"""One slash is enough: that is what `Path` leaves of `s3://bucket`. A single letter is a drive."""
_CONVERTED = {
    "GPKG": (".gpkg",),
    "MBTiles": (".mbtiles",),
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "VRT": (".vrt",),
    "Zarr": (".zarr",),
    "netCDF": (".nc", ".nc4"),
    "JP2OpenJPEG": (".jp2", ".j2k"),
    "HFA": (".img",),
    "GIF": (".gif",),
    "AAIGrid": (".asc",),
    "PDF": (".pdf",),
}
"""Formats that GDAL makes of a GeoTIFF, by its name of the driver."""
_OTHERS = frozenset((".pmtiles", ".h5", ".hdf", ".hdf5", ".npy", ".npz", ".json", ".geojson", ".parquet", ".shp"))
_OTHERS |= {".fgb", ".zip", ".gz", ".tar", ".tgz", ".sqlite", ".db", ".svg", ".kml", ".kmz", ".html", ".txt", ".csv"}
_FILES = _OTHERS | {".tif", ".tiff"}
_DRIVERS = {suffix: driver for driver, suffixes in _CONVERTED.items() for suffix in suffixes}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def output_path(output: str | Path, *, collection: bool = False, stac: bool = False, overwrite: bool) -> Path:
    """Return the absolute path of what the output is or becomes; of a symlink, what it names.

    Args:
        output: what the user passes.
        collection: whether it is a folder.
        stac: whether an Item is written beside a file.
        overwrite: whether what is there may be replaced.

    Raises:
        UsageError: it cannot be a GeoTIFF or a collection here, or it exists.
    """
    if collection:
        return _collection_path(output, overwrite=overwrite)
    if str(output).endswith((os.sep, "/")):
        raise UsageError(f"{output} is the name of a folder", hint="name a file, or set ``collection``")
    path, kind = _checked(output)
    _check_suffix(path)
    if kind is not None and kind != stat.S_IFREG:
        raise UsageError(f"{path} is {_KINDS.get(kind, 'not a regular file')}", hint="name a file")
    if stac:
        _check_item(path, overwrite=overwrite)
    return _free(path, overwrite=overwrite)


def _collection_path(output: str | Path, *, overwrite: bool) -> Path:
    """Return the absolute path of the folder that a collection is or becomes.

    Raises:
        UsageError: it cannot be a folder here, it exists, or it holds anything else than a collection.
    """
    path, kind = _checked(output)
    if kind is None and path.suffix.lower() in _FILES:
        raise UsageError(f"{path.name} is the name of a file", hint="a collection is a folder: leave the suffix out")
    if kind is not None and kind != stat.S_IFDIR:
        raise UsageError(f"{path} is not a folder", hint="name a folder")
    path = _free(path, overwrite=overwrite)
    if kind is not None:
        check_replaceable(path)
    return path


def _check_item(output: Path, *, overwrite: bool) -> None:
    """Require that a STAC Item can be written beside an output.

    Raises:
        UsageError: another file has its name, or an item that must not be replaced.
    """
    path = output.with_suffix(".json")
    if not path.exists():
        return
    try:
        document = parse(path.read_bytes())
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("id") != output.stem or "stac_version" not in document:
        raise UsageError(f"{path} exists, and is not the item of {output.name}", hint="choose another name")
    if not overwrite and not publication_path(work_path(output)).exists():
        raise UsageError(f"{path} exists", hint="choose another name, or set ``overwrite``")


def _checked(output: str | Path) -> tuple[Path, int | None]:
    """Return the absolute path of an output, and the kind of what has this name; None if nothing has it.

    Raises:
        UsageError: it cannot be the name of an output.
    """
    _check_name(str(output))
    path = Path(output).absolute()
    try:
        if path.is_symlink():
            path = path.resolve()
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        kind = None
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a zero byte, a circle of symlinks
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be the output: {reason}", hint="choose another name") from error
    if not path.parent.is_dir():
        raise UsageError(f"folder {path.parent} not found", hint="create it first")
    return path, kind


def _free(path: Path, *, overwrite: bool) -> Path:
    if not publication_path(work_path(path)).exists():  # or else the run finds out whether the output is its own
        check_absent(path, overwrite=overwrite)
    return path


def check_absent(output: Path, *, overwrite: bool) -> None:
    """Require that the output is a new file or may be replaced; it blocks.

    Raises:
        UsageError: it exists.
    """
    if output.exists() and not overwrite:
        hint = "choose another name, or set ``overwrite``"
        if (work := work_path(output)).exists():
            hint += f"; tiles in {work.name} are not requested again"
        raise UsageError(f"{output} exists", hint=hint)


def _check_name(name: str) -> None:
    """Refuse names that other tools read as something else than a file."""
    if name == "-":
        raise UsageError("the output cannot be written to stdout", hint="name a file: a COG is not written in order")
    if match := _SCHEME.match(name):
        raise UsageError(
            f"{name} is not a file on this machine",
            hint="write a local file, then upload it" if match[1] != "file" else "pass the path without file://",
        )


def _check_suffix(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix not in _DRIVERS and suffix not in _OTHERS:
        return
    hint = f"name the output {path.stem}.tif"
    if driver := _DRIVERS.get(suffix):
        hint += f", then convert it: gdal_translate -of {driver} {path.stem}.tif {path.name}"
    elif suffix == ".pmtiles":
        hint += f", then convert it to MBTiles with gdal_translate and to {suffix} with `pmtiles convert`"
    raise UsageError(f"the output is a Cloud Optimized GeoTIFF, and {path.name} names another format", hint=hint)
