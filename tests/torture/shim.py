"""The shim that counts and kills (`shim.c`): how it is compiled, and how a run is told where to die."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.forks import ForkServer

SOURCE = Path(__file__).with_name("shim.c")


class NoShimError(Exception):
    """The shim cannot be made here."""


@cache
def library() -> Path:
    """Compile the shim.

    Raises:
        NoShimError: another system than Linux, or no C compiler.
    """
    if not sys.platform.startswith("linux"):
        raise NoShimError("kills at each call of the file system need Linux")
    compiler = next(filter(shutil.which, ("gcc", "cc", "clang")), None)
    if compiler is None:
        raise NoShimError("kills at each call of the file system need a C compiler (gcc, cc or clang)")
    path = Path(tempfile.mkdtemp(prefix="shim-")) / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", path, SOURCE, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoShimError(f"{compiler} cannot compile the shim: {done.stderr}")
    return path


@cache
def mortal_server() -> ForkServer:
    """Return the server whose runs can be killed at a call, started at its first use."""
    return ForkServer({**os.environ, "LD_PRELOAD": str(library())})


def death(folder: Path, number: int, *, torn: bool = False, journal: Path | None = None) -> list[str]:
    """Return the call that has a run die, for `ForkServer.start(before=...)`.

    Args:
        folder: the calls on paths below it count.
        number: of the call before which the run dies, from 1; 0: none.
        torn: half of what that call would write is written.
        journal: a file that gets a line per call.
    """
    return ["tests.torture.shim:arm", f"{folder}/", str(number), "torn" if torn else "", str(journal or "")]


def arm(prefix: str, number: str, torn: str, journal: str) -> None:
    """Have this process die before a call; called in the process that is to die."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if journal else -1
    shim = ctypes.CDLL(None)
    shim.torture_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    shim.torture_arm(prefix.encode(), int(number), bool(torn), descriptor)
