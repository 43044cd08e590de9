"""titiler-pgstac and a STAC API on a real PostgreSQL with PostGIS and pgstac; skipped without one."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mosaic_async import SourceError, UsageError, build_mosaic
from mosaic_async.sources.openapi import kind_of, open_endpoint
from mosaic_async.sources.rendering import Rendering
from mosaic_async.sources.tilers import titiler_search
from mosaic_async.stac import create_mosaic
from tests.conftest import COLORADO
from tests.loopback import environment, free_port, uvicorn_of
from tests.stac.test_mosaicjson import ids, items_of
from tests.tiler.test_mosaics import assert_holds, mosaic_directly, scenes_of

pytestmark = [
    pytest.mark.timeout(300),  # the first run installs the servers
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]

PACKAGES = (
    "titiler.pgstac==3.2.0", "pypgstac[psycopg]==0.10.0", "psycopg[binary,pool]", "stac-fastapi.pgstac==7.2.0",
    "uvicorn",
)  # fmt: skip
COLLECTION = "landsat57-colorado-2008-2013"
PLACE = (-106.935, 40.295, -106.925, 40.305)
CLOUD = "fixture:cloud_percent_from_fmask"


@dataclass(frozen=True)
class Servers:
    tiler: str
    api: str


def postgres_folder() -> Path:
    """Find a PostgreSQL that has PostGIS."""
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if found := shutil.which("initdb"):
        candidates.append(Path(found).parent)
    for folder in candidates:
        share = (Path("/usr/share/postgresql") / folder.parent.name, *(folder.parent / "share").glob("**/postgresql"))
        if any((path / "extension/postgis.control").exists() for path in (*share, folder.parent / "share")):
            return folder
    pytest.skip("PostgreSQL with PostGIS not found (Debian: postgresql-15-postgis-3)")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of its own in a temporary folder; gives its DSN."""
    binaries = postgres_folder()
    # PostgreSQL refuses to run as root.
    user = pwd.getpwnam("nobody").pw_name if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pgstac-"))
    if user:
        shutil.chown(folder, user)
    port = free_port()

    def run(*command: object) -> None:
        arguments = list(map(str, command))
        subprocess.run(arguments, check=True, user=user, cwd=folder, capture_output=True, timeout=60)

    try:
        run(binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(binaries / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            run(binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def servers(database, tmp_path_factory) -> Iterator[Servers]:
    """titiler-pgstac and stac-fastapi over the 105 scenes of Colorado."""
    try:
        python = environment(".venv-pgstac", PACKAGES, timeout=240)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"titiler-pgstac cannot be installed here: {type(error).__name__}")
    folder = tmp_path_factory.mktemp("pgstac")
    port = database.rsplit(":", 1)[1].split("/")[0]
    names = {"user": "postgres", "password": "none", "port": port, "database": "postgres"}
    env = {
        **os.environ,
        **{f"PG{name.upper()}": value for name, value in names.items()},
        "PGHOST": "127.0.0.1",
        "STAC_FASTAPI_TITLE": "scenes", "STAC_FASTAPI_DESCRIPTION": "of Colorado", "STAC_FASTAPI_LANDING_ID": "scenes",
        "STAC_FASTAPI_VERSION": "1",
    }  # fmt: skip
    (folder / "api.py").write_text("from stac_fastapi.pgstac.app import create_app\n\napp = create_app()\n")
    collection = json.loads((COLORADO / "collection.json").read_text())
    (folder / "collection.json").write_text(json.dumps({**collection, "links": []}))
    with (folder / "items.ndjson").open("w") as lines:
        for path in sorted(COLORADO.rglob("*.json")):
            item = json.loads(path.read_text())
            if item["type"] == "Feature":
                for asset in item["assets"].values():
                    asset["href"] = str((path.parent / asset["href"]).resolve())
                lines.write(json.dumps({**item, "links": []}) + "\n")
    for command in (
        ("migrate",),
        ("load", "collections", str(folder / "collection.json")),
        ("load", "items", str(folder / "items.ndjson")),
    ):
        pypgstac = str(python.parent / "pypgstac")
        done = subprocess.run(
            [pypgstac, *command, "--dsn", database], env=env, capture_output=True, text=True, timeout=90
        )
        assert done.returncode == 0, done.stderr
    with (
        uvicorn_of(python, "titiler.pgstac.main:app", folder, env=env, ready="/healthz") as tiler,
        uvicorn_of(python, "api:app", folder, env=env, ready="/_mgmt/ping") as api,
    ):
        yield Servers(tiler=tiler, api=api)


def test_a_search_of_a_real_stac_api_equals_that_of_the_files(servers):
    for search in (
        {"datetime": "2009/2011", "query": {CLOUD: {"lt": 20}, "platform": {"eq": "landsat-7"}}, "limit": 7},
        {"filter": f"platform = 'landsat-5' AND \"{CLOUD}\" <= 10", "sortby": f"+{CLOUD}", "limit": 11},
        {"bbox": [-107, 40, -106, 41], "collections": [COLLECTION], "sortby": "-datetime", "limit": 100},
    ):
        by_api, by_files = create_mosaic(search, api=servers.api), create_mosaic(search, items=COLORADO)
        assert set(ids(by_api)) == set(ids(by_files))
        if "sortby" in search:
            assert ids(by_api) == ids(by_files)
        assert by_api.document["name"] == by_files.document["name"]
        assert by_api.document["tiles"].keys() == by_files.document["tiles"].keys()
    with pytest.raises(SourceError, match="the search matched no scenes"):
        create_mosaic({"bbox": [0, 0, 1, 1]}, api=servers.api)


async def test_a_median_of_a_registered_search_is_that_of_all_its_scenes(servers, tmp_path):
    """With the tiler's defaults it would be the median of one or two: they cover the tile, and the search stops."""
    rendering = Rendering(bands=["b4", "b3"], pixel_selection="median", resampling="bilinear")
    search = {"collections": [COLLECTION], "bbox": [-107, 40, -106, 41], "query": {CLOUD: {"lt": 30}}}
    scenes = [
        path for path in scenes_of(COLORADO) if json.loads(Path(path).read_text())["properties"][CLOUD] < 30
    ]  # fmt: skip
    assert kind_of(await open_endpoint(servers.tiler)) == "pgstac"
    source = await titiler_search(servers.tiler, search, rendering=rendering)
    assert source.notes == ()
    await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=13)
    pixels, valid = mosaic_directly(PLACE, 13, scenes=scenes, assets=["b4", "b3"], selection="median")
    assert len(scenes) > 20
    assert_holds(tmp_path / "out.tif", pixels, valid)


async def test_a_limit_that_cuts_is_noted(servers):
    rendering = Rendering(bands=["b4"], pixel_selection="mean")
    center = [-106.94, 40.29, -106.92, 40.31]
    search = {"collections": [COLLECTION], "bbox": center}
    cut = await titiler_search(servers.tiler, search, rendering=rendering, items_limit=7)
    whole = await titiler_search(servers.tiler, search, rendering=rendering, items_limit=500)
    assert cut.notes == ("the tile in the middle of the search has 7 scenes or more; only the first 7 are used",)
    assert whole.notes == ()
    unknown = await titiler_search(servers.tiler, {"collections": [COLLECTION]}, rendering=rendering)
    assert "not known without a bbox" in unknown.notes[0]


async def test_searches_that_differ_in_their_order_alone_are_two(servers, tmp_path):
    found = {}
    for sign in "+-":
        search = {"collections": [COLLECTION], "sortby": f"{sign}datetime"}
        source = await titiler_search(servers.tiler, search, rendering=Rendering(bands=["b4"]), tile_size=256)
        await build_mosaic(source, PLACE, tmp_path / f"{sign}.tif", zoom=13)
        with rasterio.open(tmp_path / f"{sign}.tif") as dataset:
            found[sign] = dataset.read(masked=True)
    assert (found["+"] != found["-"]).mean() > 0.5
    newest = max(items_of(COLORADO), key=lambda one: one["properties"]["datetime"])
    path = next(path for path in scenes_of(COLORADO) if newest["id"] in path)
    pixels, valid = mosaic_directly(PLACE, 13, scenes=[path], assets=["b4"], size=256)
    both = valid & ~np.ma.getmaskarray(found["-"])[0]
    assert both.any()
    # The oracle reads bilinearly and the tiler nearest, so values are near and not equal.
    assert np.corrcoef(found["-"][0][both], pixels[0][both])[0, 1] > 0.9


async def test_what_titiler_pgstac_cannot_do_is_refused_with_the_reason(servers):
    with pytest.raises(UsageError, match="does not support in"):
        await titiler_search(servers.tiler, {"query": {"platform": {"in": ["a"]}}}, rendering=Rendering(bands=["b4"]))
    with pytest.raises(UsageError, match="no pixel selection darkest"):
        await titiler_search(servers.tiler, {}, rendering=Rendering(bands=["b4"], pixel_selection="darkest"))
