"""Processes that share one import: forks of a small program, and the libraries that a run does not import."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psutil
import pytest

from mosaic_async import SourceError, UsageError
from mosaic_async.tiler import local_tiler, nursery
from mosaic_async.tiler.nursery import Chore, Command, Nursery
from mosaic_async.tiler.supervisor import Crew
from tests.conftest import PARANA

PROGRAM = """
import os, socket, sys, threading, time
from mosaic_async.tiler.forks import run_tasks
open({imports!r}, "a").write("x")
def work(given):
    if given.get("words"):
        print(given["words"] * 10**given["tens"], flush=True)
        return
    print("ready", flush=True)
    def beat():
        while True:
            print(os.getpid(), flush=True)
            time.sleep(0.05)
    threading.Thread(target=beat, daemon=True).start()
    if given.get("hangs"):
        time.sleep(1000)
    sys.stdin.read()
def prepare(task, given):
    if task == "broken":
        raise SystemExit("no such luck")
    return work
run_tasks(socket.socket(fileno=int(sys.argv[1])), prepare)
"""


@pytest.fixture
def imports(tmp_path):
    return tmp_path / "imports"


@pytest.fixture
async def shared(tmp_path, imports):
    command = Command(("-c", PROGRAM.format(imports=str(imports))), log=tmp_path / "log", environment=os.environ)
    one = Nursery(command)
    yield one
    await one.close()


async def first_beat(child) -> int:
    assert await child.line() == "ready"
    return int(await child.line())


def is_of(process, imports) -> bool:
    """Return whether a process is of this test: a worker's other tests have children too."""
    return str(imports) in " ".join(process.cmdline())


async def gone(pids) -> None:
    async with asyncio.timeout(30):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            await asyncio.sleep(0.02)


async def test_tasks_share_an_import_and_the_last_runs_in_the_process_itself(shared, imports):
    said = await (await shared.run("work", {"words": "ab", "tens": 5}, is_short=True)).everything()
    assert said == b"ab" * 10**5 + b"\n"
    shared.forks = 2
    children = [await shared.run("work", {}) for _ in range(3)]
    pids = [await first_beat(child) for child in children]
    mother = psutil.Process(pids[2])
    assert mother.ppid() == os.getpid()
    assert {child.pid for child in mother.children()} == set(pids[:2])
    assert imports.read_text() == "x"
    for child in children:
        child.end_input()
    await asyncio.gather(*(child.end() for child in children))
    await gone(pids)
    replaced = await shared.run("work", {})  # what comes later has its own import
    assert await first_beat(replaced) not in pids
    assert imports.read_text() == "xx"
    await replaced.kill()


async def test_where_forks_are_not_safe_each_task_has_its_own_import(shared, imports, monkeypatch):
    monkeypatch.setattr(nursery, "can_fork", lambda: False)
    shared.forks = 1
    assert await (await shared.run("work", {"words": "a", "tens": 0}, is_short=True)).everything() == b"a\n"
    children = [await shared.run("work", {}) for _ in range(2)]
    assert len({await first_beat(child) for child in children}) == 2
    assert imports.read_text() == "xxx"
    await asyncio.gather(*(child.kill() for child in children))


async def test_a_fork_that_hangs_is_killed_even_when_the_process_it_came_from_is_gone(shared):
    shared.forks = 1
    hanging = await shared.run("work", {"hangs": True})
    pid = await first_beat(hanging)
    last = await shared.run("work", {})
    await first_beat(last)
    await last.kill()
    assert psutil.pid_exists(pid)
    await hanging.kill()
    await gone([pid])


async def test_a_start_that_is_cancelled_leaves_nothing_and_later_tasks_get_their_own_answers(shared):
    shared.forks = 9
    await shared.warm()
    for wait in (0, 0.2):
        task = asyncio.ensure_future(shared.run("work", {}))
        await asyncio.sleep(wait)
        if not task.cancel():
            await (await task).kill()
        await asyncio.wait([task])
    said = [await (await shared.run("work", {"words": word, "tens": 0}, is_short=True)).everything() for word in "abc"]
    assert said == [b"a\n", b"b\n", b"c\n"]


async def test_a_fork_that_is_killed_is_replaced_by_the_crew(shared, imports):
    shared.forks = 1
    crew = Crew(Chore(shared, "work", {}), 2)
    await crew.start()
    watch = asyncio.ensure_future(crew.watch())
    (mother,) = [child for child in psutil.Process().children() if is_of(child, imports)]
    (fork,) = mother.children()
    fork.kill()
    async with asyncio.timeout(60):
        while imports.read_text() != "xx":
            await asyncio.sleep(0.02)
    watch.cancel()
    await asyncio.wait([watch])
    await crew.stop()
    await gone([mother.pid])


async def test_a_program_that_fails_says_why_and_a_later_task_tries_again(shared, imports):
    for count in (1, 2):
        with pytest.raises(SourceError, match="no such luck"):
            await shared.run("broken", {})
        assert imports.read_text() == "x" * count


async def test_the_errors_of_opening_scenes_are_those_of_the_library(tmp_path):
    (tmp_path / "empty").mkdir()
    cases = [
        (PARANA, {"bands": ["B99"]}, UsageError, "B99"),
        (PARANA, {}, UsageError, "``bands``"),
        (tmp_path / "empty", {"bands": ["1"]}, SourceError, "neither STAC items nor GeoTIFFs"),
    ]
    for source, options, kind, words in cases:
        with pytest.raises(kind) as caught:
            async with local_tiler(source, **options):
                pass
        told = f"{caught.value.message} {caught.value.hint_in({'bands': '``bands``'})}"
        assert words in told


def test_a_run_over_scenes_imports_none_of_the_libraries_that_open_them(tmp_path):
    code = f"""
import sys
from mosaic_async.cli.main import main
area = "--bounds -54.7 -25.4 -54.6 -25.3 -z 9 --tile-size 256".split()
main(["build", {str(PARANA)!r}, {str(tmp_path / "out.tif")!r}, "--bands", "B4", *area, "-q"], standalone_mode=False)
libraries = {{"rio_tiler", "fastapi", "cogeo_mosaic", "requests", "titiler.core"}}
print(libraries & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "set()"
