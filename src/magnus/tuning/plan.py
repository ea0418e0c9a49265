"""A plan: which changes, to which server, why, and how each is taken back; pure, JSON in and out.

A plan holds the before-image of each change, so that it can be seen to be stale, and a digest over everything, so that
what was read is what is applied. It knows neither rules nor connections.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from magnus.errors import ConfigError
from magnus.tuning.change import Assumptions, Change, Kind, Proof, Refusal, Risk, Target
from magnus.tuning.quoting import requoted
from magnus.tuning.setting import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from magnus.tuning.facts import Server

__all__ = [
    "FORMAT_VERSION",
    "Assumptions",
    "Change",
    "Context",
    "Kind",
    "Plan",
    "Proof",
    "Refusal",
    "Risk",
    "State",
    "Target",
    "canonical",
    "current",
    "diff",
    "identity_differences",
    "reverse",
    "reversed_plan",
    "state_of",
]

FORMAT_VERSION: Final = "1.0"


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Changes for one server, in the order in which they are made.

    Attributes:
        created: UTC, ISO 8601.
        magnus_version: Of the program that made it.
        order: With standbys: what is done where, first to last.
        digest: SHA-256 over everything else as canonical JSON; filled by `sealed`.
    """

    target: Target
    changes: tuple[Change, ...] = ()
    refused: tuple[Refusal, ...] = ()
    warnings: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    assumptions: Assumptions = field(default_factory=Assumptions)
    proof: Proof | None = None
    created: str = ""
    magnus_version: str = ""
    format_version: str = FORMAT_VERSION
    digest: str = ""

    def sealed(self) -> Self:
        """
        Return the plan with its digest.
        """
        return replace(self, digest=self.computed_digest())

    def computed_digest(self) -> str:
        """
        Return the digest that the content has now.
        """
        content = {name: value for name, value in asdict(self).items() if name != "digest"}
        return hashlib.sha256(canonical(content)).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """
        Return the plan as plain JSON data.
        """
        found: dict[str, Any] = json.loads(canonical(asdict(self)))
        return found

    def dumps(self) -> str:
        """
        Return the plan as the text of its file.
        """
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> Self:
        """
        Read a plan's file.

        Raises:
            ConfigError: no plan, of a later major format, or changed since it was made.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError("plan", "…", f"is no JSON: {error}") from None
        return cls.from_json(data)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """
        Read a plan from plain JSON data, and check its digest.

        Raises:
            ConfigError: no plan, of a later major format, or changed since it was made.
        """
        content = _object("plan", data)
        version = str(content.get("format_version", ""))
        if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
            raise ConfigError("plan", version or None, f"must have format_version {FORMAT_VERSION}; make it again")
        try:
            found = cls(**{**_known(cls, content), **_parts(content)})
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise ConfigError("plan", "…", f"cannot be read: {error}") from None
        if found.digest != found.computed_digest():
            raise ConfigError("plan", found.digest, "was changed after it was made; make it again: magnus plan --out")
        ids = [change.id for change in found.changes]
        if len(set(ids)) != len(ids):
            raise ConfigError("plan", "…", "holds two changes with one id; make it again")
        return found

    def only(self, ids: Iterable[str]) -> Self:
        """
        Return the plan with some of its changes, and what they need, under a digest of its own.

        Raises:
            ConfigError: an id that is not in it.
        """
        by_id = {change.id: change for change in self.changes}
        wanted, pending = set[str](), list(ids)
        while pending:
            name = pending.pop()
            if name not in by_id:
                raise ConfigError("change", name, f"is not in the plan, which has {', '.join(by_id) or 'none'}")
            if name not in wanted:
                wanted.add(name)
                pending += by_id[name].needs
        return replace(self, changes=tuple(c for c in self.changes if c.id in wanted)).sealed()


class State(enum.StrEnum):
    """
    How a change stands on a server: still as before, already as after, or something else altogether.
    """

    PENDING = "pending"
    DONE = "done"
    DRIFTED = "drifted"


def reverse(change: Change) -> Change:
    """
    Return the change that takes a change back.
    """
    return replace(
        change,
        before=change.after,
        after=change.before,
        sql=change.undo,
        undo=change.sql,
        reason=f"take back: {change.reason}",
        needs=(),
    )


def reversed_plan(plan: Plan) -> Plan:
    """
    Return the plan that takes a plan back, last change first.
    """
    changes = tuple(reverse(change) for change in reversed(plan.changes))
    return replace(plan, changes=changes, refused=(), warnings=(), proof=None).sealed()


def diff(plan: Plan, server: Server) -> dict[str, State]:
    """
    Say of each change how it stands on a server now. A restart-level setting counts as done once it is in force.
    """
    return {change.id: state_of(change, server) for change in plan.changes}


def state_of(change: Change, server: Server) -> State:
    """
    Say of one change how it stands, as `diff` does.
    """
    return _state(change, current(change, server), server)


def current(change: Change, server: Server) -> str | None:
    """
    Return what a server has now where a change would put `after`; None: nothing. An index that is not valid is none to
    one that makes it, and there to one that drops it.
    """
    if change.kind is Kind.SETTING:
        setting = server.settings.get(change.name)
        return None if setting is None else setting.text
    if change.kind is Kind.EXTENSION:
        found = server.extension(change.name, change.database)
        return None if found is None else found.version
    if change.kind is Kind.ROLE_SETTING:
        place = (change.role, change.database, change.name)
        return next((s.value for s in server.role_settings if (s.role, s.database, s.name) == place), None)
    if change.kind is Kind.TABLE:
        return change.after if change.name in server.tables.get(change.database or "", frozenset()) else None
    is_valid = server.indexes.get(change.database or server.database, {}).get(requoted(change.name))
    if change.after is None:
        return None if is_valid is None else change.before
    return change.after if is_valid else None


def _state(change: Change, now: str | None, server: Server) -> State:
    setting = server.settings.get(change.name) if change.kind in {Kind.SETTING, Kind.ROLE_SETTING} else None

    def means(text: str | None) -> object:
        return text if text is None or setting is None else setting.means(text)

    if means(now) == means(change.after):
        return State.DONE
    return State.PENDING if means(now) == means(change.before) else State.DRIFTED


def identity_differences(plan: Plan, server: Server) -> tuple[str, ...]:
    """
    Say in which ways a server is not the one that a plan was made for; nothing: it is.

    Host and port may differ, because one server is reached in several ways; its identifier and version may not.
    """
    made, now = plan.target, Target.of(server)
    compared = (
        ("system identifier", made.system_identifier, now.system_identifier),
        ("major version", made.version_num // 10_000, now.version_num // 10_000),
        ("cluster name", made.cluster_name, now.cluster_name),
        ("role", _kind(made), _kind(now)),
    )
    found = [f"{what}: planned for {planned}, found {seen}" for what, planned, seen in compared if planned != seen]
    if made.data_directory and now.data_directory and made.data_directory != now.data_directory:
        found.append(f"data directory: planned for {made.data_directory}, found {now.data_directory}")
    return tuple(found)


def _kind(target: Target) -> str:
    return "standby" if target.is_standby else "primary"


def canonical(data: object) -> bytes:
    """
    Return JSON that is the same bytes for the same content: sorted, without spaces, UTF-8.
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _object(name: str, data: object) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ConfigError(name, type(data).__name__, "must be a JSON object")
    return data


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """
    Take the fields that a class has, lists as tuples, each of its type; what a later minor format adds is an error of
    the digest.
    """
    found = {item.name: _frozen(data[item.name]) for item in fields(kind) if item.name in data}
    for item in fields(kind):
        is_right = _TYPES.get(str(item.type))
        if item.name in found and is_right is not None and not is_right(found[item.name]):
            raise TypeError(f"{item.name} is no {item.type}")
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "str": _is_text,
    "str | None": lambda value: value is None or _is_text(value),
    "int": _is_number,
    "int | None": lambda value: value is None or _is_number(value),
    "bool": lambda value: isinstance(value, bool),
    "tuple[str, ...]": _is_texts,
    "tuple[tuple[str, int], ...]": lambda value: (
        isinstance(value, tuple) and all(len(item) == 2 and _is_text(item[0]) and _is_number(item[1]) for item in value)
    ),
    "Mapping[str, str]": lambda value: isinstance(value, dict) and _is_texts((*value, *value.values())),
}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _parts(data: Mapping[str, Any]) -> dict[str, Any]:
    proof = data.get("proof")
    return {
        "target": Target(**_known(Target, data["target"])),
        "changes": tuple(_change(item) for item in data.get("changes", ())),
        "refused": tuple(Refusal(**_known(Refusal, item)) for item in data.get("refused", ())),
        "assumptions": Assumptions(**_known(Assumptions, data.get("assumptions", {}))),
        "proof": None if proof is None else Proof(**_known(Proof, proof)),
    }


def _change(data: Mapping[str, Any]) -> Change:
    found = _known(Change, data)
    found |= {"kind": Kind(found["kind"]), "context": Context(found.get("context", "now"))}
    return Change(**found | {"risk": Risk(found.get("risk", "low"))})
