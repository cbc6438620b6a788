"""Checks of HTML pages."""

import html.parser


class BalancedPage(html.parser.HTMLParser):
    """Parses a page, and fails at an element that closes without being open.

    Attributes:
      open: names of the elements that are open; empty after a well-formed page.
      links: values of all src and href attributes.
    """

    VOID = {"meta", "br", "img", "path", "rect", "circle", "link", "input", "hr"}

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
