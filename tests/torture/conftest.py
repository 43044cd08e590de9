"""A tiler and a server of mortal runs for all tests of a process, folders on disk and in memory, and the counts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.torture.job import Job, Subject, Tiler, subject_of, tiling
from tests.torture.shim import NoShimError, mortal_server

MEMORY = Path("/dev/shm")
counts: Counter[str] = Counter()


@pytest.fixture(scope="session")
def tiler() -> Iterator[Tiler]:
    with tiling() as started:
        yield started


@pytest.fixture(scope="session")
def mortal() -> ForkServer:
    try:
        return mortal_server()
    except NoShimError as error:
        pytest.skip(str(error))


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(Job(), id="six parts"),
        pytest.param(Job(options=("--part-size", "1024")), id="one part", marks=pytest.mark.slow),
    ],
)
def subject(
    request: pytest.FixtureRequest, tiler: Tiler, mortal: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    return subject_of(request.param, tiler, mortal, tmp_path_factory.mktemp("subject"))


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def in_memory() -> Iterator[Path]:
    if not os.access(MEMORY, os.W_OK):
        pytest.skip(f"{MEMORY} is not a folder in memory that can be written to")
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return a function that adds numbers to what is printed at the end."""

    def add(**numbers: int) -> None:
        for name, number in numbers.items():
            record_property(f"torture {name}", number)

    return add


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        for name, number in report.user_properties:
            if name.startswith("torture "):
                counts[name.removeprefix("torture ")] += int(str(number))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if counts:
        told = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in sorted(counts.items()))
        terminalreporter.write_line(f"torture: {told}")
