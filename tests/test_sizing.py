"""`sensegate size`: by measured costs, and more devices never need less."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.cli.sizing import MEASURED, Demand, estimate
from tests.bench import results


def test_the_costs_are_those_that_were_measured() -> None:
    """Each cost stands in the results of the benchmarks; a new measurement must be entered in both."""
    measured = results.latest()
    latency, memory, start, uplink = (measured[name] for name in ("latency", "memory", "start", "uplink"))
    assert latency["cpu_us_per_message"] == MEASURED.cpu_us_per_message
    light = latency["rows"][0]
    assert (light["rate"], light["cpu_us_per_message"]) == (
        MEASURED.light_messages_per_s,
        MEASURED.light_cpu_us_per_message,
    )
    assert latency["idle_rate"] == MEASURED.idle_messages_per_s
    assert latency["idle_cpu_us_per_message"] == MEASURED.idle_cpu_us_per_message
    assert latency["baseline"] == MEASURED.messages_per_s_max
    assert memory["base_mb"] == MEASURED.base_mb
    assert memory["figure"] == MEASURED.bytes_per_series
    assert start["store_mb"] * 1e6 / start["readings"] == pytest.approx(MEASURED.bytes_per_reading, abs=0.05)
    assert uplink["figure"] == MEASURED.link_bytes_per_reading


@given(st.integers(1, 10**7), st.integers(0, 10**7), st.floats(0.1, 3_600), st.booleans())
def test_more_devices_never_need_less(devices: int, more: int, interval_s: float, tls: bool) -> None:  # noqa: FBT001
    """Monotonic in the number of devices; TLS never needs less than plain."""
    small = estimate(Demand(devices, interval_s, tls=tls))
    large = estimate(Demand(devices + more, interval_s, tls=tls))
    assert large.nodes >= small.nodes
    assert large.cores * (1 + 1e-12) >= small.cores  # sums of floats
    assert large.cores >= large.light_cores
    assert large.link_mbit_s >= small.link_mbit_s
    assert large.memory_gib >= small.memory_gib * 0.999
    assert estimate(Demand(devices, interval_s, tls=True)).memory_gib >= small.memory_gib


def test_a_city_of_five_million() -> None:
    """Once a minute: 83,000 messages a second are three nodes at half load; the committer is what they share out."""
    result = estimate(Demand(5_000_000, 60))
    assert round(result.messages_per_s) == 83_333
    assert result.nodes == 3
    assert 5_000_000 / result.nodes <= dict(result.limits)["committer (more nodes: a member id and areas each)"]


def test_the_return_after_a_storm_is_what_the_bench_measured() -> None:
    """15,000 devices by one front, plain: the calculation is not more hopeful than `storm`, and not a quarter worse."""
    storm = results.latest()["storm"]
    result = estimate(Demand(storm["plain"]["served"], 60))
    assert result.fronts == storm["plain_processes"]
    assert storm["plain"]["back_s"] <= result.return_s <= 1.25 * storm["plain"]["back_s"]


def test_few_messages_cost_more_each() -> None:
    """80,000 devices once a minute: a gateway commits each few at once while its cores are idle, and says so."""
    result = estimate(Demand(80_000, 60))
    assert result.cores == result.light_cores > 0.5
    busy = estimate(Demand(80_000, 4))
    assert busy.cores > busy.light_cores
    assert busy.cores < 15 * result.cores


def test_the_command_says_what_gives_out() -> None:
    """The first limit comes first."""
    result = CliRunner().invoke(app, ["size", "--devices", "100000", "--interval", "60", "--replicas", "3"])
    assert result.exit_code == 0, result.output
    assert "1, on 3 machines" in result.output
    at = [int(line.split()[1].replace(",", "")) for line in result.output.splitlines() if line.startswith("  at ")]
    assert at == sorted(at)
    assert len(at) == 4
