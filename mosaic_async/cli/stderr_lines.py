"""How lines for people look on stderr: as text, or as JSON for programs that collect logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from mosaic_async.safety.redaction import scrub

FORMATS = ("text", "json")
_KEY = "mosaic_async.log_format"


def log_format_option(command: Any) -> Any:
    """Add the option for the format; all that the command and its end write to stderr obeys it."""

    def keep(context: click.Context, _parameter: click.Parameter, value: str) -> str:
        context.meta[_KEY] = value
        return value

    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        callback=keep,
        expose_value=False,
        is_eager=True,
        help="Format of what is written to stderr; json has one object per line, and hides the progress bar.",
    )(command)


def is_json(context: click.Context) -> bool:
    """Return whether the command writes JSON to stderr."""
    return context.meta.get(_KEY) == "json"


def json_line(kind: str, text: str, level: int, values: Mapping[str, Any]) -> str:
    """Return a line as JSON: when, how much it matters, what happened, in words and in facts."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds")
    head = {"time": when, "level": logging.getLevelName(level).lower(), "event": kind, "message": scrub(text)}
    return json.dumps({**head, **{name: value for name, value in values.items() if name not in head}}, default=str)


def hint(context: click.Context, text: str) -> None:
    """Write a hint to stderr."""
    line = json_line("hint", text, logging.INFO, {}) if is_json(context) else f"hint: {text}"
    click.echo(line, err=True)
