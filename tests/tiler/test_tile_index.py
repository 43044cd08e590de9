"""GDAL's tile index as a source of scenes, against GDAL's own reader of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import mercantile
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyogrio.raw import write
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from mosaic_async import SourceError
from mosaic_async.sources.tile_index import rasters_in
from mosaic_async.tiler import open_mosaic
from tests.tiler.in_process import InProcessTiler
from tests.tiler.world import PLACE, write_raster

GRID = "EPSG:32721"
TILE = mercantile.tile(*PLACE, 11)


def write_index(path: Path, names, *, stored=None, field="location", ranks=None, metadata=None) -> Path:
    """Write an index whose outlines are those of the files; `stored` are the names that it has for them."""
    boxes = []
    for name in names:
        with rasterio.open(path.parent / name) as file:
            boxes.append(shapely.to_wkb(shapely.box(*transform_bounds(file.crs, GRID, *file.bounds))))
    columns = {field: np.array(stored or names, object)} | ({"rank": np.array(ranks)} if ranks is not None else {})
    options = {"layer_metadata": metadata} if metadata else {}
    write(
        path, np.array(boxes, object), list(columns.values()), list(columns), crs=GRID, geometry_type="Polygon",
        driver={".fgb": "FlatGeobuf", ".gpkg": "GPKG", ".shp": "ESRI Shapefile"}[path.suffix], layer="index", **options,
    )  # fmt: skip
    return path


def write_scenes(folder: Path) -> list[str]:
    """Three scenes of one value each that overlap, in a folder below."""
    for value in (1, 2, 3):
        shift = {"shift": (40 * value, 20 * value)}
        write_raster(folder / "scenes" / f"{value}.tif", np.full((200, 200), value, "uint8"), nodata=0, **shift)
    return [f"scenes/{value}.tif" for value in (1, 2, 3)]


async def shown(path: Path) -> np.ndarray:
    answer = await InProcessTiler(path).tile(TILE, bands=["1"], resampling="nearest")
    assert answer.status == 200, answer.body
    data, valid = answer.pixels()
    return np.where(valid[0] if valid.ndim > 2 else valid, data[0], 0)


def drawn(path: Path) -> np.ndarray:
    """The same tile, by GDAL's driver of tile indexes."""
    bounds = mercantile.xy_bounds(*TILE)
    grid = rasterio.transform.from_bounds(*bounds, 256, 256)
    with (
        rasterio.open(path, driver="GTI") as file,
        WarpedVRT(file, crs="EPSG:3857", transform=grid, width=256, height=256, src_nodata=0, nodata=0) as tile,
    ):
        return tile.read(1)


@pytest.mark.parametrize(
    ("ranks", "metadata", "order"),
    [
        (None, {}, "321"),
        ([1, 3, 2], {"SORT_FIELD": "rank"}, "231"),
        ([1, 3, 2], {"SORT_FIELD": "rank", "SORT_FIELD_ASC": "NO"}, "132"),
    ],
)
async def test_the_scene_that_gdal_draws_on_top_comes_first(ranks, metadata, order, tmp_path):
    path = write_index(tmp_path / "index.gti.gpkg", write_scenes(tmp_path), ranks=ranks, metadata=metadata)
    names = dict.fromkeys(name for names in open_mosaic(path).document["tiles"].values() for name in names)
    assert [Path(name).stem for name in names] == list(order)
    expected = drawn(path)
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    differ = (await shown(path)) != expected
    assert differ.mean() < 0.01  # at the rims of scenes, where a warp of a mosaic and a mosaic of warps round apart


@pytest.mark.quick(1)
@pytest.mark.parametrize("suffix", [".fgb", ".gpkg", ".shp"])
async def test_files_that_gdal_reads_are_told_by_their_content_and_their_field_by_name(suffix, tmp_path):
    names = write_scenes(tmp_path)
    usual = write_index(tmp_path / f"usual{suffix}", [str(tmp_path / names[0]), *names[1:]])
    expected = await shown(usual)
    metadata = {} if suffix == ".shp" else {"LOCATION_FIELD": "path"}
    other = write_index(tmp_path / f"other{suffix}", names, field="path", metadata=metadata)
    if metadata:
        np.testing.assert_array_equal(await shown(other), expected)
    else:
        with pytest.raises(SourceError, match=r"has no field location: it has path"):
            open_mosaic(other)
    sheet = tmp_path / "index.gti"
    sheet.write_text(
        f"<!-- made by hand --><GDALTileIndexDataset><IndexDataset>other{suffix}</IndexDataset>"
        "<IndexLayer>other</IndexLayer><Filter>path &lt;&gt; 'scenes/3.tif'</Filter>"
        "<LocationField>path</LocationField></GDALTileIndexDataset>".replace(
            "<IndexLayer>other", f"<IndexLayer>{pyogrio.list_layers(other)[0][0]}"
        )
    )
    assert set(np.unique(await shown(sheet))) == {0, 1, 2}


def test_names_of_gdal_become_urls_and_xml_inside_a_geopackage_counts(tmp_path):
    names = write_scenes(tmp_path)
    path = write_index(tmp_path / "index.gpkg", names, field="path", metadata={"RESX": "60"})
    with sqlite3.connect(path) as file:
        inside = (
            "<GDALTileIndexDataset><LocationField>path</LocationField><Filter>fid=2</Filter></GDALTileIndexDataset>"
        )
        text = f'<GDALMultiDomainMetadata><Metadata domain="xml:GTI">{inside}</Metadata></GDALMultiDomainMetadata>'
        file.execute("UPDATE gpkg_metadata SET metadata = ?", (text,))
    (found,) = {name for names in open_mosaic(path).document["tiles"].values() for name in names}
    assert found == str(tmp_path / names[1])
    stored = ["/vsicurl/https://a.example/b.tif", "/vsis3/b/c.tif", "https://a.example/d.tif"]
    remote = write_index(tmp_path / "remote.fgb", names, stored=stored)
    assert set(rasters_in(remote)) == {"https://a.example/b.tif", "s3://b/c.tif", "https://a.example/d.tif"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<GDALTileIndexDataset><SQL>SELECT 1</SQL><IndexDataset>{}</IndexDataset></GDALTileIndexDataset>", "with SQL"),
        ("<GDALTileIndexDataset><IndexDataset>PG:dbname=x</IndexDataset></GDALTileIndexDataset>", "not a vector file"),
        ("<GDALTileIndexDataset></GDALTileIndexDataset>", "has no IndexDataset"),
    ],
)
def test_an_index_that_is_not_a_file_of_rasters_is_refused_in_words(text, words, tmp_path):
    write_index(tmp_path / "a.fgb", write_scenes(tmp_path))
    (tmp_path / "index.gti").write_text(text.format("a.fgb"))
    with pytest.raises(SourceError, match=words):
        open_mosaic(tmp_path / "index.gti")


def test_a_raster_that_is_gone_is_one_scene(tmp_path):
    names = write_scenes(tmp_path)
    path = write_index(tmp_path / "index.fgb", names)
    (tmp_path / names[1]).unlink()
    mosaic = open_mosaic(path)
    assert len({name for names in mosaic.document["tiles"].values() for name in names}) == 2
    assert any("2.tif" in note for note in mosaic.notes)
    with pytest.raises(SourceError):
        open_mosaic(path, max_bad_scenes=0)
