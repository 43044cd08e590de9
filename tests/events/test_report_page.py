"""The report page: one file without network and script, whose map has what the report counts."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from mosaic_async import IncompleteError, StoppedError, TilePlaced, build_mosaic
from mosaic_async.build.history import Course, History, latency_mark, latency_of
from mosaic_async.events.pages.cells import MEANINGS, TileMap
from mosaic_async.events.pages.files import page_of
from mosaic_async.events.pages.page import render
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.matrix import web_mercator
from tests.fake_tiler import Pattern
from tests.forks import server

AREA = (-4.0, 38.0, 4.0, 44.0)
WIDE = (-15.0, 20.0, 25.0, 50.0)
BAD, LATE, EMPTY = (7, 64, 49), (7, 63, 48), (7, 65, 47)
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schema/report.json").read_text())
WORDS = "<script>alert(1)</script> & 'more'"


class Page(HTMLParser):
    """What a page refers to, and its map."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.policy, self.links, self.images, self.legend, self.shown = [], "", [], {}, {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        assert not [name for name in found if name.startswith("on") or name == "style"]
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag == "img":
            self.images[found["id"]] = found["src"]
        if "data-letter" in found:
            self.legend[found["data-letter"]] = (found["data-colour"], int(found["data-count"]))

    def handle_data(self, data):
        self.shown.append(data)


def picture(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def cells(page):
    """Cells of the map by their letter, counted by colour."""
    colours = Counter("#{:02x}{:02x}{:02x}".format(*one) for one in picture(page.images["states"]).reshape(-1, 3))
    return {letter: colours[colour] for letter, (colour, _) in page.legend.items()}


async def moody(tile, hit):
    if tile == BAD:
        return web.json_response({"detail": WORDS}, status=500)
    if tile == LATE and hit == 1:
        return web.Response(status=503)
    return web.Response(status=204) if tile == EMPTY else None


async def test_a_page_of_an_incomplete_run_is_whole_and_escapes_the_words_of_the_server(serve, tmp_path):
    tiler = serve(mood=moody)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=7, attempts=2, report_page=True)
    document = json.loads((tmp_path / "out.tif.report.json").read_text())
    jsonschema.validate(document, SCHEMA)
    text = (tmp_path / "out.tif.report.html").read_text()
    page, report = Page(text), error.value.report
    assert page.policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text.replace(document["$schema"], ""))
    assert WORDS in "".join(page.shown)
    assert "<script>" not in text
    assert "Not complete: 1 of 16 tiles failed" in text
    counts = cells(page)
    assert counts == {letter: count for letter, (_, count) in page.legend.items()} == document["map"]["counts"]
    assert (counts["p"] + counts["R"], counts["R"], counts["e"], counts["f"]) == (report.tiles_placed, 1, 1, 1)
    assert page_of(tmp_path / "out.tif.report.json") == text
    tiler.mood = None
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=7, report_page="mosaic-async build <x>")
    document = json.loads((tmp_path / "out.tif.report.json").read_text())
    jsonschema.validate(document, SCHEMA)
    page = Page((tmp_path / "out.tif.report.html").read_text())
    assert "mosaic-async build <x>" in page.shown
    assert cells(page) == {"e": 1, "p": 14, "R": 1}
    assert (document["totals"]["runs"], document["totals"]["requests"]) == (2, tiler.requests)
    shown = picture(page.images["preview"])
    assert shown.shape == (1024, 1024, 3)
    assert 40 < shown.mean() < 215


async def test_totals_are_those_of_all_runs(serve, tmp_path):
    import asyncio

    async def build(name, tiler, stops):
        for number in (*stops, 10**9):
            stop, placed = asyncio.Event(), []

            def hear(event, stop=stop, placed=placed, number=number):
                placed.append(event) if isinstance(event, TilePlaced) else None
                if len(placed) >= number:
                    stop.set()

            options = {"zoom": 7, "part_size": 1024, "concurrency": 4, "report_page": True}
            try:
                await build_mosaic(tiler.template, WIDE, tmp_path / name, stop=stop, on_event=hear, **options)
                break
            except StoppedError:
                assert "Not complete: stopped with" in (tmp_path / f"{name}.report.html").read_text()
        return json.loads((tmp_path / f"{name}.report.json").read_text())

    tiler = serve(pattern=Pattern(count=1), latency=0.01)
    once = await build("once.tif", tiler, [])
    thrice = await build("thrice.tif", tiler, [30, 60, 90])
    assert thrice["totals"]["runs"] >= 3
    for name in ("requests", "retries", "bytes_received"):
        assert thrice["totals"][name] == once["totals"][name], name
    assert thrice["map"]["counts"] == once["map"]["counts"]
    assert thrice["tiles_placed"] == once["tiles_placed"] == 210


def test_a_million_tiles_make_a_small_page_in_a_second():
    cover = Cover(web_mercator(14), 1000, 1000, 1000, 1000)
    rng = np.random.default_rng(1)
    fates = rng.choice(np.frombuffer(b"ppppppppetn", np.uint8), (1000, 1000))
    fates[500, 500] = ord("f")
    marks = rng.integers(0, 128, (1000, 1000)).astype(np.uint8)
    started = time.process_time()
    found = TileMap.of(cover, fates, marks)
    document = report_of(found)
    page = render(document, None)
    assert time.process_time() - started < 1
    assert len(page) < 2_000_000
    assert len(json.dumps(document)) < 2_000_000
    assert found.tiles_per_cell == 4
    assert sum(found.counts.values()) == 1_000_000
    assert found.counts["f"] == 1
    assert "".join(found.states).count("f") == 1  # the worst of a cell stands for it


def report_of(tile_map):
    from dataclasses import asdict

    from mosaic_async import MosaicReport
    from mosaic_async.events.pages.document import Account, document

    report = MosaicReport(
        output=Path("out.tif"), bounds=(0, 0, 1, 1), zoom=14, tile_size=256, width=1, height=1, tiles_total=10**6,
        tiles_placed=10**6, tiles_empty=0, tiles_failed=0, requests=10**6, retries=0, retried={}, bytes_received=1,
        bytes_written=1, seconds=1.0, seconds_by_stage={}, parts_total=1, parts_resumed=0, peak_rss=1,
    )  # fmt: skip
    found = document(Account(report=report, error=None, history={}, map=tile_map), None)
    assert found["map"] == asdict(tile_map)
    return found


def test_a_course_of_a_day_has_a_thousand_buckets_and_loses_no_count():
    course = Course()
    for second in range(86_400):
        course.add(tiles=3, retries=second % 2, in_flight=second % 50)
    assert 500 <= len(course.tiles) <= 1000
    assert course.step * len(course.tiles) >= 86_400
    assert sum(course.tiles) == 3 * 86_400
    assert sum(course.retries) == 43_200
    assert max(course.in_flight) == 49


def test_a_damaged_history_is_begun_anew():
    cover = Cover(web_mercator(7), 60, 45, 3, 2)
    sound = History.of(cover, History(cover).as_dict())
    assert len(sound.runs) == 2
    other = Cover(web_mercator(7), 60, 45, 3, 3)
    for known in ({}, {"marks": "?"}, {**sound.as_dict(), "course": {"x": 1}}, History(other).as_dict()):
        assert len(History.of(cover, known).runs) == 1
    assert all(latency_of(latency_mark(seconds)) == pytest.approx(seconds, rel=0.06) for seconds in (0.001, 0.2, 30))
    assert set("".join(MEANINGS)) == set(MEANINGS)


def test_the_command_shows_no_secret_and_report_makes_the_page_again(serve, tmp_path):
    args = ["build", serve().template, tmp_path / "out.tif", "--bounds", "-4", "38", "4", "44", "-z", "7"]
    secret = ["--header", "Authorization: Bearer hunter2", "--param=key=hunter2", "--report-page"]
    with server().start([*args, *secret]) as process:
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    page = (tmp_path / "out.tif.report.html").read_text()
    assert "hunter2" not in page + (tmp_path / "out.tif.report.json").read_text()
    (tmp_path / "out.tif.report.html").unlink()
    with server().start(["report", tmp_path / "out.tif.report.json"]) as process:
        process.communicate(timeout=60)
    assert (tmp_path / "out.tif.report.html").read_text() == page
    (tmp_path / "other.json").write_text("{}")
    with server().start(["report", tmp_path / "other.json"]) as process:
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, "is not a report" in stderr) == (2, True)
