"""Loaded by the worker processes that a run starts for itself: the run alone decides when they end.

A terminal sends Ctrl-C to all processes of a command. The run answers it: tiles under way arrive and are kept.
"""

from __future__ import annotations

import signal

from distributed import Worker


def dask_setup(_: Worker) -> None:
    """Leave the signals of a terminal to the run; without the run, a worker ends by itself."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
