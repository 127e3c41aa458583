"""Checks of a page that is shown: width, cut texts, accessibility, what was asked in vain; and pictures of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CUT_TEXTS = """() => {
    const cut = [];
    const skipped = "script, style, option, textarea, svg, .leaflet-container, .gutter,"
        + " details:not([open]) > :not(summary)";
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const parent = node.parentElement;
        if (!node.data.trim() || parent.closest(skipped)) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        const text = range.getBoundingClientRect();
        if (!text.width || getComputedStyle(parent).visibility === "hidden") continue;
        for (let outer = parent; outer && outer !== document.body; outer = outer.parentElement) {
            const style = getComputedStyle(outer), box = outer.getBoundingClientRect();
            if (style.display === "inline" || style.display === "contents") continue;
            if (["auto", "scroll"].includes(style.overflowX)) break;
            if (text.right > box.right + 1.5 || text.left < box.left - 1.5) {
                cut.push(`${node.data.trim().slice(0, 60)} [${outer.tagName.toLowerCase()}.${outer.className}]`);
                break;
            }
            if (["hidden", "clip"].includes(style.overflowY) && text.bottom > box.bottom + 1.5) {
                cut.push(`${node.data.trim().slice(0, 60)} [${outer.tagName.toLowerCase()}.${outer.className}]`);
                break;
            }
            if (style.position === "absolute" || style.position === "fixed") break;
        }
    }
    return [...new Set(cut)];
}"""
"""Texts that reach beyond the box of an element around them, where nothing scrolls."""
AXE = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.filter((found) => ["serious", "critical"].includes(found.impact))
        .map((found) => `${found.id}: ${found.nodes.map((node) => node.target.join(" ")).slice(0, 3).join("; ")}`);
}"""


@dataclass
class PageChecker:
    """Checks of the pages of one visit."""

    page: Any
    folder: Path | None = None
    """Folder for pictures; None: no pictures."""
    faults: list[str] = field(default_factory=list)
    """Faults seen so far, each with its page."""

    async def check(self, name: str, *, accessible: bool = True) -> None:
        """Note what is wrong with the page shown, under a name."""
        wider = await self.page.evaluate(WIDER)
        if wider > 0:
            self.faults.append(f"{name}: {wider} px wider than the window")
        self.faults += [f"{name}: cut text: {text}" for text in await self.page.evaluate(CUT_TEXTS)]
        if accessible:
            if not await self.page.evaluate("'axe' in globalThis"):
                await self.page.evaluate(axe_source())
            self.faults += [f"{name}: {fault}" for fault in await self.page.evaluate(AXE)]
        if self.folder:
            file = name.replace("/", "-").replace("?", "-") or "overview"
            picture = self.folder / f"{file}.jpg"
            await self.page.screenshot(path=picture, full_page=True, type="jpeg", quality=70)


def axe_source() -> str:
    """Return the script of axe; a test without it is skipped."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
