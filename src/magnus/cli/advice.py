"""The arguments of the commands that judge a server and advise; what they do is in a module of each."""

from __future__ import annotations

import asyncio
import enum
import os
from functools import partial
from pathlib import Path  # noqa: TC003  # the annotations of commands are read at run time
from typing import Annotated, Final

from cyclopts import Parameter

from magnus.cli.options import FromShared, carry_out
from magnus.tuning.facts import Profile, Storage
from magnus.tuning.roles import Kind  # noqa: TC001  # as above
from magnus.tuning.targets import Name as Target  # noqa: TC001  # as above


class FailOn(enum.StrEnum):
    """
    From which severity on findings make the answer a no.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def check(
    *,
    only: Annotated[list[str] | None, Parameter(negative="", help="Codes, or their beginnings: I001, V.")] = None,
    ignore: Annotated[
        list[str] | None, Parameter(negative="", help="Codes, or their beginnings, to leave out.")
    ] = None,
    fail_on: Annotated[FailOn, Parameter(help="The least severity that makes the exit code 1.")] = FailOn.ERROR,
    list_: Annotated[bool, Parameter(name="--list", negative="", help="List the checks, without a server.")] = False,
    memory: Annotated[str | None, Parameter(help="Memory of a server that is elsewhere, e.g. 8GB.")] = None,
    journal: Annotated[
        Path | None, Parameter(help="Folder of the journal of what was applied; else under XDG_STATE_HOME.")
    ] = None,
    shared: FromShared,
) -> int:
    """
    Examine a server: read only, in one snapshot, safe beside production.

    Each check is ok, a finding with its fix and undo, or unknown with what is missing; unknown is never ok.
    Exit codes: 0 clean, 1 findings of --fail-on or worse, 2 usage, 3 no connection.

    Example: magnus -d service=ava-prod check --ignore Q --fail-on warning --output-format github
    """
    from magnus.cli import check as command

    if list_:
        return carry_out("check", command.listing, shared)
    asked = command.Asked(tuple(only or ()), tuple(ignore or ()), str(fail_on), memory, journal)
    return carry_out("check", lambda: asyncio.run(command.check(shared.dsn, os.environ, asked)), shared)


def indexes(
    *,
    statements: Annotated[int, Parameter(help="How many of the slowest statements to look at.")] = 50,
    out: Annotated[Path | None, Parameter(help="Save a plan here, for magnus apply.")] = None,
    shared: FromShared,
) -> int:
    """
    Say which indexes are missing, invalid, doubled or unused. Changes nothing.

    The slowest statements are planned, never run. Indexes to make get names that begin with magnus_; only such ones are
    ever proposed to be dropped, everything else is for you to decide.

    Example: magnus -d service=ava-prod indexes --out plan.json
    """
    from magnus.cli.indexes import indexes as call

    return carry_out("indexes", lambda: asyncio.run(call(shared.dsn, os.environ, most=statements, out=out)), shared)


def explain(code: str | None = None, /, *, shared: FromShared) -> int:
    """
    Say what a check looks at, why, from which threshold on, and how to repair and undo it; all of them without CODE.

    Example: magnus explain I001
    """
    from magnus.cli.check import explain as call

    return carry_out("explain", lambda: call(code), shared)


def plan(
    *,
    only: Annotated[
        list[str] | None, Parameter(help="Quick wins, groups or settings: quick-win-1,work_mem", negative="")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Save the plan here, for magnus apply.")] = None,
    memory: Annotated[
        str | None, Parameter(help="Memory that the server may use: 8GB. Needed for a remote one.")
    ] = None,
    cpus: Annotated[int | None, Parameter(help="CPUs that it may use.")] = None,
    storage: Annotated[Storage | None, Parameter(help="What its data is on; else measured, where it is local.")] = None,
    profile: Annotated[Profile, Parameter(help="What it is for.")] = Profile.OLTP,
    pooler: Annotated[str | None, Parameter(help="What stands in front, and its connections: pgbouncer:40")] = None,
    target: Annotated[Target | None, Parameter(help="Print the plan in another form: SQL, file, Patroni, RDS.")] = None,
    detailed_exitcode: Annotated[bool, Parameter(help="Exit with 1 when there are changes.", negative="")] = False,
    explain_mission: Annotated[bool, Parameter(help="Judge the well-known quick-win list too.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Say which settings, extensions and tables to change, why, and how each is undone. Changes nothing.

    Example: magnus -d service=ava-prod plan --only quick-win-10 --out plan.json
    """
    from magnus.cli.plan import Told, Wish
    from magnus.cli.plan import plan as call

    told = Told(memory, cpus, storage, profile, pooler)
    wish = Wish(tuple(only or ()), out, target, detailed_exitcode, explain_mission)
    return carry_out("plan", lambda: asyncio.run(call(shared.dsn, os.environ, told, wish)), shared)


def pgbouncer(
    *,
    processes: Annotated[int, Parameter(help="Processes of services that will use it.")] = 10,
    connections: Annotated[int | None, Parameter(help="Connections to the server, all together; else by CPUs.")] = None,
    cpus: Annotated[int | None, Parameter(help="CPUs that the server may use. Needed for a remote one.")] = None,
    shared: FromShared,
) -> int:
    """
    Print a pgbouncer.ini in transaction mode that fits the server, the lanes and the pools. Changes nothing.

    Example: magnus -d service=ava-prod pgbouncer --processes 50 --cpus 8 > pgbouncer.ini
    """
    from magnus.cli.pgbouncer import pgbouncer as call

    made = partial(call, processes=processes, connections=connections, cpus=cpus)
    return carry_out("pgbouncer", lambda: asyncio.run(made(shared.dsn, os.environ)), shared)


def role(
    kind: Kind,
    /,
    *,
    name: Annotated[str | None, Parameter(help="Its name; else magnus_monitor or magnus_tuner.")] = None,
    apply: Annotated[bool, Parameter(help="Make it now, in one transaction; needs a superuser.", negative="")] = False,
    shared: FromShared,
) -> int:
    """
    Print the grants of a role with exactly the rights that check and plan (monitor) or apply (tuner) need.

    Example: magnus -d service=ava-prod role monitor | psql service=ava-prod
    """
    from magnus.cli.role import role as call

    return carry_out("role", lambda: asyncio.run(call(shared.dsn, os.environ, kind, name, is_applied=apply)), shared)


COMMANDS: Final = (check, explain, indexes, plan, pgbouncer, role)
