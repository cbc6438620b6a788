"""A page of this package -> a PDF file, by WeasyPrint, which needs Pango of the system."""

import logging
import os
import pathlib
import re
from typing import Any

from tfrecords_tools.atomic import published
from tfrecords_tools.errors import DataError, UsageError

_VARIABLES = re.compile(r"--(\w+): ([^;]+);")
_DRAWING_RULES = re.compile(r"svg [^{}]*\{[^{}]*\}")
_PAPER = """
.grid, .tiles, .gallery, .pairs { display: block !important; orphans: 1; widows: 1; }
.tiles > *, .grid > *, .gallery > *, .pairs > * { display: inline-block; vertical-align: top; }
.tiles > *, .grid > *, .gallery > *, .pairs > * { margin: 0 1.5% 10px 0; }
.tiles > * { width: 23%; } .grid > * { width: 48%; } .grid > .whole, .pairs > * { width: 98%; }
.gallery > * { width: 14%; } .gallery > .pair { display: inline-block !important; width: 31%; }
.gallery .pair img { display: inline-block !important; width: 48% !important; }
dl { display: block; } dt, dd { display: block; } dd { margin-bottom: 4px; }
@page { @bottom-right { content: counter(page) " / " counter(pages); font: 9px sans-serif; color: #5b6470; } }
"""  # WeasyPrint's grids do not break across pages
_DRAWINGS = re.compile(r"(<svg [^>]*>)")


def require() -> None:
    """Raises UsageError, which says what to install, where PDF files cannot be written."""
    _library()


def save(path: str | os.PathLike, page: str) -> None:
    """Publishes the page as printed on A4.

    Raises:
      UsageError: see `require`.
      DataError: the file cannot be written.
    """
    library = _library()
    document = library.HTML(string=_with_styled_drawings(page))
    content = document.write_pdf(stylesheets=[library.CSS(string=_PAPER)])
    try:
        with published(path, binary=True) as file:
            file.write(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def remove(path: pathlib.Path, *, replaced: bool) -> None:
    """Removes the PDF file of an earlier evaluation, which must not stand beside a newer report.

    Says so, except where it is `replaced` by a new one.
    """
    if path.is_file() and not replaced:
        print(f"removed {path}, which was of the evaluation before; --format=pdf writes a new one")
    path.unlink(missing_ok=True)


def _library() -> Any:
    try:
        import weasyprint
    except ImportError as error:
        raise UsageError(
            f"--format=pdf needs WeasyPrint ({error}): pip install 'deepduel[pdf]'; "
            "or open report.html in a browser and print it to a file"
        ) from None
    except OSError as error:
        first = str(error).splitlines()[0]
        raise UsageError(
            f"--format=pdf: WeasyPrint lacks a library of the system ({first}); on Debian and Ubuntu: "
            "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0; "
            "or open report.html in a browser and print it to a file"
        ) from None
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # not what it ignores of styles for screens
    return weasyprint


def _with_styled_drawings(page: str) -> str:
    """The page with its rules for drawings in each drawing: WeasyPrint applies no others, nor variables."""
    style = page[page.index("<style>") : page.index("</style>")]
    colours: dict[str, str] = {}
    for name, value in _VARIABLES.findall(style):
        colours.setdefault(name, value)  # those of the light scheme come first
    rules = " ".join(_DRAWING_RULES.findall(style))
    rules = re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], rules)
    return _DRAWINGS.sub(lambda match: f"{match[1]}<style>{rules}</style>", page)
