"""Processes that end, hang, grow or miss their deadline are replaced. The processes are real, and small."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import psutil
import pytest

from mosaic_async import SourceError
from mosaic_async.tiler import open_mosaic, serve, supervisor
from mosaic_async.tiler.supervisor import Command, Crew
from tests.conftest import PARANA

HEALTHY = """
import sys, threading, time, os
print("ready", flush=True)
def beat():
    while True:
        print({beat}, flush=True)
        time.sleep(0.05)
threading.Thread(target=beat, daemon=True).start()
sys.stdin.read()
"""


@asynccontextmanager
async def crew_of(tmp_path, program, size=1):
    command = Command(("-c", program), log=tmp_path / "log", environment=os.environ)
    crew = Crew(command, size)
    await crew.start()
    watch = asyncio.ensure_future(crew.watch())
    try:
        yield crew
    finally:
        watch.cancel()
        await asyncio.wait((watch,))
        await crew.stop()
        assert not children()


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # it has ended at this very moment
            command = child.cmdline()[1:3]
            is_of_forks = command[1:] and "multiprocessing" in command[1]  # of `tests/tiler/forked.py`
            found += [child] if command[:1] == ["-c"] and not is_of_forks else []
    return found


async def until(condition):
    while not condition():
        await asyncio.sleep(0.05)


async def replaced(old: set[psutil.Process]) -> None:
    """Wait until other processes run in place of some."""
    async with asyncio.timeout(60):
        await until(lambda: not old & set(children()) and len(children()) == len(old))


async def test_a_process_that_is_killed_is_replaced(tmp_path):
    async with crew_of(tmp_path, HEALTHY.format(beat="1"), size=2):
        old = set(children())
        assert len(old) == 2
        for process in old:
            process.kill()
        await replaced(old)


@pytest.mark.slow
async def test_a_process_that_is_silent_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_SILENCE", 1.0)
    async with crew_of(tmp_path, HEALTHY.format(beat="1")):
        old = set(children())
        next(iter(old)).send_signal(signal.SIGSTOP)
        await replaced(old)


async def test_a_supervisor_that_was_busy_itself_calls_no_process_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_SILENCE", 0.5)
    async with crew_of(tmp_path, HEALTHY.format(beat="1")):
        old = set(children())
        for _ in range(2):
            time.sleep(0.8)
            await asyncio.sleep(0.3)
        assert set(children()) == old


@pytest.mark.quick(1)
@pytest.mark.parametrize("beat", ["2**30", "800 * 2**20", "'overdue'"])
async def test_a_process_that_is_large_or_overdue_is_replaced_once(tmp_path, beat):
    starts = tmp_path / "starts"
    program = (
        f"import os\nopen({str(starts)!r}, 'a').write(f'{{os.getpid()}} ')\n"
        f"is_first = len(open({str(starts)!r}).read().split()) == 1\n"
    )
    async with crew_of(tmp_path, program + HEALTHY.format(beat=f"{beat} if is_first else 1")):
        async with asyncio.timeout(60):
            await until(lambda: len(starts.read_text().split()) == 2)
            await until(lambda: [child.pid for child in children()] == [int(starts.read_text().split()[1])])
    assert len(starts.read_text().split()) == 2


async def test_a_process_that_does_not_start_says_why(tmp_path):
    with pytest.raises(SourceError, match="no such luck"):
        async with crew_of(tmp_path, "raise SystemExit('no such luck')", size=2):
            pass
    assert not children()


async def test_a_process_that_starts_only_later_is_retried(tmp_path):
    """The second start fails twice: the third successor serves."""
    count = tmp_path / "count"
    program = (
        f"import os, sys\nopen({str(count)!r}, 'a').write('x')\n"
        f"if len(open({str(count)!r}).read()) in (2, 3): sys.exit('busy')\n"
    )
    async with crew_of(tmp_path, program + HEALTHY.format(beat="1")):
        old = set(children())
        next(iter(old)).kill()
        async with asyncio.timeout(60):
            await until(lambda: count.read_text() == "xxxx")
        await replaced(old)


async def test_a_tiler_that_hangs_or_dies_is_replaced_and_the_port_serves_again():
    async with serve(open_mosaic(PARANA), host="127.0.0.1", port=0, workers=1) as url:
        (process,) = [one for one in psutil.Process().children() if "mosaic_async.tiler.server" in one.cmdline()]
        process.kill()
        async with asyncio.timeout(100), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{url}/info") as response:
                        assert json.loads(await response.read())
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
