import dataclasses
import tracemalloc
from typing import TypedDict

import pytest

from tfrecords_tools.format import documents
from tfrecords_tools.format.documents import AxisName, Count, DataName, FileName, OptionName, SplitName


class Sizes(TypedDict):
    sizes: dict[FileName, Count]


@dataclasses.dataclass(frozen=True)
class Document:
    axes: dict[AxisName, tuple[str, ...]]
    nested: Sizes
    count: Count = 0


def test_a_sound_document_is_read_and_unknown_fields_are_left_out():
    text = '{"axes": {"category": ["../a", "b\\n"]}, "nested": {"sizes": {"a.npy": 3}}, "later": 1}'
    assert documents.read(text, Document) == Document({"category": ("../a", "b\n")}, {"sizes": {"a.npy": 3}})


def test_characters_of_two_halves_and_a_mark_of_the_encoding_are_read():
    assert documents.parse(b'\xef\xbb\xbf["\\ud83d\\ude00"]') == ["\U0001f600"]


@pytest.mark.parametrize("kind", [AxisName, SplitName, FileName, DataName, OptionName])
@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", "/etc/passwd", "a\n", "a\0", "-a", ".a", "a b", "a" * 256, "á"],
)
def test_no_name_leaves_its_folder_or_reads_as_a_flag(kind, name):
    with pytest.raises(ValueError, match="Expected `str`"):
        documents.check({name: 1}, dict[kind, int])
    with pytest.raises(ValueError, match="Expected `str`"):
        documents.check([name], list[kind])


@pytest.mark.parametrize("name", ["image", "key"])
def test_an_axis_is_not_called_as_another_feature_of_a_record(name):
    with pytest.raises(ValueError, match="Expected `str`"):
        documents.check(name, AxisName)
    assert documents.check(f"{name}s", AxisName) == f"{name}s"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (AxisName, "generator_2"),  # of version 0.1.0
        (AxisName, "fake-kind"),
        (SplitName, "2024_test"),
        (FileName, "images-train.tfrecord-00000-of-00001.npy"),
        (FileName, "category.labels.txt"),
        (DataName, "_images_7"),
        (OptionName, "shard_mb"),
    ],
)
def test_names_that_conversions_give_are_read(kind, name):
    assert documents.check(name, kind) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5_000, "integer string conversion"),
        ("{", "Expecting property name"),
        (b"\xff\xfe{", "decode"),
        ("", "Expecting value"),
        (r'{"axes": {"a": ["\ud800"]}, "nested": {"sizes": {}}}', r"has U\+D800, which is only half"),
        (r'{"\uDfff": 1}', r"has U\+DFFF, which is only half"),
        ('["\udc80"]'.encode("utf-8", "surrogatepass"), "decode"),
        ("[]", r"Expected `object`, got `array`"),
        ('{"axes": {}, "nested": {"sizes": {"a": -1}}}', r"Expected `int` >= 0 - at `\$.nested.sizes"),
        ('{"axes": {}, "nested": {"sizes": {"a": 1e999}}}', r"Expected `int`, got `float`"),
        ('{"axes": {}, "nested": {"sizes": {"a": NaN}}}', r"Expected `int`, got `float`"),
        ('{"axes": {}, "nested": {"sizes": {"a": true}}}', r"Expected `int`, got `bool`"),
        ('{"axes": {}, "nested": {"sizes": {"a": "3"}}}', r"Expected `int`, got `str`"),
        ('{"axes": {"a": [3]}, "nested": {"sizes": {}}}', r"Expected `str`, got `int` - at `\$.axes"),
        ('{"axes": {}}', "missing required field `nested`"),
        ('{"axes": {}, "nested": {"sizes": {}}, "count": 1' + "0" * 400 + "}", r"Expected `int` <= \d+ - at"),
    ],
)  # fmt: skip
def test_a_hostile_document_is_refused_in_one_line(text, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        documents.read(text, Document)
    assert "\n" not in str(raised.value)


def test_a_document_of_any_size_is_refused_before_it_is_parsed(monkeypatch, tmp_path):
    monkeypatch.setattr(documents, "MAX_BYTES", 20)
    with pytest.raises(ValueError, match="30 bytes, more than the 20 that are read"):
        documents.parse(" " * 30)
    (tmp_path / "large.json").write_text(" " * 30)
    with pytest.raises(OSError, match="30 bytes, more than the 20"):
        documents.read_file(tmp_path / "large.json", Document)


@pytest.mark.parametrize("text", ["[" + "[]," * 300_000 + "[]]", "[" + '{"a":1},' * 120_000 + "1]"])
def test_the_memory_of_the_largest_document_is_what_is_stated(text):
    """2 GB in SECURITY.md; what a document takes is proportional to its bytes."""
    data = text.encode()
    tracemalloc.start()
    with pytest.raises(ValueError, match="Expected `object`"):
        documents.read(data, Document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 5 * len(data) < peak < len(data) * 2e9 / documents.MAX_BYTES
