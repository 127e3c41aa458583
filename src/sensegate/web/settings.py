"""REST: the settings in force, with their origin; secrets are masked."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from sensegate.authority.scope import Action
from sensegate.config import Config, settings
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route

SETTINGS = PartKey[Config]("settings", absent="this gateway does not show its settings")
MASK = "•••"
_SECRET = re.compile(r"(^|_)(password|secret|token|key|code)s?$")
_USER_INFO = re.compile(r"(?<=://)[^/@\s\"]+@")


class SettingRow(msgspec.Struct, frozen=True):
    """A setting in force."""

    key: str
    value: str
    """Value as JSON; each element of a list of records in turn. Secrets and users in addresses are masked."""
    default: str
    origin: str
    """``configuration``, or ``default`` where the value is the default one, whoever wrote it."""
    help: str


def setting_rows(config: Config) -> Iterator[SettingRow]:
    """Yield every setting of a configuration, in the order of the reference."""
    for setting in settings():
        values = list(_values(config, setting.key.split(".")))
        if not values:  # of a list that has no elements
            continue
        texts = [msgspec.json.encode(value).decode() for value in values]
        changed = any(text != setting.default for text in texts)
        name = setting.key.rpartition(".")[2]
        shown = [MASK if _SECRET.search(name) and text != '""' else _USER_INFO.sub(f"{MASK}@", text) for text in texts]
        yield SettingRow(
            setting.key, ", ".join(shown), setting.default, "configuration" if changed else "default", setting.help
        )


def _values(record: object, path: list[str]) -> Iterator[object]:
    """Yield the values at a path; ``name[]`` stands for each element of a list."""
    if not path:
        yield record
        return
    name, rest = path[0], path[1:]
    value = getattr(record, name.removesuffix("[]"))
    for element in value if name.endswith("[]") else (value,):
        yield from _values(element, rest)


async def _settings(call: Call) -> listing.RowPage[SettingRow]:
    """List the settings in force with their origin; secrets are masked."""
    return listing.page_of(call, setting_rows(call.part(SETTINGS)), SettingRow, "key")


ROUTES = tagged(
    "gateway",
    Route(
        "GET",
        f"{API}/settings",
        _settings,
        action=Action.READ_AUDIT,
        or_action=Action.CHANGE_NODES,
        query=listing.params(SettingRow),
    ),
)
