"""Changes of an entity by a fragment: attributes are appended, replaced, changed in part, or merged (clause 5.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from sensegate.ngsi_ld.documents import NULL
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind
from sensegate.ngsi_ld.problems import bad_data

_MERGED = frozenset({AttributeKind.PROPERTY, AttributeKind.JSON_PROPERTY, AttributeKind.LANGUAGE_PROPERTY})
"""Kinds whose values are merged member by member where both are JSON objects."""
Instances = tuple[AttributeInstance, ...]
Change = Callable[[AttributeInstance, AttributeInstance], AttributeInstance]
"""(as it is, the fragment) -> as it will be."""


def replaced(before: AttributeInstance, fragment: AttributeInstance) -> AttributeInstance:
    """Return an instance with all of its members replaced."""
    return msgspec.structs.replace(fragment, created=before.created)


def changed(before: AttributeInstance, fragment: AttributeInstance) -> AttributeInstance:
    """Return an instance with the members that a fragment gives, each replaced (partial attribute update)."""
    _check_kind(before, fragment)
    has_value = fragment.value is not None
    return msgspec.structs.replace(
        before,
        kind=fragment.kind if has_value else before.kind,
        value=fragment.value if has_value else before.value,
        observed_at=before.observed_at if fragment.observed_at is None else fragment.observed_at,
        unit=fragment.unit or before.unit,
        sub=applied(before.sub, fragment.sub, replaced, created=None),
        modified=fragment.modified,
    )


def merged(before: AttributeInstance, fragment: AttributeInstance) -> AttributeInstance:
    """Return an instance merged with a fragment: members of JSON values and attributes of it one by one."""
    result = changed(before, fragment)
    value = result.value
    if before.kind is result.kind and result.kind in _MERGED and isinstance(before.value, Mapping):
        value = _merged_value(before.value, result.value)
    return msgspec.structs.replace(result, value=value, sub=applied(before.sub, fragment.sub, merged, created=None))


def _check_kind(before: AttributeInstance, fragment: AttributeInstance) -> None:
    if fragment.value is None and fragment.kind not in {before.kind, AttributeKind.PROPERTY}:
        raise bad_data(f"{before.name[:200]}: is a {before.kind}; a {fragment.kind} needs its value")


def _merged_value(before: object, fragment: object) -> object:
    """Return a JSON value merged with a fragment of it; members of the fragment that are `NULL` are deleted."""
    if not isinstance(before, Mapping) or not isinstance(fragment, Mapping):
        return fragment
    result: dict[str, Any] = dict(before)
    for name, value in fragment.items():
        if value == NULL:
            result.pop(name, None)
        else:
            result[name] = _merged_value(result.get(name), value)
    return result


def applied(
    before: Instances, fragment: Iterable[AttributeInstance], change: Change, *, created: int | None
) -> Instances:
    """Return attributes with those of a fragment changed, added, or (`NULL`) deleted.

    Args:
        before: as they are.
        fragment: what changes.
        change: of an instance that both have.
        created: time of those that are added.
    """
    result = {(instance.name, instance.dataset): instance for instance in before}
    for instance in fragment:
        key = instance.name, instance.dataset
        known = result.get(key)
        if instance.value == NULL:
            result.pop(key, None)
        elif known is not None:
            result[key] = change(known, instance)
        elif instance.value is None:
            raise bad_data(f"{instance.name[:200]}: has no value; an attribute that is added has one")
        else:
            result[key] = msgspec.structs.replace(instance, created=created, sub=_without_null(instance.sub))
    return tuple(result.values())


def _without_null(instances: Instances) -> Instances:
    return tuple(instance for instance in instances if instance.value != NULL)


def stamped(instances: Iterable[AttributeInstance], now: int) -> Instances:
    """Return the instances of a fragment as modified at a time (µs UTC)."""
    return tuple(msgspec.structs.replace(instance, modified=now) for instance in instances)
