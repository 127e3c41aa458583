"""An encoder for layouts: hypothesis strategies that make steps, the tree they mean and the bytes, all at once.

Nothing here asks the product how bytes are written: integers are bit strings, floats come from `struct`.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from sensegate.decode.layout.layout import Layout
from sensegate.decode.layout.steps import BinaryPart
from sensegate.errors import ProfileError

Steps = list[dict[str, Any]]
ORDERS = ("big", "little")
DEPTH_MAX = 3


class Made(NamedTuple):
    """Some steps, what stands in the tree for them, and their bytes."""

    steps: Steps
    tree: dict[str, Any]
    data: bytes


def error(problem: str, /, *path: str | int, remedy: str = "") -> ProfileError:
    """Return the error at a key, as a profile's compiler does."""
    return ProfileError(problem, key=".".join(map(str, path)), remedy=remedy)


def layout(**options: Any) -> Layout:
    """Return the layout of options as they stand in YAML."""
    return Layout(msgspec.convert(options, BinaryPart), error)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────


def bits_of(family: str, width: int, value: int) -> str:
    """Return a number as it stands in bits, the most significant first."""
    if family == "bcd":
        return "".join(f"{int(digit):04b}" for digit in f"{value:0{width // 4}d}")
    if family == "m":
        return ("1" if value < 0 else "0") + f"{abs(value):0{width - 1}b}"
    return f"{value % (1 << width):0{width}b}"


def packed(fields: list[tuple[str, int, int]], order: str) -> bytes:
    """Return fields (family, width, value) one after the other as bytes."""
    texts = [bits_of(*field) for field in fields if field[1]]
    text = "".join(texts if order == "big" else reversed(texts))
    return int(text, 2).to_bytes(len(text) // 8, order)  # type: ignore[arg-type] # one of ORDERS


@st.composite
def number(draw: st.DrawFn, width: int) -> tuple[str, int]:
    """Return (family, value) of a number of so many bits."""
    families = ["u"] + (["s", "m"] if width > 1 else []) + (["bcd"] if width % 4 == 0 else [])
    family = draw(st.sampled_from(families))
    half = 1 << (width - 1)
    low, high = {
        "u": (0, 2 * half - 1),
        "s": (-half, half - 1),
        "m": (1 - half, half - 1),
        "bcd": (0, 10 ** (width // 4) - 1),
    }[family]
    return family, draw(st.one_of(st.integers(low, high), st.sampled_from([low, high, 0])))


@st.composite
def bit_run(draw: st.DrawFn, name: str) -> Made:
    """Return numbers of any width that fill whole bytes together."""
    order = draw(st.sampled_from(ORDERS))
    fields: list[tuple[str, int, int]] = []
    steps: Steps = []
    tree: dict[str, Any] = {}
    total = 0
    while not fields or total % 8:
        # the last one fills the byte up
        width = 8 - total % 8 if len(fields) > 4 else draw(st.integers(1, 64))
        family, value = draw(number(width))
        here = f"{name}{len(fields)}"
        fields.append((family, width, value))
        total += width
        step: dict[str, Any] = {"type": f"{family}{width}", "endian": order}
        if draw(st.booleans()):
            step["name"] = here
            tree[here] = value
        steps.append(step)
    return Made(steps, tree, packed(fields, order))


@st.composite
def bytes_run(draw: st.DrawFn, name: str) -> Made:
    """Return numbers of whole bytes, each in its own order."""
    made = Made([], {}, b"")
    for at in range(draw(st.integers(1, 5))):
        order = draw(st.sampled_from(ORDERS))
        width = draw(st.sampled_from([8, 16, 24, 32, 40, 48, 56, 64]))
        family, value = draw(number(width))
        here = f"{name}{at}"
        step = {"name": here, "type": f"{family}{width}", "endian": order}
        made = joined(made, Made([step], {here: value}, packed([(family, width, value)], order)))
    return made


@st.composite
def real(draw: st.DrawFn, name: str) -> Made:
    """Return an IEEE 754 number."""
    width = draw(st.sampled_from([16, 32, 64]))
    order = draw(st.sampled_from(ORDERS))
    form = ("<" if order == "little" else ">") + {16: "e", 32: "f", 64: "d"}[width]
    value = draw(st.floats(width=width, allow_nan=False))  # type: ignore[arg-type] # one of the three
    return Made([{"name": name, "type": f"f{width}", "endian": order}], {name: value}, struct.pack(form, value))


@st.composite
def bit_fields(draw: st.DrawFn, name: str) -> Made:
    """Return an integer whose bits have names."""
    width = draw(st.sampled_from([8, 16, 24, 32]))
    order = draw(st.sampled_from(ORDERS))
    whole, at, bits, tree = 0, 0, {}, {}
    while at < width:
        size = draw(st.integers(1, min(12, width - at)))
        family, value = draw(number(size).filter(lambda candidate: candidate[0] != "bcd"))
        here = f"{name}{at}"
        whole |= int(bits_of(family, size, value), 2) << at
        sign = "" if family == "u" else family
        bits[here] = f"{sign}{at}-{at + size - 1}" if size > 1 else at
        tree[here] = value
        at += size
    step: dict[str, Any] = {"type": f"u{width}", "endian": order, "bits": bits}
    if draw(st.booleans()):
        step["name"] = name
        tree = {name: whole, **tree}
    return Made([step], tree, whole.to_bytes(width // 8, order))  # type: ignore[arg-type] # one of ORDERS


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def words(draw: st.DrawFn, name: str) -> Made:
    """Return a text type of some size, or up to a mark."""
    kind = draw(st.sampled_from(["ascii", "utf8", "gbk", "hex", "digits", "bytes"]))
    if kind in {"ascii", "utf8", "gbk"}:
        letters = st.characters(min_codepoint=33, max_codepoint=126) if kind == "ascii" else st.sampled_from("AZ温度é°")
        value: Any = draw(st.text(letters, min_size=1, max_size=6))
        data = value.encode({"ascii": "ascii", "utf8": "utf-8", "gbk": "gb18030"}[kind])
        data += b"\0" * draw(st.integers(0, 2))
    else:
        value = data = draw(st.binary(min_size=1, max_size=6))
        if kind == "digits":
            value = "".join(
                draw(st.lists(st.sampled_from("0123456789"), min_size=2 * len(data), max_size=2 * len(data)))
            )
            data = bytes.fromhex(value)
        elif kind == "hex":
            value = data.hex()
        else:
            value = list(data)
    step: dict[str, Any] = {"name": name, "type": kind}
    if kind in {"hex", "digits"} and draw(st.booleans()):
        step["endian"] = "little"
        data = data[::-1]
    result = draw(st.sampled_from(["size", "until", "element"]))
    if result == "until" and kind in {"ascii", "utf8"}:
        return Made([{**step, "until": 0}], {name: value}, data.rstrip(b"\0") + b"\0")
    if result == "element":
        steps = [{"name": f"_{name}", "type": "u8"}, {**step, "size": f"_{name}"}]
        return Made(steps, {name: value}, bytes([len(data)]) + data)
    return Made([{**step, "size": len(data)}], {name: value}, data)


# ── what is checked, computed, passed over ───────────────────────────────────────────────────────────


@st.composite
def checked(draw: st.DrawFn, name: str) -> Made:
    """Return an element that must have a value."""
    value = draw(st.integers(0, 255))
    wanted = draw(st.sampled_from([value, [value, (value + 1) % 256], hex(value), f"{value} + 0"]))
    return Made([{"name": name, "type": "u8", "equals": wanted}], {name: value}, bytes([value]))


@st.composite
def computed(draw: st.DrawFn, name: str) -> Made:
    """Return values made of two bytes."""
    high, low = draw(st.integers(0, 255)), draw(st.integers(0, 255))
    steps: Steps = [
        {"name": f"_{name}h", "type": "u8"},
        {"name": f"_{name}l", "type": "u8"},
        {"name": f"{name}a", "value": f"_{name}h * 256 + _{name}l"},
        {"name": f"{name}b", "value": f"signed(_{name}h << 8 | _{name}l, 16) / 16"},
        {"name": f"{name}c", "text": f"{{_{name}h:03}}-{{_{name}l:02x}}"},
        {"name": f"{name}d", "value": f"_{name}l", "map": {low: 0.5, "0x100": 7}},
        {"name": f"{name}e", "value": f"1 if _{name}h > 127 else -_{name}l"},
    ]
    raw = high * 256 + low
    tree = {
        f"{name}a": raw,
        f"{name}b": (raw - 65536 if raw > 32767 else raw) / 16,
        f"{name}c": f"{high:03d}-{low:02x}",
        f"{name}d": 0.5,
        f"{name}e": 1 if high > 127 else -low,
    }
    return Made(steps, tree, bytes([high, low]))


@st.composite
def passed(draw: st.DrawFn, name: str) -> Made:
    """Return bytes that mean nothing."""
    size = draw(st.integers(1, 5))
    data = draw(st.binary(min_size=size, max_size=size))
    if draw(st.booleans()):
        return Made([{"skip": size}], {}, data)
    return Made([{"name": f"_{name}", "type": "u8"}, {"skip": f"_{name} // 2"}], {}, bytes([size * 2]) + data)


# ── branches ─────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def whens(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return a flag word that says which groups follow."""
    flags = draw(st.integers(0, 7))
    made = Made([{"name": f"_{name}", "type": "u8"}], {}, bytes([flags]))
    for bit in range(3):
        group = draw(block(f"{name}{bit}", depth + 1))
        step: dict[str, Any] = {"when": f"_{name} & {1 << bit}", "read": group.steps or NOTHING}
        tree = group.tree
        if draw(st.booleans()):
            step["name"] = f"{name}{bit}"
            tree = {f"{name}{bit}": tree}
        there = flags >> bit & 1
        made = joined(made, Made([step], tree if there else {}, group.data if there else b""))
    return made


@st.composite
def switches(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return a choice between layouts."""
    cases = [draw(block(f"{name}{at}", depth + 1)) for at in range(draw(st.integers(1, 7)))]
    chosen = draw(st.integers(0, len(cases)))
    keys = [draw(st.sampled_from([at, hex(at), f"{at}, {at + 100}-{at + 100}"])) for at in range(len(cases))]
    step: dict[str, Any] = {"switch": f"_{name}", "cases": dict(zip(keys, [c.steps for c in cases], strict=True))}
    otherwise = draw(block(f"{name}x", depth + 1))
    step["default"] = otherwise.steps
    there = otherwise if chosen == len(cases) else cases[chosen]
    return Made([{"name": f"_{name}", "type": "u8"}, step], there.tree, bytes([chosen]) + there.data)


@st.composite
def repeats(draw: st.DrawFn, name: str) -> Made:
    """Return a list of objects with a count before it."""
    width = draw(st.sampled_from([3, 8, 12, 16, 21]))
    order = draw(st.sampled_from(ORDERS))
    values = draw(st.lists(st.integers(0, 2**width - 1), max_size=5))
    data = (
        packed([("u", width, value) for value in values] + [("u", -width * len(values) % 8, 0)], order)
        if values
        else b""
    )
    read = [{"name": "v", "type": f"u{width}", "endian": order}, {"name": "i", "value": "$index * 600"}]
    tree = {name: [{"v": value, "i": 600 * index} for index, value in enumerate(values)]}
    return Made(
        [{"name": f"_{name}", "type": "u8"}, {"repeat": f"_{name}", "name": name, "read": read}],
        tree,
        bytes([len(values)]) + data,
    )


@st.composite
def appended(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return objects put into one list from several places."""
    first, other = draw(block(f"{name}a", depth + 1)), draw(block(f"{name}b", depth + 1))
    steps: Steps = [{"append": name, "read": first.steps or NOTHING}, {"append": name, "read": other.steps or NOTHING}]
    return Made(steps, {name: [first.tree, other.tree]}, first.data + other.data)


NOTHING: Steps = [{"name": "_nothing", "value": 0}]


@st.composite
def grouped(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return an object."""
    inner = draw(block(name, depth + 1))
    return Made([{"name": name, "read": inner.steps or NOTHING}], {name: inner.tree}, inner.data)


@st.composite
def fenced(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return steps that see only so many bytes, with what may stand at an end only."""
    inner = joined(draw(block(f"{name}a", depth + 1)), draw(endings(f"{name}b", depth + 1)))
    left = draw(st.integers(0, 2))
    step: dict[str, Any] = {"within": f"_{name}", "read": inner.steps or NOTHING}
    data = inner.data
    if left and not any("size" in step and step["size"] == "rest" for step in inner.steps) and not _to_the_end(inner):
        step["rest"] = "allow"
        data += bytes(left)
    return Made([{"name": f"_{name}", "type": "u16"}, step], inner.tree, len(data).to_bytes(2, "big") + data)


def _to_the_end(made: Made) -> bool:
    return any(step.get("repeat") == "end" or "tlv" in step for step in made.steps)


@st.composite
def endings(draw: st.DrawFn, name: str, depth: int) -> Made:
    """Return what goes to the end: tags, a repeat, the rest; or nothing."""
    kind = draw(st.sampled_from(["tags", "lengths", "repeat", "bits", "rest", "none"]))
    leave = draw(st.integers(0, 2))
    tail = bytes(draw(st.integers(0, 255)) for _ in range(leave))
    after = Made([{"skip": leave}] if leave else [], {}, tail)
    if kind in {"tags", "lengths"}:
        return joined(draw(tags(name, depth, leave, lengths=kind == "lengths")), after)
    if kind == "repeat":
        values = draw(st.lists(st.integers(0, 65535), max_size=4))
        step = {"repeat": "end", "leave": leave, "name": name, "read": [{"name": "v", "type": "u16"}]}
        data = b"".join(value.to_bytes(2, "big") for value in values)
        return joined(Made([step], {name: [{"v": value} for value in values]}, data), after)
    if kind == "bits":
        values = draw(st.lists(st.integers(0, 4095), max_size=4))
        data = packed([("u", 12, v) for v in values] + [("u", -12 * len(values) % 8, 0)], "big") if values else b""
        step = {"repeat": "end", "leave": leave, "name": name, "read": [{"name": "v", "type": "u12"}]}
        return joined(Made([step], {name: [{"v": value} for value in values]}, data), after)
    if kind == "rest":
        data = draw(st.binary(max_size=5))
        return Made([{"name": name, "type": "hex", "size": "rest"}], {name: data.hex()}, data)
    return Made([], {}, b"")


@st.composite
def tags(draw: st.DrawFn, name: str, depth: int, leave: int, *, lengths: bool) -> Made:
    """Return tags with values, in any order, each once."""
    cases = {at: draw(block(f"{name}{at}", depth + 1)) for at in range(draw(st.integers(1, 6)))}
    order = draw(st.sampled_from(ORDERS))
    size = draw(st.integers(1, 2))
    step: dict[str, Any] = {"tlv": f"u{8 * size}", "endian": order, "leave": leave}
    step["cases"] = {at: case.steps for at, case in cases.items()}
    if lengths:
        step |= {"length": "u8", "default": "skip"}
    chosen = draw(st.lists(st.sampled_from([*cases, *([99] if lengths else [])]), unique=True, max_size=len(cases)))
    tree: dict[str, Any] = {}
    data = b""
    for tag in chosen:
        case = cases.get(tag, Made([], {}, b"unknown"))
        if lengths and len(case.data) > 255:
            case = Made(case.steps, {}, b"")
            continue
        tree |= case.tree
        data += tag.to_bytes(size, order)  # type: ignore[arg-type] # one of ORDERS
        data += (bytes([len(case.data)]) if lengths else b"") + case.data
    return Made([step], tree, data)


def joined(*parts: Made) -> Made:
    """Return parts one after the other."""
    steps: Steps = []
    tree: dict[str, Any] = {}
    for part in parts:
        steps += part.steps
        tree |= part.tree
    return Made(steps, tree, b"".join(part.data for part in parts))


@st.composite
def block(draw: st.DrawFn, name: str, depth: int = 0) -> Made:
    """Return some steps; names begin with `name`, so that no two are the same."""
    parts = [Made([], {}, b"")]
    for at in range(draw(st.integers(0 if depth else 1, 4 - depth))):
        here = f"{name}_{at}" if name else f"n{at}"
        flat = [
            bit_run(here),
            bytes_run(here),
            real(here),
            bit_fields(here),
            words(here),
            checked(here),
            computed(here),
        ]
        flat += [passed(here), repeats(here)]
        deep = [whens, switches, appended, grouped, fenced] if depth < DEPTH_MAX else []
        kind = draw(st.integers(0, len(flat) + len(deep) - 1))
        parts.append(draw(flat[kind] if kind < len(flat) else deep[kind - len(flat)](here, depth)))
    return joined(*parts)


@st.composite
def frames(draw: st.DrawFn) -> Made:
    """Return a whole layout with a frame of it."""
    return joined(draw(block("")), draw(endings("end", 0)))
