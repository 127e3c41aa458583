"""Writing of notifications: entities in the form that a subscription requests, and the delivery results."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from sensegate.ngsi_ld.contexts import LD_JSON, ContextSource, LdContext, link_header
from sensegate.ngsi_ld.core_context import CORE_URL
from sensegate.ngsi_ld.entities import EntityRecord
from sensegate.ngsi_ld.representation import EntityForm, EntityRenderer, Projection, Rendering, languages_of
from sensegate.ngsi_ld.series import URN
from sensegate.ngsi_ld.subscriptions import EntitySubscription, SubscriptionDocument
from sensegate.sensorthings.instants import instant_text
from sensegate.share.transports.contract import DeliveryResult, OutboundDelivery

GEO_JSON = "application/geo+json"
_HEADS = frozenset({"id", "type", "scope"})
_FORMS = {"concise": EntityForm.CONCISE, "simplified": EntityForm.SIMPLIFIED, "keyValues": EntityForm.SIMPLIFIED}


class SubscriptionCounts(msgspec.Struct):
    """Counts of sent and failed notifications of a subscription since this process started."""

    sent: int = 0
    failed: int = 0
    last_sent: int = 0
    """µs UTC; 0: none, as with the others."""
    last_success: int = 0
    last_failure: int = 0

    def add(self, result: DeliveryResult, now: int) -> None:
        """Count an attempt."""
        self.sent += 1
        self.last_sent = now
        if result.accepted:
            self.last_success = now
        else:
            self.failed += 1
            self.last_failure = now


def notified_form(document: SubscriptionDocument, terms: LdContext) -> tuple[Rendering, Projection]:
    """Return how a subscription has its entities written, and what it has of them. Raises `NgsiError`."""
    params = document.notification
    rendering = Rendering(
        terms=terms,
        form=_FORMS.get(params.format, EntityForm.NORMALIZED),
        sys_attrs=params.sysAttrs,
        languages=languages_of(document.lang) if document.lang else (),
    )
    names = {name: name if name in _HEADS else terms.expand(name) for name in (*params.attributes, *params.pick)}
    shown = frozenset((*names.values(), *_HEADS)) if params.attributes else frozenset((*names.values(), "id", "type"))
    omitted = frozenset(name if name in _HEADS else terms.expand(name) for name in params.omit) - {"id", "type"}
    return rendering, Projection(shown if names else None, omitted)


class NotificationWriter:
    """Writes the notifications of one subscription."""

    def __init__(self, subscription: EntitySubscription, terms: LdContext) -> None:
        """`terms`: names by the @context of the subscription. Raises `NgsiError`."""
        self._subscription = subscription
        self._secret = base64.b64decode(subscription.secret)
        self._rendering, self._projection = notified_form(subscription.document, terms)

    def delivery(
        self, entities: Sequence[EntityRecord], message: str, now: int, headers: Sequence[tuple[str, str]] = ()
    ) -> OutboundDelivery:
        """Return a notification.

        Args:
            entities: what it is about.
            message: id of the message, the same at each attempt.
            now: µs UTC.
            headers: further headers of the message.
        """
        subscription = self._subscription
        endpoint = subscription.document.notification.endpoint
        renderer = EntityRenderer(self._rendering, self._projection)
        shown = [self._projection.projected(entity) for entity in entities]
        context: ContextSource = subscription.context if subscription.context is not None else CORE_URL
        data: object = [renderer.document(entity) for entity in shown]
        if endpoint.accept == GEO_JSON:
            data = renderer.collection(shown)
        document: dict[str, object] = {
            "id": f"{URN}Notification:{message.removeprefix('msg_')}",
            "type": "Notification",
            "subscriptionId": subscription.id,
            "notifiedAt": instant_text(now),
            "data": data,
        }
        sent = [*headers, *((pair.key, pair.value) for pair in endpoint.receiverInfo)]
        if endpoint.accept == LD_JSON:
            document["@context"] = context
        elif address := context if isinstance(context, str) else subscription.context_url:
            sent.append(("Link", link_header(address)))
        return OutboundDelivery(
            target=endpoint.uri,
            id=message,
            body=msgspec.json.encode(document),
            media=endpoint.accept,
            headers=tuple(sent),
            secret=self._secret,
        )
