"""Every error of the package, one class for each thing a caller would do differently.

```
MosaicError                 anything below; exit code 1
├── UsageError              an argument is wrong: mend the call                          2
├── IncompleteError         some tiles failed, all else is kept: run it again            3
│   └── StoppedError        stopped as asked, all is kept: run it again                  3
├── SourceError             the tiler is unreachable, refuses or makes no sense: mend it  4
├── ResourceError           this machine lacks disk or memory: make room                 5
├── RefusedError            too large, or no sensible area: ask for less                 6
├── WorkFolderError         the work folder is another job's, or in use                  7
├── StitchError             parts that do not fit together: a bug, or edited files       1
├── RequestError            a URL could not be had, after all attempts                   4
└── TileError               the bytes of a tile are not what they should be              4
```

The last two are data inside a run, where one tile must not end it: they become `TileFailed`. Messages are lower case
and say what and where; `hint` says what to try. Inside a hint, double backticks mark a parameter of the library, as in
``max_tiles``, so that the command line can name its flag instead. This module knows nothing of the modules that raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

_PARAMETER = re.compile(r"``(\w+(?:=\w+)?)``")


class MosaicError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code: ClassVar[int] = 1
    """What the command line exits with."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self._hint = hint

    @property
    def hint(self) -> str | None:
        """What to try, with the library's names for its parameters; None where nothing is known."""
        return self.hint_in({})

    def hint_in(self, names: Mapping[str, str]) -> str | None:
        """Return the hint with other names for the library's parameters.

        Args:
            names: what to write instead of a parameter, such as `--max-tiles` for `max_tiles`. The key is the
                parameter, or `parameter=value` where the hint recommends a value.
        """
        if self._hint is None:
            return None
        return _PARAMETER.sub(lambda found: names.get(found[1], f"`{found[1]}`"), self._hint)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self._hint else self.message


class UsageError(MosaicError, ValueError):
    """An argument, or a combination of arguments, that cannot work."""

    exit_code = 2


class RequestError(MosaicError):
    """A URL could not be had: refused, or still failing after the last attempt."""

    exit_code = 4

    def __init__(self, message: str, *, status: int | None = None, attempts: int = 1, is_passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the last answer; None when there was no answer."""
        self.attempts = attempts
        self.is_passing = is_passing
        """Whether it may be different later: the server was in trouble, it did not say no."""


class TileError(MosaicError):
    """The bytes of a tile cannot be read, or are not a tile like the others of the run."""

    exit_code = 4


class IncompleteError(MosaicError):
    """Some tiles failed. What arrived is kept in the work folder and the same call goes on from there."""

    exit_code = 3

    def __init__(self, message: str, *, report: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report
        """The `events.MosaicReport` of the run, with the failed tiles."""


class StoppedError(IncompleteError):
    """The run was asked to stop, and did once what was under way had arrived."""


class SourceError(MosaicError):
    """The source cannot be reached, refuses the request, or is not what it was said to be."""

    exit_code = 4


class ResourceError(MosaicError):
    """This machine has not enough disk or memory."""

    exit_code = 5


class RefusedError(MosaicError):
    """Refused for safety: an absurd number of tiles, or an area that means nothing."""

    exit_code = 6


class WorkFolderError(MosaicError):
    """The work folder belongs to another job, or another process is using it."""

    exit_code = 7


class StitchError(MosaicError):
    """Part files differ in how they are encoded, so their blocks must not be put into one file."""
