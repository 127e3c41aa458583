"""What a sealed process cannot do, by attempt. In a process of its own: nobody gets back what was given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from sensegate.config import ScriptsConfig
from sensegate.decode import codec_scripts
from sensegate.scripts import pool
from sensegate.scripts.pool import ScriptPool
from sensegate.scripts.process import ChildProcess
from sensegate.scripts.wire import FAILED
from tests.scripts.conftest import ask, source_of

ATTEMPTS = {
    "read a file": "open('/etc/passwd')",
    "read its own program": "open(sys.executable, 'rb')",
    "write a file": "open('/tmp/x', 'w')",
    "list the root": "print(os.listdir('/')) if os.listdir('/') else (_ for _ in ()).throw(OSError())",
    "open a socket": "socket.socket()",
    "open a socket of the machine": "socket.socket(socket.AF_UNIX)",
    "make a pipe": "os.pipe()",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "make a child": "os._exit(0) if os.fork() == 0 else None",
    "become somebody": "os.setuid(0)",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "signal itself": "os.kill(os.getpid(), 0)",
    "look around": "os.stat('/')",
    "change the root": "os.chroot('/')",
    "watch for events": "select.epoll()",
    "share memory": "os.memfd_create('x')",
    # As a large object asks for it, but nothing is written there.
    "take memory": "mmap.mmap(-1, 2 * 1024**3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
    "read the environment": "os.environ['HOME']",
}
PROGRAM = """
import json, mmap, os, select, socket, sys
from sensegate.scripts.sandbox import enter_sandbox
if sys.argv[1] == "stranger":
    os.setgroups([])
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)
done = () if sys.argv[1] == "free" else enter_sandbox()
found = {}
for name, code in json.loads(sys.argv[2]).items():
    try:
        exec(code)
        found[name] = True
    except (OSError, MemoryError, KeyError):
        found[name] = False
sys.stdout.write(json.dumps([done, found]))
"""


def attempts(how: str) -> tuple[list[str], dict[str, bool]]:
    """Return what was given up, and which attempts succeed then."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, json.dumps(ATTEMPTS)],
        capture_output=True,
        check=True,
        text=True,
        env={"HOME": "/root"},
        timeout=60,
    )
    done, document = json.loads(run.stdout.splitlines()[-1])
    return done, document


def test_a_sealed_process_can_do_nothing() -> None:
    """No file, no socket, no process, no other user, no more memory than it was left."""
    done, result = attempts("sealed")
    able = {name for name, succeeded in result.items() if succeeded}
    assert "system_calls" in done
    assert able == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who is nobody")
def test_without_root_the_rest_still_holds() -> None:
    """A gateway that runs as a service's user cannot change root or user; the child can do no more for that."""
    done, result = attempts("stranger")
    assert {"user", "root_directory"}.isdisjoint(done)
    assert {name for name, succeeded in result.items() if succeeded} == set()


@pytest.fixture(scope="module")
def free() -> dict[str, bool]:
    """What succeeds in a process that is not sealed."""
    return attempts("free")[1]


@pytest.mark.parametrize(
    "name", ["read a file", "open a socket", "make a pipe", "make a child", "take memory", "signal its parent"]
)
def test_the_attempts_are_real(name: str, free: dict[str, bool]) -> None:
    """Negative control: a process that is not sealed can do these things."""
    assert free[name]


UNFILTERED = (
    sys.executable,
    "-c",
    "from sensegate.scripts import child, sandbox\nsandbox._filter_system_calls = lambda libc: ''\nchild.main()",
)
"""A child on a system that grants no filter of system calls."""


def unfiltered_pool(*, require_filter: bool) -> ScriptPool:
    """Return a pool whose children have no filter."""
    return ScriptPool(start=lambda: ChildProcess(UNFILTERED), require_filter=require_filter)


def test_without_a_filter_no_script_runs() -> None:
    """Frames get a reason, loading an error, and `/readyz` a sentence; all three say what to do."""
    source = source_of("function decodeUplink(input) { return {data: {a: 1}}; }")
    scripts = unfiltered_pool(require_filter=True)
    try:
        results = scripts.run([ask(source), ask(source)])
        assert {result.kind for result in results} == {FAILED}
        assert all("scripts.require_seccomp" in result.text for result in results)
        assert "scripts.require_seccomp" in scripts.inspect(source).error
        assert [problem for problem in scripts.problems() if "do not run" in problem]
    finally:
        scripts.close()


def test_the_configuration_may_permit_scripts_without_a_filter() -> None:
    """Control: then they run, and `/readyz` says that they are not filtered; with the filter it says nothing."""
    source = source_of("function decodeUplink(input) { return {data: {a: 1}}; }")
    for scripts, problems in ((unfiltered_pool(require_filter=False), 1), (ScriptPool(), 0)):
        try:
            [result] = scripts.run([ask(source)])
            assert (result.kind, scripts.inspect(source).error) == ("", "")
            assert len([problem for problem in scripts.problems() if "without a filter" in problem]) == problems
            assert len(scripts.problems()) == problems
        finally:
            scripts.close()


def test_the_pools_of_a_process_follow_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pools are made anew when the requirement changes; the package requires the filter unless it is told."""
    monkeypatch.setattr(pool, "_shared", [])
    monkeypatch.setattr(pool, "_inspector", [])
    first = pool.decoding_pool()
    assert first._require_filter
    codec_scripts.configure(ScriptsConfig())
    assert pool.decoding_pool() is first
    codec_scripts.configure(ScriptsConfig(require_seccomp=False))
    try:
        assert not pool.decoding_pool()._require_filter
        assert not pool.inspection_pool()._require_filter
    finally:
        codec_scripts.configure(ScriptsConfig())
    assert pool.decoding_pool()._require_filter
