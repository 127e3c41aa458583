"""Types and attributes of the entities that a caller sees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec

from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.entities import EntityRecord, types_of
from sensegate.ngsi_ld.representation import Document

_URN = "urn:ngsi-ld:"


class _AttributeUse(msgspec.Struct):
    """Use of an attribute: number of entities, kinds and entity types."""

    count: int
    kinds: set[str]
    types: set[str]


def _uses(entities: Iterable[EntityRecord]) -> dict[str, _AttributeUse]:
    uses: dict[str, _AttributeUse] = {}
    for entity in entities:
        counted = set()
        for instance in entity.attributes:
            use = uses.get(instance.name)
            if use is None:
                use = uses[instance.name] = _AttributeUse(0, set(), set())
            if instance.name not in counted:
                counted.add(instance.name)
                use.count += 1
            use.kinds.add(instance.kind.value)
            use.types.update(entity.types)
    return uses


def _list_id(kind: str, names: Iterable[str]) -> str:
    """Return a URI of a list: the same for the same names."""
    return f"{_URN}{kind}:{hashlib.blake2b(chr(0).join(names).encode(), digest_size=8).hexdigest()}"


def type_list(entities: Iterable[EntityRecord], context: LdContext, *, details: bool) -> Document | list[Document]:
    """Return the entity types; `details`: each with the names of its attributes."""
    grouped = types_of(entities)
    if details:
        return [
            {
                "id": name,
                "type": "EntityType",
                "typeName": context.compact(name),
                "attributeNames": sorted(map(context.compact, _uses(grouped[name]))),
            }
            for name in sorted(grouped, key=context.compact)
        ]
    names = sorted(map(context.compact, grouped))
    return {"id": _list_id("EntityTypeList", names), "type": "EntityTypeList", "typeList": names}


def type_info(entities: Iterable[EntityRecord], context: LdContext, name: str) -> Document | None:
    """Return the facts of an entity type by its IRI; None: no entity has it."""
    members = types_of(entities).get(name)
    if members is None:
        return None
    uses = _uses(members)
    return {
        "id": name,
        "type": "EntityTypeInfo",
        "typeName": context.compact(name),
        "entityCount": len(members),
        "attributeDetails": [
            {
                "id": attribute,
                "type": "Attribute",
                "attributeName": context.compact(attribute),
                "attributeTypes": sorted(uses[attribute].kinds),
            }
            for attribute in sorted(uses, key=context.compact)
        ],
    }


def attribute_list(entities: Iterable[EntityRecord], context: LdContext, *, details: bool) -> Document | list[Document]:
    """Return the attributes; `details`: each with the types of the entities that have it."""
    uses = _uses(entities)
    if details:
        return [
            _attribute(name, uses[name], context.compact, is_info=False) for name in sorted(uses, key=context.compact)
        ]
    names = sorted(map(context.compact, uses))
    return {"id": _list_id("AttributeList", names), "type": "AttributeList", "attributeList": names}


def attribute_info(entities: Iterable[EntityRecord], context: LdContext, name: str) -> Document | None:
    """Return the facts of an attribute by its IRI; None: no entity has it."""
    use = _uses(entities).get(name)
    return None if use is None else _attribute(name, use, context.compact, is_info=True)


def _attribute(name: str, use: _AttributeUse, compact: Callable[[str], str], *, is_info: bool) -> Document:
    document: Document = {
        "id": name,
        "type": "Attribute",
        "attributeName": compact(name),
        "typeNames": sorted(map(compact, use.types)),
    }
    if is_info:
        document |= {"attributeCount": use.count, "attributeTypes": sorted(use.kinds)}
    return document
