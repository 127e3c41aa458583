"""Errors of the operating system as one sentence: what failed, on which path, and what to do."""

from __future__ import annotations

import errno
from typing import Final

_WRITABLE: Final = "let the gateway's user write there, or give another place"
_REMEDIES: Final = {
    errno.EMFILE: "raise the number of open files: LimitNOFILE=65536 in the unit, or `ulimit -n 65536`",
    errno.ENFILE: "the whole system has no more open files: raise fs.file-max, or end what holds them",
    errno.ENOSPC: "make room on that disk, or give another place",
    errno.EDQUOT: "raise the quota of the gateway's user, or give another place",
    errno.EROFS: "mount it for writing, or give another place",
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ENOENT: "create it, or give another place",
    errno.EEXIST: "a file stands where a directory must be; move it away",
    errno.ENOTDIR: "a file stands where a directory must be; move it away",
    errno.EISDIR: "a directory stands where a file must be; move it away",
    errno.EIO: "look at the disk (dmesg, smartctl); restore a backup if it is damaged",
    errno.ENOMEM: "give the gateway more memory, or lower the sizes in its configuration",
    errno.EADDRINUSE: "another process listens there; stop it, or give another port",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; correct the host in the configuration",
}


def describe_os_error(error: OSError) -> str:
    """Return what is wrong and what to do; empty for an error that the operator cannot mend."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return ""
    path = error.filename2 or error.filename
    where = f"{path}: " if path else ""
    return f"{where}{error.strerror or error}; {remedy}"
