"""Named tables of words that devices commonly send, so that a profile need only name one (``words: wind_16``).

Words are matched exactly as sent (both upper and lower case are listed where both occur). What is no value (a calm has
no direction) is not in the table: a profile lists it under `missing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sensegate.decode.part import Scalar


class WordTable(NamedTuple):
    """A table of words."""

    label: str
    """Content and origin of the table."""
    words: tuple[tuple[Scalar, Scalar], ...]
    """(value as sent, value): pairs, because true and 1 would be the same dictionary key."""


_POINTS: Final = (
    ("N", "北"),
    ("NNE", "北东北 北北东 东北偏北 北偏东"),
    ("NE", "东北 北东"),
    ("ENE", "东东北 东北东 东北偏东 东偏北"),
    ("E", "东"),
    ("ESE", "东东南 东南东 东南偏东 东偏南"),
    ("SE", "东南 南东"),
    ("SSE", "南东南 南南东 东南偏南 南偏东"),
    ("S", "南"),
    ("SSW", "南西南 南南西 西南偏南 南偏西"),
    ("SW", "西南 南西"),
    ("WSW", "西西南 西南西 西南偏西 西偏南"),
    ("W", "西"),
    ("WNW", "西西北 西北西 西北偏西 西偏北"),
    ("NW", "西北 北西"),
    ("NNW", "北西北 北北西 西北偏北 北偏西"),
)
"""The sixteen points of the compass, clockwise from north, 22.5 degrees apart, with the Chinese names in use."""
_TRADITIONAL = str.maketrans("东", "東")


def _names(point: str, chinese: str) -> list[str]:
    """Return the spellings of one point: ``NE``, ``ne``, 东北, 東北, 东北风, 東北風."""
    names = [point, point.lower()]
    for name in chinese.split():
        for variant in dict.fromkeys((name, name.translate(_TRADITIONAL))):
            names += [variant, f"{variant}风", f"{variant}風"]
    return names


Pairs = tuple[tuple[Scalar, Scalar], ...]


def _numbers(values: Iterable[Scalar], first: int) -> Pairs:
    """Return number -> value, with the number as a number and as text."""
    return tuple((sent, value) for index, value in enumerate(values, first) for sent in (index, str(index)))


def _switch(on: str, off: str) -> Pairs:
    """Return the words for true and false in upper and lower case, with numbers and JSON's own words."""
    pairs: list[tuple[Scalar, Scalar]] = []
    for words, value in ((on, True), (off, False)):
        pairs += [(sent, value) for sent in (value, int(value), str(int(value)))]
        for word in words.split():
            pairs += [(form, value) for form in dict.fromkeys((word, word.lower(), word.upper(), word.capitalize()))]
    return tuple(pairs)


def _pairs(**codes: str) -> Pairs:
    """Return word -> code; the words of each code are separated by spaces."""
    return tuple((word, code) for code, words in codes.items() for word in words.split())


def _levels(*rows: str) -> Pairs:
    """Return the words of the levels, lowest first, and their numbers, mapped to the codes "1", "2" and so on."""
    named = tuple((word, str(index)) for row in rows for index, word in enumerate(row.split(), 1))
    return _numbers("123456", 1) + named


_DEGREES: Final = tuple(index * 22.5 for index in range(16))

TABLES: Final[dict[str, WordTable]] = {
    "wind_16": WordTable(
        "sixteen points of the compass, English and Chinese, to degrees",
        tuple((name, 22.5 * index) for index, point in enumerate(_POINTS) for name in _names(*point)),
    ),
    "wind_16_number": WordTable("0 north, 1 north-north-east, … 15, to degrees", _numbers(_DEGREES, 0)),
    "wind_8_number": WordTable("0 north, 1 north-east, … 7, to degrees", _numbers(_DEGREES[::2], 0)),
    "wind_8_wmo": WordTable(
        "1 north-east, 2 east, … 8 north, to degrees (WMO code table 0700; 0 is calm)",
        _numbers((45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0, 0.0), 1),
    ),
    "compass_16": WordTable(
        "sixteen points of the compass, English and Chinese, to the codes of `compass_16`",
        tuple((name, point[0]) for point in _POINTS for name in _names(*point)),
    ),
    "compass_16_number": WordTable(
        "0 north, 1 north-north-east, … 15, to the codes of `compass_16`", _numbers((name for name, _ in _POINTS), 0)
    ),
    "on_off": WordTable("true where on", _switch("on 开 开启 打开 合闸 開 開啟", "off 关 关闭 分闸 關 關閉")),
    "yes_no": WordTable("true where yes", _switch("yes y true 是 有", "no n false 否 无 無")),
    "open_closed": WordTable(
        "true where open", _switch("open opened 开 打开 开启 開 開啟", "closed close 关 关闭 關 關閉")
    ),
    "alarm_normal": WordTable(
        "true where in alarm", _switch("alarm alert triggered 报警 告警 异常 異常", "normal ok clear none 正常")
    ),
    "online_offline": WordTable("true where online", _switch("online connected 在线 在線", "offline lost 离线 離線")),
    "occupied_free": WordTable(
        "true where occupied", _switch("occupied busy 占用 有车", "free vacant empty 空闲 无车")
    ),
    "locked_unlocked": WordTable("true where locked", _switch("locked lock 已锁 上锁", "unlocked unlock 未锁 开锁")),
    "running_stopped": WordTable(
        "true where running", _switch("running run on 运行 启动", "stopped stop off 停止 停机")
    ),
    "lora_data_rate": WordTable(
        "data rates of LoRa to the spreading factor: SF7, SF7BW125, SF7 BW125, SF7 BW125 4/5",
        tuple(
            (f"SF{factor}{rest}", factor)
            for factor in range(5, 13)
            for rest in (
                "",
                *(
                    f"{gap}BW{width}{rate}"
                    for width in (125, 250, 500)
                    for gap in ("", " ")
                    for rate in ("", " 4/5", " 4/6", " 4/7", " 4/8")
                ),
            )
        ),
    ),
    "aqi_level": WordTable(
        "levels of the air quality index (HJ 633) to their codes",
        _levels("优 良 轻度污染 中度污染 重度污染 严重污染", "一级 二级 三级 四级 五级 六级"),
    ),
    "water_quality_class": WordTable(
        "classes of surface water (GB 3838) to their codes",
        _levels("Ⅰ Ⅱ Ⅲ Ⅳ Ⅴ 劣Ⅴ", "I II III IV V 劣V", "Ⅰ类 Ⅱ类 Ⅲ类 Ⅳ类 Ⅴ类 劣Ⅴ类"),
    ),
    "lift_direction": WordTable(
        "ways of a lift to their codes",
        _pairs(up="上行 上 up UP", down="下行 下 down DOWN", stopped="停止 停 stop STOP"),
    ),
}
"""Name -> table."""
