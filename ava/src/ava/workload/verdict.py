"""What an HTTP answer means for the run: pure rules over status and Retry-After."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_OVERLOADED: Final = 503
_SERVER_ERROR: Final = 500
_SUCCESS: Final = range(200, 300)
_REFUSALS: Final = frozenset({409, 422})
_LONGEST_ASKED: Final = 30.0
_LONGEST_SPREAD: Final = 8.0


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One HTTP answer, or that none came.

    Attributes:
        status: The HTTP status; 0 when no answer came.
        retry_after: Seconds of the header Retry-After, or None.
        body: The body's bytes.
        error: The kind of the failure when no answer came.
    """

    status: int
    retry_after: float | None = None
    body: bytes = b""
    error: str = ""


class Verdict(enum.Enum):
    """
    OK: served. REFUSED: the trade's rules say no, a right answer. SHED: overloaded and said when to come back.
    FAILED: anything that a correct server does not answer to a correct client.
    """

    OK = "ok"
    REFUSED = "refused"
    SHED = "shed"
    FAILED = "failed"


def judge(answer: Answer, *, may_refuse: bool) -> Verdict:
    """
    Judge an answer; only orders `may_refuse`.
    """
    if answer.status in _SUCCESS:
        return Verdict.OK
    if answer.status in _REFUSALS and may_refuse:
        return Verdict.REFUSED
    if answer.status == _OVERLOADED and answer.retry_after is not None:
        return Verdict.SHED
    return Verdict.FAILED


def is_equal(first: Answer, second: Answer) -> bool:
    """
    Tell whether a repeated request was answered as the first time: same status, same body.

    A problem document names the request it answers; that id alone may differ.
    """
    if first.status != second.status:
        return False
    return first.body == second.body or _without_request_id(first.body) == _without_request_id(second.body)


def _without_request_id(body: bytes) -> object:
    """
    Return the document without the id; what is no such document as it is.
    """
    try:
        document: object = json.loads(body)
    except ValueError:
        return body
    if not isinstance(document, dict) or document.pop("request_id", None) is None:
        return body
    return document


def reason(answer: Answer) -> str:
    """
    Name a failed answer in few words, the same for the same kind.
    """
    if not answer.status:
        return f"no answer: {answer.error}"
    if answer.status == _OVERLOADED:
        return "503 without Retry-After"
    kind = "server error" if answer.status >= _SERVER_ERROR else "unexpected status"
    return f"{kind} {answer.status}"


def pause(answer: Answer, attempt: int, uniform: Callable[[float, float], float]) -> float:
    """
    Return the seconds to wait before a shed request is sent again; `attempt` counts from 1.

    Never earlier than the server asked, and spread over as much again, doubling: clients that were refused together
    must not come back together.
    """
    asked = min(answer.retry_after or 0.0, _LONGEST_ASKED)
    spread = min(max(asked, 0.1) * 2 ** min(attempt - 1, 8), _LONGEST_SPREAD)
    return asked + uniform(0.0, spread)


def retry_after(header: str | None) -> float | None:
    """
    Read the header's number of seconds; a date, or nonsense, is no promise to come back to: None.
    """
    if header is None or not header.strip().isascii() or not header.strip().isdigit():
        return None
    return float(header)
