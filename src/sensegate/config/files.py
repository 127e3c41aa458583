"""The files that a configuration names: which are not there, which others may read, and how each is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensegate.config.gateway import Config, line_of
from sensegate.config.setting import Record
from sensegate.errors import ConfigError

MADE_BY_US = frozenset(
    {"viid.seal_file", "video.keys_file", "engine.store_key_file", "audit.key_file", "sharing.key_file"}
)
ONCE = frozenset({"uplink.join_code_file"})
"""Used up by joining."""
_MAKE = "make it: `(umask 077; openssl rand -hex 32 > {file})`"
_REMEDIES = {
    "uplink.secret_file": f"{_MAKE} at the centre (its nodes[].secret_file), copy it here; or leave url and "
    "secret_file out: the node goes on alone until `sensegate node join CODE --centre URL`",
    "nodes.secret_file": f"{_MAKE}, and give the node the same file (its uplink.secret_file); or leave the entry out "
    "and let the node join with a code: `sensegate node invite {division}`",
    "peer.secret_file": f"{_MAKE}, the same at both centres",
    "returns.key_file": "copy statements.pub of the centre's directory to it",
    "engine.credentials_file": "`sensegate engine CONFIG DIRECTORY` writes it",
}
_BY_NAME = {
    "secret": _MAKE,
    "password": "write the password into it: `(umask 077; cat > {file})`, end with Ctrl-D",
    "passwords": "a line `name password` for each device, * for all others, mode 0600",
    "client_secret": "write the provider's secret into it: `(umask 077; cat > {file})`, end with Ctrl-D",
}
_PEM = "put the PEM file there; for a laboratory `sensegate tls init DIRECTORY` makes all of them"
PRIVATE = ("secret_file", "password_file", "passwords_file", "client_secret_file")
_AT_START = frozenset(
    {
        "uplink.secret_file",
        "nodes.secret_file",
        "peer.secret_file",
        "foreign.password_file",
        "viid.superiors.password_file",
    }
)
"""Without these nothing starts; others are read when they are needed."""


def named(record: Record, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path of the key, file) of each file that a configuration names; members of lists have their number."""
    for key in record.__struct_fields__:
        value = getattr(record, key)
        if isinstance(value, Record):
            yield from named(value, (*path, key))
        elif isinstance(value, tuple):
            for at, one in enumerate(value):
                if isinstance(one, Record):
                    yield from named(one, (*path, key, str(at)))
        elif key.endswith("_file") and isinstance(value, str) and value:
            yield (*path, key), value


def _plain(path: tuple[str, ...]) -> str:
    return ".".join(part for part in path if not part.isdigit())


def faults(config: Config, file: Path, *, start: bool = False) -> list[ConfigError]:
    """Return what is wrong with the files that a configuration names, with how each is made.

    `file`: that of the configuration; `start`: only those without which it cannot start.
    """
    text = file.read_text(encoding="utf-8")
    found: list[ConfigError] = []
    for at, folder in enumerate(config.profiles):
        if not Path(folder).exists():
            what = f"{folder} is not there (seen from {Path.cwd()})"
            remedy = "give the whole path; a relative one is looked for where the command is started"
            line = line_of(text, ["profiles", str(at)])
            found.append(ConfigError(what, file=str(file), line=line, key="profiles", remedy=remedy))
    for path, name in named(config):
        key = _plain(path)
        if key in MADE_BY_US | ONCE or (start and key not in _AT_START) or (_alone(config) and key in _OF_LINK):
            continue
        what, remedy = fault(config, path, name, there=start)
        if what:
            line = line_of(text, list(path))
            found.append(ConfigError(what, file=str(file), line=line, key=".".join(path), remedy=remedy))
    return found


_OF_LINK = frozenset({"uplink.secret_file", "uplink.ca_file", "uplink.cert_file", "uplink.key_file"})


def _alone(config: Config) -> bool:
    return not config.uplink.url and not config.uplink.centre_url


def fault(config: Config, path: tuple[str, ...], name: str, *, there: bool = False) -> tuple[str, str]:
    """Return (what is wrong with a file, what to do); empty texts where nothing is. `there`: only that it is there."""
    key, target = _plain(path), Path(name)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        division = config.nodes[int(path[1])].division if path[0] == "nodes" else ""
        remedy = _REMEDIES.get(key) or _BY_NAME.get(path[-1].removesuffix("_file"), _PEM)
        return f"{name} is not there", remedy.format(file=name, division=division)
    except OSError as why:
        return f"{name} cannot be seen ({why.strerror})", "let the gateway's user read it and its folder"
    if path[-1] in PRIVATE and mode & 0o077 and not there:
        return f"{name} may be read by others", f"chmod 600 {name}"
    return "", ""
