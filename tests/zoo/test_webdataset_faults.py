"""Every fault of a shard is one clear error that says what to do."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data_fixtures import noise
from tests.shard_fixtures import pair, picture, write_tar
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, DataWarning

# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([("a.png", b"x"), ("a.jpg", b"x")], "", r"'a' holds 2 pictures \(png, jpg\).*#image=png"),
        ([("a.v1.png", b"x"), ("a.v2.png", b"x")], "", r"holds 2 pictures \(v1\.png, v2\.png\)"),
        ([("a.png", b"x"), ("a.png", b"x")], "", r"holds a\.png twice; keep one"),
        (
            [("a.png", b"x"), ("b.png", b"x"), ("a.cls", b"1")],
            "",
            r"members of 'a' do not lie side by side.*--sort=name",
        ),
        ([*pair("a"), ("b.png", b"x")], "", r"1 of 2 samples have no label, such as b\.png; .*#label=none"),
        (
            [*pair("a"), ("b.png", b"x"), ("b.json", b'{"label": 1}')],
            "",
            r"some labels are in \.cls members",
        ),
        ([*pair("a"), *pair("b", label=b"cat")], "", r"labels must be whole numbers or text, got both"),
        ([("a.png", b"x"), ("a.cls", b"\xff\xfe")], "", r"a\.cls holds no UTF-8 text, so no label"),
        ([("a.png", b"x"), ("a.cls", b"1" * (1 << 20 | 1))], "", r"1,048,577 bytes, too many for a label"),
        ([("a.png", b"x"), ("a.json", b"{")], "", r"a\.json is no JSON"),
        ([("a.txt", b"x"), ("b.npy", b"x")], "", r"holds no picture \(.*but a \(txt\); b \(npy\)"),
        ([("a.png", b"x")], "#image=jpg", r"holds no member \.jpg, but a \(png\)"),
        ([("a.png", b"x")], "#label=txt", r"no sample has a label 'txt'; beside pictures there is nothing"),
        ([("a.png", b"x")], "#lable=txt", r"'lable=txt' is no option of shards; did you mean 'label'\?"),
        ([("a.png", b"x")], "#keys=key", r"is no option of shards; expected keys=shard"),
        ([], "", r"no tar archive|holds no picture .*, and nothing else"),
    ],
)
def test_faults_of_a_shard(tmp_path, members, options, message):
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message):
        open_dataset(f"{path}{options}", "all")


def test_the_picture_among_several_is_the_one_that_is_asked_for(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.jpg": picture(1, "JPEG"), "a.png": picture(2)})
    with pytest.warns(DataWarning, match=r"1 \.jpg"):
        data = open_dataset(f"{path}#image=png&label=none")
    assert np.array_equal(np.asarray(data.sample(0)), noise(2)) and list(data.keys) == ["a.png"]


def damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    second = content.index(b"b.png")
    end = len(content.rstrip(b"\0")) // 512 * 512 + 512
    changed = {
        "within a member": content[: second + 700],
        "end mark": content[:end],
        "no header": content[:second] + b"\7" * 512 + content[second + 512 :],
        "goes on after its end": content + content,
    }[kind]
    path.write_bytes(changed)


@pytest.mark.parametrize("kind", ["within a member", "end mark", "no header", "goes on after its end"])
def test_a_damaged_shard_is_an_error_or_gives_what_lies_before(tmp_path, kind):
    path = write_tar(tmp_path / "x.tar", [*pair("a"), *pair("b", 1)])
    damaged(path, kind)
    with pytest.raises(DataError, match=rf"x\.tar .*{kind}.*skip_bad=True"):
        open_dataset(path, "all")
    with pytest.warns(DataWarning, match="1 shards cut off"):
        data = open_dataset(path, "all", skip_bad=True)
    assert list(data.keys) == (["a.png"] if kind in ("within a member", "no header") else ["a.png", "b.png"])


@pytest.mark.parametrize("content", [b"", b"hello" * 300, b"\0" * 100])
def test_what_is_no_tar(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar is no tar archive"):
        open_dataset(tmp_path / "x.tar")


def test_compressed_shards(tmp_path):
    path = write_tar(tmp_path / "plain.tar", pair("a"))
    for place in (tmp_path / "a" / "x.tar", tmp_path / "b" / "x.tar.gz"):
        place.parent.mkdir()
        place.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(DataError, match=r"is compressed, so that samples .*plain \.tar \(gunzip\)"):
            open_dataset(place.parent)
    with pytest.raises(DataError, match=r"is an archive; unpack it and open the folder; shards .* plain \.tar"):
        open_dataset(tmp_path / "b" / "x.tar.gz")


def test_what_is_not_there(tmp_path):
    for address in (f"{tmp_path}/train-*.tar", f"webdataset:{tmp_path}/none.tar"):
        with pytest.raises(DataError, match="names no file; check the path"):
            open_dataset(address)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no shards: no \.tar"):
        open_dataset(f"webdataset:{tmp_path / 'empty'}")
    write_tar(tmp_path / "c" / "train-0.tar", pair("a"))
    write_tar(tmp_path / "c" / "more.tar", pair("b"))
    with pytest.raises(DataError, match=r"more\.tar names no split.*as in train-0000\.tar"):
        open_dataset(tmp_path / "c", "train")


def test_shards_that_repeat_keys(tmp_path):
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", [*pair("a", number), *pair("b", 5 + number)])
    with pytest.raises(DataError, match=r"0\.tar and .*1\.tar repeat 2 keys; .*#keys=shard"):
        open_dataset(tmp_path)
    data = open_dataset(f"{tmp_path}#keys=shard", "all")
    assert list(data.keys) == ["0.tar/a.png", "0.tar/b.png", "1.tar/a.png", "1.tar/b.png"]
    (tmp_path / "2.tar").symlink_to(tmp_path / "0.tar")
    with pytest.raises(DataError, match=r"names .*2\.tar twice"):
        open_dataset(f"{tmp_path}#keys=shard")


def test_a_member_that_is_no_image(tmp_path):
    path = write_tar(tmp_path / "x.tar", [*pair("a"), ("b.png", b"no picture"), ("b.cls", b"1"), *pair("c", 2)])
    with pytest.raises(DataError, match=r"x\.tar: b\.png cannot be decoded as an image"):
        open_dataset(path, "all").sample(1)
    with pytest.warns(DataWarning, match="1 unreadable"):
        assert list(open_dataset(path, "all", skip_bad=True).keys) == ["a.png", "c.png"]


def test_links_are_left_out_and_said(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in pair("a"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.warns(DataWarning, match="1 links and other members"):
        assert len(open_dataset(path, "all")) == 1
