"""Which names of splits mean training, validation and test data: the same for all commands.

`Train`, `training_set`, `train2017` and `train_images` are training data; `val`, `valid`, `dev` and
`Validation` are validation data; `TEST`, `testing` and `test_set` are test data.
"""

import re
from collections.abc import Iterable

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_WORDS = {
    TRAIN: ("train", "training", "trn"),
    VALIDATION: ("validation", "valid", "val", "dev", "eval", "evaluation"),
    TEST: ("test", "testing", "tst"),
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words}
WORDS = frozenset(_ROLES)  # in lower case
# What may follow: `train_set` is a split, `train_station` is a class.
_QUALIFIERS = frozenset(
    (
        "set",
        "data",
        "dataset",
        "image",
        "images",
        "img",
        "imgs",
        "photos",
        "pictures",
        "samples",
        "split",
        "new",
    )
)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def role(name: str) -> str | None:
    """ "train", "validation" or "test" for a name that says so at its beginning, else None."""
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    if not tokens or not all(token in _QUALIFIERS or token.isdigit() for token in tokens[1:]):
        return None
    return _ROLES.get(tokens[0])


def role_at_end(name: str) -> str | None:
    """The same for names such as `seg_train`; classes such as `freight_train` are called so too."""
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    return _ROLES.get(tokens[-1]) if tokens else None


def find(names: Iterable[str], wanted: str) -> str | None:
    """The split that is meant by a name: the one of that name, else the only one of the same role.

    Examples:
      >>> find(["Train", "Valid"], "validation")
      'Valid'
    """
    names = list(names)
    if wanted in names:
        return wanted
    same_role = [name for name in names if role(name) is not None and role(name) == role(wanted)]
    return same_role[0] if len(same_role) == 1 else None
