"""What a scene may name."""

from __future__ import annotations

import pytest

from mosaic_async.tiler.scenes.scene import may_name

FAR, NEAR, LOCAL = "https://stac.example/items/a.json", "http://127.0.0.1:8000/a.json", "/data/a.json"


@pytest.mark.parametrize(
    ("location", "href", "allowed"),
    [
        (FAR, "https://elsewhere.example/b.tif", True),
        (FAR, "s3://bucket/b.tif", True),
        (FAR, "file:///etc/passwd", False),
        (FAR, "/etc/passwd", False),
        (FAR, "/vsizip//etc/a.zip", False),
        (FAR, "zip+file:///etc/a.zip!b.tif", False),
        (FAR, "GTIFF_DIR:1:/etc/b.tif", False),
        (FAR, "http://169.254.169.254/latest/meta-data", False),
        (FAR, "http://[::1]/b.tif", False),
        (FAR, "http://localhost/b.tif", False),
        (FAR, "http://10.0.0.7/b.tif", False),
        (FAR, "ftp://elsewhere.example/b.tif", False),
        (NEAR, "http://127.0.0.1:9000/b.tif", True),
        (NEAR, "https://elsewhere.example/b.tif", True),
        (NEAR, "file:///etc/passwd", False),
        (LOCAL, "/data/b.tif", True),
        (LOCAL, "file:///data/b.tif", True),
        (LOCAL, "https://elsewhere.example/b.tif", True),
        (LOCAL, "zip+file:///etc/a.zip!b.tif", False),
    ],
)
def test_an_item_from_a_server_cannot_name_files_of_this_machine_or_its_network(location, href, allowed):
    assert may_name(location, href) is allowed
