"""The configuration of who may do what: people, their provider of identities, the audit trail, ways out.

A part of `config.py`, by which it is read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.config.setting import Record, told

AUDIT_LEAST_H = 184 * 24
"""Six months: shorter may no audit record be kept (Cybersecurity Law, article 21)."""


class AuditConfig(Record, frozen=True):
    """The audit trail."""

    hash: Annotated[
        Literal["sha256", "sm3"], told("hash by which each new record names the one before; a change goes on")
    ] = "sha256"
    key_file: Annotated[
        str, told("PEM of the Ed25519 key that signs heads; empty: <directory>/audit.key, made at the first start")
    ] = ""
    ttl_h: Annotated[
        int, told("life of audit records; 0: for ever, until store.audit_bytes are full; else at least 4416 (184 d)")
    ] = 0

    def __post_init__(self) -> None:
        """Refuse what the law does not allow; the decoder makes a `ConfigError` of it."""
        if self.ttl_h and self.ttl_h < AUDIT_LEAST_H:
            raise ValueError(f"ttl_h: {self.ttl_h} h is less than six months; give 0 (for ever) or {AUDIT_LEAST_H}")


class PeopleConfig(Record, frozen=True):
    """People who sign in with a password; better: by a provider of identities (`oidc`)."""

    session_s: Annotated[float, told("longest life of a session; then one signs in again")] = 28_800.0
    idle_s: Annotated[float, told("a session that asks nothing for so long has ended")] = 1_800.0
    failures_max: Annotated[int, told("wrong passwords after which a person is locked out")] = 5
    lock_s: Annotated[float, told("how long a lock-out lasts")] = 900.0
    password_days: Annotated[int, told("age at which a password must be changed; 0: never")] = 90


class OidcRule(Record, frozen=True):
    """What one value of a claim makes of a person."""

    claim: Annotated[str, told("claim of the ID token, a text or a list of texts (groups)")]
    value: Annotated[str, told("value that it must have or hold")]
    role: Annotated[
        Literal["county_operator", "city_operator", "province_operator", "auditor", "admin"],
        told("role that it gives; rules of two duties never apply to one person"),
    ]
    scope: Annotated[str, told("division of the role, or DIVISION/DEPARTMENT; empty: that of scope_claim")] = ""
    scope_claim: Annotated[str, told("claim that holds the division (or DIVISION/DEPARTMENT)")] = ""


class OidcConfig(Record, frozen=True):
    """A provider of identities (OpenID Connect, authorization code with PKCE)."""

    issuer: Annotated[str, told("URL of the provider; empty: people sign in with passwords alone")] = ""
    client_id: Annotated[str, told("by which the provider knows this gateway; the audience of its tokens")] = ""
    client_secret_file: Annotated[str, told("file with the client's secret; empty: a public client")] = ""
    redirect_url: Annotated[
        str, told("this gateway's own https://HOST/api/v1/session/oidc/callback as registered at the provider")
    ] = ""
    ca_file: Annotated[str, told("authority of the provider's certificate; empty: those of the system")] = ""
    scopes: Annotated[tuple[str, ...], told("scopes that are asked for")] = ("openid", "profile")
    name_claim: Annotated[str, told("claim that names the person for the audit trail")] = "preferred_username"
    rules: Annotated[tuple[OidcRule, ...], told("who is what: the first that fits")] = ()
    skew_s: Annotated[float, told("how far the provider's clock may be off")] = 60.0


class SharingConfig(Record, frozen=True):
    """Applications and grants."""

    answer_days: Annotated[
        float, told("an application not decided by then goes to the level above; at the province it lapses")
    ] = 10.0
    days_max: Annotated[float, told("longest grant, days")] = 1_096.0
    kept_days: Annotated[
        float,
        told(
            "ended grants and tokens, decided applications, monthly counts (so usage statements) go after it; 0: never"
        ),
    ] = 1_827.0
    key_file: Annotated[
        str, told("PEM of the Ed25519 key that signs usage statements; empty: <directory>/statements.key, created once")
    ] = ""
    near_m: Annotated[
        float, told("a device of the same kind within so many metres of another owner's is warned of; 0: never")
    ] = 50.0


class ReturnsConfig(Record, frozen=True):
    """What the centre took in of a node's area, on its way back to the node."""

    grade_max: Annotated[int, told("readings of a higher grade do not go back (centre)")] = 3
    key_file: Annotated[
        str,
        told(
            "PEM of the public key that signs the centre's files (its statements.pub); empty: no file is taken (node)"
        ),
    ] = ""


class EgressConfig(Record, frozen=True):
    """Where this gateway may connect to by the wish of others (webhooks)."""

    allow: Annotated[
        tuple[str, ...],
        told("networks, addresses, host names that webhooks may reach (10.2.0.0/16); public: all public addresses"),
    ] = ("public",)
    cameras: Annotated[
        tuple[str, ...],
        told("networks, addresses, host names of cameras whose streams may be fetched (10.9.0.0/16); empty: none"),
    ] = ()
    timeout_s: Annotated[float, told("a webhook's receiver answers within this")] = 10.0
    retry_first_s: Annotated[float, told("wait after a webhook's first failure; doubled with each further one")] = 1.0
    retry_longest_s: Annotated[float, told("longest wait between attempts")] = 300.0
    failures_max: Annotated[int, told("failures in a row after which a webhook is paused")] = 12
