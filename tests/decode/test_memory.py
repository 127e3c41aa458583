"""What decoding remembers: bounded, and undone when a walk counts for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.memory import REQUESTS_MAX, DecoderMemory, DeviceRequest


def test_values_are_kept_replaced_and_dropped() -> None:
    """By key; what was never put or was dropped is None."""
    memory = DecoderMemory()
    memory.put(("x", "a"), 1, 10)
    memory.put(("x", "a"), 2, 20)
    assert (memory.get(("x", "a")), memory.size, len(memory)) == (2, 20, 1)
    memory.drop(("x", "a"))
    assert (memory.get(("x", "a")), memory.size, len(memory)) == (None, 0, 0)


def test_the_least_lately_used_goes_first() -> None:
    """Beyond the bound in number or in bytes; to be asked for counts as use."""
    memory = DecoderMemory(entries_max=2)
    for name in "ab":
        memory.put(("x", name), name, 1)
    assert memory.get(("x", "a")) == "a"
    memory.put(("x", "c"), "c", 1)
    assert [memory.get(("x", name)) for name in "abc"] == ["a", None, "c"]
    narrow = DecoderMemory(bytes_max=100)
    for name in "abc":
        narrow.put(("x", name), name, 40)
    assert [narrow.get(("x", name)) for name in "abc"] == [None, "b", "c"]
    narrow.put(("x", "huge"), "huge", 101)
    assert narrow.get(("x", "huge")) is None
    assert narrow.get(("x", "b")) == "b"


def test_a_large_value_does_not_cost_the_values_of_others() -> None:
    """One node may announce devices without end; its own state is dropped where there is no more room."""
    memory = DecoderMemory()
    for number in range(100):
        memory.put(("x", f"small {number}"), number, 2_000)
    for step in range(1, 200):
        memory.put(("x", "huge"), step, step * 1024**2)
    assert memory.get(("x", "huge")) is None
    assert [memory.get(("x", f"small {number}")) for number in range(100)] == list(range(100))
    memory.put(("x", "huge"), 1, 100 * 1024**2)
    assert memory.get(("x", "huge")) == 1  # there is room


def test_without_marks_nothing_is_kept_to_be_undone() -> None:
    """A decoder that never rewinds (explain, tests, a decoder of the past) must not grow."""
    memory = DecoderMemory()
    for at in range(1_000):
        memory.put(("x", "a"), at, 1)
    assert memory.savepoint() == 0
    memory.rollback()
    assert memory.get(("x", "a")) == 999


def test_what_is_settled_stays() -> None:
    """A rewind goes back to what was committed, not further."""
    memory = DecoderMemory(undoable=True)
    memory.put(("x", "a"), 1, 1)
    first = memory.savepoint()
    memory.put(("x", "a"), 2, 1)
    memory.put(("x", "b"), 2, 1)
    memory.release(first)
    memory.rollback()
    assert (memory.get(("x", "a")), memory.get(("x", "b"))) == (1, None)
    memory.rollback()
    assert memory.get(("x", "a")) == 1


def test_what_was_crowded_out_comes_back() -> None:
    """Undoing gives back also what had to go meanwhile."""
    memory = DecoderMemory(entries_max=1, undoable=True)
    memory.put(("x", "a"), 1, 1)
    mark = memory.savepoint()
    memory.put(("x", "b"), 2, 1)
    assert memory.get(("x", "a")) is None
    memory.rollback(mark)
    assert (memory.get(("x", "a")), memory.get(("x", "b"))) == (1, None)


changes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9)), max_size=8)


@given(st.lists(changes, min_size=1, max_size=5), st.data())
def test_memory_is_that_of_the_walks_that_count(walks: list[list[tuple[str, int | None]]], data: st.DataObject) -> None:
    """Walks are settled in their order, or all that are not settled are undone, as the ingest does; against a dict."""
    memory = DecoderMemory(undoable=True)
    settled: dict[str, int | None] = {}
    open_: list[tuple[int, dict[str, int | None]]] = []
    now: dict[str, int | None] = {}
    for walk in walks:
        for name, value in walk:
            if value is None:
                memory.drop(("x", name))
            else:
                memory.put(("x", name), value, 1)
            now[name] = value
        open_.append((memory.savepoint(), dict(now)))
        result = data.draw(st.sampled_from(["go on", "settle", "lose"]))
        if result == "settle":
            mark, settled = open_.pop(0)
            memory.release(mark)
        elif result == "lose":
            memory.rollback()
            open_.clear()
            now = dict(settled)
        for name in "abc":
            assert memory.get(("x", name)) == now.get(name)


def test_a_copy_goes_its_own_way() -> None:
    """It begins with what the other holds; neither hears of the other from then on."""
    memory = DecoderMemory(undoable=True)
    memory.put(("x", "a"), 1, 10)
    other = memory.copy(hindsight=True)
    other.put(("x", "b"), 2, 10)
    memory.put(("x", "a"), 3, 10)
    assert (other.get(("x", "a")), other.get(("x", "b")), other.size, other.hindsight) == (1, 2, 20, True)
    assert (memory.get(("x", "a")), memory.get(("x", "b")), memory.size, memory.hindsight) == (3, None, 10, False)


def test_a_question_waits_once_and_so_many_wait() -> None:
    """Until they are taken; a flood of questions is bounded."""
    memory = DecoderMemory()
    for payload in (b"1", b"2"):
        memory.request(DeviceRequest("a/down", payload, "a/up"))
    for at in range(REQUESTS_MAX + 5):
        memory.request(DeviceRequest(f"b{at}/down", b"", ""))
    asks = memory.take_requests()
    assert (len(asks), asks[0].payload) == (REQUESTS_MAX, b"1")
    assert memory.take_requests() == []
