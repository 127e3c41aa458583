"""Wording shared by messages: numbers with nouns, suggestions for mistyped profile names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def count(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 file``, ``2 files``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def nearest_profile(word: str, known: Iterable[str]) -> str:
    """Return the known ``vendor/model`` of which `word` may be a misspelling; empty: none is similar.

    Among a hundred profiles something is always partly similar, so one half must match (nearly): the vendor, with a
    similar model, or the model, of another vendor.
    """
    names = sorted(known)
    vendor, slash, model = word.casefold().partition("/")
    if not slash:
        vendor, model = "", vendor
    vendors = {name.partition("/")[0] for name in names}
    if close := difflib.get_close_matches(vendor, vendors, n=1, cutoff=0.75):
        models = [name.partition("/")[2] for name in names if name.startswith(f"{close[0]}/")]
        if near := difflib.get_close_matches(model, models, n=1, cutoff=0.6):
            return f"{close[0]}/{near[0]}"
    same = [name for name in names if name.partition("/")[2] == model]
    return same[0] if len(same) == 1 else ""


def unknown_profile(word: str, known: Iterable[str]) -> str:
    """Return a suggestion for an unknown profile name."""
    names = list(known)
    if near := nearest_profile(word, names):
        return f"did you mean '{near}'?"
    vendor = word.partition("/")[0]
    of_vendor = sorted(name for name in names if name.startswith(f"{vendor}/"))
    if of_vendor:
        return f"{vendor} has {', '.join(of_vendor[:8])}{' …' if len(of_vendor) > 8 else ''}"
    return "`sensegate profile list` lists those of a folder, with --live those of a gateway"
