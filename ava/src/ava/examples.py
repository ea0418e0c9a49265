"""The examples of the API's documentation, one a model; every one is valid, and the requests work as they stand."""

from __future__ import annotations

from typing import Any, Final

ORDER: Final[dict[str, Any]] = {"symbol": "ALBI", "side": "buy", "quantity": "1", "limit_price": "1000.00"}

TRADE: Final[dict[str, Any]] = {
    "id": 1000001,
    "symbol": "ALBI",
    "side": "sell",
    "quantity": "10",
    "price": "123.45",
    "amount": "1234.50",
    "fee": "0.00",
    "realised_pnl": "34.50",
    "currency": "EUR",
    "executed_at": "2026-11-20T09:30:00.000000Z",
}

CURSOR: Final = "AAZBpI9cIALBIALBIA9CQQ"

TRADE_PAGE: Final[dict[str, Any]] = {
    "items": [TRADE],
    "next_cursor": CURSOR,
    "next": f"/api/trades?limit=1&cursor={CURSOR}",
}

POSITION: Final[dict[str, Any]] = {
    "symbol": "ALBI",
    "name": "Alder Biotech SE",
    "quantity": "10",
    "cost_basis": "1200.00",
    "price": "123.45",
    "priced_at": "2026-11-20T09:30:00.000000Z",
    "market_value": "1234.50",
    "unrealised_pnl": "34.50",
    "realised_pnl": "0.00",
}

POSITIONS: Final[dict[str, Any]] = {
    "currency": "EUR",
    "cash": "8800.00",
    "cost_basis": "1200.00",
    "market_value": "1234.50",
    "unrealised_pnl": "34.50",
    "realised_pnl": "0.00",
    "items": [POSITION],
}

MONTH: Final[dict[str, Any]] = {
    "month": "2026-10",
    "trades": 12,
    "bought": "5000.00",
    "sold": "4200.50",
    "fees": "12.00",
    "realised_pnl": "188.25",
}

MONTHLY_REPORT: Final[dict[str, Any]] = {
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "realised_pnl": "188.25",
    "items": [MONTH],
}

ACCOUNT: Final[dict[str, Any]] = {
    "id": 1,
    "owner_name": "Anna Example",
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "cash": "8800.00",
}

BAD_ROW: Final[dict[str, Any]] = {
    "line": 3,
    "external_id": "T-000002",
    "reason": "invalid-row",
    "detail": "side: buy or sell",
}

IMPORT_REPORT: Final[dict[str, Any]] = {
    "mode": "partial",
    "rows": 3,
    "loaded": 1,
    "duplicates": 1,
    "rejected": 1,
    "errors": [BAD_ROW],
}

IMPORT_REFUSED: Final[dict[str, Any]] = {**IMPORT_REPORT, "mode": "all", "loaded": 0}

IMPORT_FILE: Final = (
    "external_id,symbol,side,quantity,price,fee,executed_at\n"
    "T-000001,ALBI,buy,10,123.45,1.00,2026-11-20T09:30:00+01:00\n"
)
