"""The configuration of two sites: the centres of a node, and the fail-over between two centres.

Part of `config.gateway`, which reads it.
"""

from __future__ import annotations

from typing import Annotated

from sensegate.config.setting import ConfigRecord, doc


class CentreConfig(ConfigRecord, frozen=True):
    """A further centre to which this node may connect."""

    url: Annotated[str, doc("nats:// or tls:// address")]
    ca_file: Annotated[str, doc("PEM of the CA of its certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...], doc("accepted SHA-256 fingerprints (hex) of its certificate; empty: any")
    ] = ()


class PeerConfig(ConfigRecord, frozen=True):
    """The other centre of a pair: one is active, the other keeps a full copy."""

    url: Annotated[str, doc("nats:// or tls:// address of the other centre; empty: no other centre")] = ""
    secret_file: Annotated[str, doc("file with the secret that both centres share")] = ""
    ca_file: Annotated[str, doc("PEM of the CA of the other's certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...],
        doc("accepted SHA-256 fingerprints (hex) of the other's certificate; empty: any"),
    ] = ()
    cert_file: Annotated[str, doc("PEM of this centre's client certificate, if the other centre requires one")] = ""
    key_file: Annotated[str, doc("PEM of the private key")] = ""
    initially_active: Annotated[
        bool, doc("this centre is active until another term begins; true at exactly one of the two")
    ] = False
    standby_timeout_s: Annotated[
        float,
        doc(
            "deliver only what the standby has copied; if the standby is silent for this long, deliver everything",
            least=0.5,
            most=3_600,
        ),
    ] = 5.0
    automatic: Annotated[bool, doc("take over without an order if a majority of the nodes grants it")] = False
    lease_s: Annotated[
        float,
        doc(
            "automatic: an active centre that lacks a majority of the nodes for this long steps down; same at both",
            least=1,
            most=3_600,
        ),
    ] = 12.0


class NodeQuotaConfig(ConfigRecord, frozen=True):
    """Limits of what one node may ask of this centre, so that the others are still served."""

    bytes_per_s: Annotated[
        float, doc("most bytes per second of a node's requests, averaged over ten seconds", least=1_024, most=10**11)
    ] = 16_777_216.0
    spans_per_s: Annotated[
        float, doc("most spans per second of a node, averaged over ten seconds", least=0.1, most=1_000_000)
    ] = 100.0
    questions_per_s: Annotated[
        float, doc("most queries per second of a node, averaged over ten seconds", least=0.1, most=1_000_000)
    ] = 100.0
    connections: Annotated[
        int, doc("most connections in a node's account, including the centre's own", least=2, most=10_000)
    ] = 6
    log_share: Annotated[
        float,
        doc(
            "share of the log that the rows of one node may fill; beyond it the rows wait in the node's log",
            least=0.001,
            most=1,
        ),
    ] = 0.5
