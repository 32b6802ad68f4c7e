"""Time zones by name, for keys and values: loading one from bytes must not reach outside of the time zone database."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from ._errors import DecodeError

# What IANA's own names look like. ZoneInfo turns a name into a path below the database, and into a package name below
# ``tzdata``; a dot or an empty part never belongs there.
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+\-]+(?:/[A-Za-z0-9_+\-]+)*")


def zone_name(zone: ZoneInfo) -> str | None:
    """The name that `load_zone` gives exactly this zone for, or None if there is none.

    A zone that was read from a file, or made by ``ZoneInfo.no_cache``, has none: the database's zone of its name is
    another object, possibly with other rules.
    """
    name = zone.key
    if type(name) is not str or _ZONE_NAME.fullmatch(name) is None:
        return None
    try:
        return name if ZoneInfo(name) is zone else None
    except Exception:
        # The database may have lost the zone since, in whichever way its files can be unreadable.
        return None


def load_zone(name: str) -> ZoneInfo:
    """The zone of this name from the time zone database.

    Raises:
        DecodeError: It is no name of a zone, or the database does not have it.
    """
    if _ZONE_NAME.fullmatch(name) is None:
        raise DecodeError(f"not the name of a time zone: {name!r}")
    try:
        return ZoneInfo(name)
    except Exception as error:
        raise DecodeError(f"the time zone database has no zone {name!r}; install the tzdata package") from error
