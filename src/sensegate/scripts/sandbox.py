"""Sandbox of a script child: files, network, processes, privileges and environment are given up at its start.

Linux only. As root every restriction applies; without root all but the change of user and root directory. A restriction
that the kernel or container does not grant is missing from the returned list.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct
import time
from pathlib import Path
from typing import Final

SYSTEM_CALLS: Final = "system_calls"
"""Restriction without which scripts run only if the configuration permits it: the filter of system calls."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_NOBODY: Final = 65_534
_USER_BASE: Final = 2_000_000_000
"""Base of a child's user id, to which its process id is added: a user that owns nothing and no other child."""
ADDRESS_SPACE_BYTES: Final = 1_024**3
"""Limit for all realms of a child and its interpreter together; each realm has its own, lower limit."""


def enter_sandbox() -> tuple[str, ...]:
    """Give up what decoding does not need; return the names of the restrictions in force."""
    done = [_clear_environment()]
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before files become inaccessible
    done.append(_leave_file_system())
    done.append(_drop_privileges())
    done += _set_limits()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no_new_privs")
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
        done.append("not_dumpable")
    # After the change of user, which clears it. If the gateway has already ended, the pipe is at its end.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        done.append("dies_with_parent")
    done.append(_filter_system_calls(libc))  # last: the calls above would be refused afterwards
    return tuple(word for word in done if word)


def _clear_environment() -> str:
    os.environ.clear()
    os.environ["TZ"] = "UTC"  # no local time zone for scripts
    time.tzset()
    return "environment"


def _leave_file_system() -> str:
    """Change to an empty, deleted directory; make it the root directory if permitted."""
    nowhere = Path(f"/tmp/sensegate-script-{os.getpid()}-{time.monotonic_ns()}")  # noqa: S108 - made new, and gone
    try:
        nowhere.mkdir(mode=0o700)
    except OSError:  # /tmp is not writable
        os.chdir("/")
        return ""
    os.chdir(nowhere)
    nowhere.rmdir()
    with contextlib.suppress(PermissionError):
        os.chroot(".")
        return "root_directory"
    return "directory"


def _drop_privileges() -> str:
    with contextlib.suppress(PermissionError):
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        for user in (_USER_BASE + os.getpid(), _NOBODY):
            with contextlib.suppress(OSError):  # a user namespace may lack the first id
                os.setresuid(user, user, user)
                return "user"
    return ""


def _set_limits() -> list[str]:
    done = []
    for word, resource_id, limit in (
        ("no_core", resource.RLIMIT_CORE, 0),
        ("no_file_growth", resource.RLIMIT_FSIZE, 0),
        ("no_new_descriptors", resource.RLIMIT_NOFILE, 0),  # open descriptors remain; no new file, socket or pipe
        ("no_new_processes", resource.RLIMIT_NPROC, 0),
        ("address_space", resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource_id, (limit, limit))
            done.append(word)
    return done


# ── system calls ─────────────────────────────────────────────────────────────────────────────────────

# Read, write, close; memory; own signals and timers; clocks; exit. No files, sockets, processes or signals to others.
_X86_64: Final = "0 1 3 5 8 9 10 11 12 13 14 15 24 25 28 38 39 60 96 98 100 131 201 202 228 230 231 318"
_AARCH64: Final = "57 62 63 64 80 93 94 98 103 113 115 124 132 134 135 139 153 165 169 172 214 215 216 222 226 233 278"
_CALLS: Final = {
    "x86_64": (0xC000003E, tuple(map(int, _X86_64.split()))),
    "aarch64": (0xC00000B7, tuple(map(int, _AARCH64.split()))),
}
"""Machine -> (its AUDIT_ARCH, numbers of the permitted system calls)."""
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def _filter_system_calls(libc: ctypes.CDLL) -> str:
    """Refuse (EPERM) every system call that decoding does not need, by a filter that cannot be removed."""
    arch, calls = _CALLS.get(os.uname().machine, (0, ()))
    if not calls:
        return ""
    steps = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((_EQUAL, len(calls) - at, 0, call) for at, call in enumerate(calls)),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    done = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0
    return SYSTEM_CALLS if done else ""
