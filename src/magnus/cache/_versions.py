"""The versions of tags on the server, which triggers raise with every change: `magnus cache install` makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from magnus.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CHANNEL: Final = "magnus_cache"
"""The channel on which a change is told; the payload is the tag."""

VERSIONS: Final = "SELECT tag, version FROM magnus_cache"
"""All of them. As many rows as there are tables with a trigger."""

_SOME: Final = f"{VERSIONS} WHERE tag = ANY($1::text[])"


async def read_versions(db: Any, tags: Collection[str]) -> Mapping[str, int]:
    """
    Return the versions of some tags on the primary.

    Raises:
        ConfigError: a tag has none.
    """
    try:
        rows = await db.fetch(_SOME, list(tags), idempotent=True)
    except asyncpg.UndefinedTableError:
        rows = []
    found = {row["tag"]: row["version"] for row in rows}
    missing = sorted(set(tags) - found.keys())
    if missing or not tags:
        reason = "has no version on the server, so nobody can say whether it is fresh: magnus cache install makes one"
        raise ConfigError("fresh", ", ".join(missing) or "a function without tags", reason)
    return found
