"""Errors of the operating system reach the operator as one sentence; what is a bug keeps its traceback."""

from __future__ import annotations

import errno
import os

import pytest

from sensegate import cli
from sensegate.cli.system_errors import describe_os_error


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.EIO]
)
def test_a_sentence_names_path_and_remedy(number: int) -> None:
    """What the system says, where, and what to do."""
    text = describe_os_error(OSError(number, os.strerror(number), "/data/engine"))
    assert text.startswith(f"/data/engine: {os.strerror(number)}; ")
    assert len(text.split("; ", 1)[1]) > 10


def test_what_the_operator_cannot_mend() -> None:
    """A broken pipe, or an error without a number, is a bug or another's: it is not described."""
    assert describe_os_error(BrokenPipeError(errno.EPIPE, "Broken pipe")) == ""
    assert describe_os_error(OSError("odd")) == ""


def test_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of parts that end together, each sentence once, exit code 2; other errors pass through."""
    full = OSError(errno.EMFILE, "Too many open files", "/data/link.json")

    def fails() -> None:
        raise ExceptionGroup("tasks", [full, ExceptionGroup("more", [full])])

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("LimitNOFILE=65536") == 1

    def bug() -> None:
        raise OSError("odd")

    monkeypatch.setattr(cli, "app", bug)
    with pytest.raises(ExceptionGroup):
        cli.main()
