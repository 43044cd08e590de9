"""Every error of the package: one class for each different reaction of a caller.

```
MosaicError                 all errors below; exit code 1
├── UsageError              an argument is wrong: fix the call                           2
├── IncompleteError         some tiles failed, all others are kept: re-run               3
│   └── StoppedError        stopped on request, all tiles are kept: re-run               3
├── SourceError             the tiler is unreachable, refuses, or is unusable: fix it    4
├── ResourceError           this machine lacks disk or memory: free some                 5
├── RefusedError            too large, or an unusable area: request less                 6
├── WorkFolderError         the work folder belongs to another job, or is in use         7
├── StitchError             parts do not fit together: a bug, or edited files            1
├── RequestError            a URL failed in all attempts                                 4
└── TileError               the bytes of a tile are wrong                                4
    ├── MisplacedTileError  they are those of another tile                               4
    └── PageError           they are a page or a document of the server, not a tile      4
```

The last three are data inside a run, which one tile must not end: they become `TileFailed`. Messages are lower case and
name what and where; `hint` names what to try. Inside a hint, double backticks mark a parameter of the library, as in
``max_tiles``, so that the command line can name its flag instead. It knows nothing of the modules that raise them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from mosaic_async.safety.redaction import scrub

_PARAMETER = re.compile(r"``(\w+(?:=\w+)?)``")


class MosaicError(Exception):
    """Base of all errors that this package raises intentionally."""

    exit_code: ClassVar[int] = 1
    """Exit code of the command line."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = scrub(message)
        super().__init__(self.message)
        self._hint = None if hint is None else scrub(hint)

    @property
    def hint(self) -> str | None:
        """What to try, with the library's names for its parameters; None where nothing is known."""
        return self.hint_in({})

    @property
    def marked_hint(self) -> str | None:
        """The hint with the marks of its parameters, for another error that passes it on."""
        return self._hint

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
    """A URL failed: the server refused, or the last attempt failed."""

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        attempts: int = 1,
        is_passing: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """HTTP status of the last answer; None without an answer."""
        self.attempts = attempts
        self.is_passing = is_passing
        """Whether a later run may succeed: the server was in trouble, and did not refuse."""


class TileError(MosaicError):
    """The bytes of a tile cannot be read, or differ in format from the other tiles of the run."""

    exit_code = 4


class MisplacedTileError(TileError):
    """The answer holds another tile than the requested one."""


class PageError(TileError):
    """The answer is a page, or a document that states an exception, and not a tile; like a 503, it can be retried."""


class IncompleteError(MosaicError):
    """Some tiles failed. The work folder keeps all others, and the same call resumes from there."""

    exit_code = 3

    def __init__(self, message: str, *, report: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report
        """The `events.MosaicReport` of the run, with the failed tiles."""


class StoppedError(IncompleteError):
    """The run was stopped on request, after the requests in flight had arrived."""


class SourceError(MosaicError):
    """The source cannot be reached, refuses the request, or is not what was declared."""

    exit_code = 4


class ResourceError(MosaicError):
    """This machine has too little disk or memory."""

    exit_code = 5


class RefusedError(MosaicError):
    """Refused for safety: an absurd number of tiles, or an unusable area."""

    exit_code = 6


class WorkFolderError(MosaicError):
    """The work folder belongs to another job, or another process is using it."""

    exit_code = 7


class StitchError(MosaicError):
    """Part files differ in their encoding, so one file must not hold their blocks."""
