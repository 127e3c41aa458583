"""Memory of Sparkplug sessions: their size counts properties and names; shared definitions have a limit."""

from __future__ import annotations

from sensegate.decode.formats.sparkplug_session import Birth, BirthModels, MetricDefinition, NodeSession


def birth_of(name: str, models: BirthModels | None = None, **properties: object) -> Birth:
    known = MetricDefinition(name, 9, properties)
    return (models or BirthModels()).numbered(Birth({name: known}, {1: known}, 1))


def test_a_birth_is_as_large_as_its_properties() -> None:
    """Texts of properties are most of a birth: a size without them would let a node fill the memory."""
    plain = birth_of("a").size
    assert birth_of("a", note="x" * 50_000).size > plain + 50_000
    assert birth_of("a", members={"list": ["x" * 50_000]}).size > plain + 50_000
    assert birth_of("a", members={str(number): number for number in range(1_000)}).size > plain + 50_000


def test_shared_definitions_are_limited() -> None:
    """Definitions that are kept for the births to come take no more than their limit; equal ones take it once."""
    models = BirthModels(bytes_max=250_000)
    numbers = [birth_of("a", models, note=f"{number:06}" * 10_000).model for number in range(4)]
    assert numbers == [1, 2, 0, 0]
    assert birth_of("a", models, note="000001" * 10_000).model == 2
    assert birth_of("b", models).model == 3


def test_the_size_of_a_session_is_the_sum_of_its_parts() -> None:
    """A birth or a death changes the size by its own part; without the device it is as large as before."""
    empty = NodeSession(sequence=0)
    session = empty.with_birth("", birth_of("node")).with_birth("p", birth_of("a", note="x" * 5_000))
    assert session.with_birth("p", birth_of("a", note="x" * 5_000)).size == session.size > 5_000
    smaller = session.with_birth("p", birth_of("a"))
    assert smaller.size < session.size - 5_000
    assert smaller.without_device("p").size == empty.with_birth("", birth_of("node")).size
    assert smaller.without_device("q").size == smaller.size


def test_names_of_devices_count() -> None:
    """Devices stay online through a birth of their node: their names count, or they would grow without limit."""
    session = NodeSession(sequence=0)
    for number in range(100):
        session = session.with_birth(f"{number:03}" * 100, birth_of("a")).without_births(0)
    assert len(session.online) == 100
    assert session.size > 30_000
