"""A progress bar for notebooks and scripts: tqdm's own, as it looks best in each of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mosaic_async.events import (
    Event,
    OnEvent,
    Pulse,
    RunStarted,
    Stitching,
    TileEmpty,
    TileFailed,
    TileNotFound,
    TilePlaced,
)


@contextmanager
def progress_bar() -> Iterator[OnEvent]:
    """Show a bar that counts tiles while the block runs, and return its listener."""
    bar: Any = importlib.import_module("tqdm.auto").tqdm(total=0, unit="tile", desc="first tile")

    def show(event: Event) -> None:
        match event:
            case TilePlaced() | TileEmpty() | TileNotFound() | TileFailed():
                bar.update()
            case RunStarted():
                bar.reset(event.tiles_total)
                bar.initial = event.tiles_resumed
                bar.update(event.tiles_resumed)
                bar.set_description("tiles")
            case Pulse():
                bar.set_postfix_str(f"{event.bytes_received / 1e6:,.0f} MB, {event.in_flight} in flight")
            case Stitching():
                bar.set_description("stitching" if event.parts > 1 else "validating")
            case _:
                pass

    with bar:
        yield show
