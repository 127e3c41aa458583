"""Documents of entities that clients send, in all three forms, checked before anything is written.

document ─▶ entity_of / fragment_of ─▶ attributes by IRI, with values that the standard allows
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sensegate.ngsi_ld.contexts import LdContext
from sensegate.ngsi_ld.entities import VALUE_KEYS, AttributeInstance, AttributeKind
from sensegate.ngsi_ld.geometries import check_geometry, is_geometry_type
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.problems import bad_data

NULL = "urn:ngsi-ld:null"
"""Value by which a fragment deletes a member (clause 4.5.0)."""
URI_MAX = 512
NAME_MAX = 256
TYPES_MAX = 10
SCOPES_MAX = 20
ATTRIBUTES_MAX = 200
"""Most attribute instances of an entity."""
INSTANCES_MAX = 50
"""Most data sets of one attribute."""
SUB_DEPTH_MAX = 3
"""Most attributes of attributes inside one another."""
VALUE_BYTES_MAX = 32_768
TEXT_MAX = 4_096
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_SCOPE = re.compile(r"/?[^\W\d_]?\w*(?:/\w+)*")
_LANGUAGE = re.compile(r"@none|[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
_UNIT = re.compile(r"[A-Za-z0-9]{1,8}")
_ENTITY_MEMBERS = frozenset({"id", "@id", "type", "@type", "scope", "@context", "createdAt", "modifiedAt", "deletedAt"})
_ATTRIBUTE_MEMBERS = frozenset(
    {"type", "unitCode", "observedAt", "datasetId", "lang", "createdAt", "modifiedAt", "deletedAt", "instanceId"}
)
"""Members of an attribute that are neither its value nor attributes of it; times of the gateway are ignored."""
_NOT_KEPT = ("objectType", "entity", "entityList", "expiresAt", "ngsildproof")
_KIND_OF_KEY = {
    "object": AttributeKind.RELATIONSHIP,
    "languageMap": AttributeKind.LANGUAGE_PROPERTY,
    "vocab": AttributeKind.VOCAB_PROPERTY,
    "json": AttributeKind.JSON_PROPERTY,
    "valueList": AttributeKind.LIST_PROPERTY,
    "objectList": AttributeKind.LIST_RELATIONSHIP,
    "value": AttributeKind.PROPERTY,
}
"""Member that holds the value of an attribute without a type -> its kind."""
_KINDS = frozenset(kind.value for kind in AttributeKind)
_WRAPPED = frozenset({"languageMap", "vocab", "json", "valueList", "objectList"})
Document = dict[str, Any]


class EntityDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document that a client sent, with names expanded."""

    id: str = ""
    types: tuple[str, ...] = ()
    """IRIs; empty: the document names none."""
    scopes: tuple[str, ...] | None = None
    """None: the document names none."""
    attributes: tuple[AttributeInstance, ...] = ()
    """In a fragment the value None means that it is not given, `NULL` that the attribute is deleted."""


class DocumentReader:
    """Reads the documents of one request."""

    def __init__(self, context: LdContext, *, is_simplified: bool = False, is_fragment: bool = False) -> None:
        """`is_simplified`: values stand without their type; `is_fragment`: members may be absent or `NULL`."""
        self._context = context
        self._is_simplified = is_simplified
        self._is_fragment = is_fragment

    def entity(self, body: object) -> EntityDocument:
        """Return an entity, or with `is_fragment` what of it changes. Raises `NgsiError`."""
        if not isinstance(body, dict):
            raise bad_data("body: is not a JSON object; give an entity")
        name = body.get("id", body.get("@id", ""))
        types = body.get("type", body.get("@type"))
        if not self._is_fragment:
            if not name:
                raise bad_data("body: id: is missing; an entity has a URI as its id")
            if types is None:
                raise bad_data("body: type: is missing; an entity has one")
        return EntityDocument(
            id=checked_uri(name, "body: id") if name else "",
            types=self._types(types) if types is not None else (),
            scopes=_scopes(body["scope"]) if "scope" in body else None,
            attributes=self.attributes(body),
        )

    def attributes(self, body: Document) -> tuple[AttributeInstance, ...]:
        """Return the attributes of an entity document. Raises `NgsiError`."""
        instances: list[AttributeInstance] = []
        for name, value in body.items():
            if name not in _ENTITY_MEMBERS:
                instances += self.attribute(name, value)
        if len(instances) > ATTRIBUTES_MAX:
            raise bad_data(f"body: has {len(instances)} attributes; give at most {ATTRIBUTES_MAX} an entity")
        return _distinct(instances, "body")

    def attribute(self, name: str, value: object, *, where: str = "body", depth: int = 0) -> list[AttributeInstance]:
        """Return the instances of an attribute. Raises `NgsiError`."""
        here = f"{where}: {name[:60]}"
        if not name or len(name) > NAME_MAX:
            raise bad_data(f"{here}: is no name; give 1 to {NAME_MAX} characters")
        if depth > SUB_DEPTH_MAX:
            raise bad_data(f"{here}: is nested more than {SUB_DEPTH_MAX} deep; give it beside the others")
        iri = self._context.expand(name)
        if iri.startswith("@"):
            raise bad_data(f"{here}: is the keyword {iri}, not an attribute")
        parts = _instances(value, is_simplified=self._is_simplified)
        if len(parts) > INSTANCES_MAX:
            raise bad_data(f"{here}: has {len(parts)} data sets; give at most {INSTANCES_MAX}")
        return [self._instance((iri, name), part, dataset, here, depth=depth) for dataset, part in parts]

    def _types(self, value: object) -> tuple[str, ...]:
        names: list[Any] = value if isinstance(value, list) else [value]
        if not names or len(names) > TYPES_MAX or not all(isinstance(name, str) and name for name in names):
            raise bad_data(f"body: type: is not a name; give one, or a list of at most {TYPES_MAX}")
        return tuple(dict.fromkeys(self._context.expand(name) for name in names))

    def _instance(
        self, names: tuple[str, str], value: object, dataset: str, where: str, *, depth: int
    ) -> AttributeInstance:
        """Return an instance; `names`: IRI, and the name in the document."""
        iri, name = names
        if value == NULL and self._is_fragment:
            return AttributeInstance(name=iri, kind=AttributeKind.PROPERTY, value=NULL, dataset=dataset)
        if value is None:
            raise bad_data(f"{where}: is null; leave it out, or delete it with '{NULL}' in a fragment")
        if not isinstance(value, dict):
            kind, value = self._bare(name, value)
            return AttributeInstance(name=iri, kind=kind, value=self._checked(kind, value, where), dataset=dataset)
        kind, key = self._kind(value, where)
        if not key:  # GeoJSON, or in the simplified form any JSON object
            return AttributeInstance(name=iri, kind=kind, value=self._checked(kind, value, where), dataset=dataset)
        for absent in _NOT_KEPT:
            if absent in value:
                raise bad_data(f"{where}: {absent}: is not kept here; leave it out")
        content = value.get(key)
        if content is None and not self._is_fragment:
            raise bad_data(f"{where}: {key}: is missing; a {kind} has one")
        if content is not None and content != NULL:
            content = self._checked(kind, content, f"{where}: {key}")
        sub: list[AttributeInstance] = []
        for member, inner in value.items():
            if member not in _ATTRIBUTE_MEMBERS and member != key:
                if member in _KIND_OF_KEY:
                    raise bad_data(f"{where}: has {key} and {member}; give one value")
                sub += self.attribute(member, inner, where=where, depth=depth + 1)
        named = value.get("datasetId")
        return AttributeInstance(
            name=iri,
            kind=kind,
            value=content,
            dataset=checked_uri(named, f"{where}: datasetId") if named is not None else dataset,
            observed_at=_time(value.get("observedAt"), f"{where}: observedAt"),
            unit=_unit(value.get("unitCode"), f"{where}: unitCode"),
            sub=_distinct(sub, where),
        )

    def _bare(self, name: str, value: object) -> tuple[AttributeKind, object]:
        """Return (kind, value) of a value without its type: the @context may say what it is."""
        if self._is_simplified and _is_texts(value):
            match self._context.type_of(name):
                case "@id":
                    return AttributeKind.RELATIONSHIP, value
                case "@vocab":
                    return AttributeKind.VOCAB_PROPERTY, value
        return AttributeKind.PROPERTY, value

    def _kind(self, value: Document, where: str) -> tuple[AttributeKind, str]:
        """Return (kind of an attribute, member that holds its value); the whole object is the value: empty."""
        word = value.get("type")
        keys = [key for key in _KIND_OF_KEY if key in value]
        if self._is_simplified:
            if len(value) == 1 and keys and keys[0] in _WRAPPED:
                return _KIND_OF_KEY[keys[0]], keys[0]
            return (AttributeKind.GEO_PROPERTY if _is_geometry(value) else AttributeKind.PROPERTY), ""
        if isinstance(word, str) and word in _KINDS:
            kind = AttributeKind(word)
            return kind, VALUE_KEYS[kind]
        if _is_geometry(value):
            return AttributeKind.GEO_PROPERTY, ""
        if word is not None and not keys:
            raise bad_data(f"{where}: type: '{str(word)[:40]}' is unknown; use one of {', '.join(AttributeKind)}")
        if not keys:
            if self._is_fragment:
                return AttributeKind.PROPERTY, "value"
            raise bad_data(f"{where}: has no value; give it as value, object, languageMap, vocab, json or valueList")
        kind = _KIND_OF_KEY[keys[0]]
        if kind is AttributeKind.PROPERTY and _is_geometry(value["value"]):
            kind = AttributeKind.GEO_PROPERTY
        return kind, VALUE_KEYS[kind]

    # ── values ────────────────────────────────────────────────────────────────────────────────────────

    def _checked(self, kind: AttributeKind, value: Any, where: str) -> object:
        """Return a value as it is kept. Raises `NgsiError`."""
        _check_size(value, where)
        match kind:
            case AttributeKind.GEO_PROPERTY:
                check_geometry(value, where)
            case AttributeKind.RELATIONSHIP:
                return _uris(value, where)
            case AttributeKind.LIST_RELATIONSHIP:
                return [_object_of(entry, where) for entry in _list(value, where)]
            case AttributeKind.LIST_PROPERTY:
                return _list(value, where)
            case AttributeKind.LANGUAGE_PROPERTY:
                _check_languages(value, where)
            case AttributeKind.VOCAB_PROPERTY:
                if not _is_texts(value):
                    raise bad_data(f"{where}: is not a word; give a text, or a list of texts")
                words = value if isinstance(value, list) else [value]
                expanded = [self._context.expand(word) for word in words]
                return expanded if isinstance(value, list) else expanded[0]
        return value


def checked_uri(value: object, where: str) -> str:
    """Return a URI. Raises `NgsiError`."""
    if not isinstance(value, str) or len(value) > URI_MAX or not _URI.fullmatch(value):
        raise bad_data(f"{where}: '{str(value)[:60]}' is not a URI; give for example urn:ngsi-ld:Building:1")
    return value


def _instances(value: object, *, is_simplified: bool) -> list[tuple[str, object]]:
    """Return the instances of an attribute as (data set, part); one part unless the attribute has data sets."""
    if isinstance(value, dict) and set(value) == {"dataset"} and isinstance(value["dataset"], dict):
        return [
            ("" if name == "@none" else checked_uri(name, "datasetId"), part) for name, part in value["dataset"].items()
        ]
    if (
        not is_simplified
        and isinstance(value, list)
        and value
        and all(isinstance(part, dict) and _is_instance(part) for part in value)
    ):
        return [("", part) for part in value]
    return [("", value)]


def _is_instance(part: Document) -> bool:
    word = part.get("type")
    return (isinstance(word, str) and word in _KINDS) or "datasetId" in part


def _is_geometry(value: Any) -> bool:
    return is_geometry_type(value) and "coordinates" in value


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)
    )


def _distinct(instances: list[AttributeInstance], where: str) -> tuple[AttributeInstance, ...]:
    """Return instances of which no two are of one attribute and data set. Raises `NgsiError`."""
    known: set[tuple[str, str]] = set()
    for instance in instances:
        key = instance.name, instance.dataset
        if key in known:
            dataset = instance.dataset or "without one"
            raise bad_data(f"{where}: {instance.name[:200]}: is given twice; give each a datasetId ({dataset})")
        known.add(key)
    return tuple(instances)


def _scopes(value: object) -> tuple[str, ...]:
    scopes: list[Any] = value if isinstance(value, list) else [value]
    if len(scopes) > SCOPES_MAX:
        raise bad_data(f"body: scope: has {len(scopes)} paths; give at most {SCOPES_MAX}")
    for scope in scopes:
        if not isinstance(scope, str) or not 0 < len(scope) <= NAME_MAX or not _SCOPE.fullmatch(scope):
            raise bad_data(f"body: scope: '{str(scope)[:60]}' is not a path; give for example /Guangzhou/Tianhe")
    return tuple(dict.fromkeys(f"/{scope.strip('/')}" for scope in scopes if scope.strip("/")))


def _check_size(value: object, where: str) -> None:
    try:
        size = len(msgspec.json.encode(value))
    except RecursionError:
        size = VALUE_BYTES_MAX + 1
    if size > VALUE_BYTES_MAX:
        raise bad_data(f"{where}: is larger than {VALUE_BYTES_MAX} bytes, or nested too deep; give less")


def _check_languages(value: object, where: str) -> None:
    if not isinstance(value, dict) or not value:
        raise bad_data(f"{where}: is not a map of languages; give for example {{'zh': '…', 'en': '…'}}")
    for language, text in value.items():
        if not _LANGUAGE.fullmatch(language):
            raise bad_data(f"{where}: '{language[:40]}' is not a language; give a tag such as zh or en-GB")
        if not _is_texts(text) or len(str(text)) > TEXT_MAX:
            raise bad_data(f"{where}: {language}: is not a text; give 1 to {TEXT_MAX} characters")


def _uris(value: object, where: str) -> object:
    if isinstance(value, list):
        if not value:
            raise bad_data(f"{where}: is empty; give a URI")
        return [checked_uri(entry, where) for entry in value]
    return checked_uri(value, where)


def _object_of(entry: object, where: str) -> str:
    """Return the URI of an entry of an object list: a text, or ``{"object": URI}``."""
    return checked_uri(entry.get("object") if isinstance(entry, dict) else entry, where)


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise bad_data(f"{where}: is not a list; give one")
    return value


def _time(value: object, where: str) -> int | None:
    if value is None:
        return None
    time = parse_date_time(value) if isinstance(value, str) else None
    if time is None:
        raise bad_data(f"{where}: '{str(value)[:40]}' is not a time; give 2026-01-01T00:00:00Z")
    return time


def _unit(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _UNIT.fullmatch(value):
        raise bad_data(f"{where}: '{str(value)[:40]}' is not a unit code; give one of UN/CEFACT, such as CEL")
    return value
