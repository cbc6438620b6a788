import gzip
import io
import pathlib
import sys
import tarfile
import zipfile

import pytest
import zstandard

from tests.helpers import folders, odd_images
from tests.helpers.conversions import convert_to, stored
from tfrecords_tools.errors import DataError
from tfrecords_tools.format.folder import DamagedMember
from tfrecords_tools.listing import folder
from tfrecords_tools.sources import opening

PICTURE = odd_images.save(odd_images.picture(16, 16, seed=1), "JPEG")
OTHER = odd_images.save(odd_images.picture(16, 16, seed=2), "JPEG")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = folders.make(
        tmp_path_factory.mktemp("archives") / "in", {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2}
    )
    (root / "metadata.csv").write_text("image_path,class\ntrain/a/0.jpg,a\n")
    return root


@pytest.fixture(scope="module")
def shards(images):
    output = images.parent / "shards"
    assert convert_to(output, images, "--name=data") == 0
    return folders.sums(output)


def pack(images: pathlib.Path, archive: pathlib.Path) -> pathlib.Path:
    files = sorted(path for path in images.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in files:
                packed.write(path, path.relative_to(images))
    elif archive.suffix in (".zst", ".tzst"):
        plain = pack(images, archive.with_name("plain.tar"))
        archive.write_bytes(zstandard.ZstdCompressor().compress(plain.read_bytes()))
        plain.unlink()
    else:
        with tarfile.open(
            archive, f"w:{archive.suffix[1:].replace('tar', '').replace('tgz', 'gz')}"
        ) as packed:
            packed.add(images, ".")
    return archive


def write_tar(path: pathlib.Path, members: list) -> pathlib.Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            data = b"" if isinstance(member, tarfile.TarInfo) else member[1]
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "in.tgz", "in.tar.xz", "in.tar.zst"])
def test_an_archive_gives_the_shards_of_its_folder(images, shards, tmp_path, name):
    archive = pack(images, tmp_path / name)
    assert convert_to(tmp_path / "out", archive, "--name=data") == 0
    assert folders.sums(tmp_path / "out") == shards
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "out"]  # nothing is unpacked


def test_several_processes_read_an_archive(images, shards, tmp_path):
    archive = pack(images, tmp_path / "in.zip")
    assert convert_to(tmp_path / "out", archive, "--name=data", "--workers=2", "--input=" + str(archive)) == 0
    assert folders.sums(tmp_path / "out") == shards


def test_an_archive_behind_a_url(images, shards, tmp_path):
    import fsspec

    for name in ("in.zip", "in.tar"):
        fsspec.filesystem("memory").pipe_file(f"/bucket/{name}", pack(images, tmp_path / name).read_bytes())
        assert convert_to(tmp_path / f"out-{name}", f"memory://bucket/{name}", "--name=data") == 0
        assert folders.sums(tmp_path / f"out-{name}") == shards


@pytest.mark.parametrize("name", ["../../up.jpg", "/root.jpg", "a/../../up.jpg", "C:/windows.jpg"])
def test_a_name_that_leads_out_of_the_archive_is_rejected(tmp_path, name):
    members = [("a/0.jpg", PICTURE), ("b/0.jpg", OTHER), (name, PICTURE)]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as packed:
        for key, data in members:
            packed.writestr(key, data)
    write_tar(tmp_path / "in.tar", members)
    for archive in ("in.zip", "in.tar"):
        listing = folder.scan(str(tmp_path / archive))
        assert len(listing) == 2
        ((key, reason),) = listing.rejected
        assert key == name.encode() and reason.startswith("its name ")


def test_links_devices_and_second_members_of_a_name_are_rejected(tmp_path):
    link, device = tarfile.TarInfo("a/link.jpg"), tarfile.TarInfo("a/device.jpg")
    link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.CHRTYPE
    members = [("a/0.jpg", PICTURE), ("b/0.jpg", OTHER), link, device, ("a/0.jpg", OTHER)]
    listing = folder.scan(str(write_tar(tmp_path / "in.tar", members)))
    assert dict(listing.rejected) == {
        b"a/link.jpg": "a link or a device in the archive",
        b"a/device.jpg": "a link or a device in the archive",
        b"a/0.jpg": "another image of this key comes before it",
    }
    row = listing.rows[[example.key for example in listing.examples()].index(b"a/0.jpg")]
    assert listing.source.read_image(b"a/0.jpg", int(row["size"]), int(row["place"])) == PICTURE


def test_encrypted_and_oddly_packed_zip_members_are_rejected(tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/0.jpg", PICTURE)
        packed.writestr("b/0.jpg", OTHER)
        packed.writestr("a/lzma.jpg", PICTURE, zipfile.ZIP_LZMA)
        packed.writestr("b/secret.jpg", OTHER)
        packed.filelist[-1].flag_bits |= 1
    assert dict(folder.scan(str(path)).rejected) == {
        b"a/lzma.jpg": "packed by method 14; only stored and deflate are read",
        b"b/secret.jpg": "encrypted in the archive",
    }


def test_a_zip_member_never_unpacks_to_more_than_its_stated_size(tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/bomb.jpg", bytes(50_000_000))
        packed.filelist[0].file_size = 100_000
    source = opening.open_source(str(path))
    (entry,) = source.walk()
    with pytest.raises(DamagedMember, match="size or checksum"):
        source.read_image(entry.key, entry.size, entry.place)


def test_a_damaged_zip_member_is_rejected_and_the_others_stay(tmp_path, images):
    path = pack(images, tmp_path / "in.zip")
    with zipfile.ZipFile(path) as packed:
        start = packed.getinfo("test/a/1.jpg").header_offset
    data = bytearray(path.read_bytes())
    data[start + 100] ^= 0xFF
    path.write_bytes(data)
    assert convert_to(tmp_path / "out", path, "--max_rejected=0.5") == 0
    assert "test/a/1.jpg,damaged zip file: " in (tmp_path / "out/rejected.csv").read_text()
    assert len(stored(tmp_path / "out")) == 9


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "in.tgz"])
def test_a_truncated_archive_is_one_clear_error(tmp_path, images, capsys, name):
    path = pack(images, tmp_path / name)
    path.write_bytes(path.read_bytes()[:-6_000])
    assert convert_to(tmp_path / "out", path) == 1
    assert "an interrupted download leaves such a file" in capsys.readouterr().err


@pytest.mark.parametrize("case, words", [
    ("header", "invalid header, not the zeros that end"), ("no end", "empty header, not the zeros"),
    ("two archives", "something follows the zeros"),
])  # fmt: skip
def test_no_image_of_a_damaged_tar_file_is_lost_silently(tmp_path, case, words):
    path = write_tar(tmp_path / "in.tar", [("a/0.jpg", PICTURE), ("b/0.jpg", OTHER), ("b/1.jpg", PICTURE)])
    with tarfile.open(path) as archive:
        second, third = archive.getmembers()[1:]
    data = bytearray(path.read_bytes())
    if case == "header":
        data[second.offset + 150] ^= 0xFF
    elif case == "no end":
        data = data[: third.offset]
    else:
        data = data + data
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        folder.scan(str(path))


def test_names_in_zip_files_are_the_bytes_that_were_written(tmp_path):
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("köln/ä.jpg", PICTURE)  # marked as UTF-8
        for name in ("windows\\a.jpg", "unix/b.jpg"):
            packed.writestr(name, OTHER)
        packed.filelist[1].create_system = 0
        packed.filelist[2].create_system = 3
    keys = {example.key for example in folder.scan(str(path)).examples()}
    assert keys == {"köln/ä.jpg".encode(), b"windows/a.jpg", b"unix/b.jpg"}


def test_an_archive_that_changes_after_listing_is_an_error(tmp_path, images):
    path = pack(images, tmp_path / "in.tar")
    listing = folder.scan(str(path))
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(DataError, match="changed since its images were listed"):
        listing.source.read_image(listing.key(0), 1, int(listing.rows["place"][0]))


def test_a_missing_archive_is_named(tmp_path, capsys):
    assert convert_to(tmp_path / "out", tmp_path / "no.zip") == 1
    assert f"{tmp_path}/no.zip: No such file or directory" in capsys.readouterr().err


def test_a_copy_of_compressed_images_survives_an_interruption(tmp_path, images, monkeypatch):
    path = pack(images, tmp_path / "in.tgz")
    listing = folder.scan(str(path), spool_folder=str(tmp_path / "spool"))
    copies = sorted((tmp_path / "spool").iterdir())
    again = folder.scan(str(path), spool_folder=str(tmp_path / "spool"))
    assert folders.labels_of(again) == folders.labels_of(listing)
    assert sorted((tmp_path / "spool").iterdir()) == copies and len(copies) == 2
    path.touch()
    folder.scan(str(path), spool_folder=str(tmp_path / "spool"))
    assert len(list((tmp_path / "spool").iterdir())) == 4  # another time of change: not the same input
    opening.close(again.source)
    assert copies[0] not in (tmp_path / "spool").iterdir()


def test_a_full_disk_is_said_with_a_remedy(tmp_path, images, monkeypatch, capsys):
    from tfrecords_tools import atomic

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "sync", full)
    assert convert_to(tmp_path / "out", pack(images, tmp_path / "in.tgz")) == 1
    assert "can only be read in order" in capsys.readouterr().err
    assert not list((tmp_path / "out/.convert").iterdir())


def test_a_folder_that_is_not_ours_gets_no_copy(tmp_path, images, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    assert convert_to(tmp_path / "out", pack(images, tmp_path / "in.tgz")) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_zstandard_needs_its_library_and_a_whole_file(images, tmp_path, monkeypatch, capsys):
    archive = pack(images, tmp_path / "in.tar.zst")
    whole = archive.read_bytes()
    for damaged in (whole[:-200], whole[:100], whole[:50] + b"\xff" * 99 + whole[149:]):
        archive.write_bytes(damaged)
        assert convert_to(tmp_path / "out", archive) == 1
        assert f"{archive}: damaged after" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert convert_to(tmp_path / "out", archive) == 1
    error = capsys.readouterr().err
    assert f"{archive}: compressed by Zstandard; pip install 'deepduel[zstandard]' reads it" in error


@pytest.mark.parametrize("size", [3, 5, 9, 12])
def test_a_gzip_header_that_is_cut_off_is_one_line(tmp_path, size):
    archive = tmp_path / "in.tar.gz"
    archive.write_bytes(gzip.compress(b"x")[:3] + b"\x08" + gzip.compress(b"x")[4:size])
    with pytest.raises(DataError, match="in.tar.gz: damaged after 0 members"):
        folder.scan(str(archive))


def test_a_zip_member_without_a_name_is_rejected(tmp_path):
    archive = tmp_path / "in.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("a/1.jpg", "b/1.jpg"):
            packed.writestr(name, PICTURE)
        info = zipfile.ZipInfo("x")
        info.filename = ""
        packed.writestr(info, OTHER)
    listing = folder.scan(str(archive))
    assert len(listing) == 2 and [reason for _, reason in listing.rejected] == ["it has no name"]
