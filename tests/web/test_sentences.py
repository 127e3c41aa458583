"""What the gateway says about itself is there in Chinese: every sentence of the source, and none that is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sensegate.alarms.rules import GATEWAY_RULES
from sensegate.web.sentences import read_sentences, translate
from tests.web.sentences import ROOT, templates

PATTERNS = read_sentences()
PARTS = frozenset(
    {
        # Parts of another sentence, each of which stands in the table within it.
        "not open yet",
        "not reachable: \0",
        "; set engine.encryption: convert (embedded), or on where you have encrypted a server of your own",
        "\0; it is built again from the log",
        "\0 lost between sequences \0 and \0\0: \0 (\0)",
    }
)
NUMBER = "17"


def chinese(text: str) -> str:
    """Return a sentence in Chinese."""
    return translate(text, PATTERNS)


def unknown(sentences: list[str]) -> list[str]:
    """Return the sentences that no pattern matches."""
    return [
        text for text in sentences if not any(row.pattern.fullmatch(text.replace("\0", NUMBER)) for row in PATTERNS)
    ]


def test_every_sentence_of_the_source_has_its_chinese() -> None:
    """A new warning needs its row: the sentences are read from the functions that make them."""
    texts = [text for _, text in templates()]
    assert len(texts) > 50
    assert unknown([text for text in texts if text not in PARTS]) == []
    assert unknown([rule.title for rule in GATEWAY_RULES]) == []
    assert unknown(["uplink: the moon is away"]) != [], "control: not everything matches"


def test_every_row_is_of_a_sentence_that_exists() -> None:
    """The longest piece of each row's English stands in the source still; ids and texts are there once."""
    source = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")))
    table = (Path(ROOT) / "web/page/console/sentences.texts.js").read_text(encoding="utf-8")
    english = re.findall(r'"sentence\.\w+": \["((?:[^"\\]|\\.)*)"', table)
    assert len(english) == len(set(english)) == len(PATTERNS) == len({row.id for row in PATTERNS}) > 60
    pieces = [max(re.split(r"\{\d\}|[:;,()]", text), key=len).strip() for text in english]
    gone = [piece for piece in pieces if piece not in source]
    assert gone == []


def test_parameters_are_the_same_on_both_sides() -> None:
    """What English has as {n}, Chinese has too; no row is without Chinese."""
    for row in PATTERNS:
        assert set(re.findall(r"\{(\d)\}", row.chinese)) == set(row.fields), row.id
        assert re.search(r"[\u4e00-\u9fff：]", row.chinese), row.id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "devices of two nodes: a sends b, which c owns, and 2 more; `sensegate node own DEVICE MEMBER_ID` decides",
            "两个节点的设备：a 上报了属于 c 的 b，另有 2 台；用 `sensegate node own DEVICE MEMBER_ID` 裁定",
        ),
        (
            "node 4401: link: not connected; silent for 12 s",
            "节点 4401：链路：未连接，已静默 12 秒",
        ),
        (
            "uplink: the centre has not answered for 9 s, readings wait here: no centre is active; working alone",
            "上联：上级平台 9 秒未应答，数据在本机等待：没有主用的上级平台，独立运行",
        ),
        (
            "alarms: 3 open, the worst is major; see `sensegate alarm list`",
            "告警：3 条未处理，最高级别为重要，详见“告警”页",
        ),
        (
            "engine: 2 of 3 servers respond; no answer from b:4222; losing another may stop the intake",
            "引擎：3 台服务器中 2 台响应，b:4222 无响应；再失去一台可能中断接入",
        ),
        (
            "not judged: no NTP server, no centre, and only 0 of 0 devices agree within 60 s; 8 and 67% are needed",
            "未判定：无 NTP 服务器、无上级平台，且仅 0 台设备中 0 台在 60 秒内一致；至少需要 8 台且占 67%",
        ),
        ("what nobody has said yet", "what nobody has said yet"),
    ],
)
def test_a_sentence_in_a_sentence(text: str, expected: str) -> None:
    """Parameters are translated where they are sentences themselves; everything else stays as it is."""
    assert chinese(text) == expected


def test_no_sentence_takes_long() -> None:
    """A text of thousands of characters, whatever it holds, is answered: patterns have at most six fields."""
    assert max(len(row.fields) for row in PATTERNS) <= 6
    assert chinese("engine: " + ": (" * 2_000).startswith("引擎：")
