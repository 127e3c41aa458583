from __future__ import annotations

from sensegate.demo.city import merged


def test_settings_are_merged_at_every_depth() -> None:
    """A setting replaces its own key and leaves its neighbours, in sections of sections too."""
    document = {"role": "node", "listen": {"mqtt": {"port": 1883, "processes": 0}}, "web": {"port": 80}}
    result = merged(document, {"listen": {"mqtt": {"processes": 1}}, "role": "centre", "viid": {"port": 1}})
    assert result == {
        "role": "centre",
        "listen": {"mqtt": {"port": 1883, "processes": 1}},
        "web": {"port": 80},
        "viid": {"port": 1},
    }
    assert document["listen"] == {"mqtt": {"port": 1883, "processes": 0}}
