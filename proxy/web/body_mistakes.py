"""What is wrong with a request body, in the words of its documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

LONGEST_KEY = 40
"""Characters of an unknown key that are quoted."""


def describe(error: msgspec.MsgspecError, rules: Mapping[str, str]) -> str:
    """Return what is wrong and what to send, as the end of a sentence.

    msgspec's own words are about Python's types. *rules* has what each key of the body
    must be.

    Source: https://jcristharif.com/msgspec/usage.html#typed-decoding
    """
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return "it is not JSON"
    if unknown := re.match("Object contains unknown field `(.*)`", text, re.DOTALL):
        key = unknown[1][:LONGEST_KEY]
        return f"there is no key {key!r}; the keys are {', '.join(rules)}"
    if missing := re.match("Object missing required field `(.*)`", text):
        return f"{missing[1]} is missing; it must be {rules[missing[1]]}"
    if wrong := re.search(r"at `\$\.(\w+)", text):
        return f"{wrong[1]} must be {rules[wrong[1]]}"
    return f"it must be an object with the keys {', '.join(rules)}"
