"""Hypothesis strategies that damage sound files, as chance and as an attacker would."""

import copy
from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(
    ["..", "../up", "/etc/passwd", "a/b", "a\n", "a\0", "", ".", "-a", "x" * 300, "\x1b[31m", "\u202e", "key"]
) | st.text(max_size=8)  # fmt: skip
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.5]
    + [float("nan"), float("inf"), 1e308]
)  # fmt: skip
HALVES = st.just("\ud800")  # of a character, which a JSON document can have and no file can
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES | HALVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged_documents(draw: Any, document: Any) -> Any:
    """A JSON document with one to three values replaced, removed, renamed or doubled."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(list(_places(document)) or [(None, None)]))
        if parent is None:
            return draw(VALUES)
        action = draw(st.sampled_from(["replace", "remove", "rename", "number"]))
        if action == "replace":
            parent[key] = draw(VALUES)
        elif action == "number":
            parent[key] = draw(NUMBERS)
        elif action == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(NAMES | HALVES)] = parent.pop(key)
    return document


def _places(value: Any) -> Any:
    """(container, key) of everything inside a document."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


@st.composite
def damaged_bytes(draw: Any, data: bytes) -> bytes:
    """Bytes with a few of them changed, cut out, doubled, moved or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64]))
        action = draw(st.sampled_from(["set", "set", "flip", "number", "cut", "double", "end", "random"]))
        if action == "set":
            changed[place : place + length] = bytes([draw(st.sampled_from([0, 1, 127, 128, 255]))]) * length
        elif action == "flip" and changed:
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "number":
            value = draw(st.integers(0, 2**32 - 1)).to_bytes(4, draw(st.sampled_from(["little", "big"])))
            changed[place : place + 4] = value
        elif action == "cut":
            del changed[place : place + length]
        elif action == "double":
            changed[place:place] = changed[place : place + length] * draw(st.sampled_from([1, 2, 300]))
        elif action == "end":
            del changed[place:]
        else:
            changed[place:place] = draw(st.binary(max_size=16))
    return bytes(changed)
