"""JSON patches (RFC 6902) of the properties of an entity."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import jsonpointer
import msgspec

from sensegate.sensorthings.kinds import Entity
from sensegate.web.problems import BadRequest

OPERATIONS_MAX = 200


def patched(entity: Entity, raw: bytes) -> dict[str, Any]:
    """Return the properties of an entity after a patch. Raises `BadRequest`."""
    document: dict[str, Any] = copy.deepcopy(entity.values)
    operations = msgspec.json.decode(raw)
    if not isinstance(operations, list) or len(operations) > OPERATIONS_MAX:
        raise BadRequest(f"body: is not a JSON patch; give an array of at most {OPERATIONS_MAX} operations")
    try:
        document = jsonpatch.JsonPatch(operations).apply(document)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as why:
        raise BadRequest(f"body: {str(why)[:200]}") from None
    return {name: value for name, value in document.items() if value is not None}
