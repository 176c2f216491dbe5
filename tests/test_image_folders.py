"""Folders as classes: given one by one, with a picture in two of them, and through an export that was tarred."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lanit.errors import LanitError
from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import embed
from pipeline.labelling.image_folders import image_folders
from pipeline.labelling.known_labels import folder_names, folder_truth, image_keys
from pipeline.store.store import Store


def labels(root: Path, domains: tuple[str, ...] | None = None) -> dict[str, set[str] | None]:
    """The domains of each image by source/path; none where nothing is known."""
    store = Store.open(root)
    folders = image_folders(store)
    wanted = domains or folder_names(folders)
    truth = folder_truth(folders, wanted)
    ids, paths = image_keys(store)
    values = truth.values(truth.align(ids, paths), wanted)
    names = [f"{Path(row['source']).name}/{row['path']}" for row in store.images(["source", "path"]).to_pylist()]
    return {
        name: None if (row < 0).all() else {domain for domain, on in zip(wanted, row, strict=True) if on > 0}
        for name, row in zip(names, values, strict=True)
    }


@pytest.fixture
def classes(make_images: Callable[..., Path], tmp_path: Path) -> Path:
    """cats/1 and cats/2, dogs/1 and dogs/2, all different."""
    images = sorted(make_images(4).rglob("*.png"))
    for image, name in zip(images, ("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png"), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / name)
    return tmp_path


def test_class_folders_given_one_by_one_are_classes_but_one_folder_alone_is_none(
    classes: Path, tiny_clip: ClipModel
) -> None:
    embed([classes / "cats", classes / "dogs"], classes / "s", tiny_clip)
    expected = {"cats/1.png": {"cats"}, "cats/2.png": {"cats"}, "dogs/1.png": {"dogs"}, "dogs/2.png": {"dogs"}}
    assert labels(classes / "s") == expected
    dogs = {name: {"Dogs"} if "dogs" in found else None for name, found in expected.items()}
    assert labels(classes / "s", ("Dogs",)) == dogs
    embed([classes / "cats"], classes / "alone", tiny_clip)
    with pytest.raises(LanitError, match="lie in no folders"):
        labels(classes / "alone")


def test_folders_inside_of_those_that_were_given_name_their_images_alone(classes: Path, tiny_clip: ClipModel) -> None:
    for split in ("train", "val"):
        (classes / split).mkdir()
    shutil.move(classes / "cats", classes / "train" / "cats")
    shutil.move(classes / "dogs", classes / "val" / "dogs")
    embed([classes / "train", classes / "val"], classes / "s", tiny_clip)
    assert set(map(frozenset, filter(None, labels(classes / "s").values()))) == {
        frozenset({"cats"}),
        frozenset({"dogs"}),
    }


def test_a_picture_in_two_class_folders_has_both_labels_in_each(classes: Path, tiny_clip: ClipModel) -> None:
    shutil.copy(classes / "cats" / "1.png", classes / "dogs" / "the same.png")
    both = {"cats", "dogs"}
    embed([classes / "cats", classes / "dogs"], classes / "s", tiny_clip)
    assert labels(classes / "s") == {
        "cats/1.png": both,
        "cats/2.png": {"cats"},
        "dogs/1.png": {"dogs"},
        "dogs/2.png": {"dogs"},
        "dogs/the same.png": both,
    }
    assert image_folders(Store.open(classes / "s")).shared == 2


def test_hard_links_of_an_export_keep_their_second_labels_in_a_tar(classes: Path, tiny_clip: ClipModel) -> None:
    (classes / "dogs" / "linked.png").hardlink_to(classes / "cats" / "2.png")
    with tarfile.open(classes / "x.tar", "w") as sink:
        for name in ("cats", "dogs"):
            sink.add(classes / name, name)
    with tarfile.open(classes / "x.tar") as written:
        assert [member.name for member in written if member.islnk()] == ["dogs/linked.png"]
    report = embed([classes / "x.tar"], classes / "s", tiny_clip)
    assert (report.found, report.ok, report.failed) == (5, 5, 0)
    found = labels(classes / "s")
    assert found["x.tar/cats/2.png"] == found["x.tar/dogs/linked.png"] == {"cats", "dogs"}
    assert found["x.tar/cats/1.png"] == {"cats"}
