"""What one lane may be given of a pool, and in which bounds; how a pool divides itself is `pool._lanes`'."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

from magnus._values import flag, seconds, whole
from magnus.errors import ConfigError
from magnus.lanes import QueryPriority, parse

SHEDDABLE: Final = (QueryPriority.NORMAL, QueryPriority.LOW, QueryPriority.BACKGROUND)


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """
    What one lane may use of a pool, where it shall differ from what is computed; None: as computed.

    Attributes:
        cap: Slots that this lane and all below it may hold together, 1 to `max_pool_size`. CRITICAL's is always all.
        weight: Its share of hand-offs beside the other lanes', 1 to 100. CRITICAL has none: it is served first.
        max_waiting: Callers that may queue.
        shedding: Whether a queue of it that stands is shed; NORMAL, LOW and BACKGROUND only.
        wait_target: Seconds of waiting above which a queue stands, and a longer wait is worthless: whoever waited twice
            as long is shed, although it could be served in time. Not given, a hundredth of the lane's limit, and nobody
            is shed unless somebody would come too late anyway.
    """

    cap: int | None = None
    weight: int | None = None
    max_waiting: int | None = None
    shedding: bool | None = None
    wait_target: float | None = None


AS_COMPUTED: Final = LaneSettings()


def from_json(name: str, own: object) -> LaneSettings:
    """
    Return what the JSON of one lane says; its values are not judged yet.
    """
    if not isinstance(own, dict) or own.keys() - {item.name for item in fields(LaneSettings)}:
        raise ConfigError(name, own, f"may have {', '.join(item.name for item in fields(LaneSettings))}")
    return LaneSettings(**own)


def checked(found: object, max_pool_size: int) -> dict[QueryPriority, LaneSettings]:
    """
    Return the settings by lane, each within its bounds and no cap above the one of a lane above.
    """
    try:
        pairs = {parse(lane): own for lane, own in dict(found).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("lanes", found, "must map lanes to LaneSettings") from None
    highest = max_pool_size
    for lane in QueryPriority:
        if lane in pairs:
            pairs[lane] = _lane(f"lanes[{lane}]", lane, pairs[lane], highest)
            highest = pairs[lane].cap or highest
    return pairs


def _lane(name: str, lane: QueryPriority, own: object, highest: int) -> LaneSettings:
    if not isinstance(own, LaneSettings):
        raise ConfigError(name, own, "must be LaneSettings")
    is_critical = lane is QueryPriority.CRITICAL
    for part, least, most in (("cap", 1, highest), ("weight", 1, 100), ("max_waiting", 0, None)):
        value = getattr(own, part)
        if value is None:
            continue
        whole(f"{name}.{part}", value, least)
        if is_critical and part != "max_waiting":
            raise ConfigError(f"{name}.{part}", value, "cannot be set: it may use every slot and is served first")
        if most is not None and value > most:
            raise ConfigError(f"{name}.{part}", value, f"must be at most {most}")
    if own.shedding is not None:
        flag(f"{name}.shedding", own.shedding)
        if own.shedding and lane not in SHEDDABLE:
            raise ConfigError(f"{name}.shedding", own.shedding, "is for normal, low and background only")
    target = own.wait_target
    return own if target is None else replace(own, wait_target=seconds(f"{name}.wait_target", target))
