"""Two jobs that may differ in pixels never share a work folder, and a renewed token still resumes."""

from __future__ import annotations

import hashlib
import itertools
from urllib.parse import quote

import pytest
from aiohttp import web

from mosaic_async import (
    IncompleteError,
    SourceError,
    TileSource,
    UsageError,
    WorkFolderError,
    build_mosaic,
)
from mosaic_async.build.identity import Identity, without_credentials
from mosaic_async.build.job import Job
from mosaic_async.geo.area import Area
from tests.fake_tiler import FakeTiler, Pattern
from tests.test_api import AREA, BAD, ZOOM, assert_is_the_world

PLACE = "https://host/{z}/{x}/{y}.tif"
COG = "https://store.example/a b.tif"


def identity(template: str = PLACE, headers: dict[str, str] | None = None, **options) -> Identity:
    source = TileSource(template=template, headers=headers or {}, identity=options.pop("identity", None))
    return Identity.of(Job(source=source, area=Area.parse(AREA), zoom=ZOOM, **options))


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [10, 5], [0, 5], [0, 0]]]}
SLOPES = {"type": "Polygon", "coordinates": [[[0, 0], [10, 0], [5, 5], [0, 0]]]}


@pytest.mark.usefixtures("real_digests")
@pytest.mark.parametrize(
    ("area", "begin", "is_kept"),
    [((-4.0, 38.0, 4.0, 44.0), "29aed6f906f7e7ad", True), (SQUARE, "ecb7d5e03ebd68a3", True), (SLOPES, "7ea5b", False)],
)
def test_a_job_of_an_earlier_version_resumes_where_its_area_has_the_same_meaning(area, begin, is_kept):
    """Edges that were straight in Web Mercator are straight in degrees now: only sloping ones are other edges."""
    source = TileSource(template="https://tiler/{z}/{x}/{y}.tif?url=a")
    label = Identity.of(Job(source=source, area=Area.parse(area), zoom=7, clip=True)).label
    assert label.startswith(begin) is is_kept


def nested(query: str) -> str:
    return f"{PLACE}?url={quote(f'{COG}?{query}', safe='')}"


DIFFERENT = {
    "the year in a key": (f"{PLACE}?key=2023", f"{PLACE}?key=2024"),
    "the year in a name that ends in key": (f"{PLACE}?mosaic_key=2023", f"{PLACE}?mosaic_key=2024"),
    "how to sort": (f"{PLACE}?sort-key=date", f"{PLACE}?sort-key=cloud"),
    "a name that ends in token": (f"{PLACE}?style_token=a", f"{PLACE}?style_token=b"),
    "a name that ends in secret": (f"{PLACE}?layer_secret=a", f"{PLACE}?layer_secret=b"),
    "a parameter of SAS without its signature": (f"{PLACE}?sr=a", f"{PLACE}?sr=b"),
    "expires without a signature": (f"{PLACE}?expires=2023", f"{PLACE}?expires=2024"),
    "the path": (f"{PLACE}?a=1", "https://host/v2/{z}/{x}/{y}.tif?a=1"),
    "the host": (PLACE, "https://other/{z}/{x}/{y}.tif"),
    "the order of parameters": (f"{PLACE}?assets=b1&assets=b2", f"{PLACE}?assets=b2&assets=b1"),
    "a parameter twice": (f"{PLACE}?a=1", f"{PLACE}?a=1&a=1"),
    "an empty parameter": (f"{PLACE}?a", f"{PLACE}?a="),
    "a nested URL": (nested("v=2023"), nested("v=2024")),
    "a key in a nested URL": (nested("key=2023"), nested("key=2024")),
    "a URL after a signed one": tuple(
        f"{PLACE}?urls={quote(f'{COG}?sig=a,https://store.example/{year}.tif', safe='')}" for year in (2023, 2024)
    ),
    "a fragment": (f"{PLACE}#a", f"{PLACE}#b"),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_whatever_may_decide_pixels_makes_another_job(pair):
    first, second = map(identity, pair)
    assert first.label != second.label


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"X-Layer": "a"}, {"X-Layer": "b"}),
        ({}, {"X-Layer": "a"}),
        ({"Accept": "image/png"}, {"Accept": "image/tiff"}),
        ({"X-Key": "2023"}, {"X-Key": "2024"}),
        ({"X-Layer": "2023", "x-layer": "all"}, {"X-Layer": "2024", "x-layer": "all"}),
        ({"X-Tenant-Token": "a"}, {"X-Tenant-Token": "b"}),
    ],
)
def test_headers_make_another_job(first, second):
    assert identity(headers=first).label != identity(headers=second).label


def test_parameters_added_to_a_source_with_a_name_of_its_own_make_another_job():
    source = TileSource(template="http://127.0.0.1:1234/{z}/{x}/{y}", identity="local:abc")
    elsewhere = TileSource(template="http://127.0.0.1:4321/{z}/{x}/{y}", identity="local:abc")
    area = Area.parse(AREA)
    plain, moved, added = (
        Identity.of(Job(source=one, area=area, zoom=ZOOM)).label
        for one in (source, elsewhere, source.with_params({"rescale": "0,1"}))
    )
    assert plain == moved
    assert plain != added


SAS = "sv=2024-11-04&se={0}&sr=b&sp=r&sig={0}abc%3D"
AWS = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={0}&X-Amz-Credential={0}&X-Amz-Expires=60&X-Amz-Signature={0}"
RENEWED = {
    "access_token": f"{PLACE}?access_token={{0}}&a=1",
    "in capitals": f"{PLACE}?ACCESS_TOKEN={{0}}",
    "api_key": f"{PLACE}?api_key={{0}}",
    "SAS": f"{PLACE}?{SAS}",
    "AWS": f"{PLACE}?{AWS}",
    "CloudFront": f"{PLACE}?Expires={{0}}&Policy={{0}}&Signature={{0}}&Key-Pair-Id={{0}}",
    "Google": f"{PLACE}?X-Goog-Date={{0}}&X-Goog-Signature={{0}}",
    "a user": "https://user:{0}@host/{{z}}/{{x}}/{{y}}.tif",
}


@pytest.mark.parametrize("name", RENEWED)
def test_renewed_credentials_are_the_same_job_with_other_credentials(name):
    template = RENEWED[name].replace("{z}", "{{z}}").replace("{x}", "{{x}}").replace("{y}", "{{y}}")
    template = template.replace("{{{", "{{").replace("}}}", "}}")
    first, second = (identity(template.format(value)) for value in ("20260101", "20260102"))
    assert first.label == second.label
    assert first.credentials != second.credentials


@pytest.mark.parametrize("query", [SAS, AWS, "access_token={0}"])
def test_so_are_those_in_a_nested_url(query):
    first, second = (identity(nested(query.format(value))) for value in ("20260101", "20260102"))
    assert first.label == second.label
    assert first.credentials != second.credentials


@pytest.mark.parametrize("name", ["Authorization", "authorization", "Cookie", "X-Api-Key", "X-Amz-Security-Token"])
def test_so_are_those_in_headers(name):
    first, second = (identity(headers={name: value, "X-Layer": "a"}) for value in ("one", "two"))
    assert first.label == second.label
    assert first.credentials != second.credentials


def test_the_spelling_and_the_order_of_headers_do_not_matter():
    first = identity(headers={"X-Layer": "a", "Authorization": "b"})
    second = identity(headers={"authorization": "b", "x-layer": "a"})
    assert first == second


@pytest.mark.parametrize("options", [{"profile": "zstd"}, {"nodata": 0.0}, {"clip": True}, {"tile_size": 512}])
def test_options_of_the_output_make_another_job(options):
    assert identity().label != identity(**options).label


def test_a_url_without_credentials_stays_as_it_is():
    for first, second in DIFFERENT.values():
        assert without_credentials(first) == (first, [])
        assert without_credentials(second) == (second, [])


def test_digests_of_values_are_salted():
    template, headers = f"{PLACE}?key=2023&access_token=opensesame", {"Authorization": "Bearer opensesame"}
    found = identity(template, headers)
    plain = {
        hashlib.sha256(value.encode()).hexdigest()
        for value in ("2023", "key=2023", "opensesame", "Bearer opensesame", "access_token=opensesame", template)
    }
    assert plain.isdisjoint((found.label, found.credentials))
    assert identity(template, headers) == found
    others = [identity(f"{PLACE}?access_token=opensesame&year={year}").credentials for year in (1, 2)]
    assert len({*others, found.credentials}) == 3  # the same token of two jobs


def of_year(tiler: FakeTiler, year: str) -> FakeTiler:
    """Return a tiler with the pixels of another year."""
    return FakeTiler(pattern=Pattern(dtype=tiler.pattern.dtype, count=tiler.pattern.count, smooth=year == "2024"))


def by_year(tiler: FakeTiler, year_of):
    """Answer with the pixels of a year, but for one tile that fails the first time."""
    has_failed = False

    async def mood(tile, hit):
        nonlocal has_failed
        year = year_of(tiler)
        if tile == BAD and not has_failed:
            has_failed = True
            return web.Response(status=422)
        body = of_year(tiler, year).body(tile)
        return web.Response(body=body, content_type="image/tiff")

    return mood


def in_query(tiler: FakeTiler) -> str:
    return "2024" if "2024" in tiler.queries_seen[-1] else "2023"


def in_headers(tiler: FakeTiler) -> str:
    return "2024" if "2024" in str(tiler.headers_seen[-1]) else "2023"


OTHER_JOBS = [
    ({"params": {"mosaic_key": "2023"}}, {"params": {"mosaic_key": "2024"}}, in_query),
    ({"params": {"key": "2023"}}, {"params": {"key": "2024"}}, in_query),
    ({"headers": {"X-Layer": "2023"}}, {"headers": {"X-Layer": "2024"}}, in_headers),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize(("first", "second", "year_of"), OTHER_JOBS)
async def test_a_folder_of_one_year_is_not_resumed_with_another(serve, tmp_path, first, second, year_of):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, year_of)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **first)
    tiler.hits.clear()
    with pytest.raises(WorkFolderError, match="another job") as error:
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **second)
    assert error.value.exit_code == 7
    assert tiler.requests == 0
    assert not output.exists()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **second, resume=False)
    assert_is_the_world(output, of_year(tiler, "2024"), AREA, ZOOM)


CREDENTIALS = [
    ({"headers": {"Authorization": "Bearer 2023"}}, {"headers": {"Authorization": "Bearer 2024"}}, in_headers),
    ({"headers": {"Cookie": "session=2023"}}, {"headers": {"Cookie": "session=2024"}}, in_headers),
    ({"params": {"access_token": "2023"}}, {"params": {"access_token": "2024"}}, in_query),
    ({"params": {"sig": "2023", "se": "1"}}, {"params": {"sig": "2024", "se": "2"}}, in_query),
]


@pytest.mark.quick(3)
@pytest.mark.parametrize(("first", "second", "year_of"), CREDENTIALS)
@pytest.mark.parametrize("options", [{}, {"part_size": 512}])
async def test_a_renewed_token_resumes_after_one_tile_is_compared(serve, tmp_path, first, second, year_of, options):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, lambda _: "2023")
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **first, **options)
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **second, **options)
    assert tiler.requests == 2
    assert BAD in tiler.hits
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("first", "second", "year_of"), CREDENTIALS)
async def test_a_token_that_gives_other_pixels_does_not_resume(serve, tmp_path, first, second, year_of):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, year_of)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **first)
    tiler.hits.clear()
    for _ in range(2):
        with pytest.raises(WorkFolderError, match="has other pixels"):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **second)
    assert tiler.requests == 2
    assert not output.exists()
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **first)  # nothing of that is lost
    assert tiler.requests == 1
    assert_is_the_world(output, tiler, AREA, ZOOM)


ANSWERS = {
    "refused": (lambda: web.Response(status=401), SourceError),
    "an error": (lambda: web.Response(status=422), SourceError),
    "not found": (lambda: web.Response(status=404), WorkFolderError),
    "empty": (lambda: web.Response(status=204), WorkFolderError),
    "not a tile": (lambda: web.Response(body=b"II*\0 but no more", content_type="image/tiff"), SourceError),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_token_that_gives_no_tile_does_not_resume(serve, tmp_path, name):
    answer, error = ANSWERS[name]
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, lambda _: "2023")
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": "a"})

    async def mood(tile, hit):
        return answer()

    tiler.mood = mood
    with pytest.raises(error):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": "b"})
    assert not output.exists()


async def test_other_bytes_with_the_same_pixels_resume(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, lambda _: "2023")
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": "a"})

    async def mood(tile, hit):
        return web.Response(body=tiler.body(tile) + bytes(16), content_type="image/tiff")

    tiler.mood = mood
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": "b"})
    assert_is_the_world(output, tiler, AREA, ZOOM)


DAMAGED = ["sample.json", "job.json"]


@pytest.mark.quick(2)
@pytest.mark.parametrize("names", [names for size in (1, 2) for names in itertools.combinations(DAMAGED, size)])
@pytest.mark.parametrize("is_renewed", [False, True])
async def test_a_damaged_sample_or_state_is_not_believed(serve, tmp_path, names, is_renewed):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, lambda _: "2023")
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": "a"})
    for name in names:
        (tmp_path / "out.tif.work" / name).write_bytes(b"{}")
    token = "b" if is_renewed else "a"
    try:
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, headers={"Authorization": token})
    except WorkFolderError:
        assert len(names) == 2 or (is_renewed and names == ("sample.json",))
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, resume=False)
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_secrets_are_nowhere_in_the_work_folder(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = by_year(tiler, lambda _: "2023")
    given = {"headers": {"Authorization": "Bearer s3cr3tA"}, "params": {"mosaic_key": "s3cr3tB", "sig": "s3cr3tC"}}
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **given)
    for path in (tmp_path / "out.tif.work").rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes()


async def test_a_finished_output_is_not_taken_for_one_of_another_job(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, params={"key": "2023"})
    with pytest.raises(UsageError, match="exists"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, params={"key": "2024"})


SECRET_PATHS = [
    ("{host}/s3cr3t-2023/{z}/{x}/{y}.tif", "{host}/s3cr3t-2024/{z}/{x}/{y}.tif"),
    ("{host}/{pass}/{z}/{x}/{y}.tif", "{host}/{pass}/{z}/{x}/{y}.tif"),
    ("{host}/%7Bpass%7D/{z}/{x}/{y}.tif", "{host}/s3cr3t-2024/{z}/{x}/{y}.tif"),
]


@pytest.mark.quick(2)
@pytest.mark.parametrize("templates", SECRET_PATHS)
async def test_a_declared_token_in_the_path_is_shown_nowhere_and_may_be_renewed(serve, tmp_path, templates):
    tiler, output, seen = serve(), tmp_path / "out.tif", []
    first, second = ({"pass": f"s3cr3t-{year}"} for year in (2023, 2024))

    async def mood(tile, hit):
        if tile == BAD and tiler.requests <= 16:
            return web.json_response({"detail": f"no tile at {tiler.paths_seen[-1]}"}, status=422)
        return None

    tiler.mood = mood
    urls = [template.replace("{host}", tiler.url) for template in templates]
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(urls[0], AREA, output, zoom=ZOOM, secrets=first, on_event=seen.append)
    left = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"s3cr3t" not in left
    assert "s3cr3t" not in repr(seen) + str(error.value) + str(error.value.report.as_dict())
    assert {path.split("/")[1] for path in tiler.paths_seen} == {"s3cr3t-2023"}
    tiler.paths_seen.clear()
    await build_mosaic(urls[1], AREA, output, zoom=ZOOM, secrets=second)
    assert len(tiler.paths_seen) == 2
    assert {path.split("/")[1] for path in tiler.paths_seen} == {"s3cr3t-2024"}
    assert_is_the_world(output, tiler, AREA, ZOOM)
    assert b"s3cr3t" not in output.read_bytes()


def test_a_declared_secret_is_not_part_of_the_label_wherever_it_stands():
    def of(secret: str, template: str) -> Identity:
        source = TileSource(template=template.replace("SECRET", secret), secrets={"pass": secret})
        return Identity.of(Job(source=source, area=Area.parse(AREA), zoom=ZOOM))

    for place in ("https://h/SECRET/{z}/{x}/{y}", "https://h/{z}/{x}/{y}?key=SECRET", "https://SECRET.h/{z}/{x}/{y}"):
        first, second = of("opensesame", place), of("closesesame", place)
        assert first.label == second.label
        assert first.credentials != second.credentials
    elsewhere = of("opensesame", "https://h/v2/SECRET/{z}/{x}/{y}")
    assert elsewhere.label != of("opensesame", "https://h/SECRET/{z}/{x}/{y}").label


@pytest.mark.parametrize("secrets", [{"pass": "2024"}, {"x": "opensesame"}, {"a b": "opensesame"}, {"": "opensesame"}])
async def test_a_secret_that_cannot_be_told_from_other_texts_is_refused(serve, tmp_path, secrets):
    with pytest.raises(UsageError, match="secret"):
        await build_mosaic(serve().template, AREA, tmp_path / "out.tif", zoom=ZOOM, secrets=secrets)
