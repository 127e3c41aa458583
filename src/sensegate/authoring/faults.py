"""Report of every fault of a profile in one run: after each fault, a harmless part replaces the faulty one.

The compiler stops at the first wrong key, as the gateway should. A person who writes a profile wants all of them. What
is replaced keeps its place, so that lines and indices of the others stay true.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sensegate.decode.compiler import Compiler
from sensegate.decode.grammar import Lines, convert, find_unknown_keys, read_tree
from sensegate.decode.profile import CompiledProfile
from sensegate.errors import ProfileError
from sensegate.model import Spec

FAULTS_MAX: Final = 100
_LEFT_OUT: Final = frozenset(
    {"time", "sequence", "message_id", "identity", "quality", "path", "where", "label", "charset", "unpack", "table"}
)
"""Keys of a rule without which it still compiles."""
_OPTIONAL: Final = frozenset({"zone", "domain", "interval_s", "qos", "client_id", "hears", "tasks", "format", "shared"})
_STAND_INS: Final[dict[str, Any]] = {"version": 1, "label": {"zh": "x", "en": "x"}, "source": "x"}
_STEPS: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")

KeyPath = tuple[str | int, ...]


def profile_faults(file: Path) -> list[ProfileError]:
    """Return the faults of a profile's file, in the order of its lines; none if it compiles."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [ProfileError("cannot be read", file=str(file), remedy=str(error))]
    try:
        tree, lines = read_tree(text, file=str(file))
    except ProfileError as error:
        return [error]
    faults = find_unknown_keys(tree, lines, str(file))
    for fault in faults:
        _rename(tree, _path_of(fault), fault.remedy)
    place = f"{file.parent.name}/{file.stem}"
    if isinstance(tree, dict) and not file.name.startswith("_") and isinstance(name := tree.get("profile"), str):
        if name != place:
            remedy = f"must be '{place}', as folder and file are named"
            faults.append(ProfileError(f"is '{name}'", file=str(file), line=_line(lines), key="profile", remedy=remedy))
        tree["profile"] = "fault/fault"
    _collect(faults, tree, lambda: _compile(tree, lines, str(file)))
    return sorted(faults, key=lambda fault: fault.line or 0)


def _line(lines: Lines) -> int:
    return lines.get(("profile",), 1)


def _compile(tree: Any, lines: Lines, file: str) -> CompiledProfile:
    return Compiler(convert(tree, lines, file), lines, file, list[Spec]()).compile()


def _collect(faults: list[ProfileError], tree: Any, run: Callable[[], object]) -> None:
    """Run until nothing is wrong or nothing more can be replaced; each fault is appended once."""
    seen = {(fault.key, fault.problem) for fault in faults}
    while len(faults) < FAULTS_MAX:
        try:
            run()
        except ProfileError as fault:
            if (fault.key, fault.problem) in seen:
                return
            seen.add((fault.key, fault.problem))
            faults.append(fault)
            if not _replace(tree, _path_of(fault)):
                return
        else:
            return


def _path_of(fault: ProfileError) -> KeyPath:
    """Return the path of a fault's key: ``messages[0].readings[3].unit``."""
    return tuple(name or int(index) for name, index in _STEPS.findall(fault.key or ""))


def _holder(tree: Any, path: KeyPath) -> tuple[dict[Any, Any], Any] | None:
    """Return the object that has the last key of a path, and that key."""
    for step in path[:-1]:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return None
    if not path or not isinstance(tree, dict):
        return None
    key = next((key for key in tree if str(key) == str(path[-1])), None)
    return None if key is None else (tree, key)


def _delete(tree: Any, path: KeyPath) -> bool:
    """Delete a key of an object; True if it was there."""
    member = _holder(tree, path)
    if member is not None:
        del member[0][member[1]]
    return member is not None


def _rename(tree: Any, path: KeyPath, remedy: str) -> None:
    """Give an unknown key the name that was meant, so that nothing is missing; delete it if there is none."""
    member = _holder(tree, path)
    if member is None:
        return
    holder, key = member
    value = holder.pop(key)
    near = re.search(r"did you mean '([^']+)'", remedy)
    if near and near[1] not in holder:
        holder[near[1]] = value


def _replace(tree: Any, path: KeyPath) -> bool:
    """Replace the part that holds a fault by one that compiles; False if there is none for such a part."""
    match path:
        case ("messages", int(index), "readings", int(number), *_):
            readings = tree["messages"][index]["readings"]
            readings[number] = {"field": f"fault{number}", "property": "text"}
        case ("messages", int(_), str(key)) | ("messages", int(_), str(key), *_) if key in _LEFT_OUT:
            return _delete(tree, path[:3])
        case ("messages", int(index), *_):
            rule = tree["messages"][index]
            readings = rule.get("readings") if isinstance(rule, dict) else None
            harmless: dict[str, Any] = {"topics": [f"fault{index}/{{device}}"]}
            if harmless.items() <= (rule.items() if isinstance(rule, dict) else {}.items()):
                readings = None  # once more: the fault lies in how its readings stand together
            tree["messages"][index] = harmless | ({"readings": readings} if readings else {"ignore": True})
        case ("examples", int(index), *_):
            tree["examples"][index] = {"label": "fault"}
        case (str(key), *_) if key in _STAND_INS and tree.get(key) != _STAND_INS[key]:
            tree[key] = _STAND_INS[key]
        case (str(key), *_) if key in _OPTIONAL:
            return _delete(tree, (key,))
        case _:
            return False
    return True
