"""Read values from a control request, or raise an error that names the key."""

from collections.abc import Collection, Mapping


class BadRequest(Exception):
    """A control request is invalid; the text says which key and why."""


def read_object(value: object, allowed: Collection[str]) -> Mapping[str, object]:
    """Return *value* as a JSON object that has no other keys than those *allowed*.

    Raises:
        BadRequest: it is no object, or has an unknown key.
    """
    if not isinstance(value, dict):
        raise BadRequest("a JSON object is needed")
    for key in value:
        if key not in allowed:
            known = ", ".join(sorted(allowed))
            raise BadRequest(f"unknown key {key!r}; there are: {known}")
    return value


def read_integer(value: object, key: str, *, low: int, high: int) -> int:
    """Return *value* as a whole number from *low* to *high*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadRequest(f"{key!r} must be a whole number")
    if not low <= value <= high:
        raise BadRequest(f"{key!r} must be from {low} to {high}")
    return value


def read_seconds(value: object, key: str, *, maximum: float) -> float:
    """Return *value* as seconds, from 0 to *maximum*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{key!r} must be a number of seconds")
    if not 0 <= value <= maximum:
        raise BadRequest(f"{key!r} must be from 0 to {maximum:g} seconds")
    return float(value)


def read_text(value: object, key: str) -> str:
    """Return *value* as a string."""
    if not isinstance(value, str):
        raise BadRequest(f"{key!r} must be a string")
    return value


def read_flag(value: object, key: str) -> bool:
    """Return *value* as true or false."""
    if not isinstance(value, bool):
        raise BadRequest(f"{key!r} must be true or false")
    return value
