"""What is known of statements that were slow before: normalised once a text, learned from the server once a shape.

Bounded; what was seen longest ago is forgotten first. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from magnus._normalise import normalised

if TYPE_CHECKING:
    from magnus._normalise import Normal

_TEXTS: Final = 1_000
_SHORT: Final = 4_096
_SHAPES: Final = 5_000

K = TypeVar("K")
V = TypeVar("V")


class Known:
    """
    Statements by text, by shape and by fingerprint.
    """

    def __init__(self) -> None:
        self._texts: dict[str, Normal] = {}
        self._shown: dict[str, str] = {}
        self._queryids: dict[str, int | None] = {}
        self._planned: dict[str, None] = {}

    def normal(self, text: str) -> Normal:
        found = self._texts.get(text)
        if found is None:
            found = normalised(text)
            if len(text) <= _SHORT:
                _keep(self._texts, text, found, _TEXTS)
        return found

    def shown(self, normal: Normal) -> str:
        """
        Return the one text by which all statements of a fingerprint are shown, so that reports can group by it.
        """
        found = self._shown.get(normal.fingerprint)
        if found is None:
            found = normal.text
            _keep(self._shown, normal.fingerprint, found, _SHAPES)
        return found

    def is_new(self, normal: Normal) -> bool:
        """
        Say whether the server could still be asked about a statement.
        """
        return normal.is_plannable and normal.shape not in self._queryids

    def queryid(self, normal: Normal) -> int | None:
        return self._queryids.get(normal.shape)

    def learned(self, normal: Normal, queryid: int | None) -> None:
        """
        Keep the server's id of a statement, None when it would not say.
        """
        _keep(self._queryids, normal.shape, queryid, _SHAPES)

    def is_planned(self, normal: Normal) -> bool:
        return normal.fingerprint in self._planned

    def planned(self, normal: Normal) -> None:
        """
        Take note that the plan of a fingerprint was taken.
        """
        _keep(self._planned, normal.fingerprint, None, _SHAPES)


def _keep(kept: dict[K, V], key: K, value: V, most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
