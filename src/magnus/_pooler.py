"""Behind a pooler in transaction mode: what is refused there, which limits hold, and which pooler stands between. Pure.

It knows texts, limits and process ids; never a connection.

Theory of operation. A pooler in transaction mode lends a server's session for one transaction. What lives in a session
(settings, listeners, locks, temporary tables, named statements) is then left in whichever session it met, and missing
in the next one. So what certainly needs a session is refused before it is sent; what is local to a transaction is not.
A statement of its own runs under the limit that the role was given on the server; where its lane may take longer it is
put into a transaction with a limit of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from magnus._effects import CURSOR, LASTING, LISTEN, LOCKS, PREPARED, ROLE, SETTINGS, TEMP, effect_of
from magnus.errors import ConfigError, NeedsSession
from magnus.lanes import LANES, QueryPriority
from magnus.session import SLACK, STARTUP, LaneLimit, ReadOnly, limit_of, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from magnus.config import DatabaseConfig
    from magnus.session import Need

# --- what needs a session --------------------------------------------------------------------------------------------

_DIRECT: Final = "use a connection past the pooler (direct_dsn)"
_INSTEAD: Final = MappingProxyType({
    LISTEN: ("LISTEN", _DIRECT),
    LOCKS: ("an advisory lock of the session", "use pg_advisory_xact_lock inside a transaction"),
    ROLE: ("SET ROLE", 'use db.transaction(settings={"role": …}), or SET LOCAL ROLE inside a transaction'),
    SETTINGS: ("SET", "use db.transaction(settings={…}), SET LOCAL inside a transaction, or ALTER ROLE … SET"),
    CURSOR: ("a cursor WITH HOLD", "read it inside its transaction"),
    PREPARED: ("a statement prepared by name", "leave the name out; every statement is prepared anew here"),
    TEMP: ("a temporary table", "create it inside a transaction, ON COMMIT DROP"),
    LASTING: ("a change of the session that nothing takes back", _DIRECT),
})  # fmt: skip
"""What is refused, by the word of `_effects`, the most telling first: its name, and what to do instead."""

_DROPPED: Final = re.compile(r"\bon\s+commit\s+drop\b", re.IGNORECASE)
_MADE: Final = re.compile(r"\b(?:create\s+(?:or\s+replace\s+)?|into\s+)(?:(?:local|global)\s+)?temp", re.IGNORECASE)
# Functions of the server's that write nothing; of others nobody here knows.
_READING: Final = frozenset(re.findall(r"\w+", """
    abs age any_value array_agg array_append array_cat array_length array_position array_prepend array_remove
    array_to_json array_to_string array_upper avg bit_and bit_or bool_and bool_or btrim cardinality ceil ceiling chr
    clock_timestamp concat concat_ws convert_from convert_to corr count cume_dist current_database current_schema
    current_setting date_bin date_part date_trunc decode dense_rank div encode every exp first_value floor format
    generate_series generate_subscripts get_byte host initcap isfinite json_agg json_array_elements
    json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text
    json_object_agg json_object_keys json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_each_text jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_query
    jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record
    jsonb_to_recordset jsonb_typeof lag last_value lead left length ln log lower lpad ltrim make_date make_interval
    make_time make_timestamp make_timestamptz max md5 min mod mode now nth_value ntile num_nonnulls num_nulls
    octet_length percent_rank percentile_cont percentile_disc pg_backend_pid pg_column_size pg_is_in_recovery
    pg_postmaster_start_time pg_sleep pg_table_is_visible pg_typeof plainto_tsquery power quote_ident quote_literal
    rank regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table repeat replace
    reverse right round row_number row_to_json rpad rtrim sha256 sign split_part sqrt starts_with
    statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strpos substr sum
    to_char to_date to_hex to_json to_jsonb to_number to_regclass to_timestamp to_tsquery to_tsvector
    transaction_timestamp translate trunc ts_headline ts_rank unnest upper var_pop var_samp variance version
    websearch_to_tsquery width_bucket
"""))  # fmt: skip


@lru_cache(2_048)
def _dirties(text: str) -> tuple[frozenset[str], bool]:
    """
    Return the words of what a text certainly leaves in its session, and whether it only reads as far as its text goes.
    """
    effect = effect_of(text, _READING)
    return effect.dirties & _INSTEAD.keys(), effect.is_plain_read


def is_read(text: str) -> bool:
    """
    Say whether a text is made of nothing but queries, which call no functions but such of the server's as write
    nothing. What views, operators and policies do is not known.
    """
    return _dirties(text)[1]


def refusal(text: str, *, is_in_transaction: bool) -> NeedsSession | None:
    """
    Return why a statement cannot be run behind a transaction pooler, None when it can.
    """
    found, _ = _dirties(text)
    if not found:
        return None
    if is_in_transaction and (not _MADE.search(text) or _DROPPED.search(text)):
        found -= {TEMP}
    return next((NeedsSession(*_INSTEAD[word]) for word in _INSTEAD if word in found), None)


def refusal_of(word: str) -> NeedsSession:
    """
    Return why a method of the driver's, which leaves `word` behind, cannot be used.
    """
    return NeedsSession(*_INSTEAD.get(word, _INSTEAD[LASTING]))


# --- limits ----------------------------------------------------------------------------------------------------------


def statement_limits(config: DatabaseConfig, default: float) -> Mapping[QueryPriority, LaneLimit]:
    """
    Return the limits of statements outside transactions, where sessions have `default` seconds (inf: no limit).

    A lane that may take longer than that needs a limit of its own, and so a transaction.
    """
    found = {}
    for lane in LANES:
        client = config.lane_timeout(lane)
        found[lane] = LaneLimit(client, STARTUP if client <= default else client + SLACK)
    return MappingProxyType(found)


def needs_block(need: Need, default: float, text: str, *, attempts: int) -> bool:
    """
    Say whether a statement of its own must be put into a transaction, to have its limit or to be READ ONLY.

    A read is sent as it is the first time, when its text can be nothing else; what calls functions of the users' may
    be, and runs READ ONLY. So does a repeat, so that nothing happens twice which was declared a read and is none.
    """
    limit = limit_of(need)
    if limit is not None and limit > default and not _NO_BLOCK.match(text):
        return True
    return isinstance(need, ReadOnly) and (attempts > 1 or not is_read(text))


# What the server refuses inside a transaction.
_NO_BLOCK: Final = re.compile(
    r"\s*(?:vacuum|create\s+(?:unique\s+)?index\s+concurrently|drop\s+index\s+concurrently|reindex|cluster|"
    r"(?:create|drop)\s+(?:database|tablespace|subscription)|alter\s+system|call|do|begin|start|commit|end|rollback)\b",
    re.IGNORECASE,
)


def opening(need: Need, fallback: float) -> str:
    """
    Return BEGIN for one statement; `fallback` is its limit in seconds where `need` names none.
    """
    limit = limit_of(need)
    mode = " READ ONLY" if isinstance(need, ReadOnly) else ""
    return f"BEGIN{mode}; SET LOCAL statement_timeout TO {milliseconds(fallback if limit is None else limit)}"


# --- which pooler ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What two connections saw of their sessions, in turns.

    Attributes:
        announced: The process id that the first was told at its start.
        first: Those that it met, one statement each, while the second did not work, and while it held a transaction.
        second: Those that the second met in its transactions.
        statement_timeout: What sessions start with (seconds, 0: no limit).
        idle_timeout: The same for idle_in_transaction_session_timeout.
    """

    announced: int
    first: Sequence[int]
    second: Sequence[int]
    statement_timeout: float = 0.0
    idle_timeout: float = 0.0

    @property
    def is_transaction_mode(self) -> bool:
        """
        Whether the two were lent the same session, or one of them different ones.
        """
        return len(set(self.first)) > 1 or len(set(self.second)) > 1 or not set(self.first).isdisjoint(self.second)

    @property
    def is_direct(self) -> bool:
        """
        Whether the first has the session that it was told of.
        """
        return not self.is_transaction_mode and set(self.first) == {self.announced}


def misjudged(pooler: str, sight: Sight) -> ConfigError | None:
    """
    Return what is wrong with the setting `pooler`, with the fix; None when it is right.
    """
    if pooler == "none":
        if not sight.is_transaction_mode:
            return None
        return ConfigError(
            "pooler", pooler,
            "is wrong: a pooler in transaction mode stands between, so settings, locks and prepared statements of a "
            'session would meet another one. Set pooler="transaction" (MAGNUS_POOLER=transaction), or connect directly',
        )  # fmt: skip
    if sight.is_transaction_mode:
        return None
    if sight.is_direct:
        fix = 'no pooler stands between: set pooler="none", which is faster and guards every session'
    else:
        fix = 'the pooler keeps a session for each client: set pool_mode = transaction there, or pooler="none" here'
    return ConfigError("pooler", pooler, f"is wrong: {fix}")


def advice(config: DatabaseConfig, sight: Sight) -> str | None:
    """
    Return the SQL that gives the role's sessions the guards which a pooler's client cannot give; None: they have them.
    """
    if sight.statement_timeout and sight.idle_timeout:
        return None
    limit = milliseconds(config.lane_timeout(QueryPriority.NORMAL) + SLACK)
    idle = milliseconds(config.idle_in_transaction_session_timeout)
    return (
        f"ALTER ROLE … SET statement_timeout = {limit}; "
        f"ALTER ROLE … SET idle_in_transaction_session_timeout = {idle}; "
        "ALTER ROLE … SET client_connection_check_interval = 500"
    )
