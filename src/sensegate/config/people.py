"""The configuration of access: accounts of people, OpenID Connect, the audit trail, sharing, outgoing connections.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from sensegate.config.setting import ConfigRecord, doc

AUDIT_TTL_MIN_H = 184 * 24
"""Six months, the shortest legal retention of audit records (Cybersecurity Law, article 21)."""


class AuditConfig(ConfigRecord, frozen=True):
    """The audit trail."""

    hash: Annotated[
        Literal["sha256", "sm3"],
        doc("hash that links each new record to the one before; a change applies from the next record on"),
    ] = "sha256"
    key_file: Annotated[
        str, doc("PEM of the Ed25519 key that signs heads; empty: <directory>/audit.key, created at the first start")
    ] = ""
    ttl_h: Annotated[
        int,
        doc(
            "retention of audit records; 0: for ever, until store.audit_bytes are full; else at least 4416 (184 d)",
            least=0,
            most=876_000,
        ),
    ] = 0

    def __post_init__(self) -> None:
        """Reject a retention that the law does not allow; the decoder turns the error into a `ConfigError`."""
        if self.ttl_h and self.ttl_h < AUDIT_TTL_MIN_H:
            raise ValueError(f"ttl_h: {self.ttl_h} h is less than six months; give 0 (for ever) or {AUDIT_TTL_MIN_H}")


class PeopleConfig(ConfigRecord, frozen=True):
    """People who sign in with a password; prefer single sign-on (`oidc`)."""

    session_max_s: Annotated[
        float, doc("longest life of a session, after which the person signs in again", least=60, most=31_536_000)
    ] = 28_800.0
    session_idle_timeout_s: Annotated[
        float, doc("end a session without requests for this long", least=60, most=31_536_000)
    ] = 1_800.0
    failures_max: Annotated[
        int, doc("wrong passwords after which a name is locked at an address", least=1, most=1_000)
    ] = 5
    lockout_s: Annotated[float, doc("duration of the lock-out", least=1, most=604_800)] = 900.0
    password_max_age_days: Annotated[
        int, doc("age at which a password must be changed; 0: never", least=0, most=36_500)
    ] = 90


class OidcRule(ConfigRecord, frozen=True):
    """A rule that maps the value of a claim to a role."""

    claim: Annotated[str, doc("claim of the ID token, a text or a list of texts (groups)")]
    value: Annotated[str, doc("value that the claim equals or contains")]
    role: Annotated[
        Literal["county_operator", "city_operator", "province_operator", "auditor", "admin"],
        doc("role that the rule gives; rules of two duties never apply to the same person"),
    ]
    scope: Annotated[str, doc("division of the role, or DIVISION/DEPARTMENT; empty: the value of scope_claim")] = ""
    scope_claim: Annotated[str, doc("claim that holds the division (or DIVISION/DEPARTMENT)")] = ""


class OidcConfig(ConfigRecord, frozen=True):
    """Single sign-on by OpenID Connect (authorization code flow with PKCE)."""

    issuer: Annotated[str, doc("issuer URL of the provider; empty: people sign in with passwords only")] = ""
    client_id: Annotated[str, doc("client id of this gateway at the provider; the audience of its tokens")] = ""
    client_secret_file: Annotated[str, doc("file with the client's secret; empty: a public client")] = ""
    redirect_url: Annotated[
        str, doc("https://HOST/api/v1/session/oidc/callback of this gateway, as registered at the provider")
    ] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the provider's certificate; empty: the system's CAs")] = ""
    scopes: Annotated[tuple[str, ...], doc("scopes to request")] = ("openid", "profile")
    name_claim: Annotated[str, doc("claim with the name of the person for the audit trail")] = "preferred_username"
    rules: Annotated[tuple[OidcRule, ...], doc("rules that map claims to roles; the first match applies")] = ()
    skew_s: Annotated[float, doc("tolerated difference of the provider's clock", least=0, most=3_600)] = 60.0


class SharingConfig(ConfigRecord, frozen=True):
    """Applications and grants of the data exchange."""

    decision_days: Annotated[
        float,
        doc(
            "time limit for a decision; then the level above may decide, too; at the province the application lapses",
            least=0.01,
            most=3_650,
        ),
    ] = 10.0
    grant_days_max: Annotated[float, doc("longest grant, days", least=0.01, most=36_500)] = 1_096.0
    retention_days: Annotated[
        float,
        doc(
            "retention of ended grants and tokens, decided applications, monthly counts; 0: for ever",
            least=0,
            most=36_500,
        ),
    ] = 1_827.0
    key_file: Annotated[
        str,
        doc("PEM of the Ed25519 key that signs usage statements; empty: <directory>/statements.key"),
    ] = ""
    duplicate_distance_m: Annotated[
        float,
        doc(
            "warn of a device of the same kind within this distance of another owner's; 0: never",
            least=0,
            most=1_000_000,
        ),
    ] = 50.0


class ReturnsConfig(ConfigRecord, frozen=True):
    """The return flow: readings of a node's area that the centre received, on their way to the node."""

    grade_max: Annotated[int, doc("readings of a higher grade are not returned (centre)", least=1, most=4)] = 3
    key_file: Annotated[
        str,
        doc(
            "PEM of the public key that verifies the centre's files (its statements.pub); empty: accept no file (node)"
        ),
    ] = ""


class EgressConfig(ConfigRecord, frozen=True):
    """Destinations to which this gateway may connect on behalf of others (webhooks, cameras)."""

    allow: Annotated[
        tuple[str, ...],
        doc("networks, addresses, host names that webhooks may reach (10.2.0.0/16); public: all public addresses"),
    ] = ("public",)
    cameras: Annotated[
        tuple[str, ...],
        doc("networks, addresses, host names of cameras whose streams may be fetched (10.9.0.0/16); empty: none"),
    ] = ()
    timeout_s: Annotated[float, doc("time limit for the answer of a webhook's receiver", least=0.1, most=3_600)] = 10.0
    retry_initial_s: Annotated[
        float,
        doc("wait after the first failure of a webhook; doubled with each further failure", least=0.01, most=86_400),
    ] = 1.0
    retry_max_s: Annotated[float, doc("longest wait between attempts", least=0.01, most=604_800)] = 300.0
    failures_max: Annotated[int, doc("consecutive failures after which a webhook is paused", least=1, most=100_000)] = (
        12
    )
