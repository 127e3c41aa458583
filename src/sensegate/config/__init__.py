"""The configuration of a gateway: records with help texts, their file, the files that it names, durations, YAML."""

from sensegate.config.alarms import AlarmsConfig, MailConfig
from sensegate.config.gateway import (
    Config,
    DuplicateConfig,
    EngineConfig,
    ExternalBrokerConfig,
    IngestConfig,
    ListenConfig,
    NodeUserConfig,
    ScriptsConfig,
    StoreConfig,
    TcpConfig,
    TimeConfig,
    TlsConfig,
    UplinkConfig,
    WebConfig,
)
from sensegate.config.mqtt import MqttConfig
from sensegate.config.reading import line_of, load, parse, read_secret
from sensegate.config.reference import reference, settings

__all__ = [
    "AlarmsConfig",
    "Config",
    "DuplicateConfig",
    "EngineConfig",
    "ExternalBrokerConfig",
    "IngestConfig",
    "ListenConfig",
    "MailConfig",
    "MqttConfig",
    "NodeUserConfig",
    "ScriptsConfig",
    "StoreConfig",
    "TcpConfig",
    "TimeConfig",
    "TlsConfig",
    "UplinkConfig",
    "WebConfig",
    "line_of",
    "load",
    "parse",
    "read_secret",
    "reference",
    "settings",
]
