"""What the encoder of the tests writes, a layout reads: every kind of element, in any order and nesting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sensegate.decode.frame import PayloadFrame
from sensegate.decode.layout.layout import Layout
from sensegate.decode.paths import walk
from sensegate.errors import Rejected
from tests.decode.layout.made import Made, Steps, frames, layout


def tree_of(made: Layout, data: bytes, port: int | None = None) -> Any:
    return made(PayloadFrame(data, 16, port=port))


def typed(tree: Any) -> Any:
    """Return a tree in which 1, 1.0 and true are not the same."""
    if isinstance(tree, dict):
        return {key: typed(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [typed(value) for value in tree]
    return (type(tree), "nan" if tree != tree else tree)  # noqa: PLR0124 # NaN is not itself


@given(frames())
def test_what_was_encoded_is_decoded(made: Made) -> None:
    """The tree is exactly what the encoder meant, member for member and type for type."""
    tree = tree_of(layout(read=made.steps), made.data)
    assert typed(tree) == typed(made.tree)


@given(frames())
def test_values_of_the_quick_path_are_those_of_the_tree(made: Made) -> None:
    """`flatten` gives the leaves of the tree, each where `pointers` says, and the same branches for the same frame."""
    compiled = layout(read=made.steps)
    branches, values = compiled.flatten(made.data, None)
    pointers = compiled.pointers(made.data, None)
    assert len(pointers) == len(values) == len(set(pointers))
    for pointer, value in zip(pointers, values, strict=True):
        assert walk(made.tree, pointer) == value
    assert hash(branches) == hash(compiled.flatten(made.data, None)[0])


def refusal_of(read: Callable[[], object]) -> str:
    """Return the reason for which something is refused, empty where it is not."""
    try:
        read()
    except Rejected as error:
        return error.reason
    return ""


@given(frames(), st.data())
def test_a_frame_cut_short_is_refused(made: Made, data: st.DataObject) -> None:
    """A frame without its last bytes is refused, but where the layout goes to the end or leaves bytes out."""
    compiled = layout(read=made.steps)
    size = data.draw(st.integers(0, max(len(made.data) - 1, 0)))
    reason = refusal_of(lambda: tree_of(compiled, made.data[:size]))
    assert reason in {"", "malformed", "schema"}
    if size < len(made.data) and not open_ended(made.steps):
        assert reason == "malformed"


def open_ended(steps: Steps) -> bool:
    """Return whether steps may be there or not: less than all bytes may be a whole frame."""
    kinds = {"when", "switch", "repeat", "tlv"}
    return any(kinds & set(step) or step.get("size") == "rest" or open_ended(step.get("read", [])) for step in steps)


@given(frames(), st.data())
def test_any_bytes_give_a_tree_or_a_reason(made: Made, data: st.DataObject) -> None:
    """On any bytes a layout raises `Rejected` or nothing; both ways of reading agree in which."""
    compiled = layout(read=made.steps)
    result = data.draw(st.sampled_from(["random", "changed", "longer"]))
    some = data.draw(st.binary(max_size=40))
    if result == "random":
        frame = some
    elif result == "changed" and made.data:
        at = data.draw(st.integers(0, len(made.data) - 1))
        frame = made.data[:at] + some[:3] + made.data[at + 1 :]
    else:
        frame = made.data + some
    slow, quick = refusal_of(lambda: tree_of(compiled, frame)), refusal_of(lambda: compiled.flatten(frame, None))
    assert {slow, quick} <= {"", "malformed", "schema"}
    assert slow == quick or not quick  # a name that comes twice is refused in the tree only: such branches get no plan


@given(frames(), st.data())
def test_a_straight_line_gives_what_the_layout_gives(made: Made, data: st.DataObject) -> None:
    """A layout that was prepared for some frames reads those, and all others, as it did before."""
    usual, quick = layout(read=made.steps), layout(read=made.steps)
    quick.prepare(made.data, None)
    assert quick._lines[len(made.data)], "no line was made"
    assert typed(quick._lines[len(made.data)][0][1](made.data, None)) == typed(usual.flatten(made.data, None)[1])
    some = [made.data]
    for _ in range(8):
        at = data.draw(st.integers(0, max(len(made.data) - 1, 0)))
        some.append(made.data[:at] + data.draw(st.binary(min_size=1, max_size=2)) + made.data[at + 1 :])
    for frame in some:
        reason = refusal_of(lambda: usual.flatten(frame, None))  # noqa: B023 # called at once
        assert reason == refusal_of(lambda: quick.flatten(frame, None))  # noqa: B023 # called at once
        if not reason:
            assert typed(list(map(list, quick.flatten(frame, None)))) == typed(
                list(map(list, usual.flatten(frame, None)))
            )


def test_a_line_is_not_written_without_bound() -> None:
    """A repeat of thousands is read pass by pass; many lengths and branches have a bounded number of lines."""
    long = layout(read=[{"name": "a", "type": "u8"}, {"repeat": "end", "read": [{"type": "u8"}]}])
    long.prepare(bytes(3_000), None)
    assert not long._lines[3_000]
    assert long.flatten(bytes(3_000), None)[1] == [0]
    many = layout(
        read=[{"repeat": "end", "read": [{"name": "_n", "type": "u8"}, {"when": "_n", "read": [{"type": "u8"}]}]}]
    )
    for size in range(60):
        for at in range(size):
            frame = bytes(at) + b"\1" + bytes(size - at)
            many.prepare(frame, None)
            many.flatten(frame, None)
    assert sum(map(len, many._lines.values())) <= 128
    assert max(map(len, many._lines.values())) <= 8
