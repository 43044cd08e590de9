"""Run the benchmarks: `python -m benchmarks`, or `--full` for all figures of docs/performance.md.

Each contestant runs in its own process, against the same replay server on this machine. They take turns, so that what
disturbs the machine disturbs all; figures are medians. The results are a table, JSON and plots.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bodies import make_bodies
from benchmarks.contestants import CONTESTANTS
from benchmarks.endpoint import Endpoint, endpoint
from benchmarks.job import ZOOM, Job
from benchmarks.measure import Measurement, machine, problem_with, run
from benchmarks.report import write_report
from benchmarks.scenarios import FULL, SHORT, Scenario


def main() -> None:
    """Measure the requested scenarios and write the report."""
    options = _options()
    scenarios = [scenario for scenario in FULL if scenario.name in options.only] if options.only else None
    scenarios = scenarios or (FULL if options.full else SHORT)
    started = time.time()
    measurements = []
    with endpoint() as server, TemporaryDirectory(prefix="benchmarks-", dir=options.scratch) as folder:
        for scenario in scenarios:
            measurements += list(_measured(scenario, server, Path(folder), options.repeats or scenario.repeats))
    about = {**machine(), "command": " ".join(sys.argv[1:]), "started": time.strftime("%F %T", time.gmtime(started))}
    print(write_report(options.output, scenarios, measurements, about))


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all that the project promises: half an hour and more")
    parser.add_argument("--only", nargs="*", default=(), help=f"of {', '.join(scenario.name for scenario in FULL)}")
    parser.add_argument("--repeats", type=int, help="times that each contestant runs; default: as the scenario says")
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder for table, JSON and plots")
    parser.add_argument("--scratch", type=Path, help="folder for what the contestants write; default: the system's")
    return parser.parse_args()


def _measured(scenario: Scenario, server: Endpoint, folder: Path, repeats: int) -> Iterator[Measurement]:
    """Let the contestants run by turns."""
    bodies = make_bodies(ZOOM)
    for turn in range(repeats):
        for name in scenario.contestants:
            contestant = CONTESTANTS[name]
            if not contestant.is_installed():
                continue
            output = folder / "mosaic.tif"
            job = Job(
                template=server.template(contestant.kind),
                output=output,
                columns=scenario.side,
                rows=scenario.side,
                concurrency=scenario.concurrency,
                profile=scenario.profile,
            )
            server.obey(scenario.law)
            done = run(contestant.command(job))
            problem = done.problem or (
                problem_with(job, bodies, makes_cog=contestant.makes_cog) if contestant.writes else ""
            )
            measurement = Measurement.of(scenario.name, name, turn, done, server.stats(), output, problem)
            print(measurement.line, file=sys.stderr, flush=True)
            for path in folder.iterdir():
                path.unlink()
            yield measurement


if __name__ == "__main__":
    main()
