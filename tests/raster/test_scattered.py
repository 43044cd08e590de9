"""An output whose parts are kept elsewhere has the bytes of one that grows on the disk."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rasterio

from mosaic_async.errors import StitchError
from mosaic_async.raster.digest import DIGEST, UNSIGNED
from mosaic_async.raster.readback import blocks_with_data
from mosaic_async.raster.scattered import Scattered
from tests.raster.assembling import assemble
from tests.raster.test_stitch import encoding_of, grid_of, seal_parts

TAGS = {DIGEST: UNSIGNED}
GRIDS = {
    "many parts": grid_of(7, 6, part_blocks=2),
    "parts of a block": grid_of(5, 4, part_blocks=1),
    "one part": grid_of(5, 3, part_blocks=8),
}


class FolderShelf:
    """Keeps bodies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[tuple[int, int], Mapping[str, Any]] = {}
        folder.mkdir(exist_ok=True)

    def path(self, place: tuple[int, int]) -> Path:
        return self.folder / f"{place[0]}-{place[1]}"

    def known(self):
        return dict(self.facts)

    def put(self, place, body, facts):
        if body is not None:
            shutil.copy(body, self.path(place))
        self.facts[place] = facts

    def fetch(self, place, path):
        shutil.copy(self.path(place), path)

    def drop(self, place):
        del self.facts[place]


def joined(scattered: Scattered, shelf: FolderShelf) -> bytes:
    return b"".join(
        (piece.source if isinstance(piece.source, Path) else shelf.path(piece.source)).read_bytes()[
            piece.start : piece.start + piece.length
        ]
        for piece in scattered.pieces
    )


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize(("profile", "mask"), [("deflate", "internal"), ("raw", "none"), ("jpeg", "internal")])
def test_the_pieces_are_the_output_byte_for_byte(tmp_path, name, profile, mask):
    grid, encoding = GRIDS[name], encoding_of(profile, "uint8", 3, mask)
    parts = seal_parts(grid, encoding, tmp_path / "parts")
    shutil.copytree(tmp_path / "parts", tmp_path / "same")
    whole = assemble(grid, encoding, tmp_path / "same", {p: tmp_path / "same" / f.name for p, f in parts.items()}, TAGS)
    if name == "one part" and whole.parent == tmp_path / "same" and whole.name == "0-0.tif":
        pytest.skip("the only part is the output")
    shelf = FolderShelf(tmp_path / "shelf")
    first = Scattered(grid, encoding, tmp_path / "scratch", shelf, lambda _: True)
    for part in list(grid.parts())[::2]:
        first.add((part.row, part.col), parts.get((part.row, part.col)))
    shutil.rmtree(tmp_path / "scratch")
    again = Scattered(grid, encoding, tmp_path / "scratch", shelf, lambda _: True)  # another machine
    assert again.stitched == {place for place in first.stitched if place in parts}
    again.resume({(part.row, part.col): parts.get((part.row, part.col)) for part in grid.parts()})
    made = again.finish(parts, TAGS)
    assert joined(again, shelf) == whole.read_bytes()
    assert made.stat().st_size == whole.stat().st_size
    assert again.blocks_with_data() >= blocks_with_data(whole)
    assert not any(path.exists() for path in parts.values())
    data = whole.read_bytes()
    samples = list(again.samples(64))
    assert samples
    for sample in samples:
        assert hashlib.sha256(data[sample.start : sample.start + sample.length]).digest() == sample.digest


def test_a_part_can_be_taken_out_again_and_a_forgotten_one_is_missing(tmp_path):
    grid, encoding = GRIDS["many parts"], encoding_of("deflate", "uint8", 3, "internal")
    parts = seal_parts(grid, encoding, tmp_path / "parts")
    part = grid.part(2, 1) if hasattr(grid, "part") else next(p for p in grid.parts() if (p.row, p.col) == (2, 1))
    with rasterio.open(parts[2, 1]) as dataset:
        expected = dataset.read(), dataset.dataset_mask()
    shelf = FolderShelf(tmp_path / "shelf")
    scattered = Scattered(grid, encoding, tmp_path / "scratch", shelf, lambda _: True)
    scattered.resume(parts)
    assert scattered.can_extract((2, 1), encoding)
    assert not scattered.can_extract((2, 1), encoding_of("zstd", "uint8", 3, "internal"))
    scattered.extract(part, encoding, tmp_path / "extracted.tif")
    with rasterio.open(tmp_path / "extracted.tif") as dataset:
        assert (dataset.read() == expected[0])[:, expected[1] > 0].all()
        assert (dataset.dataset_mask() == expected[1]).all()
    scattered.use(encoding_of("zstd", "uint8", 3, "internal"))
    assert scattered.is_foreign
    scattered.use(encoding)
    scattered.withdraw((2, 1))
    assert (2, 1) not in shelf.facts
    with pytest.raises(StitchError, match="missing"):
        scattered.finish(parts, TAGS)
