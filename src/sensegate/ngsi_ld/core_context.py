"""Core @context of NGSI-LD 1.8 (ETSI GS CIM 009, annex B), as shipped: names of the standard -> IRIs."""

from __future__ import annotations

NGSI_LD = "https://uri.etsi.org/ngsi-ld/"
DEFAULT_VOCABULARY = f"{NGSI_LD}default-context/"
CORE_URL = f"{NGSI_LD}v1/ngsi-ld-core-context-v1.8.jsonld"
CORE_URLS = frozenset(
    f"{NGSI_LD}v1/ngsi-ld-core-context{version}.jsonld"
    for version in ("", "-v1.3", "-v1.4", "-v1.5", "-v1.6", "-v1.7", "-v1.8", "-v1.9")
)
"""Addresses of the core @context in its versions; all of them stand for the one that is shipped."""

_GEOJSON = (
    "Feature FeatureCollection GeometryCollection LineString MultiLineString MultiPoint MultiPolygon Point Polygon "
    "bbox coordinates features geometry geometryProperty properties"
)
_SELF = (
    "Attribute AttributeList ContextSourceIdentity ContextSourceNotification ContextSourceRegistration Date DateTime "
    "EntityType EntityTypeInfo EntityTypeList GeoProperty JsonProperty LanguageProperty ListProperty ListRelationship "
    "Notification Property Relationship Subscription TemporalProperty Time VocabProperty accept attributeList "
    "attributeName attributeNames attributeTypes attributes attrs avg cacheDuration contextSourceAlias "
    "contextSourceExtras contextSourceInfo contextSourceTimeAt contextSourceUptime cooldown createdAt csf data "
    "datasetId deletedAt detail distinctCount endAt endTimeAt endpoint entities entity entityCount entityId entityList "
    "error errors expandValues expiresAt format geoQ geoproperty georel idPattern information instanceId isActive join "
    "jsonKeys jsons lang lastFailure lastNotification lastSuccess linkedMaps localOnly location management "
    "managementInterval max min mode modifiedAt notUpdated notification notificationTrigger notifiedAt notifierInfo "
    "observationInterval observationSpace observedAt omit operationSpace operations pick propertyNames q reason "
    "receiverInfo refreshRate registrationId registrationName relationshipNames scope scopeQ showChanges startAt "
    "status stddev subscriptionId subscriptionName success sum sumsq sysAttrs temporalQ tenant throttling timeAt "
    "timeInterval timeout timeproperty timerel timesFailed timesSent totalCount triggerReason typeList typeName "
    "typeNames unchanged unitCode updated uri watchedAttributes"
)
"""Names whose IRI ends in the name itself."""
_HAS = {
    "dataset": "hasDataset",
    "entityMap": "hasEntityMap",
    "joinLevel": "hasJoinLevel",
    "json": "hasJSON",
    "key": "hasKey",
    "languageMap": "hasLanguageMap",
    "languageMaps": "hasLanguageMaps",
    "object": "hasObject",
    "objectList": "hasObjectList",
    "objectType": "hasObjectType",
    "objects": "hasObjects",
    "objectsLists": "hasObjectsLists",
    "previousJson": "hasPreviousJson",
    "previousLanguageMap": "hasPreviousLanguageMap",
    "previousObject": "hasPreviousObject",
    "previousObjectList": "hasPreviousObjectList",
    "previousValue": "hasPreviousValue",
    "previousValueList": "hasPreviousValueList",
    "previousVocab": "hasPreviousVocab",
    "value": "hasValue",
    "valueList": "hasValueList",
    "valueLists": "hasValueLists",
    "values": "hasValues",
    "vocab": "hasVocab",
    "vocabs": "hasVocabs",
    "containedBy": "isContainedBy",
}
_COERCED = {
    "@id": "datasetId entityId instanceId object previousObject subscriptionId success tenant",
    "@vocab": (
        "attributeList attributeName attributeNames attributeTypes attributes objectType previousVocab propertyNames "
        "relationshipNames typeList typeName typeNames vocab watchedAttributes"
    ),
    "DateTime": (
        "contextSourceTimeAt createdAt deletedAt endAt endTimeAt expiresAt lastFailure lastNotification lastSuccess "
        "modifiedAt notifiedAt observedAt startAt timeAt"
    ),
    "@json": "contextSourceExtras json previousJson",
}
_CONTAINERS = {
    "@list": (
        "avg bbox coordinates distinctCount entityList jsons languageMaps max min objectList objects objectsLists "
        "previousObjectList previousValueList stddev sum sumsq totalCount valueList valueLists values vocabs"
    ),
    "@set": "features",
    "@language": "languageMap previousLanguageMap",
    "@index": "dataset",
}


def core_terms() -> dict[str, object]:
    """Return the term definitions of the core @context, as in a JSON-LD document."""
    names = {name: f"ngsi-ld:{name}" for name in _SELF.split()}
    names |= {name: f"ngsi-ld:{iri}" for name, iri in _HAS.items()}
    names |= {name: f"geojson:{name}" for name in _GEOJSON.split()}
    names |= {name: f"http://purl.org/dc/terms/{name}" for name in ("description", "title")}
    details: dict[str, dict[str, str]] = {}
    for keyword, by_value in (("@type", _COERCED), ("@container", _CONTAINERS)):
        for value, coerced in by_value.items():
            for name in coerced.split():
                details.setdefault(name, {"@id": names[name]})[keyword] = value
    return {
        "@version": 1.1,
        "@protected": True,
        "ngsi-ld": NGSI_LD,
        "geojson": "https://purl.org/geojson/vocab#",
        "id": "@id",
        "type": "@type",
        **names,
        **details,
        "@vocab": DEFAULT_VOCABULARY,
    }
