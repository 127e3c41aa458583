"""HTTP: the registry of context sources (clauses 6.8, 6.9, 6.12 and 6.13), which this gateway does not have.

A gateway has the readings of its area on its own log: nodes forward theirs to their centre. No request is passed on to
another broker, so that nothing could be registered for that.
"""

from __future__ import annotations

from typing import NoReturn

from sensegate.authority.scope import Action
from sensegate.ngsi_ld.parameters import JSON
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, problem_type
from sensegate.ngsi_ld.rest import ROOT
from sensegate.web.routing import Call, Route


async def _refuse(_call: Call) -> NoReturn:
    raise NgsiError(
        ErrorType.OPERATION_NOT_SUPPORTED,
        "this gateway has no registry of context sources: it answers from its own log and passes no request on to "
        "other brokers; register devices at /api/v1/devices, join a gateway to a centre, or query that broker itself",
        status=501,
    )


def _routes(path: str, name: str, subject: str) -> tuple[Route, ...]:
    return tuple(
        Route(
            method=method,
            path=address,
            handler=_refuse,
            summary=f"{verb} {subject}: not offered, answered with 501.",
            tag="ngsi-ld",
            action=Action.READ_READINGS,
            raw=JSON if method in {"POST", "PATCH"} else "",
            status=204,
            errors=(501,),
            problem_type=problem_type,
        )
        for method, address, verb in (
            ("POST", f"{ROOT}/{path}", "Create"),
            ("GET", f"{ROOT}/{path}", "List"),
            ("GET", f"{ROOT}/{path}/{{{name}}}", "Get"),
            ("PATCH", f"{ROOT}/{path}/{{{name}}}", "Change"),
            ("DELETE", f"{ROOT}/{path}/{{{name}}}", "Delete"),
        )
    )


SOURCE_ROUTES = (
    *_routes("csourceRegistrations", "registration", "registrations of context sources"),
    *_routes("csourceSubscriptions", "subscription", "subscriptions to registrations of context sources"),
)
