import pathlib
import re

TESTS = pathlib.Path(__file__).parents[1]


def test_every_promise_of_the_page_is_shown_by_a_test_that_exists():
    page = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
    shown = re.findall(r"`([^`]*)::(test_\w+)`", page)
    assert len(shown) >= 25
    path = ""
    for file, name in shown:
        path = path if file == "…" else file
        assert f"\ndef {name}(" in (TESTS / path).read_text("utf-8"), (path, name)
