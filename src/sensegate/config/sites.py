"""The configuration of two sites: which centres there are, and how one takes the place of another.

A part of `config.py`, by which it is read.
"""

from __future__ import annotations

from typing import Annotated

from sensegate.config.setting import Record, told


class CentreConfig(Record, frozen=True):
    """Another centre to which this node may turn."""

    url: Annotated[str, told("nats:// or tls:// address")]
    ca_file: Annotated[str, told("authority of its certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...], told("fingerprints (SHA-256, hex) of which its certificate must have one; empty: any")
    ] = ()


class PeerConfig(Record, frozen=True):
    """The other centre, which has a whole copy of this one or the other way round."""

    url: Annotated[str, told("nats:// or tls:// address of the other centre; empty: there is none")] = ""
    secret_file: Annotated[str, told("file with the secret that both centres share")] = ""
    ca_file: Annotated[str, told("authority of the other's certificate, for tls:// addresses")] = ""
    pin_sha256: Annotated[
        tuple[str, ...], told("fingerprints (SHA-256, hex) of which the other's certificate must have one; empty: any")
    ] = ()
    cert_file: Annotated[str, told("PEM of this centre's own certificate, where the other asks for one")] = ""
    key_file: Annotated[str, told("PEM of its private key")] = ""
    first: Annotated[bool, told("this one is active until another term has begun; true at one of the two")] = False
    hold_s: Annotated[
        float, told("only what the standby has is delivered; when it was not heard for so long, all is")
    ] = 5.0
    automatic: Annotated[bool, told("take over without an order where a majority of the nodes grants it")] = False
    lease_s: Annotated[
        float,
        told("automatic: an active centre without a majority of the nodes for so long is none any more; at both alike"),
    ] = 12.0


class NodeQuotaConfig(Record, frozen=True):
    """How much one node may ask of this centre; the others are served all the same."""

    bytes_per_s: Annotated[float, told("most bytes a second of a node's requests, over ten seconds")] = 16_777_216.0
    spans_per_s: Annotated[float, told("most spans a second of a node, over ten seconds")] = 100.0
    questions_per_s: Annotated[float, told("most questions a second of a node, over ten seconds")] = 100.0
    connections: Annotated[int, told("most connections in a node's account, the centre's own included")] = 6
    log_share: Annotated[
        float, told("part of the log that rows of one node may fill; beyond it the node's own log waits")
    ] = 0.5
