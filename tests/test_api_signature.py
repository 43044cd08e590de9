"""What `build_mosaic` takes and by default does is written once: the plan and the command line say the same."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from mosaic_async import build_mosaic, plan_mosaic
from mosaic_async.build.job import Effort, Job
from mosaic_async.cli.main import main

BUILD = inspect.signature(build_mosaic).parameters
PLAN = inspect.signature(plan_mosaic).parameters
NOT_OF_A_PLAN = {
    "output",
    "max_failures",
    "on_error",
    "not_found",
    "sparse",
    "max_outage",
    "check_disk",
    "stac",
    "overwrite",
    "resume",
} | {
    "shard",
    "crew",
    "work",
    "stop",
    "on_event",
    "progress",
    "report_page",
}
build, plan = main.commands["build"], main.commands["plan"]
NOT_OPTIONS = {"source", "area", "output", "crew", "stop", "on_event", "progress", "report_page"}


def test_a_plan_takes_all_that_decides_what_it_says_with_the_same_names_defaults_and_types():
    assert set(PLAN) == set(BUILD) - NOT_OF_A_PLAN
    for name, parameter in PLAN.items():
        assert parameter == BUILD[name], name


def test_every_parameter_is_a_field_of_the_job_or_of_the_effort_with_its_default():
    fields = {field.name: field for value in (Job, Effort) for field in dataclasses.fields(value)}
    passed_on = {"headers", "params", "secrets", "ca", "output", "crew", "stop", "on_event", "progress", "report_page"}
    assert set(fields) == set(BUILD) - passed_on
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            assert BUILD[name].default == field.default, name


@pytest.mark.parametrize(("command", "arguments", "parameters"), [(build, ["s", "o.tif"], BUILD), (plan, ["s"], PLAN)])
def test_the_command_line_has_every_parameter_with_its_default(command, arguments, parameters):
    given = command.make_context("mosaic-async", [*arguments, "--bounds", "0", "0", "1", "1"]).params
    for name in set(parameters) - NOT_OPTIONS:
        default = parameters[name].default
        if name == "resume":
            assert given["fresh"] is not default
        elif name in ("headers", "params", "secrets", "creation_options", "allow_hosts"):
            assert not given[name]
            assert not default
        elif name == "max_failures":
            assert given[name] == str(default)
        else:
            assert given[name] == default, name


def test_help_shows_the_values_of_the_defaults():
    text = str(inspect.signature(build_mosaic))
    for value in ("concurrency: 'Concurrency' = 50", "profile: 'str' = 'deflate'", "on_error: 'OnError' = 'park'"):
        assert value in text
