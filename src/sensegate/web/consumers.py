"""Consumers of feeds, as far as a caller may know of them."""

from __future__ import annotations

from collections.abc import Callable

from sensegate.authority.scope import Action, has_right
from sensegate.share.consumers import ConsumerStatistics
from sensegate.web.routing import Call


def knows_subscriber(call: Call) -> Callable[[str], bool]:
    """Return a function: id of a subscriber -> whether the caller may see what it reads.

    A caller sees itself and the tokens of its scope; whoever may read the ledger of the whole gateway sees all.
    """
    caller = call.principal
    tokens = {token.id for token in call.deps.tokens.list(caller, limit=1_000_000)} | {caller.id}
    covers_gateway = caller.scope.department == "" and call.deps.division.startswith(caller.scope.division)
    knows_all = covers_gateway and has_right(caller, Action.READ_LEDGER)
    return lambda subscriber: knows_all or subscriber in tokens


def visible_consumers(call: Call) -> list[ConsumerStatistics]:
    """Return the active consumers that the caller may see."""
    knows = knows_subscriber(call)
    return [consumer for consumer in call.deps.consumers.rows() if knows(consumer.subscriber)]
