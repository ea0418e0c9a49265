"""The arguments of the commands that make and remove tables of ours; what they do is in a module of each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from magnus.cli import render
from magnus.cli.answer import Answer, ExitCode, Failure
from magnus.cli.options import FromShared, Shared, carry_out

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRINT = Parameter(name="--print", help="Print the SQL instead of running it.", negative="")


def install(*, print_: Annotated[bool, _PRINT] = False, shared: FromShared) -> int:
    """
    Make the slow-query log's tables, or bring them up to date.
    """
    return _migrate("install", is_printed=print_, yes=True, shared=shared)


def remove(
    *,
    print_: Annotated[bool, _PRINT] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Remove the slow-query log's tables, with what was logged.
    """
    return _migrate("remove", is_printed=print_, yes=yes, shared=shared)


def install_once(*, print_: Annotated[bool, _PRINT] = False, shared: FromShared) -> int:
    """
    Make the table of keys and answers where it is missing.
    """
    from magnus.cli import once as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        return module.script() if print_ else look("once install", shared.dsn, os.environ, module.install)

    return carry_out("once install", call, shared)


def expire_once(
    *, days: Annotated[float, Parameter(help="Answers that are older go.")] = 30.0, shared: FromShared
) -> int:
    """
    Take old answers away; keys and references stay for ever, so nothing can happen twice.
    """
    from magnus.cli import once as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        return look("once expire", shared.dsn, os.environ, lambda con: module.expire(con, days))

    return carry_out("once expire", call, shared)


def install_cache(
    *tables: Annotated[str, Parameter(help="Tables that seldom change: TABLE, SCHEMA.TABLE, or TABLE=TAG.")],
    print_: Annotated[bool, _PRINT] = False,
    shared: FromShared,
) -> int:
    """
    Make tables tell of their changes: a version that rises and a notification, by a trigger for each statement.

    Writers of one table then wait for each other's commit, so a table that is written all the time is refused.

    Example: magnus cache install instruments prices --print
    """
    return _cache("install", tables, is_printed=print_, shared=shared)


def remove_cache(
    *tables: Annotated[str, Parameter(help="Tables that shall tell no more; none: everything.")],
    print_: Annotated[bool, _PRINT] = False,
    shared: FromShared,
) -> int:
    """
    Take the triggers off tables; without tables, off all of them, with the versions.
    """
    return _cache("remove", tables, is_printed=print_, shared=shared)


def _cache(kind: str, tables: Sequence[str], *, is_printed: bool, shared: Shared) -> int:
    from magnus.cli import cache as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        if is_printed:
            return module.script(kind, tables)
        return look(f"cache {kind}", shared.dsn, os.environ, lambda con: module.migrate(con, kind, tables))

    return carry_out(f"cache {kind}", call, shared)


def _migrate(kind: str, *, is_printed: bool, yes: bool, shared: Shared) -> int:
    from magnus.cli import slow as module
    from magnus.cli.session import look

    def call() -> Answer | Failure:
        if is_printed:
            return module.script(kind)
        if not yes and not render.confirm("Remove slow_query_log and slow_query_plan, with what was logged?"):
            return Failure(f"slow {kind}", ExitCode.REFUSED, "nothing was removed", "say yes, or --yes")
        return look(f"slow {kind}", shared.dsn, os.environ, lambda con: module.migrate(con, kind))

    return carry_out(f"slow {kind}", call, shared)
