"""Who listens to a run of the library: the caller's function, the log, and a progress bar if one is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mosaic_async.events import Event, OnEvent
from mosaic_async.events.log import logged
from mosaic_async.events.notebook import progress_bar


@contextmanager
def listening(on_event: OnEvent | None, *, progress: bool) -> Iterator[OnEvent]:
    """Return one listener for all while the block runs.

    Args:
        on_event: the caller's.
        progress: whether a progress bar is shown.
    """
    with progress_bar() if progress else nullcontext() as bar:
        listeners = [listener for listener in (on_event, logged(), bar) if listener is not None]

        def hear(event: Event) -> None:
            for listener in listeners:
                listener(event)

        yield hear
