"""The examples of batch systems are files that these systems read, with commands that this version takes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from mosaic_async.build.shard import Shard
from mosaic_async.cli.main import main

FOLDER = Path(__file__).parent.parent / "examples" / "shards"
SHOWING = 'mosaic-async() { printf "%s\\n" "$@"; }\n'
"""Stands for the command in a shell, and prints its arguments."""


def arguments(script, *args, **environment):
    environment = {"PATH": "/usr/bin:/bin", **environment}
    shown = SHOWING + script
    done = subprocess.run(["bash", "-c", shown, "script", *args], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command, *rest = done.stdout.splitlines()
    assert command == "build"
    return main.commands["build"].make_context("mosaic-async", rest).params


def kubernetes(name):
    document = yaml.safe_load((FOLDER / name).read_text())
    (container,) = document["spec"]["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert shlex.split(script)
    return document["spec"], script


@pytest.mark.parametrize("index", ["0", "15"])
def test_each_system_passes_a_share_and_the_last_step_none(index):
    slurm = (FOLDER / "slurm.sh").read_text()
    task = {"SLURM_ARRAY_TASK_ID": index, "SLURM_ARRAY_TASK_COUNT": "16"}
    batch = json.loads((FOLDER / "aws-batch.json").read_text())["containerProperties"]["command"][-1]
    spec, shard = kubernetes("kubernetes.yaml")
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", 16)
    shards = [
        arguments(slurm, **task),
        arguments(batch, AWS_BATCH_JOB_ARRAY_INDEX=index),
        arguments(shard, JOB_COMPLETION_INDEX=index),
    ]
    lasts = [arguments(slurm, "stitch"), arguments(batch), arguments(kubernetes("kubernetes-stitch.yaml")[1])]
    for share, last in zip(shards, lasts, strict=True):
        assert Shard.parse(share.pop("shard")) == Shard(int(index), 16)
        assert last.pop("shard") is None
        assert share == last
