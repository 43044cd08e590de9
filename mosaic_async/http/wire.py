"""One kept-alive connection, and the proof that each answer on it belongs to its request.

HTTP/1.1 pairs answers with requests by their order alone. A stray answer, such as a second one or the 408 of an idle
server, shifts all later answers by one, and aiohttp notices neither. A `Wire` stands between the socket and aiohttp:

* Bytes that arrive while no request is open are stray. All answers on the wire that are not proved are then doubtful.
* A stray that arrives after the next request was sent looks like its answer. From then on one more answer comes than
  the client expects. So a wire ends with a farewell: the last request again, marked `Connection: close`. If exactly
  one answer follows, the numbers of requests and answers agree, and no answer was shifted.
* An answer that names its own place proves itself and all earlier ones on its wire. Those need no farewell.
* A connection that ends before its farewell may take the missing answer with it, unless it was idle for a while. Its
  unproved answers are doubtful, and later wires say farewell sooner.
* A connection that has carried only one answer gets no farewell: silence shows that its answer was the proper one.
* The only answer of a connection is used once the server has ended it. After the first stray, all are of this kind.

It knows nothing of tiles: the caller labels its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any

from aiohttp.client_proto import ResponseHandler

from mosaic_async.http.framing import after_answer

_PROVE_EVERY = 96
"""Unproved answers per wire; then a farewell follows, before Apache and older nginx end connections at a hundred."""
_LINGER = 1.0
"""Seconds for the server to end a connection after a farewell, or to be silent until all it sends is there."""
_LEAST_SILENCE = 0.1
"""Seconds; where all answers came faster, a connection is silent after this."""

OnProof = Callable[[int, int], None]
"""Called with the number of a wire, and that of the last answer that it has proved."""


class Wires:
    """All wires of a client, and the labels of doubtful answers.

    Args:
        on_proof: told of answers that their wire has proved.
    """

    def __init__(self, on_proof: OnProof | None = None) -> None:
        self._on_proof = on_proof
        self.slowest = 0.0
        """Seconds from a request to the end of its answer, at most so far."""
        self._open: set[Wire] = set()
        self._count = 0
        self._full: list[Wire] = []
        self._doubtful: set[Hashable] = set()
        self._doubted: set[int] = set()
        self.is_trusted = True
        """Whether connections are kept alive; never again after the first stray."""
        self.prove_every = _PROVE_EVERY
        """Unproved answers per wire, below what the server has ended connections at."""
        self.is_ended_in_time = True
        """Whether the server has always ended a connection soon after it announced so."""

    def add(self, wire: Wire) -> int:
        """Note an open wire, and return its number, from 1."""
        self._open.add(wire)
        self._count += 1
        return self._count

    def remove(self, wire: Wire) -> None:
        """Forget a closed wire."""
        self._open.discard(wire)

    def distrust(self) -> None:
        """Use no wire again."""
        self.is_trusted = False
        for wire in self._open:
            wire.retire()

    def doubt(self, wire: int, labels: Iterable[Hashable]) -> None:
        """Note that answers of a wire may belong to other requests."""
        self._doubtful.update(labels)
        self._doubted.add(wire)

    def note_early_end(self, answers: int) -> None:
        """Note that the server ended a connection before its farewell, and have later ones say farewell sooner."""
        self.prove_every = min(self.prove_every, answers // 2)
        if self.prove_every < 2:
            self.distrust()

    def take_doubtful(self) -> set[Hashable]:
        """Return the labels of the answers that became doubtful since the last call."""
        doubtful, self._doubtful = self._doubtful, set()
        return doubtful

    def take_doubted(self) -> set[int]:
        """Return the numbers of the wires whose answers became doubtful since the last call."""
        doubted, self._doubted = self._doubted, set()
        return doubted

    def note_full(self, wire: Wire) -> None:
        """Note a wire whose unproved answers have reached their limit, so that a farewell is due."""
        self._full.append(wire)

    def take_full(self) -> list[Wire]:
        """Return the idle wires that became full since the last call."""
        if not self._full:
            return self._full
        full, self._full = self._full, []
        return [wire for wire in full if wire.is_unproved]

    def unproved(self) -> list[Wire]:
        """Return the idle wires that have unproved answers."""
        return [wire for wire in self._open if wire.is_unproved]

    def note_proof(self, wire: int, number: int) -> None:
        """Note that a wire has proved its answers up to a number."""
        if self._on_proof is not None:
            self._on_proof(wire, number)

    async def hear_out(self) -> None:
        """Wait until the wires with a single answer have been silent for long enough to prove it."""
        lone = [wire for wire in self._open if wire.is_lone]
        enough = min(_LINGER, max(2 * self.slowest, _LEAST_SILENCE))
        if (left := enough - min((wire.silence for wire in lone), default=enough)) > 0:
            await asyncio.sleep(left)
        for wire in lone:
            wire.prove()

    def close(self) -> None:
        """Close all wires at once."""
        for wire in list(self._open):
            wire.abort()


class Wire(asyncio.Transport, asyncio.Protocol):
    """A connection: a transport for aiohttp's protocol, and a protocol for the socket's transport.

    Args:
        transport: of the socket; its first request was just sent.
        handler: aiohttp's protocol.
        wires: told of strays.
    """

    def __init__(self, transport: asyncio.Transport, handler: ResponseHandler, wires: Wires) -> None:
        super().__init__()
        self._transport = transport
        self._handler = handler
        self._wires = wires
        self._request = b""
        self._answers = 0
        self._unproved: dict[int, Hashable] = {}
        self._is_busy = True
        self._time = asyncio.get_running_loop().time
        self._silent_since = self._sent = self._time()
        self._was_silent = self._is_retired = self._lingers = False
        self._has_ended = self._is_ended_by_server = False
        self._is_doubtful = False
        self._farewell: asyncio.Queue[bytes] | None = None
        self._first = bytearray()
        self._closed = asyncio.Event()
        handler.connection_made(self)
        transport.set_protocol(self)
        self.number = wires.add(self)

    @property
    def is_unproved(self) -> bool:
        """Whether the wire is idle and has unproved answers; a single answer has nothing that could shift it."""
        is_idle = not (self._is_busy or self._has_ended or self._farewell)
        return is_idle and self._answers > 1 and bool(self._unproved)

    @property
    def is_lone(self) -> bool:
        """Whether the wire is idle and has only one answer, which is not proved."""
        return self._answers == 1 and bool(self._unproved) and not (self._is_busy or self._has_ended)

    @property
    def silence(self) -> float:
        """Seconds since the server sent anything."""
        return self._time() - self._silent_since

    def has_unproved(self, number: int) -> bool:
        """Return whether the answer with this number is not proved yet."""
        return number in self._unproved

    def begin(self) -> int:
        """Return the number of the answer that is due now, from 1."""
        self._answers += 1
        self._first.clear()
        return self._answers

    def end(self) -> None:
        """Note that aiohttp is done with the current answer."""
        self._is_busy = False
        self._silent_since = self._time()
        self._wires.slowest = max(self._wires.slowest, self._silent_since - self._sent)

    def note(self, number: int, label: Hashable, *, is_proved: bool, is_last: bool) -> bool:
        """Note a complete answer, and return whether it can be used.

        Args:
            number: of the answer on this wire.
            label: what to report if the answer becomes doubtful later.
            is_proved: whether the answer names its place, so that it belongs to its request.
            is_last: whether the answer, or the client, announced the end of the connection.
        """
        self._is_ended_by_server |= is_last
        has_surplus = self._handler.should_close and not (is_last or self._has_ended)
        if has_surplus and not self._is_doubtful:
            self.doubt()
        if self._is_doubtful:
            return False
        if is_proved:
            if self._unproved:
                self._unproved = {other: label for other, label in self._unproved.items() if other > number}
                self._wires.note_proof(self.number, number)
        elif number > 1 and (is_last or self._has_ended):
            return False  # the last words of an idle server look like this, too
        elif not is_last:
            self._unproved[number] = label
            if len(self._unproved) >= self._wires.prove_every:
                self.retire()
                self._wires.note_full(self)
        return True

    async def ends_alone(self) -> bool:
        """Wait until the server ends the connection, and return whether it sent exactly one answer here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                await self._closed.wait()
        self._wires.is_ended_in_time &= self._closed.is_set()
        self.abort()
        return not self._rest_of_first

    @property
    def _rest_of_first(self) -> bytes | None:
        """Return what follows the wire's first answer; None while that has no end."""
        try:
            return after_answer(bytes(self._first))
        except ValueError:
            return b"?"

    def doubt(self) -> None:
        """Report the unproved answers, and close the connection."""
        self._is_doubtful = True
        self._wires.doubt(self.number, self._take_unproved())
        self._wires.distrust()
        self.abort()

    def prove(self) -> None:
        """Note that all answers so far belong to their requests, unless a stray was seen meanwhile."""
        if self._unproved:
            self._unproved.clear()
            self._wires.note_proof(self.number, self._answers)

    def _take_unproved(self) -> list[Hashable]:
        labels = [label for label in self._unproved.values() if label is not None]
        self._unproved.clear()
        return labels

    @property
    def _is_silent(self) -> bool:
        """Whether the server has sent nothing for so long that it owes nothing but the answer to a new request."""
        return self._was_silent if self._is_busy else self.silence >= _LINGER

    def retire(self) -> None:
        """Have aiohttp send no further request here."""
        self._is_retired = True

    async def farewell(self, timeout: float) -> None:
        """Repeat the last request as the last one of the connection, and doubt unless exactly one answer follows.

        Args:
            timeout: seconds for the answer.
        """
        self.retire()
        self._farewell = asyncio.Queue()
        self._transport.write(self._request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        if await self._counts_one(self._farewell, timeout):
            self.prove()
            self.abort()
        else:
            self.doubt()

    @staticmethod
    async def _counts_one(chunks: asyncio.Queue[bytes], timeout: float) -> bool:
        """Read to the end of the connection, and return whether exactly one answer came."""
        raw, rest = b"", None
        try:
            async with asyncio.timeout(timeout):
                while rest is None:
                    chunk = await chunks.get()
                    if not chunk:
                        return False
                    raw += chunk
                    rest = after_answer(raw)
        except (TimeoutError, ValueError):
            return False
        try:
            async with asyncio.timeout(_LINGER):
                return rest + await chunks.get() == b""
        except TimeoutError:  # it keeps the connection, and sends nothing
            return rest == b""

    # The protocol of the socket.

    def data_received(self, data: bytes) -> None:
        """Hand bytes to aiohttp, if a request is open."""
        if self._answers <= 1:
            self._first += data
        if self._farewell is not None:
            self._farewell.put_nowait(data)
        elif not self._is_busy:
            self._note_stray()
        else:
            self._was_silent = False
            self._handler.data_received(data)
            if not self._is_busy and self._handler.should_close:
                self.retire()  # before another task takes the connection with the surplus

    def _note_stray(self) -> None:
        if self._lingers and not self._unproved:
            self.abort()
        else:
            self.doubt()

    def eof_received(self) -> None:
        """Note that the server sends no more."""
        self._has_ended = self._is_ended_by_server = True
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection; only if it was idle would an answer that was shifted have come before."""
        self._has_ended = True
        self._closed.set()
        self._wires.remove(self)
        if self._farewell is not None:
            self._farewell.put_nowait(b"")
        elif self._answers > 1 and self._unproved and not self._is_silent:
            self._wires.doubt(self.number, self._take_unproved())
            if exc or self._is_ended_by_server:
                self._wires.note_early_end(self._answers)
        elif exc or self._is_ended_by_server or self._is_silent:
            self.prove()
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """Have aiohttp wait with writing."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Let aiohttp write again."""
        self._handler.resume_writing()

    # The transport of aiohttp.

    def write(self, data: Any) -> None:
        """Send bytes of a request."""
        self._request = data if not self._is_busy else self._request + data
        self._was_silent = self._is_silent
        self._is_busy = True
        self._sent = self._time()
        self._transport.write(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send bytes of a request."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Return whether aiohttp must send no further request here."""
        return self._is_retired or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection; one that is idle stays open for its farewell, one that is alone for its end."""
        if self._answers == 1 and not self._is_busy and self._rest_of_first is not None:
            self._lingers = True
            asyncio.get_running_loop().call_later(2 * _LINGER, self.abort)  # `ends_alone` waits for the server before
        elif self.is_unproved and not self._handler.should_close:
            self.retire()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a property of the socket."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()
