"""The packs of RFC 8428, in JSON and in CBOR: the resolved records are those of section 4.6, and their times are dated.

The packs are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `mqtt/senml.jsonl`.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sensegate.decode.formats import FORMATS
from sensegate.decode.frame import FormatContext, PayloadFrame
from sensegate.decode.times import TimeReader
from sensegate.errors import ProfileError
from sensegate.quantities.quality import TimeQuality

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
RECEIVED = 1_767_225_600_000_000
TIMES = TimeReader(formats=("senml",))

pytestmark = pytest.mark.skipif(
    not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with mqtt/senml.jsonl"
)


def samples() -> dict[str, dict[str, Any]]:
    if not SAMPLES:
        return {}
    text = (Path(SAMPLES) / "mqtt" / "senml.jsonl").read_text(encoding="utf-8")
    return {sample["topic"]: sample for sample in map(json.loads, text.splitlines())}


def records(sample: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what our decoder makes of a pack, in the form of `expected`."""
    binary = "payload_b64" in sample
    payload = base64.b64decode(sample["payload_b64"]) if binary else sample["payload"].encode()
    assert sample["content_format"].endswith("+cbor" if binary else "+json")
    setting = FormatContext(
        "vendor/model", 1, Path(), lambda problem, *_, remedy="": ProfileError(problem, remedy=remedy)
    )
    parse = FORMATS["senml_cbor" if binary else "senml"].compile(None, setting)
    parsed = []
    for record in parse(PayloadFrame(payload, 32)):
        time, quality = TIMES.parse(record["t"], RECEIVED)
        if quality == TimeQuality.DERIVED:
            assert time == RECEIVED
        else:
            assert quality == TimeQuality.DEVICE
            assert time == round(record["t"] * 1e6)
        t = "now" if quality == TimeQuality.DERIVED else pytest.approx(time / 1e6, abs=1e-6)
        values = {key: record[key] for key in ("v", "vs", "vb", "vd") if key in record}
        parsed.append({"n": record["name"], "t": t, **({"u": record["u"]} if "u" in record else {}), **values})
    return parsed


@pytest.mark.parametrize("sample", samples().values(), ids=samples().keys())
def test_a_pack_becomes_its_resolved_records(sample: dict[str, Any]) -> None:
    """Names, units, values and times, record for record."""
    assert records(sample) == sample["expected"]


def test_both_forms_of_a_pack_are_the_same() -> None:
    """Where a pack is there in both forms, it gives the same records."""
    known = samples()
    pairs = [(known[topic], known[f"{topic}/cbor"]) for topic in known if f"{topic}/cbor" in known]
    assert len(pairs) >= 4
    for as_json, as_cbor in pairs:
        assert records(as_json) == records(as_cbor)
