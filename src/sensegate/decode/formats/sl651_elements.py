"""Annex C of SL 651-2014: identifiers of elements and their symbols; annex A: station classes; table 58: states."""

from __future__ import annotations

import re
from typing import Final

_SYMBOL_BLOCKS = {
    0x01: "AC AI C DRXNN DT ED EJ FL GH GN GS GT GTP H HW",
    0x10: "M10 M20 M30 M40 M50 M60 M80 M100 MST NS P1 P2 P3 P6 P12 PD",
    0x20: "PJ PN01 PN05 PN10 PN30 PR PT Q Q1 Q2 Q3 Q4 Q5 Q6 Q7 Q8",
    0x30: "QA QZ SW UC UE US VA VJ VT Z ZB ZU Z1 Z2 Z3 Z4",
    0x40: "Z5 Z6 Z7 Z8 SQ ZT pH DO COND TURB CODMN REDOX NH4N TP TN TOC",
    0x50: "CU ZN SE AS THG CD PB CHLA WP1 WP2 WP3 WP4 WP5 WP6 WP7 WP8",
    0x60: "SYL1 SYL2 SYL3 SYL4 SYL5 SYL6 SYL7 SYL8 SBL1 SBL2 SBL3 SBL4 SBL5 SBL6 SBL7 SBL8",
    0x70: "VTA VTB VTC VIA VIB VIC",
    0xF4: "DRP DRZ1 DRZ2 DRZ3 DRZ4 DRZ5 DRZ6 DRZ7 DRZ8",
}
SYMBOLS: Final = {
    first + index: symbol for first, symbols in _SYMBOL_BLOCKS.items() for index, symbol in enumerate(symbols.split())
}
"""Identifier -> symbol."""

RAIN: Final = 0xF4
"""Twelve five-minute rainfall amounts: a byte each, 0.1 mm, FF missing."""
LEVELS: Final = frozenset(range(0xF5, 0xFD))
"""Twelve relative levels at five-minute intervals: two bytes each, 0.01 m, FFFF missing."""

STATION_CLASSES: Final = frozenset(b"PHKZDTMGQIO")
"""Rain, river, reservoir, sluice, pump, tide, soil, ground water, water quality, intake, outlet."""

STATES: Final = range(12)
"""Bits of the state word: 0 mains lost, 1 battery low, 2 level, 3 flow, 4 water quality over the limit, 5 flow meter
and 6 level gauge failed, 7 door closed, 8 storage, 9 IC card, 10 pump stopped, 11 remaining quota at its limit."""

TEXT_STEP: Final = re.compile(r"DR[DHN]\d\d", re.ASCII)
"""Step between the values of a series in text form: number of days, hours or minutes."""
