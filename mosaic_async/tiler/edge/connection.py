"""Connections that bring no whole request are closed: uvicorn waits for the rest of a request without end."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_PATIENCE = 15.0
"""Seconds in which a connection has to begin a response, or the next one; at most twice that."""


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 for clients that send their requests without long pauses."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Start the clock; uvicorn makes a protocol for each connection."""
        super().__init__(*args, **options)
        self._last: object = None
        self._clock = self.loop.call_later(_PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clock.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close the connection if no request has come since the last look."""
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self.cycle is self._last:
            self.transport.close()
            return
        self._last = self.cycle
        self._clock = self.loop.call_later(_PATIENCE, self._look)
