"""Write pytest's bytecode of all test modules once, for each of its workers would rewrite their asserts by itself.

    python -m tests.support.rewriting

It costs ten seconds of CPU in each worker, and again in each run where the environment forbids Python to keep bytecode
(`PYTHONDONTWRITEBYTECODE`). pytest reads what stands here, by the hash of the source, whatever the environment says;
if a new version of it looks elsewhere, its workers are merely slower.
"""

from __future__ import annotations

import importlib.util
import marshal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from _pytest.assertion import rewrite

TESTS = Path(__file__).parents[1]
FILES = ("test_*.py", "conftest.py")
FLAGS = 3
"""Of a file of bytecode that holds for a hash of the source, which is always compared (PEP 552)."""
WORKERS = 2


def rewritten(file: Path) -> Path:
    """Write the bytecode of a module unless it is there; return its file."""
    source = file.read_bytes()
    target = rewrite.get_cache_dir(file) / f"{file.stem}{rewrite.PYC_TAIL}"
    head = importlib.util.MAGIC_NUMBER + FLAGS.to_bytes(4, "little") + importlib.util.source_hash(source)
    if target.is_file() and target.read_bytes().startswith(head):
        return target
    _, code = rewrite._rewrite_test(file, None)  # type: ignore[arg-type] # without a configuration: no hooks
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(head + marshal.dumps(code))
    return target


def main() -> None:
    """Write what is missing."""
    files = sorted(file for pattern in FILES for file in TESTS.rglob(pattern))
    with ProcessPoolExecutor(WORKERS) as pool:
        for _ in pool.map(rewritten, files, chunksize=8):
            pass


if __name__ == "__main__":
    main()
