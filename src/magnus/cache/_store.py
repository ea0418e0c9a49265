"""What is kept and what may be given out: a least-recently-used table bounded in bytes, by key and by tag. Pure.

Theory of operation. A `Load` is begun before the first byte of a question leaves, and ended with the value. An
invalidation drops what is kept under its tags and marks every load under way that has one of them: its snapshot may be
from before. A marked load's value goes to those who waited for it since before the invalidation and is not kept, and
nobody joins it any more. A load inside another one passes on its tags, its mark and its end of life, so that what is
made of a cached value never outlives it.

Invariant: for every entry, nothing was invalidated under any of its tags since its load began.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from magnus.cache._sizes import size_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping

    Key = Hashable

_ENTRY: Final = 500
"""Bytes that an entry takes beside key and value: in the table, in the index of tags, itself."""


@dataclass(slots=True)
class Figures:
    """
    What happened since the start, in calls unless said otherwise.

    Attributes:
        hits: Answered with what was kept.
        shared: Answered with what another call was loading already.
        misses: Loaded.
        bypassed: Went past the cache: in a transaction that writes, or while it cannot be trusted.
        stale: Values that were not kept because something was invalidated while they were loaded.
        too_large: Values that were not kept because of their size.
        evicted: Entries that had to go for others.
        expired: Entries that were found too old.
        invalidations: Tags that were invalidated.
        saved: Seconds of loading that hits and shared answers saved.
    """

    hits: int = 0
    shared: int = 0
    misses: int = 0
    bypassed: int = 0
    stale: int = 0
    too_large: int = 0
    evicted: int = 0
    expired: int = 0
    invalidations: int = 0
    saved: float = 0.0


@dataclass(slots=True, eq=False)
class Load:
    """
    One question under way.

    Attributes:
        tags: What its answer depends on.
        began: When it began (monotonic seconds).
        until: When its answer expires.
        versions: Of its tags on the server, read before it began; None when nobody asked.
        is_stale: Something that it depends on was invalidated since it began.
    """

    tags: set[str]
    began: float
    until: float
    versions: Mapping[str, int] | None = None
    is_stale: bool = False

    def absorb(self, tags: Iterable[str], until: float, *, is_stale: bool = False) -> None:
        """
        Take over what a cached value depends on that this load's answer is made of.
        """
        self.tags.update(tags)
        self.until = min(self.until, until)
        self.is_stale = self.is_stale or is_stale


@dataclass(slots=True, eq=False)
class Entry:
    """
    One value that is kept. `began` and `until` are of its load; `cost` is how many seconds that took.
    """

    value: Any
    size: int
    tags: frozenset[str]
    began: float
    until: float
    cost: float
    versions: Mapping[str, int] | None


@dataclass(slots=True)
class Store:
    """
    Values by key, at most `max_bytes` of them.
    """

    max_bytes: int
    bytes: int = 0
    figures: Figures = field(default_factory=Figures)
    _entries: OrderedDict[Key, Entry] = field(default_factory=OrderedDict)
    _by_tag: dict[str, set[Key]] = field(default_factory=dict)
    _loads: set[Load] = field(default_factory=set)
    _doubtful: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Key, now: float) -> Entry | None:
        """
        Return what is kept and not yet too old. It is not counted: the caller knows what becomes of it.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            self._drop(key)
            self.figures.expired += 1
            return None
        self._entries.move_to_end(key)
        return entry

    def begin(self, tags: Iterable[str], now: float, ttl: float) -> Load:
        """
        Take note that a load begins; `end` must follow, whatever becomes of it.
        """
        load = Load(set(tags), now, now + ttl)
        self._loads.add(load)
        return load

    def end(self, load: Load) -> None:
        """
        Take note that a load is over. Harmless the second time.
        """
        self._loads.discard(load)

    def keep(self, key: Key, load: Load, value: Any, now: float) -> bool:
        """
        Keep the value of a load that has not ended, unless it may be stale, is too old already or too large.
        """
        if load.is_stale or self.is_doubtful(load.tags, now):
            self.figures.stale += 1
            return False
        size = _ENTRY + size_of((key, value), most=self.max_bytes)
        if size > self.max_bytes:
            self.figures.too_large += 1
            return False
        newer = self._entries.get(key)
        if now >= load.until or (newer is not None and newer.began > load.began):
            return False
        self._drop(key)
        entry = Entry(value, size, frozenset(load.tags), load.began, load.until, now - load.began, load.versions)
        self._entries[key] = entry
        self.bytes += size
        for tag in entry.tags:
            self._by_tag.setdefault(tag, set()).add(key)
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            self.figures.evicted += 1
        return True

    def invalidate(self, tags: Collection[str]) -> None:
        """
        Drop what depends on any of these, now and when it comes in from loads that are under way.
        """
        self.figures.invalidations += len(tags)
        for tag in tags:
            for key in tuple(self._by_tag.get(tag, ())):
                self._drop(key)
        for load in self._loads:
            if not load.tags.isdisjoint(tags):
                load.is_stale = True

    def doubt(self, tags: Collection[str], now: float, until: float) -> None:
        """
        Invalidate, and keep nothing under these tags until then: they may still change on the server unheard.
        """
        self.invalidate(tags)
        self._doubtful = {tag: end for tag, end in self._doubtful.items() if end > now}
        for tag in tags:
            self._doubtful[tag] = max(until, self._doubtful.get(tag, until))

    def is_doubtful(self, tags: Collection[str], now: float) -> bool:
        """
        Say whether one of these may change unheard.
        """
        doubtful = self._doubtful
        return bool(doubtful) and any(doubtful.get(tag, now) > now for tag in tags)

    def clear(self) -> None:
        """
        Invalidate everything.
        """
        self._entries.clear()
        self._by_tag.clear()
        self.bytes = 0
        for load in self._loads:
            load.is_stale = True

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.bytes -= entry.size
        for tag in entry.tags:
            keys = self._by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._by_tag[tag]
