"""Accounts of people at a gateway of a test."""

from __future__ import annotations

from tests.web.serving import Gateway

PASSWORD = "Kapok-tree 2026"


async def account(gateway: Gateway, name: str = "li", role: str = "city_operator", scope: str = "4401") -> None:
    """Make an account whose password is `PASSWORD`."""
    wanted = {"id": name, "role": role, "scope": scope}
    _, made, _ = await gateway.ask("POST", "/api/v1/people", await gateway.token(), json=wanted, expect=201)
    body = {"name": name, "password": made["password"], "new_password": PASSWORD, "bearer": True}
    await gateway.ask("POST", "/api/v1/session", json=body, expect=201)
