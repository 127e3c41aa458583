"""Payload formats: text, SenML, and the depth of JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.formats import FORMATS, json, senml, text
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.errors import ProfileError, Rejected
from sensegate.model import QuarantineReason
from sensegate.quantities import units


def _error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    return ProfileError(problem, key=str(path), remedy=remedy)


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(payload=st.binary(max_size=80))
def test_format_gives_a_tree_or_a_reason(name: str, payload: bytes) -> None:
    """On any bytes a format raises `Rejected` with a word of the table, or nothing."""
    form = FORMATS[name]
    if form.required:
        pytest.skip("its own test gives it options")
    parse = form.compile(None, FormatContext("vendor/model", 1, Path(), _error))
    reason: str = QuarantineReason.MALFORMED
    try:
        parse(PayloadFrame(payload, 16))
    except Rejected as error:
        reason = error.reason
    assert reason in list(QuarantineReason)


def test_text_is_stripped_and_must_be_there() -> None:
    """White space around a word means nothing; nothing at all is malformed."""
    assert text.parse(b" Online\n") == "Online"
    with pytest.raises(Rejected, match="malformed"):
        text.parse(b" \n")


@pytest.mark.parametrize(
    ("payload", "deep"), [(b"1", 0), (b"[]", 1), (b'{"a":[1,[2]]}', 3), (b'["[[[", "\\"[["]', 1), (b"][", 0)]
)
def test_depth_counts_brackets_outside_text(payload: bytes, deep: int) -> None:
    """Brackets in strings, also behind escaped quotes, do not nest."""
    assert json.depth(payload) == deep


PACKS: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        [{"bn": "urn:d:", "bt": 10, "bu": "A", "bv": 5, "n": "a", "v": 1}, {"n": "b", "t": -3, "u": "V", "vs": "x"}],
        [
            {"name": "urn:d:a", "bn": "urn:d:", "n": "a", "t": 10, "u": "A", "v": 6},
            {"name": "urn:d:b", "bn": "urn:d:", "n": "b", "t": 7, "u": "V", "vs": "x"},
        ],
    ),
    ([{"bn": "urn:d:"}, {"n": "a", "vb": True}], [{"name": "urn:d:a", "bn": "urn:d:", "n": "a", "t": 0, "vb": True}]),
    ([{"n": "s", "bs": 2, "s": 3}], [{"name": "s", "bn": "", "n": "s", "t": 0, "s": 5}]),
]


@pytest.mark.parametrize(("pack", "records"), PACKS)
def test_senml_base_fields_are_resolved(pack: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """Base name, time, unit, value and sum apply to their own and the following records (RFC 8428, 4.6)."""
    ours = ("ucum", "device", "bases")
    assert [{k: v for k, v in record.items() if k not in ours} for record in senml.resolve(pack)] == records


@pytest.mark.parametrize(
    ("unit", "ucum", "target", "value"),
    [
        ("/", "1", "%", 50), ("%RH", "%", "%", 0.5), ("/100", "%", "%", 0.5), ("count", "1", "1", 0.5),
        ("beats", "1", "1", 0.5), ("beat/min", "/min", "/min", 0.5), ("lat", "deg", "deg", 0.5), ("EL", "s", "s", 0.5),
        ("Ah", "A.h", "A.h", 0.5), ("kVAh", "kV.A.h", "V.A.h", 500), ("vars", "V.A.s", "V.A.s", 0.5),
        ("dBW", "dB[W]", "dB", 30.5), ("dBm", "dB", "dB", 0.5), ("Bspl", "B[SPL]", "dB", 5), ("B", "By", "By", 0.5),
        ("KiB", "KiBy", "By", 512), ("Mbit/s", "Mbit/s", "bit/s", 500_000), ("Wh/km", "W.h/km", "J/m", 1.8),
        ("var", "V.A", "V.A", 0.5), ("l/s", "L/s", "m3/h", 1.8), ("m", "m", "mm", 500), ("Cel", "Cel", "Cel", 0.5),
        ("ppt", "[pptr]", "1", 5e-13), ("mg/l", "mg/L", "mg/L", 0.5), ("kvarh", "kV.A.h", "V.A.h", 500),
    ],
)  # fmt: skip
def test_senml_units_are_those_of_its_registry(unit: str, ucum: str, target: str, value: float) -> None:
    """Units of RFC 8428 and RFC 8798 become UCUM codes that convert."""
    [record] = senml.resolve([{"n": "a", "u": unit, "v": 0.5}])
    assert (record["u"], record["ucum"]) == (unit, ucum)
    scale, offset = units.conversion(record["ucum"], target)
    assert 0.5 * scale + offset == pytest.approx(value)


REGISTRY = """
    m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2
    cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m B VA VAs var vars J/m
    kg/m3 deg NTU ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3
    mm/h m/h ppm /100 /1000 hPa mm cm km km/h ppb ppt VAh mg/l ug/l g/l
""".split()  # noqa: SIM905 - more readable than a list


@pytest.mark.parametrize("unit", REGISTRY)
def test_every_unit_of_the_registry_is_known(unit: str) -> None:
    """Each unit of SenML's registry has a dimension here."""
    [record] = senml.resolve([{"n": "a", "u": unit, "v": 1}])
    assert units.dimension(record["ucum"])


def test_senml_base_names_tell_devices_apart() -> None:
    """A pack of two base names is one of two devices; records of one base name are one device's."""
    pack = [{"bn": "urn:dev:mac:01:", "n": "t", "v": 1}, {"bn": "urn:dev:mac:02_", "n": "t", "v": 2}]
    assert [(record["device"], record["bases"]) for record in senml.resolve(pack)] == [
        ("urn:dev:mac:01", 2),
        ("urn:dev:mac:02", 2),
    ]
    assert [record["bases"] for record in senml.resolve([{"bn": "a:", "n": "t", "v": 1}, {"n": "h", "v": 1}])] == [1, 1]


@pytest.mark.parametrize(
    "record",
    [
        {"n": "a", "v": 1, "vs": "x"},
        {"n": "a", "vb": True, "vd": "eA"},
        {"n": "-a", "v": 1},
        {"n": ".a", "v": 1},
        {"n": "a b", "v": 1},
        {"n": "", "v": 1},
        {"v": 1},
    ],
)
def test_senml_records_against_the_rules_are_refused(record: dict[str, Any]) -> None:
    """More than one value, and names that the RFC does not allow (4.2, 4.5.1)."""
    with pytest.raises(Rejected) as caught:
        senml.records([record])
    assert caught.value.reason == QuarantineReason.SCHEMA
    assert senml.records([{"bn": "urn:dev:a:", "n": "-a", "v": 1}])


@pytest.mark.parametrize(
    "pack",
    [b"{}", b"[]", b"[1]", b'[{"n":1}]', b'[{"n":"a","v":"1"}]', b'[{"n":"a","vb":1}]', b'[{"bver":11,"n":"a"}]'],
)
def test_what_is_no_pack_is_refused(pack: bytes) -> None:
    """Wrong types, a version of the future, and members that must be understood are refused."""
    with pytest.raises(Rejected, match="schema"):
        senml.parse(pack, 16)
