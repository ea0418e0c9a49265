"""The account a unit of work is for: its transaction-local settings, and its cash row's lock.

Every statement on an account's data runs with these settings, so row-level security binds it to the one account,
whatever role the service has logged in with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ava.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from magnus import Transaction


class AccountMissing(Exception):
    """
    The account has no cash row: it is not open.
    """


def settings_of(account_id: int) -> Mapping[str, str]:
    """
    Return the settings that bind a transaction to one account.
    """
    return {"role": "ava_account", "ava.account_id": str(account_id)}


def scope_of(account_id: int) -> str:
    """
    Return whose the keys of an account are; row-level security knows the form.
    """
    return f"account:{account_id}"


async def lock(tx: Transaction, account_id: int) -> tuple[Decimal, str]:
    """
    Lock the account for this transaction and return its cash balance and currency.

    Raises:
        AccountMissing: there is nothing to lock.
    """
    row = await tx.fetchrow(statement("queries/lock_account"), account_id)
    if row is None:
        raise AccountMissing
    return row["balance"], row["currency"]
