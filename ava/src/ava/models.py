"""What goes over the wire: requests and answers of the API, as pydantic models with examples.

Money, prices and quantities are JSON strings: a float would lose digits. They are checked here against what the
columns hold, so nothing that cannot be stored gets further.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema

from ava import examples
from ava.money import parse_positive, plain
from ava.services.rules import Side

SYMBOL: Final = r"^[A-Z0-9][A-Z0-9.\-]{0,15}$"
_POSITIVE: Final = {
    "type": "string",
    "pattern": r"^[0-9]{1,12}(\.[0-9]{1,8})?$",
    "description": "A decimal above zero, written plainly: at most 12 digits before the point and 8 after it.",
    "examples": ["10", "0.5"],
}
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_FIGURE: Final = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}


def _cents(value: Decimal) -> str:
    return format(value, ".2f")


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def positive(value: object) -> Decimal:
    """
    Return a quantity or a price that was sent as a string; a number has lost digits already.

    Raises:
        ValueError: it is none; the text does not repeat what was sent.
    """
    if not isinstance(value, str):
        raise ValueError("send it as a string")  # noqa: TRY004  # pydantic reports values, types would be a fault
    return parse_positive(value)


def moment(text: object) -> datetime:
    """
    Return a time with its offset from UTC.

    Raises:
        ValueError: it is none, or the offset is missing.
    """
    if not (isinstance(text, str) and _MOMENT.fullmatch(text)):
        raise ValueError("write a time with its offset from UTC, as in 2026-11-20T09:30:00Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("there is no such time") from None


Moment = Annotated[
    datetime,
    BeforeValidator(moment),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-20T09:30:00Z"]}),
]
Month = Annotated[str, Field(pattern=r"^(19[7-9][0-9]|2[01][0-9]{2})-(0[1-9]|1[0-2])$", examples=["2026-10"])]
Positive = Annotated[Decimal, BeforeValidator(positive), WithJsonSchema(_POSITIVE)]
Money = Annotated[Decimal, PlainSerializer(_cents), WithJsonSchema({**_FIGURE, "examples": ["1234.50"]})]
Number = Annotated[Decimal, PlainSerializer(plain), WithJsonSchema({**_FIGURE, "examples": ["12.345"]})]
Instant = Annotated[datetime, PlainSerializer(_instant), WithJsonSchema({"type": "string", "format": "date-time"})]
Symbol = Annotated[str, StringConstraints(pattern=SYMBOL)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class OrderIn(_Wire):
    """
    An order at the current quote. `limit_price` is the most a buy pays, the least a sale takes, for one unit.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [examples.ORDER]})

    symbol: Symbol
    side: Side
    quantity: Positive
    limit_price: Positive | None = None


class Trade(_Wire):
    """
    An executed trade. `realised_pnl` is what a sale earned over its first-in-first-out cost; null for a buy.
    """

    model_config = _shown(examples.TRADE)

    id: int
    symbol: str
    side: Side
    quantity: Number
    price: Number
    amount: Money
    fee: Money
    realised_pnl: Money | None
    currency: Currency
    executed_at: Instant


class TradeQuery(_Wire):
    """
    Which trades, and how many of them at once.
    """

    model_config = ConfigDict(extra="forbid")

    symbol: Symbol | None = Field(None, description="Only trades of this instrument.")
    side: Side | None = Field(None, description="Only buys, or only sales.")
    since: Moment | None = Field(None, alias="from", description="Executed at this time or later.")
    until: Moment | None = Field(None, alias="to", description="Executed before this time.")
    limit: int = Field(50, ge=1, le=500, description="Trades on a page.")
    cursor: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_-]{22}$", description="`next_cursor` of the page before, unchanged."
    )


class MonthlyQuery(_Wire):
    """
    Which months.
    """

    model_config = ConfigDict(extra="forbid")

    first: Month = Field("1970-01", alias="from", description="The first month.")
    last: Month = Field("2199-12", alias="to", description="The last month.")


class TradePage(_Wire):
    """
    Trades, newest first. `next_cursor` and `next` lead to older ones; both are null on the last page.
    """

    model_config = _shown(examples.TRADE_PAGE)

    items: list[Trade]
    next_cursor: str | None
    next: str | None


class PositionQuery(_Wire):
    """
    Which positions.
    """

    model_config = ConfigDict(extra="forbid")

    with_closed: bool = Field(default=False, description="List what was sold out too.")


class Position(_Wire):
    """
    An open position at the current quote. Without a quote, `price`, `market_value` and `unrealised_pnl` are null.
    """

    model_config = _shown(examples.POSITION)

    symbol: str
    name: str
    quantity: Number
    cost_basis: Money
    price: Number | None
    priced_at: Instant | None
    market_value: Money | None
    unrealised_pnl: Money | None
    realised_pnl: Money


class Positions(_Wire):
    """
    Positions and their sums. `market_value` and `unrealised_pnl` add up what has a quote; `realised_pnl` counts what
    was sold out too, whether it is listed or not.
    """

    model_config = _shown(examples.POSITIONS)

    currency: Currency
    cash: Money
    cost_basis: Money
    market_value: Money
    unrealised_pnl: Money
    realised_pnl: Money
    items: list[Position]


class MonthResult(_Wire):
    """
    One month with trades, in the account's time zone.
    """

    model_config = _shown(examples.MONTH)

    month: str = Field(pattern=r"^\d{4}-\d{2}$", examples=["2026-10"])
    trades: int
    bought: Money
    sold: Money
    fees: Money
    realised_pnl: Money


class MonthlyReport(_Wire):
    """
    Realised profit and loss by month, oldest first; months without trades are left out.
    """

    model_config = _shown(examples.MONTHLY_REPORT)

    currency: Currency
    time_zone: str = Field(description="A name of the IANA database.")
    realised_pnl: Money
    items: list[MonthResult]


class Account(_Wire):
    """
    The caller's account.
    """

    model_config = _shown(examples.ACCOUNT)

    id: int
    owner_name: str
    currency: Currency
    time_zone: str = Field(description="A name of the IANA database.")
    cash: Money


class BadRow(_Wire):
    """
    A row that was not booked: where it is in the file, and why.
    """

    model_config = _shown(examples.BAD_ROW)

    line: int = Field(description="Line of the file that the row begins on; the header is line 1.")
    external_id: str | None
    reason: str
    detail: str


class ImportReport(_Wire):
    """
    What became of a file's rows. `duplicates` were there already, equal in every column.
    """

    model_config = _shown(examples.IMPORT_REPORT)

    mode: Literal["all", "partial"]
    rows: int
    loaded: int
    duplicates: int
    rejected: int
    errors: list[BadRow] = Field(description="The first 100 rejected rows.")
