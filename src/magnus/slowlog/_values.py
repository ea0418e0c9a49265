"""Bind values for the log, where somebody asked for them: as short JSON, secrets starred out. Pure.

Off unless switched on. A statement that names anything like a secret keeps none of its values; of the others each
value is starred out that looks like a credential or that one of the user's rules matches.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN: Final = 100
_MOST: Final = 50
STARS: Final = "***"
_SECRET_NAME: Final = re.compile(
    r"password|passwd|\bpwd|passphrase|secret|token|api_?key|private_?key|credential|authori[sz]ation|\bssn\b|\bpin\b"
    r"|\bcvv|card_?n|iban|crypt\s*\(",
    re.IGNORECASE,
)
_CREDENTIAL: Final = re.compile(
    r"eyJ[\w-]{8,}\.|-----BEGIN|\bBearer\s|\$(?:2[aby]|argon2\w*|scrypt|pbkdf2[\w-]*)\$|SCRAM-SHA-|md5[0-9a-f]{32}"
    r"|://[^\s/]*:[^\s/]*@|(?:password|secret|token|api_?key)\s*[=:]|^(?=\S*\d)(?=\S*[A-Za-z])[\w+/=.~-]{32,}$",
    re.IGNORECASE,
)
_PLAIN: Final = (str, UUID, int, float, Decimal, date, datetime, time, timedelta)


def shown(text: str, values: Sequence[Any], rules: Sequence[re.Pattern[str]]) -> str:
    """
    Return bind values of the statement `text` as a JSON array, at most 50 of them and 100 characters of each.
    """
    if _SECRET_NAME.search(text):
        return json.dumps([STARS] * min(len(values), _MOST))
    found = [_shown(value, rules) for value in values[:_MOST]]
    return json.dumps(found if len(values) <= _MOST else [*found, f"and {len(values) - _MOST} more"])


def _shown(value: object, rules: Sequence[re.Pattern[str]]) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if not isinstance(value, _PLAIN):
        size = f" of {len(value)}" if isinstance(value, list | tuple | dict | set) else ""
        return f"<{type(value).__name__}{size}>"
    written = str(value)
    if any(rule.search(written) for rule in rules) or (isinstance(value, str) and _CREDENTIAL.search(written)):
        return STARS
    written = written.replace("\0", "")
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"
