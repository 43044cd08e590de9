"""Events in Python's `logging`: the logger `mosaic_async`, which is silent until a program sets it up."""

from __future__ import annotations

import logging

from mosaic_async.events import Event, OnEvent
from mosaic_async.events.wording import Narrator

_LOGGER = logging.getLogger("mosaic_async")
_LOGGER.addHandler(logging.NullHandler())


def logged() -> OnEvent:
    """Return a listener that logs what happens: incidents as warnings, the progress every 30 s, retries for debugging.

    Records have the kind of the event as `kind`, and its facts as `facts`.
    """
    narrator = Narrator(rest="the log has the rest at level DEBUG")

    def log(event: Event) -> None:
        for line in narrator.lines(event):
            _LOGGER.log(line.level, "%s", line.text, extra={"kind": line.kind, "facts": dict(line.values)})

    return log
