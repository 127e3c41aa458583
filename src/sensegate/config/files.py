"""Checks of the files that a configuration names: is each there and private, and how is it created?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensegate.config.gateway import Config
from sensegate.config.reading import line_of
from sensegate.config.setting import ConfigRecord
from sensegate.errors import ConfigError

GENERATED = frozenset(
    {"viid.digest_key_file", "video.keys_file", "engine.store_key_file", "audit.key_file", "sharing.key_file"}
)
CONSUMED = frozenset({"uplink.join_code_file"})
"""Files that are used once: joining consumes them."""
_MAKE = "create it: `(umask 077; openssl rand -hex 32 > {file})`"
_REMEDIES = {
    "uplink.secret_file": f"{_MAKE} at the centre (its nodes[].secret_file), copy it here; or omit url and "
    "secret_file: the node runs without a centre until `sensegate node join CODE --centre URL`",
    "nodes.secret_file": f"{_MAKE}, and give the node the same file (its uplink.secret_file); or omit the entry "
    "and let the node join with a code: `sensegate node invite {division}`",
    "peer.secret_file": f"{_MAKE}, and copy it to the other centre",
    "returns.key_file": "copy statements.pub from the centre's directory to this path",
    "web.map.overlay_file": "put the GeoJSON file there, in WGS-84 or CGCS2000, with web.map.overlay_approval",
    "engine.credentials_file": "`sensegate engine CONFIG DIRECTORY` writes this file",
}
_BY_NAME = {
    "secret": _MAKE,
    "password": "write the password into it: `(umask 077; cat > {file})`, end with Ctrl-D",
    "passwords": "write a line `name password` for each device, * for all others; mode 0600",
    "client_secret": "write the provider's secret into it: `(umask 077; cat > {file})`, end with Ctrl-D",
}
_PEM = "put the PEM file there; for a laboratory `sensegate tls init DIRECTORY` creates all of them"
PRIVATE = ("secret_file", "password_file", "passwords_file", "client_secret_file")
_AT_START = frozenset(
    {
        "uplink.secret_file",
        "nodes.secret_file",
        "peer.secret_file",
        "external_brokers.password_file",
        "viid.superiors.password_file",
    }
)
"""Files without which the gateway cannot start; others are read when they are needed."""


def named_files(record: ConfigRecord, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path of the key, file) for each file that a configuration names; members of lists have their index."""
    for key in record.__struct_fields__:
        value = getattr(record, key)
        if isinstance(value, ConfigRecord):
            yield from named_files(value, (*path, key))
        elif isinstance(value, tuple):
            for at, member in enumerate(value):
                if isinstance(member, ConfigRecord):
                    yield from named_files(member, (*path, key, str(at)))
        elif key.endswith("_file") and isinstance(value, str) and value:
            yield (*path, key), value


def _key_of(path: tuple[str, ...]) -> str:
    return ".".join(part for part in path if not part.isdigit())


def file_faults(config: Config, file: Path, *, start: bool = False) -> list[ConfigError]:
    """Return the faults of the files that a configuration names, each with how to create the file.

    `file` is the configuration itself; with `start`, only files without which the gateway cannot start are checked.
    """
    text = file.read_text(encoding="utf-8")
    faults: list[ConfigError] = []
    for at, folder in enumerate(config.profile_folders):
        if not Path(folder).exists():
            problem = f"{folder} does not exist (seen from {Path.cwd()})"
            remedy = "give the full path; a relative path starts at the working directory of the command"
            line = line_of(text, ["profiles", str(at)])
            faults.append(ConfigError(problem, file=str(file), line=line, key="profiles", remedy=remedy))
    for path, name in named_files(config):
        key = _key_of(path)
        if (
            key in GENERATED | CONSUMED
            or (start and key not in _AT_START)
            or (_is_unlinked(config) and key in _OF_LINK)
        ):
            continue
        problem, remedy = file_fault(config, path, name, existence_only=start)
        if problem:
            line = line_of(text, list(path))
            faults.append(ConfigError(problem, file=str(file), line=line, key=".".join(path), remedy=remedy))
    return faults


_OF_LINK = frozenset({"uplink.secret_file", "uplink.ca_file", "uplink.cert_file", "uplink.key_file"})


def _is_unlinked(config: Config) -> bool:
    return not config.uplink.url and not config.uplink.centre_url


def file_fault(config: Config, path: tuple[str, ...], name: str, *, existence_only: bool = False) -> tuple[str, str]:
    """Return the fault of a file and its remedy; empty texts: none.

    With `existence_only` the permissions are not checked.
    """
    key, target = _key_of(path), Path(name)
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        division = config.nodes[int(path[1])].division if path[0] == "nodes" else ""
        remedy = _REMEDIES.get(key) or _BY_NAME.get(path[-1].removesuffix("_file"), _PEM)
        return f"{name} does not exist", remedy.format(file=name, division=division)
    except OSError as why:
        return f"{name} cannot be accessed ({why.strerror})", "let the gateway's user read it and its folder"
    if path[-1] in PRIVATE and mode & 0o077 and not existence_only:
        return f"{name} is readable by other users", f"chmod 600 {name}"
    return "", ""
