"""Feature rows on disk: what was written is read, what is missing or damaged is reported as missing."""

import numpy as np
import pytest

from deepduel.training import feature_store
from deepduel.training.feature_store import CHUNK, FeatureStore, Source
from tfrecords_tools.errors import DataError

RECORDS = 2 * CHUNK + 3


def _source(**changed) -> Source:
    fields = {
        "task": "kind",
        "split": "train",
        "records": RECORDS,
        "shape": (5,),
        "views": 2,
        "about": {"seed": 1},
    }
    return Source(**fields | changed)


def _rows(view: int, chunk: int) -> np.ndarray:
    return np.random.default_rng([view, chunk]).normal(size=(CHUNK, 5)).astype(np.float32)


@pytest.fixture
def full(tmp_path):
    store = FeatureStore(tmp_path, _source())
    for view in range(2):
        for chunk in store.missing(view).tolist():
            store.write(view, chunk, _rows(view, chunk))
    store.release()
    return store


def test_rows_come_back_as_float16_by_record_number(full):
    records = np.array([RECORDS - 1, 0, CHUNK, CHUNK - 1, 0])
    for view in range(2):
        expected = [_rows(view, record // CHUNK)[record % CHUNK] for record in records.tolist()]
        np.testing.assert_array_equal(full.read(view, records), np.array(expected, np.float16))


def test_a_store_that_was_begun_is_completed(tmp_path):
    store = FeatureStore(tmp_path, _source())
    assert store.missing(0).tolist() == store.missing(1).tolist() == [0, 1, 2]
    store.write(0, 1, _rows(0, 1))
    store.release()  # as the end of a process does
    again = FeatureStore(tmp_path, _source())
    assert again.missing(0).tolist() == [0, 2] and again.missing(1).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(again.read(0, np.array([CHUNK])), _rows(0, 1)[:1].astype(np.float16))


def test_more_views_keep_those_that_are_there(full, tmp_path):
    more = FeatureStore(tmp_path, _source(views=3))
    assert [len(more.missing(view)) for view in range(3)] == [0, 0, 3]


@pytest.mark.parametrize("changed", [{"about": {"seed": 2}}, {"shape": (6,)}, {"records": RECORDS - 1}])
def test_features_of_something_else_are_another_store(full, tmp_path, changed):
    other = FeatureStore(tmp_path, _source(**changed))
    assert other.path != full.path and len(other.missing(0))


def test_a_flipped_bit_makes_its_chunk_missing(full, tmp_path):
    path = full.path / "view-01.f16"
    content = bytearray(path.read_bytes())
    content[CHUNK * 10 + 4] ^= 1
    path.write_bytes(content)
    again = FeatureStore(tmp_path, _source())
    assert again.damaged == 1 and again.missing(0).tolist() == [] and again.missing(1).tolist() == [1]


@pytest.mark.parametrize("name", ["view-00.f16", "view-00.sums"])
def test_a_file_cut_short_is_computed_again(full, tmp_path, name):
    path = full.path / name
    path.write_bytes(path.read_bytes()[:-1])
    again = FeatureStore(tmp_path, _source())
    assert again.missing(0).tolist() == [0, 1, 2] and again.missing(1).tolist() == []


def test_rows_of_nan_are_records_that_do_not_decode(tmp_path):
    store = FeatureStore(tmp_path, _source(records=4))
    rows = np.ones((4, 5), np.float32)
    rows[2] = np.nan
    rows[3] = 1e9  # beyond float16
    store.write(0, 0, rows)
    assert store.undecodable().tolist() == [2]
    assert store.read(0, np.array([3])).max() == np.finfo(np.float16).max


def test_a_full_disk_is_an_error_before_anything_is_allocated(tmp_path, monkeypatch):
    usage = feature_store.shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(feature_store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="0.0 GB free.*another --workdir with fewer --views"):
        FeatureStore(tmp_path, _source())
    assert not list(tmp_path.rglob("*.f16"))
