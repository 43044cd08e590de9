"""The report of a run beside its output, with the reason why the run ended where it is not complete."""

from __future__ import annotations

import asyncio
import importlib
import sys
from dataclasses import replace

from mosaic_async.events.pages.document import Account
from mosaic_async.safety.redaction import scrub


async def write_pages(account: Account | None, *, command: bool | str) -> None:
    """Write the page and the JSON of a run that ends, with the exception that is being handled if there is one.

    Args:
        account: what there is to report; None writes nothing.
        command: that ran, without secrets; True: the library ran.
    """
    if account is None:
        return
    error = sys.exception()
    why = None if error is None else scrub(getattr(error, "message", "") or type(error).__name__)
    pages = importlib.import_module("mosaic_async.events.pages.files")  # with jinja2, which few processes need
    shown = command if isinstance(command, str) else None
    await asyncio.to_thread(pages.write, replace(account, error=why), shown)
