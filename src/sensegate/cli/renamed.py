"""Command words of older versions with their new names, and the group of commands that refuses the old ones."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

RENAMED: dict[str, str] = {
    "bundle make": "create",
    "device code": "parse-id",
    "device send": "publish",
    "device shadows": "secondary-sources",
    "mode forget": "delete",
    "profile return": "request-changes",
    "return place": "offset",
    "task can": "capabilities",
    "task give": "create",
    "webhook remove": "delete",
}
"""Old command (group and word) to the new word of that group."""


class CommandGroup(TyperGroup):
    """A group of commands that names the new word when it refuses an old one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of the arguments; end with a usage error for an unknown or old word.

        Without types of click, because typer brings a click of its own, which it does not export.
        """
        if args and (new := RENAMED.get(f"{self.name} {args[0]}")):
            ctx.fail(f"'{self.name} {args[0]}' is called '{self.name} {new}' now")
        return super().resolve_command(ctx, args)
