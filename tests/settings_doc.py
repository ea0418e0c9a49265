"""docs/settings.md from the rules themselves.

python tests/settings_doc.py --write
"""

from __future__ import annotations

import sys
from pathlib import Path

from magnus.tuning.rules import RULES

DOC = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = """# What is recommended, and by which formula

`make docs` writes this page from the rules in `src/magnus/tuning/rules/`. A value is planned only when it differs from
the present one by more than 5 % and the present one is not already better; what the server would refuse (a word that
its build does not know, a value out of bounds) or what outranks ALTER SYSTEM is named, not planned.

| letter | means |
|---|---|
| M | the memory that the server may use: the least of MemTotal, every cgroup limit above its process, and `--memory` |
| R | kept for the system and its page cache: a tenth of M, at least 512 MB, at most 8 GB |
| N | sessions: `max_connections`, or what the pooler opens at most (`--pooler pgbouncer:40`) when that is less |
| C | CPUs: the least of those that the process may run on and every quota, rounded up; or `--cpus` |
| W | what is left for queries: M - shared memory - R - autovacuum workers x `autovacuum_work_mem` - N x 8 MB |

**The memory proof.** Shared memory + N x 8 MB + N x 2 nodes x `hash_mem_multiplier` x `work_mem` + the autovacuum
workers + R is at most M. `work_mem` is rounded to a megabyte, which may take a twentieth of R. When the sessions do not
fit even at 4 MB and with `shared_buffers` at 15 % of M, nothing that takes memory is raised, and the plan says how many
sessions would fit. The suite tries a hundred thousand random servers.
"""
TABLE = "| setting | value | source or reason | bound | quick win |\n|---|---|---|---|---|"
OTHERS = """
## Not settings of the server

| what | value | why |
|---|---|---|
{rows}
"""
ROWS = (
    (
        "extension `pg_stat_statements` (quick-win-1)",
        "created in the database that `--dsn` names",
        "an extension is each database's own",
    ),
    (
        "`idle_in_transaction_session_timeout` (quick-win-4)",
        "60 s for each role that logs in and is no superuser, does not replicate and does not monitor",
        "never for the server: a person's session and a migration are spared",
    ),
    (
        "tables `slow_query_log`, `slow_query_plan` (quick-win-5)",
        "made where the search path puts them, granted to those roles",
        "a service may write its slow queries without owning the table",
    ),
)


def document() -> str:
    """
    The page as it should be.
    """
    parts = [HEAD]
    for group in dict.fromkeys(rule.group for rule in RULES):
        parts += [f"\n## {group.capitalize()}\n", TABLE]
        for rule in RULES:
            if rule.group == group:
                kept = "" if rule.is_planned else " (only said, never planned)"
                cells = (f"`{rule.setting}`", rule.formula + kept, rule.source, rule.cap, ", ".join(rule.quick_win))
                parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n" + OTHERS.format(rows="\n".join(f"| {' | '.join(row)} |" for row in ROWS))


if __name__ == "__main__":
    if "--write" in sys.argv:
        DOC.write_text(document())
    else:
        sys.stdout.write(document())
