"""Searches take traditional and simplified characters for the same."""

from __future__ import annotations

import pytest

from sensegate.authority.divisions import Divisions
from sensegate.quantities.properties import PROPERTIES
from sensegate.share.catalogue import CatalogueEntry, matches_search
from sensegate.share.text_folding import fold

# fmt: off
CITIES = [
    "廣州", "韶關", "深圳", "珠海", "汕頭", "佛山", "江門", "湛江", "茂名", "肇慶", "惠州", "梅州",
    "汕尾", "河源", "陽江", "清遠", "東莞", "中山", "潮州", "揭陽", "雲浮",
]
PROPERTIES_ZH = [
    "氣溫", "風速", "濕度", "雨量", "能見度", "臭氧", "噪聲", "車流量", "電壓", "煙霧", "水位",
    "溶解氧", "氨氮", "壓力", "濃度", "信號", "總磷",
]
# fmt: on


def test_the_cities_of_guangdong_are_found_either_way() -> None:
    """All 21 as they are written in Hong Kong, by the table's simplified names."""
    names = [row.name_zh for row in Divisions.load() if len(row.code) == 4]
    assert len(names) == len(CITIES) == 21
    for name in CITIES:
        assert [candidate for candidate in names if fold(name) in fold(candidate)], name
        assert [candidate for candidate in names if name in candidate] or fold(name) != name, "negative control"


@pytest.mark.parametrize("word", PROPERTIES_ZH)
def test_words_of_properties(word: str) -> None:
    """As people write them; each occurs in the table of properties."""
    labels = [fold(PROPERTIES[at].label_zh) for at in range(len(PROPERTIES))]
    assert [label for label in labels if fold(word) in label]


def test_a_search_finds_both() -> None:
    """An entry in either script, a query in either; another word finds nothing."""
    for title in ("廣州空氣質量", "广州空气质量"):
        entry = CatalogueEntry("air", title=title, title_en="Air of Guangzhou")
        for text in ("廣州 空氣", "广州 空气", "广州空氣 AIR", "ａｉｒ 廣"):
            assert matches_search(entry, text), (title, text)
        assert not matches_search(entry, "深圳")
