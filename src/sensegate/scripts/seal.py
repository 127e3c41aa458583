"""What a child gives up before it reads its first script: files, network, new processes, its rights, its environment.

Linux. As root all of it; without root all but the change of user and root directory. What a kernel or container does
not grant is left out of the list that is returned, so that it can be seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_NOBODY: Final = 65_534
ADDRESS_SPACE_BYTES: Final = 1_024**3
"""All rooms of a child and its interpreter together; each room has its own limit below that."""


def seal() -> tuple[str, ...]:
    """Give up what decoding does not need; return the words of what is given up now."""
    done = [_environment()]
    libc = ctypes.CDLL(None, use_errno=True)  # before there is no file to load it from
    done.append(_directory())
    done.append(_user())
    done += _limits()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no_new_privs")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
        done.append("not_dumpable")
    # After the change of user, which clears it. The gateway may be gone already: then the pipe is at its end.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        done.append("dies_with_parent")
    return tuple(word for word in done if word)


def _environment() -> str:
    os.environ.clear()
    os.environ["TZ"] = "UTC"  # a script's local time is that of no place
    time.tzset()
    return "environment"


def _directory() -> str:
    """Stand in a directory that is empty and gone; make it the root where that is allowed."""
    nowhere = Path(f"/tmp/sensegate-script-{os.getpid()}-{time.monotonic_ns()}")  # noqa: S108 - made new, and gone
    nowhere.mkdir(mode=0o700)
    os.chdir(nowhere)
    nowhere.rmdir()
    with contextlib.suppress(PermissionError):
        os.chroot(".")
        return "root_directory"
    return "directory"


def _user() -> str:
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        return "user"
    return ""


def _limits() -> list[str]:
    done = []
    for word, which, most in (
        ("no_core", resource.RLIMIT_CORE, 0),
        ("no_file_growth", resource.RLIMIT_FSIZE, 0),
        ("no_new_descriptors", resource.RLIMIT_NOFILE, 0),  # those that are open stay so: no file, no socket, no pipe
        ("no_new_processes", resource.RLIMIT_NPROC, 0),
        ("address_space", resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(which, (most, most))
            done.append(word)
    return done
