"""Do a profile's examples notice a mistake? ``python -m tests.profiles.mutations [PROFILE or FILE]…`` prints the table.

Every offset, scale, unit, sign, word, sentinel and byte order of every profile is made wrong in turn (`mutate`); its
examples must fail. What goes unnoticed is printed as `check` prints its findings: ``file:line: key: what; what to do``.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import NamedTuple

from sensegate.authoring.examples import check_profile, run_example
from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import Example, Lines, ProfileFile, key_text, line_of, parse
from sensegate.decode.profiles import ProfileSet, files
from sensegate.errors import ProfileError
from sensegate.model import Spec
from tests.profiles.mutate import Mutation, Path, mutations

ROOT = File(__file__).parents[2] / "device_profiles"


def _steps(path: Path) -> tuple[str | int, ...]:
    """Return a path as the lines of the file know it: keys of dicts are text there."""
    return tuple(step if isinstance(step, (str, int)) and not isinstance(step, bool) else str(step) for step in path)


class Survivor(NamedTuple):
    """A mistake that no example notices."""

    mutation: Mutation
    file: str
    line: int

    def __str__(self) -> str:
        key = key_text(_steps(self.mutation.path))
        text = f"{self.mutation.kind} wrong ({self.mutation.change}) and no example fails"
        return f"{self.file}:{self.line}: {key}: {text}; show it in an example"


class Score(NamedTuple):
    """What came of one profile."""

    profile: str
    made: Counter[str]
    """Kind -> mistakes made."""
    survivors: list[Survivor]

    @property
    def share(self) -> float:
        """Return the share of mistakes that were noticed; 1 where none can be made."""
        total = self.made.total()
        return 1 - len(self.survivors) / total if total else 1.0


def score(file: File, *, most: int = 0, seed: int = 0) -> Score:
    """Return the score of one profile; `most`: only so many mistakes, drawn by `seed` (0: all).

    Raises:
        ProfileError: if an example fails without any mistake, for then every mistake would seem to be noticed.
    """
    source, lines = parse(file.read_text(encoding="utf-8"), file=str(file))
    if noticed(Mutation("none", (), "", source), lines, str(file)):
        raise next(iter(check_profile(file)), ProfileError("an example fails", file=str(file)))
    made = list(mutations(source))
    if most and len(made) > most:
        made = random.Random(f"{seed} {source.profile}").sample(made, most)
    survivors = [
        Survivor(mutation, str(file), line_of(lines, _steps(mutation.path)))
        for mutation in made
        if not noticed(mutation, lines, str(file))
    ]
    return Score(source.profile, Counter(mutation.kind for mutation in made), survivors)


def noticed(mutation: Mutation, lines: Lines, file: str) -> bool:
    """Return whether an example fails with this mistake; a profile that does not even load is noticed."""
    specs: list[Spec] = []
    try:
        profile = Compiler(mutation.source, lines, file, specs).compile()
    except ProfileError:
        return True
    profiles = ProfileSet([profile], specs)
    return any(_fails(profiles, mutation.source, example) for example in _likely_first(mutation))


def _fails(profiles: ProfileSet, source: ProfileFile, example: Example) -> bool:
    profile = profiles.find(source.profile)
    assert profile is not None
    try:
        return bool(run_example(profiles, profile, example))
    except ValueError:  # base64, time
        return True


def _likely_first(mutation: Mutation) -> Iterable[Example]:
    """Return the examples, those that show the property first."""
    examples = mutation.source.examples
    if not mutation.property:
        return examples
    return sorted(
        examples, key=lambda example: all(mutation.property != expected.property for expected in example.expect)
    )


def table(scores: Sequence[Score]) -> str:
    """Return the scores as lines: profile, noticed of made, share, and the kinds that went unnoticed."""
    width = max((len(entry.profile) for entry in scores), default=0)
    rows = []
    for item in scores:
        lost = Counter(survivor.mutation.kind for survivor in item.survivors)
        kinds = ", ".join(f"{many} {kind}" for kind, many in sorted(lost.items()))
        total = item.made.total()
        rows.append(f"{item.profile:{width}} {total - len(item.survivors):5} of {total:5}  {item.share:6.1%}  {kinds}")
    made = sum((entry.made for entry in scores), Counter[str]())
    lost = Counter(survivor.mutation.kind for entry in scores for survivor in entry.survivors)
    rows.append("")
    for kind, many in sorted(made.items()):
        rows.append(f"{kind:{width}} {many - lost[kind]:5} of {many:5}  {1 - lost[kind] / many:6.1%}")
    total = made.total()
    noticed_ = total - lost.total()
    rows.append(f"{'all':{width}} {noticed_:5} of {total:5}  {noticed_ / total if total else 1.0:6.1%}")
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> int:
    """Print the survivors and the table of the profiles named (vendor/model, files or folders; default: all)."""
    begin = time.perf_counter()
    places = [File(name) if File(name).exists() else ROOT / f"{name}.yaml" for name in arguments] or [ROOT]
    scores = [score(file) for file in files(places)]
    for item in scores:
        for survivor in item.survivors:
            print(survivor)
    print(table(scores))
    print(f"{time.perf_counter() - begin:.1f} s")
    return 0 if all(entry.share >= 0.95 for entry in scores) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


WEAK = frozenset(
    (File(__file__).parent / "weak.txt").read_text(encoding="utf-8").split(),
)
"""Profiles whose examples do not reach the share yet; one that does must leave this list."""


FILES = files([ROOT])
