"""The program curl as a stranger's client of GA/T 1400: an HTTP Digest that is none of ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec


class CurlAnswer(msgspec.Struct):
    """What was answered."""

    status: int
    tree: dict[str, Any]

    @property
    def status_object(self) -> dict[str, Any]:
        """Return the one status object; all five keys are in it."""
        element: dict[str, Any] = self.tree["ResponseStatusObject"]
        assert set(element) == {"RequestURL", "StatusCode", "StatusString", "Id", "LocalTime"}
        assert isinstance(element["StatusCode"], int)
        return element

    @property
    def codes(self) -> list[int]:
        """Return the codes of a list."""
        return [element["StatusCode"] for element in self.tree["ResponseStatusListObject"]["ResponseStatusObject"]]


async def curl(url: str, *options: str, body: bytes | None = None) -> CurlAnswer:
    """Ask; a body is sent from standard input."""
    more = (
        ["-H", "Content-Type: application/VIID+JSON;charset=UTF-8", "--data-binary", "@-"] if body is not None else []
    )
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sS",
        "-m",
        "30",
        "-w",
        "\n%{http_code}",
        *options,
        *more,
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate(body)
    text, _, status = out.decode().rpartition("\n")
    assert status != "000", error.decode()
    return CurlAnswer(int(status), json.loads(text))


class Camera:
    """A camera with its code and password."""

    def __init__(self, url: str, code: str, password: str, *more: str, digest: bool = True) -> None:
        self.url = url
        self.code = code
        self._as = [
            *more,
            "-H",
            f"User-Identify: {code}",
            *(["--digest", "-u", f"{code}:{password}"] if digest else []),
        ]

    async def system(self, action: str) -> CurlAnswer:
        """Register, Keepalive or UnRegister."""
        body = json.dumps({f"{action}Object": {"DeviceID": self.code}}).encode()
        return await curl(f"{self.url}/VIID/System/{action}", *self._as, body=body)

    async def post(self, path: str, body: bytes, *more: str) -> CurlAnswer:
        """Send objects."""
        return await curl(f"{self.url}/VIID/{path}", *self._as, *more, body=body)

    async def get(self, path: str) -> CurlAnswer:
        """Read something."""
        return await curl(f"{self.url}/VIID/{path}", *self._as)
