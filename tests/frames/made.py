"""Frames of the national protocols, made from their parts: the other direction of what is under test."""

from __future__ import annotations

from collections.abc import Sequence

from sensegate.frames import gbt26875, hj212, jtt808, sl651
from sensegate.frames.framing import FrameFinder
from sensegate.frames.hj212 import Convention
from tests.frames import made

MN = "010000A8900016F000169DC0"


def upload(
    content: str,
    *,
    mn: str = MN,
    st: str = "22",
    cn: str = "2011",
    flag: str = "5",
    qn: str = "20260101080000000",
    pw: str = "123456",
    more: str = "",
    convention: Convention = Convention.ANSI,
) -> bytes:
    """Return a frame of HJ 212; `more` stands before the content (PNUM, PNO)."""
    head = f"QN={qn};" if qn else ""
    head += f"ST={st};CN={cn};PW={pw};MN={mn};"
    head += f"Flag={flag};" if flag else ""
    return hj212.build(f"{head}{more}CP=&&{content}&&".encode(), convention)


def bcd(value: int, size: int) -> bytes:
    """Return a BCD number; a negative one begins with FF."""
    if value < 0:
        return b"\xff" + bcd(-value, size - 1)
    return bytes.fromhex(f"{value:0{size * 2}d}")


def element(number: int, raw: bytes, decimals: int = 0) -> bytes:
    """Return an element of SL 651: identifier, definition, value."""
    return bytes([number, len(raw) << 3 | decimals]) + raw


def report(
    elements: bytes,
    *,
    station: str = "0011223344",
    function: int = 0x32,
    password: str = "03E8",  # noqa: S107 - made up
    centre: int = 1,
    serial: int = 1,
    sent: str = "260101080012",
    observed: str = "2601010800",
    kind: bytes = b"H",
    end: int = sl651.ETX,
) -> bytes:
    """Return a report of a station (SL 651)."""
    body = serial.to_bytes(2) + bytes.fromhex(sent)
    if function != sl651.KEEP_ALIVE:
        body += b"\xf1\xf1" + bytes.fromhex(station) + kind
        body += b"\xf0\xf0" + bytes.fromhex(observed) if observed else b""
    return sl651.build(sl651.Sl651Head(centre, station, password, function), body + elements, end, up=True)


def report_in_text(words: str, *, station: str = "0011223344", function: int = 0x32, kind: str = "H") -> bytes:
    """Return the same in text form."""
    body = f"0001260101080012ST {station} {kind} TT 2601010800 {words} "
    return sl651.build(sl651.Sl651Head(1, station, "03E8", function), body.encode(), sl651.ETX, up=True, text=True)


TIME = bytes([2, 58, 9, 26, 9, 12])
"""2012-09-26 09:58:02"""


def fire(
    number: int,
    objects: Sequence[bytes],
    *,
    command: int = gbt26875.SEND,
    serial: int = 1,
    source: str = "000000000379",
    target: str = "000000015B38",
) -> bytes:
    """Return a frame of GB/T 26875.3 with a data unit of a type; without objects the unit is empty."""
    data = bytes([number, len(objects)]) + b"".join(objects) if objects else b""
    return gbt26875.build(
        gbt26875.Gbt26875Frame(
            serial=serial,
            version=b"\x01\x01",
            sent=TIME,
            source=bytes.fromhex(source)[::-1],
            target=bytes.fromhex(target)[::-1],
            command=command,
            data=data,
            checksum_ok=True,
        )
    )


def position(
    lat: float = 23.129163,
    lon: float = 113.264435,
    *,
    at: str = "260101080000",
    status: int = 3,
    alarm: int = 0,
    altitude: int = 21,
    speed: int = 365,
    heading: int = 90,
    items: bytes = b"",
) -> bytes:
    """Return the body of a position report (JT/T 808)."""
    return b"".join(
        (
            alarm.to_bytes(4),
            status.to_bytes(4),
            round(abs(lat) * 1e6).to_bytes(4),
            round(abs(lon) * 1e6).to_bytes(4),
            altitude.to_bytes(2, signed=True),
            speed.to_bytes(2),
            heading.to_bytes(2),
            bytes.fromhex(at),
            items,
        )
    )


def vehicle(body: bytes, *, phone: str = "013800138000", message: int = jtt808.LOCATION, serial: int = 1) -> bytes:
    """Return a frame of JT/T 808 (2013: six bytes of phone number; 2019: ten)."""
    mark = 1 if len(phone) == 20 else None
    return jtt808.build(message, bytes.fromhex(phone), serial, body, mark=mark)


AIR = made.upload("DataTime=20260101080000;a34004-Rtd=31,a34004-Flag=N")


WATER = made.upload("DataTime=20260101080000;w01018-Rtd=15.2,w01018-Flag=M", st="32", qn="20260101080001000")


FRAMES: dict[str, tuple[FrameFinder, list[bytes]]] = {
    "hj212": (hj212.next_frame, [AIR, WATER, made.upload("", cn="9015")]),
    "sl651": (
        sl651.next_frame,
        [
            made.report(made.element(0x39, made.bcd(10490, 4), 3)),
            made.report_in_text("Z 10.490 VT 12.35"),
            made.report(b"", function=sl651.KEEP_ALIVE),
        ],
    ),
    "gbt26875": (
        gbt26875.next_frame,
        [made.fire(21, [b"\x08" + made.TIME]), made.fire(0, []), made.fire(1, [b"\x01\x02\x02\x00" + made.TIME] * 3)],
    ),
    "jtt808": (
        jtt808.next_frame,
        [
            made.vehicle(made.position()),
            made.vehicle(b"", message=jtt808.HEARTBEAT, serial=0x7E7D),
            made.vehicle(made.position(), phone="00000000013800138000"),
        ],
    ),
}
