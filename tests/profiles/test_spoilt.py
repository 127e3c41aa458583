"""A profile in which something is wrong is told so, key by key; it never breaks what loads it.

Operators hand profiles in by the console: what they write is checked by the same code (`check_profile`).
"""

from __future__ import annotations

import os
import random
import shutil
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml

from sensegate.authoring.examples import check_profile
from tests.profiles.mutations import FILES, ROOT
from tests.spoil import UNWRITABLE, in_tree

WHOLE = os.environ.get("HYPOTHESIS_PROFILE") == "fuzz"
SEED = int(os.environ.get("SENSEGATE_SEED", "0")) or (random.SystemRandom().randrange(1 << 30) if WHOLE else 1)
EACH = 150 if WHOLE else 4
"""Changes tried of each profile: other ones each time under `make fuzz`."""


def written(tree: Any) -> bytes:
    text: str = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    return text.encode()


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.parametrize("file", FILES if WHOLE else FILES[::4], ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_any_profile_is_loaded_or_refused(file: Path, tmp_path: Path) -> None:
    source = yaml.safe_load(file.read_text(encoding="utf-8"))
    source["examples"] = source.get("examples", [])[:1]
    changes = list(in_tree(source, written))
    folder = tmp_path / file.parent.name
    shutil.copytree(ROOT / file.parent.name, folder)
    result: dict[str, str] = {}
    for mutation, make in random.Random(f"{SEED} {file.name}").sample(changes, min(EACH, len(changes))):
        try:
            text = make()
        except (*UNWRITABLE, yaml.YAMLError):
            continue
        (folder / file.name).write_bytes(text)
        try:
            check_profile(folder / file.name)
        except Exception as error:  # noqa: BLE001 - any is a finding
            place = traceback.extract_tb(error.__traceback__)[-1]
            result.setdefault(f"{type(error).__name__} {place.name}:{place.lineno}", f"{mutation}: {error!r}")
    assert not result, f"seed {SEED}: {result}"
