"""Damaged archives, WebDatasets and Parquet files: the answer is one line, or images with keys of their own.

Longer: `make fuzz`.
"""

import contextlib
import io
import json
import pathlib
import tarfile
import warnings
import zipfile

import hypothesis
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import strategies as st

from tests.fuzz.mutations import NAMES, damaged_bytes, damaged_documents
from tests.helpers import odd_images
from tfrecords_tools.errors import DataError, UsageError
from tfrecords_tools.format.folder import DamagedMember
from tfrecords_tools.listing import folder as listing_folder
from tfrecords_tools.sources import opening

FUZZ = hypothesis.settings.get_profile("fuzz")
PICTURES = [odd_images.save(odd_images.picture(8, 8, seed=seed), "JPEG", quality=20) for seed in range(4)]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
INPUTS = {"web.tar": "tar:{}", "in.parquet": "parquet:{}"}  # others are named by their path


def packed_tar(members: list[tuple[str, bytes]], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def packed_zip(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # of names that come twice
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in members:
            archive.writestr(name.partition("\0")[0] or "a/", data)
    return stream.getvalue()


def packed_parquet(features: object = FEATURES, **columns: list) -> bytes:
    rows = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(PICTURES)]
    table = pyarrow.table({"image": rows, "label": [0, 1, 0, 1]} | columns)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


IMAGES = [(f"train/{'ab'[number % 2]}/{number}.jpg", data) for number, data in enumerate(PICTURES)]
SAMPLES = [
    member
    for number, data in enumerate(PICTURES)
    for member in ((f"{number}.jpg", data), (f"{number}.cls", b"%d" % (number % 2)))
]
SOUND = {
    "in.zip": packed_zip(IMAGES),
    "in.tar": packed_tar(IMAGES),
    "in.tar.gz": packed_tar(IMAGES, "w:gz"),
    "in.tar.zst": zstandard.ZstdCompressor().compress(packed_tar(IMAGES)),
    "web.tar": packed_tar(SAMPLES),
    "in.parquet": packed_parquet(),
}


def read_all(path: pathlib.Path) -> int:
    """Lists what a file has as `convert` does, and reads it. Returns the number of images."""
    source = None
    try:
        listing = listing_folder.scan(INPUTS.get(path.name, "{}").format(path), allow_missing_classes=True)
        source = listing.source
        for index in range(len(listing)):
            key, size = listing.key(index), int(listing.rows["size"][index])
            assert not key.startswith(b"/") and b".." not in key.split(b"/")
            with contextlib.suppress(DamagedMember):
                assert len(source.read_image(key, size, int(listing.rows["place"][index]))) <= size
        return len(listing)
    except (DataError, UsageError) as error:
        assert str(error).isprintable(), repr(str(error))
        return 0
    finally:
        if source is not None:
            opening.close(source)


@pytest.mark.parametrize("name", sorted(SOUND))
def test_sound_files_are_read_whole(tmp_path, name):
    (tmp_path / name).write_bytes(SOUND[name])
    assert read_all(tmp_path / name) == len(PICTURES)


@pytest.mark.parametrize("name", sorted(SOUND))
@hypothesis.settings(FUZZ)
@hypothesis.given(data=st.data())
def test_damaged_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data.draw(damaged_bytes(SOUND[name])))
    assert read_all(tmp_path / name) <= 10 * len(PICTURES)


MEMBERS = st.lists(
    st.tuples(
        NAMES | st.sampled_from(["a/0.jpg", "b/1.jpg", "0.jpg", "0.cls", "0.json", "0.txt", "metadata.csv"]),
        st.sampled_from([*PICTURES, b"", b"1", b"a\n", b'{"label": [1]}', b"\xff\xd8\xff", b"path,class\nx"]),
    ),
    max_size=5,
)  # fmt: skip


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "web.tar"])
@hypothesis.settings(FUZZ)
@hypothesis.given(members=MEMBERS)
def test_archives_of_odd_members(tmp_path, name, members):
    members = [(name.encode("utf-8", "replace").decode(), data) for name, data in members]
    pack = packed_zip if name == "in.zip" else packed_tar
    (tmp_path / name).write_bytes(pack(members))
    read_all(tmp_path / name)


COLUMNS = {
    name: st.lists(values | st.none(), min_size=4, max_size=4)
    for name, values in (("label", st.integers(-2, 3)), ("split", NAMES), ("key", NAMES))
}


@hypothesis.settings(FUZZ)
@hypothesis.given(features=damaged_documents(FEATURES), columns=st.fixed_dictionaries({}, optional=COLUMNS))
def test_parquet_files_of_odd_features_and_columns(tmp_path, features, columns):
    (tmp_path / "in.parquet").write_bytes(packed_parquet(features, **columns))
    read_all(tmp_path / "in.parquet")
