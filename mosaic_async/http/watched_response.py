"""aiohttp's responses, each of which knows its wire and its number there. It knows nothing of what wires prove."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import aiohttp

from mosaic_async.http.wire import Wire, Wires


class DroppedError(aiohttp.ClientError):
    """The connection broke before an answer; after its own error aiohttp would repeat the request, uncounted."""

    def __init__(self, error: aiohttp.ClientError) -> None:
        super().__init__()
        self.error = error


class WatchedResponse(aiohttp.ClientResponse):
    """A response that knows its wire."""

    wires: ClassVar[Wires]
    wire: Wire
    number: int
    """Of the answer on its wire, from 1."""
    is_alone = False
    """Whether the connection has only this request."""
    _is_last = False

    def note(self, label: Hashable, *, is_proved: bool = False) -> bool:
        """Note the complete answer on its wire, and return whether it can be used.

        Args:
            label: what to report if the answer becomes doubtful later.
            is_proved: whether the answer names its place.
        """
        self._is_last = self.is_alone or self._announces_end or not self.content.at_eof()  # too long to be read
        return self.wire.note(self.number, label, is_proved=is_proved, is_last=self._is_last)

    @property
    def arrival(self) -> tuple[int, int]:
        """The number of the wire, and that of the answer on it."""
        return self.wire.number, self.number

    @property
    def is_unproved(self) -> bool:
        """Whether only the rest of the connection can prove that the answer belongs to its request."""
        return self.wire.has_unproved(self.number)

    async def ends_well(self) -> bool:
        """Return whether nothing follows the answer, if it is the only one of its connection."""
        if not self._is_last or not (self.is_alone or self.wires.is_ended_in_time):
            return True
        return await self.wire.ends_alone()

    @property
    def _announces_end(self) -> bool:
        options = self.headers.get("Connection", "").lower()
        is_old = self.version is not None and self.version < aiohttp.HttpVersion11
        return "close" in options or (is_old and "keep-alive" not in options)

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Wait for the head of the answer."""
        transport, protocol = connection.transport, connection.protocol
        assert transport is not None
        assert protocol is not None
        wire = transport if isinstance(transport, Wire) else Wire(transport, protocol, self.wires)
        self.is_alone = not self.wires.is_trusted
        self.wire, self.number = wire, wire.begin()
        connection.add_callback(wire.end)
        if self.is_alone:
            protocol.force_close()
        try:
            return await super().start(connection)
        except aiohttp.ClientResponseError:  # not HTTP, such as the body of a 204
            if self.number > 1:
                wire.doubt()
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise DroppedError(error) from error


def watched_by(wires: Wires) -> type[WatchedResponse]:
    """Return a class of responses that tell `wires` of strays."""
    return type("WatchedResponse", (WatchedResponse,), {"wires": wires})
