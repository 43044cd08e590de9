"""The command as a report shows it: without the values of options that hold secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from mosaic_async.safety.redaction import scrub

_SECRET = ("--header", "--param", "--secret")
_VALUE = re.compile(r"([:=]).*", re.DOTALL)


def shown_command(arguments: Sequence[str]) -> str:
    """Return a command line that may be shown to others.

    Args:
        arguments: as the process got them, its own name first.
    """
    shown = ["mosaic-async"]
    before = ""
    for argument in arguments[1:]:
        flag, equals, value = argument.partition("=")
        if before in _SECRET:
            shown.append(_hidden(argument))
        elif equals and flag in _SECRET:
            shown.append(f"{flag}={_hidden(value)}")
        else:
            shown.append(argument)
        before = argument
    return scrub(shlex.join(shown))


def _hidden(pair: str) -> str:
    return _VALUE.sub(r"\1***", pair)
