"""The client of a run: how hard it tries, what it tells on the way, and why it had to retry."""

from __future__ import annotations

from collections import Counter

from mosaic_async.build.job import Effort, Job
from mosaic_async.events import OnEvent, Pulse, ServerTrouble, TileRetried
from mosaic_async.http.client import Client
from mosaic_async.http.emptiness import EmptyRules
from mosaic_async.http.wire import OnProof
from mosaic_async.safety.redaction import scrub

_MAX_REASONS = 100
_SHOWN_REASONS = 20


class RetryTally:
    """Counts retries by their reasons.

    Args:
        on_event: told of each.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._counts: Counter[str] = Counter()

    def note(self, url: str, attempt: int, reason: str, wait: float) -> None:
        """Count a retry; servers that put the tile into the reason would have as many reasons as tiles."""
        is_room = reason in self._counts or len(self._counts) < _MAX_REASONS
        self._counts[reason if is_room else "others"] += 1
        self._on_event(TileRetried(scrub(url), attempt, reason, wait))

    def most(self) -> dict[str, int]:
        """Return the most frequent reasons."""
        return dict(self._counts.most_common(_SHOWN_REASONS))


def pulse_of(client: Client) -> Pulse:
    """Return what happens at the moment."""
    return Pulse(client.in_flight, client.requests, client.bytes_received, client.retries)


def run_client(job: Job, effort: Effort, retried: RetryTally, *, on_event: OnEvent, on_proof: OnProof) -> Client:
    """Return the client that fetches the tiles of a job.

    Args:
        job: whose source it is.
        effort: how hard to try.
        retried: counts the retries.
        on_event: told of trouble with the server.
        on_proof: told of connections that have proved their answers.
    """
    client = Client(
        effort.pace,
        headers=job.source.headers,
        allow_hosts=effort.allow_hosts,
        on_retry=retried.note,
        on_trouble=lambda trouble: on_event(ServerTrouble(trouble.kind, trouble.seconds, trouble.reason)),
        on_proof=on_proof,
    )
    client.call_empty(EmptyRules.of(job.empty))
    return client
