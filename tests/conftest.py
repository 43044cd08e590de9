"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import Phase, settings
from rasterio._env import del_gdal_config  # not public, and the only way to take a setting back

from mosaic_async.build import identity
from mosaic_async.safety import redaction
from tests import effort
from tests.fake_tiler import FakeTiler
from tests.forks import DIGEST_ROUNDS

# The same examples in every run; `--hypothesis-profile random` looks for new ones.
PHASES = set(Phase) - {Phase.explain}
settings.register_profile("same", derandomize=True, deadline=None, phases=PHASES)
settings.register_profile("random", deadline=None, phases=PHASES)
settings.load_profile("same")

REAL_ROUNDS = identity._ROUNDS
identity._ROUNDS = DIGEST_ROUNDS

# A shell that runs the tests in the background has interrupts ignored, and what they start would ignore them too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
PARANA = SCENES / "landsat8-parana-2020-60m"
COLORADO = SCENES / "landsat57-colorado-2008-2013"

TRACED_SETS = 1
"""Sets of parameters per test whose lines count for the coverage: more rarely reach new lines, and tracing is dear."""


def pytest_configure(config: pytest.Config) -> None:
    effort.select(config)


def is_of_hypothesis(item: pytest.Item) -> bool:
    """Return whether a test runs many examples, which reach few lines that other tests do not."""
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if effort.is_quick():
        items[:], left_out = effort.thinned(items)
        config.hook.pytest_deselected(items=left_out)
    sets: Counter[str] = Counter()
    for item in items:
        sets[item.nodeid.partition("[")[0]] += 1
        if sets[item.nodeid.partition("[")[0]] > TRACED_SETS or is_of_hypothesis(item):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeTiler]]:
    """Start fake tilers that end with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(FakeTiler(**options).running())


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """Let no test hide words that another one called a secret."""
    yield
    redaction._known.clear()


@pytest.fixture
def real_digests(monkeypatch) -> None:
    """Make the digests of identities those of a real run, which takes 20 ms for each."""
    monkeypatch.setattr(identity, "_ROUNDS", REAL_ROUNDS)


@pytest.fixture
def forked_tilers(monkeypatch) -> None:
    """Start embedded tilers of this test process from one import of their program, where forks are safe."""
    from mosaic_async.tiler import forks, nursery
    from tests.tiler import forked

    if forks.can_fork():
        monkeypatch.setattr(nursery._Mother, "started", classmethod(forked.started))


@pytest.fixture
def gdal_variable(monkeypatch) -> Iterator[Callable[[str, str], None]]:
    """Set environment variables that GDAL reads, for one test.

    When rasterio leaves an Env, it makes the variables that this Env overruled settings of GDAL, which stay.
    """
    names: list[str] = []

    def set_variable(name: str, value: str) -> None:
        names.append(name)
        monkeypatch.setenv(name, value)

    yield set_variable
    monkeypatch.undo()
    for name in names:
        del_gdal_config(name)


@pytest.fixture
def unblocked_loop() -> Iterator[None]:
    """Make every blocking call of the package inside a running loop an error."""
    with blockbuster_ctx(scanned_modules=["mosaic_async"]) as detector:
        detector.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield
