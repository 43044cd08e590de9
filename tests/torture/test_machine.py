"""Runs in any order: killed, resumed, of other jobs, over damaged files, with tiles that fail and come back.

A run with exit 0 leaves the right pixels of its own job; any other leaves the output as it was. The clock of the runs
hurries, so that waiting for a server that is away costs nothing.
"""

from __future__ import annotations

import itertools
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.forks import ForkServer
from tests.pyramid_reader import Level, read_levels
from tests.torture.damage import DAMAGES, files_in
from tests.torture.job import DOCUMENTED, LEFT, TOP, Job, Tiler, difference, finish, reference, window_of
from tests.torture.shim import death

PATIENCE = ("--timeout", "100000", "--max-outage", "60", "--attempts", "3")
SMALL = {"columns": 3, "rows": 3}
JOBS = [
    Job(options=PATIENCE, **SMALL),
    Job(options=(*PATIENCE, "--max-failures", "2"), **SMALL),
    Job(layer=1, options=PATIENCE, **SMALL),
    Job(options=(*PATIENCE, "--overview-resampling", "nearest"), **SMALL),
]
FAILING = [frozenset(), frozenset({(LEFT + 1, TOP + 1)}), frozenset({(LEFT + 1, TOP + 1), (LEFT + 2, TOP + 2)})]
FLAKY = [frozenset(), frozenset({(LEFT, TOP), (LEFT + 1, TOP + 2)})]
CALLS = 480
"""About as many calls as a run of these jobs makes."""
HASTE = ["tests.torture.clock:hurry"]
EXAMPLES, STEPS, SHARES = 42, 20, 16
"""A full run: examples, steps of each, and tests that they are dealt to; about 12,000 runs of the command."""


class Disturbed(RuleBasedStateMachine):
    """One output, and all that happens to it."""

    tiler: ClassVar[Tiler]
    mortal: ClassVar[ForkServer]
    place: ClassVar[Path]
    references: ClassVar[dict[tuple[Job, frozenset[tuple[int, int]]], list[Level]]]
    runs: ClassVar[int] = 0
    numbers: ClassVar = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = self.place / str(next(self.numbers))
        self.folder.mkdir()
        self.output = self.folder / "out.tif"
        self.tiler.failing = self.tiler.flaky = frozenset()

    @rule(job=st.sampled_from(JOBS), overwrite=st.booleans(), fresh=st.sampled_from([False, False, False, True]))
    def build(self, job, overwrite, fresh):
        self.run(job, overwrite=overwrite, fresh=fresh)

    @rule(job=st.sampled_from(JOBS), overwrite=st.booleans(), at=st.integers(1, CALLS), torn=st.booleans())
    def build_and_be_killed(self, job, overwrite, at, torn):
        self.run(job, overwrite=overwrite, at=at, torn=torn)

    @rule(job=st.sampled_from(JOBS), at=st.lists(st.integers(1, CALLS), min_size=1, max_size=4))
    def be_killed_again_and_again_and_resume(self, job, at):
        for number in at:
            self.run(job, overwrite=True, at=number)
        self.run(job, overwrite=True)

    @rule(job=st.sampled_from(JOBS))
    def build_while_the_server_is_away(self, job):
        self.tiler.is_away = True
        self.run(job)
        self.tiler.is_away = False

    @rule(damage=st.sampled_from(sorted(DAMAGES)), which=st.integers(0, 1000))
    def damage(self, damage, which):
        work = self.folder / "out.tif.work"
        if files := files_in(work):
            DAMAGES[damage](files[which % len(files)])

    @rule(failing=st.sampled_from(FAILING), flaky=st.sampled_from(FLAKY))
    def change_the_server(self, failing, flaky):
        self.tiler.failing, self.tiler.flaky = failing, flaky

    def teardown(self) -> None:
        self.tiler.failing = self.tiler.flaky = frozenset()
        self.tiler.is_away = False
        assert self.run(JOBS[0], overwrite=True, fresh=True) == 0
        assert [path.name for path in self.folder.iterdir()] == ["out.tif"]
        shutil.rmtree(self.folder)

    def run(self, job: Job, *, overwrite=False, fresh=False, at=0, torn=False) -> int:
        """Run the command; checks what it leaves."""
        type(self).runs += 1
        before = self.output.read_bytes() if self.output.exists() else None
        flags = ["--overwrite"] * overwrite + ["--fresh"] * fresh
        calls = [HASTE, death(self.folder, at, torn=torn)]
        code, stderr = finish(self.mortal.start([*job.args(self.tiler, self.output), *flags], before=calls))
        assert "Traceback" not in stderr, stderr
        assert code in DOCUMENTED or (at and code == -signal.SIGKILL), (code, stderr)
        after = self.output.read_bytes() if self.output.exists() else None
        if code == 0 or after != before:
            assert code in (0, -signal.SIGKILL), f"exit {code}, and another output: {stderr}"
            self.check(job)
        return code

    def check(self, job: Job) -> None:
        """Compare with an undisturbed run that lacks the same tiles; only tiles that fail now may be lacking."""
        level = read_levels(self.output)[0]
        holes = frozenset(tile for tile in self.tiler.failing if not level.mask[window_of(*tile)].any())
        assert difference(self.output, self.reference(job, holes)) is None

    def reference(self, job: Job, holes: frozenset[tuple[int, int]]) -> list[Level]:
        if (job, holes) not in self.references:
            failing, self.tiler.failing = self.tiler.failing, holes
            flaky, self.tiler.flaky = self.tiler.flaky, frozenset()
            is_away, self.tiler.is_away = self.tiler.is_away, False
            self.references[job, holes] = reference(job, self.tiler, self.mortal, self.place)
            self.tiler.failing, self.tiler.flaky, self.tiler.is_away = failing, flaky, is_away
        return self.references[job, holes]


@pytest.fixture(scope="session")
def references() -> dict[tuple[Job, frozenset[tuple[int, int]]], list[Level]]:
    return {}


def torment(tiler, mortal, folder, references, counted, seed, *, examples, steps) -> None:
    given = {"tiler": tiler, "mortal": mortal, "place": folder, "references": references}
    machine = hypothesis.seed(seed)(type("Machine", (Disturbed,), given))
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=False, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        counted(runs=machine.runs)


def test_a_few_runs_in_any_order_leave_the_right_pixels_or_none(tiler, mortal, in_memory, references, counted):
    torment(tiler, mortal, in_memory, references, counted, 1, examples=2, steps=8)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(SHARES))
def test_runs_in_any_order_leave_the_right_pixels_or_none(tiler, mortal, in_memory, references, counted, seed):
    torment(tiler, mortal, in_memory, references, counted, seed, examples=EXAMPLES, steps=STEPS)
