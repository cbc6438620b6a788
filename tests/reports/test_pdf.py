"""PDF: the pages of the report as printed, or one line that says what is missing."""

import re
import sys

import numpy as np
import pytest

from deepduel.reports import pdf, report_page, thumbnail
from tests.reports.test_report_page import document, task
from tfrecords_tools.errors import UsageError


class _Lacking:
    """An import hook that fails as WeasyPrint does on a machine without Pango."""

    def find_spec(self, name, path=None, target=None):
        if name == "weasyprint":
            raise OSError("cannot load library 'libpango-1.0-0'\nmore")


def test_the_file_of_an_earlier_evaluation_goes(tmp_path, capsys):
    path = tmp_path / "report.pdf"
    pdf.remove(path, replaced=False)
    assert not capsys.readouterr().out
    path.touch()
    pdf.remove(path, replaced=False)
    assert not path.exists() and f"removed {path}" in capsys.readouterr().out
    path.touch()
    pdf.remove(path, replaced=True)
    assert not path.exists() and not capsys.readouterr().out


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(UsageError, match=r"pip install 'deepduel\[pdf\]'"):
        pdf.require()


def test_without_the_library_of_the_system_the_message_names_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Lacking(), *sys.meta_path])
    with pytest.raises(UsageError, match=r"\(cannot load library 'libpango-1.0-0'\).*apt-get install"):
        pdf.require()


def test_drawings_carry_their_rules_without_variables():
    page = report_page.render(document())
    styled = pdf._with_styled_drawings(page)
    styles = re.findall(r"<svg [^>]*><style>(.*?)</style>", styled)
    assert len(styles) == page.count("<svg ") > 0
    assert "svg .right { fill: #2563c9; }" in styles[0] and "var(" not in styles[0]


@pytest.mark.slow
def test_the_report_becomes_pages_with_its_words_and_pictures(tmp_path):
    try:
        pdf.require()
    except UsageError as error:
        pytest.skip(str(error))
    from weasyprint import HTML

    picture = thumbnail.data_url(np.full((90, 90, 3), 77, np.uint8))
    image = {
        "key": "a.jpg", "truth": "a", "predicted": "b", "probability": 0.5, "picture": picture, "heat": None,
    }  # fmt: skip
    page = report_page.render(document(x=task(("a", "b", "c"))), {"x": [{"title": "M", "images": [image]}]})
    pdf.save(tmp_path / "report.pdf", page)
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and content.count(b"/Subtype /Image") >= 1
    assert len(content) > 2 * len(HTML(string="<p>empty").write_pdf())
