"""The report page in Chromium: no request leaves it, no error is logged, and its map shows what the report counts."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest

from mosaic_async import IncompleteError, build_mosaic
from tests.events.test_report_page import AREA, moody

pytestmark = pytest.mark.slow
_CHROMIUM = shutil.which("chromium")
_COLOURS = """() => {
    const image = document.getElementById("states"), canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data, colours = [];
    for (let at = 0; at < data.length; at += 4)
        colours.push("#" + [...data.slice(at, at + 3)].map(one => one.toString(16).padStart(2, "0")).join(""));
    return colours;
}"""
_LEGEND = """() => [...document.querySelectorAll("[data-letter]")].map(
    one => [one.dataset.letter, one.dataset.colour, Number(one.dataset.count)])"""


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed")
async def test_the_page_is_right_in_a_browser_without_a_network(serve, tmp_path):
    playwright = pytest.importorskip("playwright.async_api", reason="Playwright for Python is not installed")
    with pytest.raises(IncompleteError):
        await build_mosaic(serve(mood=moody).template, AREA, tmp_path / "out.tif", zoom=7, attempts=2, report_page=True)
    document = json.loads((tmp_path / "out.tif.report.json").read_text())
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        url = (tmp_path / "out.tif.report.html").as_uri()
        await page.goto(url)
        colours = Counter(await page.evaluate(_COLOURS))
        legend = await page.evaluate(_LEGEND)
        assert {letter: colours[colour] for letter, colour, _ in legend} == document["map"]["counts"]
        assert {letter: count for letter, _, count in legend} == document["map"]["counts"]
        assert await page.locator("#states").is_visible()
        await page.locator("#latency").check()
        assert await page.locator("#latencies").is_visible()
        assert not await page.locator("#states").is_visible()
        assert await page.evaluate("getComputedStyle(document.body).maxWidth") == "1000px"
        await page.screenshot(path=tmp_path / "page.png", full_page=True)
        await browser.close()
    assert [one for one in requests if not one.startswith("data:")] == [url]
    assert errors == []
