"""Scripts that encode downlinks, in the shapes that makers publish."""

from __future__ import annotations

import msgspec
import pytest

from sensegate.decode.formats.script import DownlinkScript
from sensegate.errors import ConfigError
from tests.scripts.conftest import source_of

TS013 = "function decodeUplink(i) { return { data: {} }; } function encodeDownlink(input) { %s }"


def script(text: str) -> DownlinkScript:
    """Return the downlink functions of a script."""
    return DownlinkScript(source_of(text))


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        (TS013 % "return { bytes: [1, input.data.level], fPort: 10 };", 0, (b"\x01\x28", 10)),
        (TS013 % "return { bytes: [1, input.data.level], fPort: 10 };", 7, (b"\x01\x28", 7)),
        (TS013 % "return { bytes: [input.fPort] };", 7, (b"\x07", 7)),
        (TS013 % "return { bytes: Buffer.from('ff01', 'hex'), fPort: 2 };", 0, (b"\xff\x01", 2)),
        (TS013 % "return { bytes: new Uint8Array([3, 4]), fPort: 2, warnings: ['w'] };", 0, (b"\x03\x04", 2)),
        (TS013 % "return { bytes: [...input.data.name].map((c) => c.charCodeAt(0)), fPort: 2 };", 0, (b"\xe9A", 2)),
        ("function Encoder(object, port) { return [port, object.level]; }", 5, (b"\x05\x28", 5)),
        ("function Encode(fPort, obj, variables) { return [fPort, obj.level]; }", 5, (b"\x05\x28", 5)),
    ],
)
def test_a_downlink_is_encoded(text: str, port: int, expected: tuple[bytes, int]) -> None:
    """Bytes of any kind of list, the port of the task or of the script."""
    assert script(text).encode({"level": 40, "name": "\u00e9A"}, port) == expected


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return { errors: ['level is above 100'] };", "level is above 100"),
        ("throw new Error('no');", "no"),
        ("return null;", "it returned nothing"),
        ("return { bytes: [256] };", "no list of numbers"),
        ("return { bytes: [1.5] };", "no list of numbers"),
        ("return { bytes: 'ff' };", "no list of numbers"),
        ("return { bytes: { length: 1e9 } };", "no list of numbers"),
        ("for (;;);", "more CPU time"),
    ],
)
def test_what_is_no_frame_is_refused(body: str, problem: str) -> None:
    """Errors of the script, and results that are no bytes, are told."""
    with pytest.raises(ConfigError, match=problem):
        script(TS013 % body).encode({}, 1)


def test_a_script_without_an_encoder_says_so() -> None:
    """The functions that it could have are named."""
    assert "encodeDownlink" in script("function decodeUplink(i) { return { data: {} }; }").problem()
    assert script(TS013 % "return { bytes: [] };").problem() == ""


def test_a_downlink_is_decoded_again() -> None:
    """`decodeDownlink` gives the data back, or refuses."""
    both = script(
        TS013 % "return { bytes: [input.data.level], fPort: 1 };"
        + "function decodeDownlink(i) { const [level] = i.bytes;"
        + " return level === undefined ? { errors: ['empty'] } : { data: { level } }; }"
    )
    assert both.decodes
    assert msgspec.to_builtins(both.decode(b"\x28", 1)) == {"level": 40}
    with pytest.raises(ConfigError, match="empty"):
        both.decode(b"", 1)
    assert not script(TS013 % "return { bytes: [] };").decodes
