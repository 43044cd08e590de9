"""An index of rasters that GDAL opens as one raster: a GeoPackage for its driver GTI, from GDAL 3.9 on.

A GeoPackage is an SQLite file with tables of fixed names (OGC 12-128r19), so it needs no library.
It does not know items.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from rasterio.crs import CRS
from rasterio.dtypes import _gdal_typename
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from mosaic_async.geo.grid import Grid

_CUSTOM = 100_000
"""Number of a reference system in the file, where no authority has numbered it."""
_POLYGON = 3
_ENVELOPE = 0b11
"""Flags of a geometry: little endian, with its envelope."""
_TABLES = """
PRAGMA application_id = 0x47504B47;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY,
  organization TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
  description TEXT DEFAULT '', last_change DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE, srs_id INTEGER);
CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL PRIMARY KEY, column_name TEXT NOT NULL,
  geometry_type_name TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL);
CREATE TABLE gpkg_extensions (table_name TEXT, column_name TEXT, extension_name TEXT NOT NULL,
  definition TEXT NOT NULL, scope TEXT NOT NULL);
CREATE TABLE gpkg_metadata (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, md_scope TEXT NOT NULL,
  md_standard_uri TEXT NOT NULL, mime_type TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE gpkg_metadata_reference (reference_scope TEXT NOT NULL, table_name TEXT, column_name TEXT,
  row_id_value INTEGER, timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  md_file_id INTEGER NOT NULL, md_parent_id INTEGER);
CREATE TABLE parts (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom POLYGON, location TEXT);
CREATE VIRTUAL TABLE rtree_parts_geom USING rtree(id, minx, maxx, miny, maxy);
INSERT INTO gpkg_spatial_ref_sys VALUES ('undefined Cartesian', -1, 'NONE', -1, 'undefined', NULL),
  ('undefined geographic', 0, 'NONE', 0, 'undefined', NULL);
INSERT INTO gpkg_extensions VALUES
  ('parts', 'geom', 'gpkg_rtree_index', 'http://www.geopackage.org/spec120/#extension_rtree', 'write-only'),
  ('gpkg_metadata', NULL, 'gpkg_metadata', 'http://www.geopackage.org/spec120/#extension_metadata', 'read-write'),
  ('gpkg_metadata_reference', NULL, 'gpkg_metadata', 'http://www.geopackage.org/spec120/#extension_metadata',
   'read-write');
"""
_CONTENTS = """INSERT INTO gpkg_contents
  (table_name, data_type, identifier, min_x, min_y, max_x, max_y, srs_id)
  VALUES ('parts', 'features', 'parts', ?, ?, ?, ?, ?)"""
_REFERENCE = """INSERT INTO gpkg_metadata_reference (reference_scope, table_name, md_file_id)
  VALUES ('table', 'parts', 1)"""


@dataclass(frozen=True)
class IndexedFile:
    """A raster of the index."""

    location: str
    """From the index."""
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top in the reference system of all."""


def tile_index(files: Sequence[IndexedFile], grid: Grid, like: DatasetReader) -> bytes:
    """Return the GeoPackage.

    Args:
        files: the rasters, none of which overlap.
        grid: the pixels of all together.
        like: one of them; all have its bands, its dtype and its kind of mask.
    """
    database = sqlite3.connect(":memory:")
    try:
        database.executescript(_TABLES)
        number = _add_system(database, like.crs)
        _add_layer(database, number, _extent(grid))
        _add_metadata(database, {**_of_grid(grid), **_of_pixels(like)})
        database.executemany("INSERT INTO parts VALUES (?, ?, ?)", _rows(files, number))
        database.executemany("INSERT INTO rtree_parts_geom VALUES (?, ?, ?, ?, ?)", _boxes(files))
        database.commit()
        return database.serialize()
    finally:
        database.close()


def _add_system(database: sqlite3.Connection, crs: CRS) -> int:
    """Note the reference system, and return its number."""
    authority, code = crs.to_authority() or ("NONE", "")
    number = int(code) if code.isdigit() else _CUSTOM
    row = ("reference system", number, authority, number, crs.to_wkt(), None)
    database.execute("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", row)
    return number


def _add_layer(database: sqlite3.Connection, number: int, extent: tuple[float, float, float, float]) -> None:
    database.execute(_CONTENTS, (*extent, number))
    database.execute("INSERT INTO gpkg_geometry_columns VALUES ('parts', 'geom', 'POLYGON', ?, 0, 0)", (number,))


def _add_metadata(database: sqlite3.Connection, values: Mapping[str, str]) -> None:
    """Keep what the driver needs to know of all rasters, so that it opens none of them."""
    items = "".join(f"<MDI key={quoteattr(name)}>{escape(value)}</MDI>" for name, value in values.items())
    xml = f"<GDALMultiDomainMetadata><Metadata>{items}</Metadata></GDALMultiDomainMetadata>"
    database.execute("INSERT INTO gpkg_metadata VALUES (1, 'dataset', 'http://gdal.org', 'text/xml', ?)", (xml,))
    database.execute(_REFERENCE)


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of the grid."""
    place = grid.transform()
    return place.c, place.f + grid.height * place.e, place.c + grid.width * place.a, place.f


def _of_grid(grid: Grid) -> dict[str, str]:
    place = grid.transform()
    factors = {f"OVERVIEW_{level}_FACTOR": str(2 ** (level + 1)) for level in range(grid.part_levels)}
    numbers = ",".join(map(repr, place.to_gdal()))
    sizes = {"XSIZE": str(grid.width), "YSIZE": str(grid.height), "GEOTRANSFORM": numbers}
    return {"LOCATION_FIELD": "location", **sizes, **factors}


def _of_pixels(like: DatasetReader) -> dict[str, str]:
    has_mask = MaskFlags.per_dataset in like.mask_flag_enums[0] and ColorInterp.alpha not in like.colorinterp
    nodata = {} if like.nodata is None else {"NODATA": repr(like.nodata)}
    return {
        "BAND_COUNT": str(like.count),
        "DATA_TYPE": _gdal_typename(like.dtypes[0]),
        "COLOR_INTERPRETATION": ",".join(color.name for color in like.colorinterp),
        "MASK_BAND": "YES" if has_mask else "NO",
        **nodata,
    }


def _rows(files: Sequence[IndexedFile], number: int) -> Iterator[tuple[int, bytes, str]]:
    for index, file in enumerate(files, start=1):
        yield index, _geometry(file.bounds, number), file.location


def _boxes(files: Sequence[IndexedFile]) -> Iterator[tuple[int, float, float, float, float]]:
    """Yield number, left, right, bottom, top: those of the spatial index."""
    for index, file in enumerate(files, start=1):
        left, low, right, top = file.bounds
        yield index, left, right, low, top


def _geometry(box: tuple[float, float, float, float], number: int) -> bytes:
    """Encode a box as a geometry of a GeoPackage: a header with its envelope, then WKB."""
    left, low, right, top = box
    header = struct.pack("<2sBBi4d", b"GP", 0, _ENVELOPE, number, left, right, low, top)
    ring = (left, low, right, low, right, top, left, top, left, low)
    return header + struct.pack("<BIII10d", 1, _POLYGON, 1, len(ring) // 2, *ring)
