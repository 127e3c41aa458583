"""HJ 212 as flat values: frames of one form are taken apart by their separators, without a tree.

A form is everything of a frame but its values: separators, keys and command. For a form seen before, the values stand
at known places among the parts between the separators. A frame that is unusual in any way (white space, text that is
not ASCII, a command or flag that is no number, several packets, encryption, values that are no numbers) has no form:
it goes the way of `hj212.FORMAT`, with which this must agree value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec

from sensegate import metrics
from sensegate.decode.frame import LearnedParse, Parse
from sensegate.decode.paths import Path
from sensegate.errors import Rejected
from sensegate.frames.checks import crc_hj212
from sensegate.model import QuarantineReason

FORMS_MAX: Final = 1_024
"""Most forms of one rule's frames."""
_PARTS_MAX: Final = 512
_NOT_SEPARATORS: Final = bytes(set(range(256)) - set(b"=;,&"))
_UNIFIED: Final = bytes.maketrans(b"=,&", b";;;")
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_NUMERIC: Final = b"0123456789.+-"
_DIGITS_MAX: Final = 40
_END: Final = b"\r\n \t\0"
_HEAD, _CRC = 6, 4
_FIRST_PACKET: Final = frozenset({b"1", b"01", b"001", b"0001"})
_FLAGS: Final = {b"%d" % flag: ({0: 2005, 1: 2017, 2: 2025}.get(flag >> 2, 0), bool(flag & 1)) for flag in range(12)}
"""Flag -> version, whether the device expects an answer."""
_QUALIFIERS: Final = {b"Flag": "flag", b"EFlag": "eflag", b"SampleTime": "sample_time"}

Getter = Callable[[Sequence[bytes]], tuple[bytes, ...]]


def _getter(places: Sequence[int]) -> Getter:
    """Return a getter of the parts at some places, as a tuple also for one or none."""
    if not places:
        return lambda _: ()
    if len(places) == 1:
        place = places[0]
        return lambda parts: (parts[place],)
    return itemgetter(*places)


class _Form(msgspec.Struct, frozen=True, eq=False):
    """Positions of the values in frames of a form, and the parts that these frames have in common."""

    qn: int
    """Place of QN; -1: there is none, as below."""
    st: int
    flag: int
    time: int
    packets: Getter
    """PNUM and PNO."""
    numbers: Getter
    texts: Getter
    """ST, CN, MN, members of the content, flags."""
    sample_times: Getter
    constants: tuple[Any, ...]
    pointers: list[Path]
    """Pointers to the values, in the order of `flatten`."""


class _Layout(NamedTuple):
    """Frames with equal separators and keys: where CN stands (-1: nowhere), and their forms by its value."""

    command: int
    forms: dict[bytes, _Form | None]


class _Keys(NamedTuple):
    """Frames with equal separators: where their keys stand, CP last, and their layouts by the keys."""

    get: Getter
    head: int
    """Number of keys before the content."""
    layouts: dict[tuple[bytes, ...], _Layout]


class Hj212Columns(LearnedParse):
    """The parse of HJ 212, of frames into trees and into flat values (`columnar.Columnar`)."""

    def __init__(
        self,
        parse: Parse,
        time: Callable[[str], str],
        periods: dict[str, str],
        accepted: frozenset[str],
        systems: frozenset[str],
    ) -> None:
        """Args are those of the format.

        Args:
            parse: a frame into a tree.
            time: DataTime into ISO 8601; unchanged where it is no time.
            periods: command -> period of its values.
            accepted: conventions of the checksum.
            systems: system codes of such a station; empty: any.
        """
        super().__init__(parse)
        self._time = time
        self._periods = {command.encode(): period for command, period in periods.items()}
        self._convention = "ansi" if "ansi" in accepted else ""
        self._systems = frozenset(system.encode() for system in systems)
        self._keys: dict[bytes, _Keys | None] = {}
        self._known = 0

    def pointers(self, payload: bytes, port: int | None) -> list[Path]:  # noqa: ARG002 - as `Columnar` has it
        """Return the pointer of each value in the tree."""
        return self._form(payload)[1].pointers

    @staticmethod
    def count_planned(frames: int) -> None:
        """Count frames that are decoded without their trees."""
        metrics.FRAME_CHECKS.labels("hj212", "ansi").inc(frames)

    def flatten(self, payload: bytes, port: int | None) -> tuple[Hashable, Sequence[Any]]:  # noqa: ARG002 - the same
        """Return (form, values). Raises `Rejected` if the frame has no form."""
        parts, form = self._form(payload)
        qn = parts[form.qn] if form.qn >= 0 else None
        flag = _FLAGS.get(parts[form.flag]) if form.flag >= 0 else (0, False)
        if (qn is not None and not (len(qn) == 17 and qn.isdigit())) or flag is None:
            raise _no_form()
        if self._systems and (form.st < 0 or parts[form.st] not in self._systems):
            raise _no_form()
        if not _FIRST_PACKET.issuperset(form.packets(parts)):
            raise _no_form()
        time = None
        if form.time >= 0:
            raw = parts[form.time]
            if len(raw) != 14:
                raise _no_form()
            time = self._time(raw.decode())
        numbers = form.numbers(parts)
        if b"".join(numbers).translate(None, _NUMERIC) or len(max(numbers, key=len)) > _DIGITS_MAX:
            raise _no_form()
        try:
            values = map(float, numbers)
            words = form.texts(parts)
            texts = b";".join(words).decode().split(";") if words else ()
            sample_times = [self._time(part.decode()) for part in form.sample_times(parts)]
            return form, (
                qn and qn.decode(),
                time,
                *flag,
                *values,
                *texts,
                *sample_times,
                *form.constants,
            )
        except ValueError:
            raise _no_form() from None

    def _form(self, payload: bytes) -> tuple[list[bytes], _Form]:
        """Return the parts between separators, and the form. Raises `Rejected`."""
        frame = payload.rstrip(_END)
        data, crc, digits = frame[_HEAD:-_CRC], frame[-_CRC:], frame[2:_HEAD]
        if not (self._convention and frame.startswith(b"##") and digits == b"%04d" % len(data)):
            raise _no_form()
        if data.translate(None, _VISIBLE) or b"%04X" % crc_hj212(data) != crc.upper():
            raise _no_form()
        separators = data.translate(None, _NOT_SEPARATORS)
        parts = data.translate(_UNIFIED).split(b";")
        keys = self._keys.get(separators, ...)
        if keys is ... and len(self._keys) < FORMS_MAX:
            keys = self._keys[separators] = _keys(separators)
        if keys is ... or keys is None:
            raise _no_form()
        names = keys.get(parts)
        layout = keys.layouts.get(names)
        if layout is None:
            layout = _Layout(_place_of(names, keys.head, b"CN"), {})
        sent = parts[layout.command] if layout.command >= 0 else b""
        form = layout.forms.get(sent, ...)
        if form is ... and self._known < FORMS_MAX:
            self._known += 1
            form = layout.forms[sent] = self._make(names, keys.head, self._periods.get(sent, ""))
            keys.layouts[names] = layout
        if form is ... or form is None:
            raise _no_form()
        return parts, form

    def _make(self, names: tuple[bytes, ...], head: int, period: str) -> _Form | None:
        """Return the form of frames with these keys; None: they are not planned."""
        head_names, content_names = names[:head], names[head:-1]
        if len(set(names)) < len(names) or not all(names) or names[-1] != b"CP":
            return None
        factors: list[tuple[str, str, str, int]] = []
        members: list[tuple[str, int]] = []
        qualifiers: dict[str, dict[str, int]] = {}
        for number, key in enumerate(content_names):
            place = _place(head + number, head)
            code, dash, kind = key.rpartition(b"-")
            if not dash:
                members.append((key.decode(), place))
            elif kind in _QUALIFIERS:
                qualifiers.setdefault(code.decode(), {})[_QUALIFIERS[kind]] = place
            else:
                factors.append((code.decode(), kind.decode(), key.decode(), place))
        if not factors:
            return None
        places = {key: _place_of(names, head, key) for key in (b"QN", b"ST", b"CN", b"MN", b"Flag")}
        time = next((place for key, place in members if key == "DataTime"), -1)
        odd = [word for key, word in ((b"QN", "qn"), (b"Flag", "flag")) if key not in head_names]
        texts: list[tuple[Path, int]] = [((key.decode().lower(),), places[key]) for key in (b"ST", b"CN", b"MN")]
        constants: list[tuple[Path, Any]] = [(pointer, "") for pointer, place in texts if place < 0]
        texts = [(pointer, place) for pointer, place in texts if place >= 0]
        texts += [(("content", key), place) for key, place in members]
        constants += [(("packets",), 1), (("packet",), 1), (("crc",), self._convention)]
        constants += [(("odd", number), word) for number, word in enumerate(odd)]
        sample_times: list[tuple[Path, int]] = []
        for number, (factor, of_value, whole, _) in enumerate(factors):
            pointer = ("values", number)
            name = f"{factor}-{period}-{of_value}" if period else whole
            named = (("name", name), ("code", factor), ("kind", of_value))
            constants += [((*pointer, word), text) for word, text in named]
            qualifier = qualifiers.get(factor, {})
            if "flag" not in qualifier:
                constants.append(((*pointer, "flag"), None))
            texts += [((*pointer, word), qualifier[word]) for word in ("flag", "eflag") if word in qualifier]
            if "sample_time" in qualifier:
                sample_times.append(((*pointer, "sample_time"), qualifier["sample_time"]))
        pointers: list[Path] = [
            ("qn",),
            ("time",),
            ("version",),
            ("answer",),
            *(("values", number, "value") for number in range(len(factors))),
            *(pointer for pointer, _ in texts),
            *(pointer for pointer, _ in sample_times),
            *(pointer for pointer, _ in constants),
        ]
        packets = [_place_of(names, head, key) for key in (b"PNUM", b"PNO") if key in head_names]
        return _Form(
            qn=places[b"QN"],
            st=places[b"ST"],
            flag=places[b"Flag"],
            time=time,
            packets=_getter(packets),
            numbers=_getter([place for *_, place in factors]),
            texts=_getter([place for _, place in texts]),
            sample_times=_getter([place for _, place in sample_times]),
            constants=tuple(constant for _, constant in constants),
            pointers=pointers,
        )


def _keys(separators: bytes) -> _Keys | None:
    """Return where the keys stand among the parts of ``key=value;…;CP=&&key=value,…&&``; None: elsewhere."""
    head, opening, content = separators.partition(b"=&&")
    content, closing, rest = content[:-2], content[-2:], b""
    pairs, members = head.count(b"="), content.count(b"=")
    is_plain = head == b"=;" * pairs and closing == b"&&" and not rest and opening
    if not is_plain or not members or len(separators) > _PARTS_MAX or b"&" in content:
        return None
    if content.replace(b",", b";").rstrip(b";") != (b"=;" * members)[:-1] or len(content) > 2 * members:
        return None
    places = [2 * number for number in range(pairs)] + [_place(pairs + number, pairs) - 1 for number in range(members)]
    return _Keys(_getter([*places, 2 * pairs]), pairs, {})


def _place(number: int, head: int) -> int:
    """Return the place of the value of a key: after ``CP`` follow two empty parts."""
    return 2 * number + 1 + (3 if number >= head else 0)


def _place_of(names: tuple[bytes, ...], head: int, key: bytes) -> int:
    """Return the place of the value of a key before the content; -1: there is none."""
    return _place(names.index(key), head) if key in names[:head] else -1


def _no_form() -> Rejected:
    """Return a new error each time: an error that is raised again keeps every traceback."""
    return Rejected(QuarantineReason.MALFORMED, "the frame has no form for columns")
