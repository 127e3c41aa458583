"""Contents of profile versions: text and accompanying files, immutable and identified by their digest.

They are stored in a bucket, and materialised in a folder of each process, where relative paths of the profile (to a
codec script) lead to the files of the same version.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.errors import ConfigError, Conflict, NotFound

TEXT_BYTES_MAX = 262_144
FILES_MAX = 16
FILES_BYTES_MAX = 524_288
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_YAML = {".yaml", ".yml"}
_PROFILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """Text of a profile and the files that it refers to."""

    text: str
    """YAML."""
    files: dict[str, str] = {}
    """Name -> text."""
    format: int = 1


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Content).decode


def validate(content: Content) -> None:
    """Return if a content may be stored.

    Raises:
        ConfigError: it is too large, or the name of a file is not permitted.
    """
    if len(content.text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        raise ConfigError(f"more than {TEXT_BYTES_MAX} bytes", key="text", remedy="split it into several models")
    if len(content.files) > FILES_MAX:
        raise ConfigError(f"{len(content.files)} files", key="files", remedy=f"at most {FILES_MAX}")
    for name in content.files:
        if not _FILE.fullmatch(name) or name.endswith((".yaml", ".yml")):
            remedy = "use letters, digits, '_', '-' and '.', without folders, e.g. codec.js"
            raise ConfigError(f"'{name[:80]}' is not a permitted file name", key="files", remedy=remedy)
    if sum(len(text.encode("utf-8", "surrogatepass")) for text in content.files.values()) > FILES_BYTES_MAX:
        raise ConfigError(f"more than {FILES_BYTES_MAX} bytes", key="files", remedy="a codec is a few kB")
    try:
        _encode(content)
    except UnicodeEncodeError as why:
        raise ConfigError("is not Unicode text", key="text", remedy="send UTF-8") from why


def digest_of(content: Content) -> str:
    """Return the digest that identifies a content."""
    return sha256(_encode(content)).hexdigest()


class ContentStore:
    """Store of the contents of all versions."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        """`folder`: where contents in use are materialised."""
        self._bucket = bucket
        self._folder = folder

    async def store(self, content: Content) -> str:
        """Store a content; return its digest. Raises as `validate`, and `Unavailable`, `StoreFull`."""
        validate(content)
        digest = digest_of(content)
        try:
            await self._bucket.put(digest, _encode(content), expected=0)
        except Conflict:
            await self.read(digest)
        return digest

    async def read(self, digest: str) -> Content:
        """Return a content.

        Raises:
            NotFound: it is not stored here, or the stored one is corrupt.
        """
        row = await self._bucket.get(digest)
        if row is None or row.value is None or sha256(row.value).hexdigest() != digest:
            raise NotFound(f"the content {digest[:12]} of this version is not in the store")
        return _decode(row.value)

    async def materialise(self, profile: str, digest: str) -> Path:
        """Return the profile's file in a folder with all files of a version, written now unless they are intact.

        Raises:
            NotFound: as `read`.
        """
        target = self._folder / digest
        file = target / f"{profile}.yaml"
        if await asyncio.to_thread(_is_intact, file, digest):
            return file
        await asyncio.to_thread(write, await self.read(digest), profile, target)
        return file

    async def remove_unused(self, digests: Collection[str]) -> None:
        """Remove the materialised contents that are not among `digests`: of versions that were only compared."""
        await asyncio.to_thread(_tidy, self._folder, frozenset(digests))

    async def materialise_unstored(self, profile: str, content: Content) -> Path:
        """Return the profile's file of a content that is not stored, materialised in the same way."""
        validate(content)
        digest = digest_of(content)
        file = self._folder / digest / f"{profile}.yaml"
        if not await asyncio.to_thread(_is_intact, file, digest):
            await asyncio.to_thread(write, content, profile, self._folder / digest)
        return file


def write(content: Content, profile: str, target: Path) -> Path:
    """Write a content as ``<target>/<vendor>/<model>.yaml`` and its files beside it; return the profile's file."""
    if not _PROFILE.fullmatch(profile):
        raise ConfigError(f"'{profile[:80]}' is not vendor/model", key="profile", remedy="e.g. acme/th10")
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    file = fresh / f"{profile}.yaml"
    file.parent.mkdir()
    file.write_bytes(content.text.encode())
    for name, text in content.files.items():
        (file.parent / name).write_bytes(text.encode())
    shutil.rmtree(target, ignore_errors=True)
    try:
        fresh.rename(target)
    except OSError:  # another process has written it: the same digest means the same files
        shutil.rmtree(fresh)
        if not target.exists():
            raise
    return target / f"{profile}.yaml"


def read_from_folder(file: Path) -> Content:
    """Return the content of a profile file, with the files beside it that its text names.

    Raises:
        ConfigError: a file cannot be read.
    """
    try:
        text = file.read_bytes().decode()
        beside = sorted(other for other in file.parent.iterdir() if other.is_file() and other.suffix not in _YAML)
        named = {sibling.name: sibling.read_bytes().decode() for sibling in beside if _names(text, sibling.name)}
    except (OSError, UnicodeDecodeError) as why:
        raise ConfigError("cannot be read", file=str(file), remedy=str(why)) from why
    return Content(text, named)


def _names(text: str, file: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9_.-]){re.escape(file)}(?![A-Za-z0-9_.-])", text) is not None


def _is_intact(file: Path, digest: str) -> bool:
    """Return whether a materialised content is complete and unchanged."""
    try:
        beside = {sibling.name: sibling.read_bytes().decode() for sibling in file.parent.iterdir() if sibling != file}
        return digest_of(Content(file.read_bytes().decode(), beside)) == digest
    except (OSError, UnicodeDecodeError):
        return False


def _tidy(folder: Path, digests: frozenset[str]) -> None:
    for child in folder.iterdir() if folder.is_dir() else ():
        if child.name not in digests:
            shutil.rmtree(child, ignore_errors=True)
