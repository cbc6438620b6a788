"""README.md and docs/*.md as data: fenced blocks, headings, links, flags.

A fence says what its block is: shell (commands, a backslash continues a line), python (the blocks of a page
share their names) or text (a drawing). A comment on the line before a block says that the tests treat it
otherwise, and why: `<!-- not run: REASON -->`, or `<!-- run alone: REASON -->` for a Python block that gets a
process of its own.
"""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARK = re.compile(r"<!-- (not run|run alone): (.+) -->")
_FENCE = re.compile(r"^(`{3,})(\S*)$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      page: its file.
      line: number of its first fence, from 1.
      language: what stands behind the fence.
      text: the lines between the fences.
      mark: "not run", "run alone", or "" for a block without a comment.
    """

    page: pathlib.Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def is_run(self) -> bool:
        return self.language != "text" and self.mark != "not run"

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: pathlib.Path) -> list[Block]:
    """The fenced blocks of a page, in order. Raises ValueError for a block without an end."""
    complete, opened, previous = [], None, ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            mark = _MARK.fullmatch(previous)
            opened = number, fence[1], fence[2], mark[1] if mark else "", []
        elif opened and line == opened[1]:
            first, _, language, mark, lines = opened
            complete.append(Block(page, first, language, "\n".join(lines) + "\n", mark))
            opened = None
        elif opened:
            opened[4].append(line)
        previous = line
    if opened:
        raise ValueError(f"{page}:{opened[0]}: a block without an end")
    return complete


def prose(page: pathlib.Path) -> str:
    """The text of a page without its fenced blocks."""
    text = page.read_text("utf-8")
    for block in blocks(page):
        text = text.replace(block.text, "")
    return text


def links(page: pathlib.Path) -> list[str]:
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs name them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    cleaned = (re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()) for heading in headings)
    return {re.sub(r"\s", "-", heading.strip()) for heading in cleaned}


def flag_names(page: pathlib.Path) -> set[str]:
    """The flags that a page's prose names in code: `--batch_size=64` -> batch_size."""
    code = re.findall(r"`([^`\n]+)`", prose(page))
    return {name for part in code for name in re.findall(r"--(\w[\w-]*)", part)}
