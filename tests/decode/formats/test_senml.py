"""SenML by RFC 8428 and the registry of its units: sizes of all units, and packs of strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sensegate.authoring.examples import check_profile
from sensegate.decode.formats import senml
from sensegate.errors import Rejected
from sensegate.quantities import units

REFERENCES = """
    m 1 m; kg 1 kg; g 0.001 kg; s 1 s; A 1 A; K 1 K; Hz 1 Hz; rad 57.29577951308232 deg; N 1 N; Pa 1 Pa; J 1 J
    W 1 W; C 1 C; V 1 V; Ohm 1 Ohm; T 1 T; Cel 1 Cel; lx 1 lx; m2 1 m2; m3 1 m3; l 0.001 m3; m/s 1 m/s
    m/s2 1 m/s2; m3/s 1 m3/s; l/s 0.001 m3/s; W/m2 1 W/m2; lat 1 deg; lon 1 deg; pH 1 [pH]; dB 1 dB; Bspl 10 dB
    count 1 1; / 100 %; % 1 %; %RH 1 %; %EL 1 %; EL 1 s; 1/s 1 Hz; 1/min 1 /min; beat/min 1 /min; beats 1 1
    S/m 10 mS/cm; B 1 By; VA 1 V.A; var 1 V.A; VAs 0.001 kV.A.s; vars 0.001 kV.A.s; kg/m3 1 kg/m3; deg 1 deg
    NTU 1 [NTU]; ms 0.001 s; min 60 s; h 3600 s; MHz 1000000 Hz; kW 1000 W; kVA 1000 V.A; kvar 1000 V.A; Ah 3600 C
    Wh 0.001 kW.h; kWh 1 kW.h; varh 0.001 kV.A.h; kvarh 1 kV.A.h; kVAh 1 kV.A.h; KiB 1024 By; GB 1000000000 By
    MB/s 1000000 By/s; mV 0.001 V; mA 0.001 A; dBm 1 dB; ug/m3 1 ug/m3; mm/h 1 mm/h; m/h 1000 mm/h; ppm 1 [ppm]
    ppb 0.001 [ppm]; /100 1 %; /1000 0.1 %; hPa 1 hPa; mm 0.001 m; cm 0.01 m; km 1000 m; km/h 1 km/h; J/m 1 J/m
    Wh/km 3.6 J/m; mg/l 1 mg/L; ug/l 0.001 mg/L; g/l 1 g/L; lm 1 lm; cd/m2 1 cd/m2; Bq 1 Bq; Sv 1 Sv; Gy 1 Gy
    kat 1 kat; mol 1 mol; H 1 H; F 1 F; S 1 S; Wb 1 Wb; sr 1 sr; cd 1 cd; bit/s 1 bit/s; Mbit/s 1000000 bit/s
    B/s 8 bit/s; bit 0.125 By
"""


@pytest.mark.parametrize("row", [row.split() for line in REFERENCES.strip().splitlines() for row in line.split(";")])
def test_a_unit_of_the_registry_has_its_size(row: list[str]) -> None:
    """So many of the unit beside it are one of the registry's."""
    unit, size, reference = row
    [record] = senml.resolve([{"n": "a", "u": unit, "v": 1}])
    assert units.conversion(record["ucum"], reference)[0] == pytest.approx(float(size))


PACKS: list[tuple[str, list[dict[str, Any]], list[tuple[str, Any, Any, Any]] | None]] = [
    ("a base value alone is a value", [{"bn": "d:", "bv": 20, "n": "a", "v": 1.5}, {"n": "b"}],
     [("d:a", 21.5, None, 0), ("d:b", 20, None, 0)]),
    ("a record of base fields alone is none", [{"bn": "d:", "bt": 1e9, "bu": "Cel"}, {"n": "a", "v": 1}],
     [("d:a", 1, "Cel", 1e9)]),
    ("times add, also relative ones", [{"bt": -10, "n": "a", "v": 1, "t": -5}], [("a", 1, None, -15)]),
    ("a base time stays", [{"bt": 1767225600.5, "n": "a", "v": 1}, {"n": "b", "v": 2, "t": -5}],
     [("a", 1, None, 1767225600.5), ("b", 2, None, 1767225595.5)]),
    ("a unit of a record is its own",
     [{"bu": "Cel", "n": "a", "v": 1}, {"n": "p", "u": "Pa", "v": 2}, {"n": "c", "v": 3}],
     [("a", 1, "Cel", 0), ("p", 2, "Pa", 0), ("c", 3, "Cel", 0)]),
    ("a base name alone is a name", [{"bn": "urn:dev:ow:10e2", "v": 1}], [("urn:dev:ow:10e2", 1, None, 0)]),
    ("a base name is replaced",
     [{"bn": "a:", "n": "t", "v": 1}, {"bn": "b:", "n": "t", "v": 2}, {"n": "h", "v": 3}],
     [("a:t", 1, None, 0), ("b:t", 2, None, 0), ("b:h", 3, None, 0)]),
    ("what is unknown is left", [{"n": "a", "v": 1, "foo": 3, "ut": 60}], [("a", 1, None, 0)]),
    ("a newer version is refused", [{"bver": 11, "n": "a", "v": 1}], None),
    ("what must be understood is refused", [{"n": "a", "v": 1, "foo_": 3}], None),
    ("a sum that no number holds is refused", [{"bv": 1e308, "n": "a", "v": 1e308}], None),
    ("a value in text is refused", [{"n": "a", "v": "1"}], None),
]  # fmt: skip


@pytest.mark.parametrize(("pack", "expected"), [row[1:] for row in PACKS], ids=[row[0] for row in PACKS])
def test_packs(pack: list[dict[str, Any]], expected: list[tuple[str, Any, Any, Any]] | None) -> None:
    """Rules of RFC 8428, sections 4.1 to 4.6."""
    if expected is None:
        with pytest.raises(Rejected):
            senml.records(pack)
        return
    rows = [(record["name"], record.get("v"), record.get("u"), record["t"]) for record in senml.records(pack)]
    assert rows == expected


def test_a_base_name_is_short() -> None:
    """A base name is repeated in each record: a message of 300 KB with a long one took two gigabytes of memory."""
    pack = [{"bn": "b" * senml.BASE_NAME_MAX, "n": "t", "v": 1}, {"n": "u" * 2_000, "v": 2}]
    assert [len(record["name"]) for record in senml.records(pack)] == [1_025, 3_024]
    with pytest.raises(Rejected, match=r"record 0: 'bn' has more than 1,024 characters"):
        senml.records([{"bn": "b" * (senml.BASE_NAME_MAX + 1), "n": "t", "v": 1}])


UNIT_PROFILE = """profile: acme/senml
version: 1
label: {zh: x, en: x}
source: this test
format: senml
messages:
  - topics: ["x/{device}"]
    each: "."
    named: {name: n, value: [v], unit: u}
    readings:
      - {field: used, property: free_memory, unit: By}
      - {field: level, property: fill_level, unit: "%"}
      - {field: lat, property: latitude, unit: deg}
      - {field: lon, property: longitude, unit: deg}
examples:
  - label: units of the registry
    topic: x/d1
    payload: [{"n": "used", "u": "KiB", "v": 2}, {"n": "level", "u": "/", "v": 0.5},
      {"n": "lat", "u": "lat", "v": 23.5}, {"n": "lon", "u": "lon", "v": 113.25}]
    expect:
      - {property: free_memory, value: 2048}
      - {property: fill_level, value: 50}
      - {property: latitude, value: 23.5}
      - {property: longitude, value: 113.25}
  - label: no pack
    topic: x/d1
    payload: []
    refuse: schema
"""


def test_a_profile_may_name_the_unit_as_senml_does(tmp_path: Path) -> None:
    """`unit: u` is the registry's symbol: `B` is a byte, `/` a ratio."""
    file = tmp_path / "acme" / "senml.yaml"
    file.parent.mkdir()
    file.write_text(UNIT_PROFILE, encoding="utf-8")
    assert [str(problem) for problem in check_profile(file)] == []
