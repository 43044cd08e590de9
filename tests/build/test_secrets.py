"""A server that repeats what it was sent, in every place of an answer, gets it into nothing that leaves."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import quote

import pytest
import rasterio
from aiohttp import web
from rasterio.io import MemoryFile

from tests.cli.test_main import run
from tests.fake_tiler import FakeTiler

TOKEN, PASSWORD, HEADER, DECLARED = "t0k/en+of=me", "pass-w0rd!", "h~ader-value", "in-the-path-42"
SECRETS = (TOKEN, PASSWORD, HEADER, DECLARED)
BASIC = b64encode(f"me:{PASSWORD}".encode()).decode()
SPELLED = {
    *SECRETS,
    BASIC,
    *(spell(secret) for secret in SECRETS for spell in (lambda s: quote(s, safe=""), lambda s: json.dumps(s)[1:-1])),
    *(quote(quote(secret, safe=""), safe="") for secret in SECRETS),
    *(b64encode(secret.encode()).decode().rstrip("=") for secret in SECRETS),
}
WORDS = " ".join((*sorted(SPELLED), f"me:{PASSWORD}"))


def described(body: bytes) -> bytes:
    """Return a tile whose band and tags are named as the secrets."""
    with MemoryFile(body) as given, given.open() as source, MemoryFile() as made:
        with rasterio.Env(), made.open(**source.profile) as dataset:
            dataset.colorinterp = source.colorinterp
            dataset.write(source.read())
            dataset.set_band_description(1, WORDS)
            dataset.update_tags(NOTE=WORDS)
        return bytes(made.getbuffer())


ANSWERS = (
    {"text": f"<title>{WORDS}</title>", "content_type": "text/html"},
    {"body": b"x", "headers": {"Content-Type": f"text/{WORDS}"}},
    {"body": WORDS.encode(), "content_type": "image/tiff"},
    {"body": BASIC.encode() + WORDS.encode(), "content_type": "image/tiff"},
    {"body": json.dumps({"detail": quote(WORDS)}).encode(), "content_type": "application/json", "status": 500},
    {"status": 503, "reason": WORDS, "headers": {"Retry-After": "0.1"}},
    {"text": f"<Error><Message>{WORDS}</Message></Error>", "content_type": "application/xml", "status": 502},
    {"text": WORDS, "status": 504},
    {"text": json.dumps({"message": WORDS}), "status": 429, "content_type": "application/json"},
)
"""What the server sends for the first request of some tiles."""


def parrot(tiler: FakeTiler, tile, hit) -> web.Response:
    """Answer with the secrets in a place that depends on the tile."""
    _, x, y = tile
    place = 4 * (x % 4) + y % 4
    if hit == 1 and place < len(ANSWERS):
        return web.Response(**ANSWERS[place])
    headers = {"X-Assets": WORDS, "X-Skipped-Assets": f"{WORDS},b"}
    return web.Response(body=described(tiler.body(tile)), content_type="image/tiff", headers=headers)


@pytest.mark.parametrize("fate", ["complete", "incomplete"])
def test_no_stream_file_or_tag_holds_what_the_server_repeats(serve, tmp_path, fate):
    tiler = serve()

    async def mood(tile, hit):
        if fate == "incomplete" and tile == (7, 64, 49):
            return web.json_response({"detail": f"no access for {WORDS} {quote(WORDS)}"}, status=400)
        return parrot(tiler, tile, hit)

    tiler.mood = mood
    base = tiler.template.replace("http://", f"http://me:{quote(PASSWORD)}@")
    stdout, stderr = run(
        "build", f"{base}?token={quote(TOKEN, safe='')}&folder={DECLARED}", tmp_path / "out.tif",
        "--bounds", -4, 38, 4, 44, "-z", 7, "-v", "--json",
        "--header", f"X-Api-Key: {HEADER}", "--secret", f"folder={DECLARED}",
        code=3 if fate == "incomplete" else 0,
    )  # fmt: skip
    texts = {"stdout": stdout, "stderr": stderr}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            texts[path.name] = path.read_bytes().decode("latin-1")
    if fate == "complete":
        with rasterio.open(tmp_path / "out.tif") as dataset:
            texts["tags"] = f"{dataset.tags()} {dataset.descriptions}"
    else:
        assert "no access for" in texts["failed.geojson"]
        assert "no access for" in stdout
    assert "retry" in stderr
    assert "***" in stderr
    for name, text in texts.items():
        if name != "sample.json" and not name.endswith(".spool"):  # tiles as the server sent them
            assert [secret for secret in SPELLED if secret in text] == [], name
