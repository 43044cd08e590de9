"""The two files of a report beside the output. It blocks, so call it in a thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from mosaic_async.errors import UsageError
from mosaic_async.events.pages.document import Account, document
from mosaic_async.events.pages.page import render
from mosaic_async.events.pages.pictures import preview
from mosaic_async.raster import whole_file
from mosaic_async.safety.safe_json import parse


def write(account: Account, command: str | None) -> None:
    """Write `OUTPUT.report.json` and `OUTPUT.report.html`.

    Args:
        account: what happened.
        command: that made it; None: the library did.
    """
    found = document(account, command)
    output = account.report.output
    whole_file.write(_beside(output, "json"), json.dumps(found, ensure_ascii=False, indent=1))
    whole_file.write(_beside(output, "html"), render(found, None if account.error else _picture(output)))


def page_of(path: Path) -> str:
    """Return the page of a report that was written before; the preview is of the output, if it is still there.

    Raises:
        UsageError: the file is not a report.
    """
    try:
        found: Mapping[str, Any] = parse(path.read_text("utf-8"))
        return render(found, None if found["error"] else _picture(Path(found["output"])))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{path} is not a report", hint="pass a file that build wrote, OUTPUT.report.json") from error


def _picture(output: Path) -> str | None:
    """Return the preview; None where the output is gone or cannot be read: a page without it is better than none."""
    try:
        return preview(output)
    except (RasterioError, OSError, ValueError):
        return None


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}.report.{ending}")
