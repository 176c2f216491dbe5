"""Tables as people have them: one reader for what is embedded and for labels, whatever wrote the table."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lanit.errors import LanitError
from pipeline.inputs.opening import open_inputs
from pipeline.inputs.tables import Table
from pipeline.labelling.image_folders import folders_of_paths
from pipeline.labelling.known_labels import Truth, fitted, folder_names, read_truth
from pipeline.store.store import Store

ROWS = [("a/0.png", 1, 0), ("a/1.png", 0, 1), ("b/0.png", 1, 1)]
MakeStore = Callable[..., Store]


def separated(mark: str, encoding: str = "utf-8") -> bytes:
    return "\r\n".join(mark.join(map(str, row)) for row in [("path", "red", "round"), *ROWS]).encode(encoding)


def json_rows() -> list[dict[str, Any]]:
    return [{"path": path, "red": red, "round": bool(round_)} for path, red, round_ in ROWS]


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


KINDS = {
    "comma-separated": separated(","),
    "tab-separated": separated("\t"),
    "';'-separated": separated(";"),
    "comma-separated, UTF-16": separated(",", "utf-16"),
    "tab-separated, UTF-16 without a mark": separated("\t", "utf-16-le"),
    "JSON Lines": "\n".join(map(json.dumps, json_rows())).encode(),
    "a JSON list": json.dumps(json_rows(), indent=1).encode(),
    "a JSON list, in a line": json.dumps(json_rows()).encode(),
    "Parquet": parquet(pa.Table.from_pylist(json_rows())),
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_known_by_what_is_in_it_for_images_and_for_labels(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(KINDS[kind])
    truth = read_truth(path, None)
    assert (truth.key, truth.keys, truth.domains) == ("path", tuple(row[0] for row in ROWS), ("red", "round"))
    assert truth.labels.tolist() == [[True, False], [False, True], [True, True]]
    assert truth.understood.startswith(f"t{suffix}: {kind.split(', ')[0]}, path in path, 2 columns of ")
    [origin] = open_inputs([path])
    assert isinstance(origin, Table)
    assert [place.path for place in origin.places()] == [row[0] for row in ROWS]
    assert origin.understood() == f"t{suffix}: {kind.split(', ')[0]}, images in path"


def celeba_list(rows: list[tuple[str, int, int]]) -> str:
    return "\n".join(["3", "Red Round_Face", *(f"{name}  {2 * red - 1} {2 * more - 1}" for name, red, more in rows)])


def test_celeba_is_read_as_it_is_published_in_both_forms(tmp_path: Path) -> None:
    rows = [("000001.jpg", 1, 0), ("000002.jpg", 0, 1), ("000003.jpg", 1, 1)]
    (tmp_path / "list_attr_celeba.txt").write_text(celeba_list(rows) + "\n")
    lines = ["image_id,Red,Round_Face", *(f"{name},{2 * red - 1},{2 * more - 1}" for name, red, more in rows)]
    (tmp_path / "list_attr_celeba.csv").write_text("\n".join(lines))
    for name, words in (("list_attr_celeba.txt", "white space-separated, path in path"),
                        ("list_attr_celeba.csv", "comma-separated, path in image_id")):  # fmt: skip
        truth = read_truth(tmp_path / name, None)
        assert (truth.key, truth.keys) == ("path", tuple(row[0] for row in rows))
        assert truth.domains == ("Red", "Round Face")
        assert truth.labels.tolist() == [[True, False], [False, True], [True, True]]
        assert truth.understood == f"{name}: {words}, 2 columns of ±1"
        [origin] = open_inputs([tmp_path / name])
        assert [place.path for place in origin.places()] == [row[0] for row in rows]


def test_an_image_id_of_lanit_is_one_and_a_number_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,image_id,red\na.png,0123456789abcdef,1\n")
    truth = read_truth(tmp_path / "t.csv", None)
    assert (truth.key, truth.keys, truth.others) == ("image_id", ("0123456789abcdef",), (("path", ("a.png",)),))
    (tmp_path / "t.csv").write_text("image_id,note\n17,x\n")
    with pytest.raises(LanitError, match="no column of image paths"):
        open_inputs([tmp_path / "t.csv"])


SPELLINGS = {
    "true and false": (["True", "FALSE", "true"], "true/false in red", [1, 0, 1]),
    "yes and no": (["yes", "No", "no"], "yes/no in red", [1, 0, 0]),
    "signs": (["-1", "1", "-1"], "±1 in red", [0, 1, 0]),
    "nobody is sure": (["-1", "0", "1"], "±1 in red", [-1, 0, 1]),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_on_and_off_in_their_spellings(spelling: str, tmp_path: Path) -> None:
    cells, words, expected = SPELLINGS[spelling]
    (tmp_path / "t.csv").write_text("path,red\n" + "".join(f"{n}.png,{cell}\n" for n, cell in enumerate(cells)))
    truth = read_truth(tmp_path / "t.csv", None, blanks=True)
    assert truth.values(np.arange(3), ["red"]).ravel().tolist() == expected
    assert truth.understood.endswith(words)


def labels_of(truth: Truth) -> dict[str, set[str] | None]:
    """By name the labels of each image; none where some are not known."""
    known = np.ones_like(truth.labels) if truth.known is None else truth.known
    return {
        name: {domain for domain, on in zip(truth.domains, row, strict=True) if on} if said.all() else None
        for name, row, said in zip(truth.keys, truth.labels.tolist(), known, strict=True)
    }


CLASSES: dict[str, str] = {
    "a class": "path,label\na.png,cat\nb.png,snow_dog\nc.png,cat\nd.png,\n",
    "several by a bar": "file_name,class\na.png,cat|round\nb.png,snow dog\nc.png,round\n",
    "several by commas": 'path,tags\na.png,"cat, round"\nb.png,snow dog\n',
    "a list as Python has it": "path,labels\na.png,\"['cat', 'round']\"\nb.png,['snow_dog']\nc.png,[]\n",
    "a row for each": "filename,category\na.png,cat\nb.png,snow_dog\na.png,round\n",
    "the only other column": "path,animal\na.png,cat\nb.png,snow_dog\nc.png,cat\nd.png,snow_dog\n",
    "no header": "a.png,cat\nb.png,snow_dog\nc.png,cat\nd.png,snow_dog\n",
}
EXPECTED: dict[str, dict[str, set[str]]] = {
    "a class": {"a.png": {"cat"}, "b.png": {"snow dog"}, "c.png": {"cat"}},
    "several by a bar": {"a.png": {"cat", "round"}, "b.png": {"snow dog"}, "c.png": {"round"}},
    "several by commas": {"a.png": {"cat", "round"}, "b.png": {"snow dog"}},
    "a list as Python has it": {"a.png": {"cat", "round"}, "b.png": {"snow dog"}, "c.png": set()},
    "a row for each": {"a.png": {"cat", "round"}, "b.png": {"snow dog"}},
    "the only other column": {n: {"cat" if n in "ac" else "snow dog"} for n in "abcd"},
    "no header": {n: {"cat" if n in "ac" else "snow dog"} for n in "abcd"},
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_are_labels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(CLASSES[kind])
    expected = {name if "." in name else f"{name}.png": labels for name, labels in EXPECTED[kind].items()}
    assert labels_of(read_truth(path, None)) == expected
    wanted = read_truth(path, ["Snow Dog", "bird"])
    assert wanted.domains == ("Snow Dog",), "a class that no image has is not known"
    assert labels_of(wanted) == {n: {"Snow Dog"} if "snow dog" in labels else set() for n, labels in expected.items()}


def test_classes_by_number_need_their_names_and_count_phrases(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,cls\na.png,2\nb.png,0\nc.png,-1\n")
    with pytest.raises(LanitError, match="has classes by number") as caught:
        read_truth(path, None)
    assert f"--labels {path}" in caught.value.hint
    assert labels_of(read_truth(path, ["x", "y", "z"])) == {"a.png": {"z"}, "b.png": {"x"}, "c.png": set()}


def test_hugging_face_writes_classes_by_number_and_lanit_reads_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "file_name": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "snow_dog"]),
            "more": datasets.Sequence(datasets.ClassLabel(names=["red", "round"])),
        }
    )
    rows = {"file_name": ["a.png", "b.png", "c.png"], "label": [1, 0, 1], "more": [[0, 1], [], [1]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    truth = read_truth(tmp_path / "t.parquet", None)
    assert labels_of(truth) == {"a.png": {"snow dog", "red", "round"}, "b.png": {"cat"}, "c.png": {"snow dog", "round"}}
    assert truth.understood == "t.parquet: Parquet, path in file_name, 2 classes in label, 2 classes in more"


def test_images_that_a_table_holds_are_labelled_by_that_table(tmp_path: Path) -> None:
    image = pa.array(
        [{"bytes": b"0", "path": "x.jpg"}, {"bytes": b"1", "path": None}, {"bytes": b"2", "path": "x.jpg"}]
    )
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": image, "label": ["cat", "dog", "cat"]}), path)
    [origin] = open_inputs([path])
    listed = [place.path for place in origin.places()]
    assert listed == ["x.jpg", "row-000000001", "x.jpg"]
    assert labels_of(read_truth(path, None)) == {"x.jpg": {"cat"}, "row-000000001": {"dog"}, "x.jpg#2": {"cat"}}


# As COCO's page on its data format has it.
COCO = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "./b.png"}, {"id": 11, "file_name": "c.png"}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "snow_dog"}],
    "annotations": [{"id": 1, "image_id": 9, "category_id": 4}, {"id": 2, "image_id": 9, "category_id": 3},
                    {"id": 3, "image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1], "iscrowd": 0}],
}  # fmt: skip


def choices(*names: str) -> dict[str, Any]:
    """Of one person, as Label Studio's guide to its exports shows it."""
    result = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [*names]}}
    return {"id": 1, "was_cancelled": False, "updated_at": "2026-01-02T00:00:00Z", "result": [result] if names else []}


LABEL_STUDIO = [
    {"id": 1, "data": {"image": "/data/upload/2/1a2b3c4d-a.png"}, "annotations": [choices("snow_dog")]},
    {"id": 2, "data": {"image": "/data/local-files/?d=b.png"},
     "annotations": [choices("cat") | {"updated_at": "2026-01-01T00:00:00Z"}, choices("cat", "snow_dog")]},
    {"id": 3, "data": {"image": "d.png"}, "annotations": [choices()]},
    {"id": 4, "data": {"image": "c.png"}, "annotations": [choices("cat") | {"was_cancelled": True}]},
]  # fmt: skip
LABEL_STUDIO_MIN = [
    {"image": "/data/upload/2/1a2b3c4d-a.png", "id": 1, "animal": "snow_dog", "annotator": 1, "annotation_id": 1,
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "lead_time": 2.5},
    {"image": "/data/local-files/?d=b.png", "id": 2, "animal": {"choices": ["cat", "snow_dog"]}, "annotator": 1,
     "annotation_id": 2, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "lead_time": 1},
]  # fmt: skip
# As CVAT's manual on its XML format has it.
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>cat</name></label></labels></task></meta>
<image id="0" name="a.png" width="3" height="4"><tag label="snow_dog" source="manual"></tag></image>
<image id="1" name="b.png" width="3" height="4"><tag label="cat"></tag><tag label="snow_dog"></tag>
<box label="nose" xtl="0" ytl="0" xbr="1" ybr="1"></box></image><image id="2" name="c.png" width="3" height="4"></image>
</annotations>"""

# As label-studio-sdk 2.1.2 writes CSV, and the first of those with rectangles in the place of choices.
LABEL_STUDIO_CSV = """"annotation_id","annotator","animal","created_at","id","image","lead_time","updated_at"
1,"1","snow_dog","2026-01-01T00:00:00Z",1,"/data/upload/2/1a2b3c4d-a.png",1.0,"2026-01-01T00:00:00Z"
0,"1","{""choices"":[""cat"",""snow_dog""]}","2026-01-01T00:00:00Z",0,"/data/local-files/?d=b.png",0.0,"2026-01-01T00:00:00Z"
"""
REGIONS = {"a.png": ["snow_dog"], "b.png": ["cat", "snow_dog", "cat"]}
BOX = {"x": 1, "y": 1, "width": 10, "height": 10, "rotation": 0}


def regions(kind: str, names: list[str]) -> list[dict[str, Any]]:
    return [BOX | {kind: [name]} for name in names]


LABEL_STUDIO_BOXES = [
    {"data": {"image": image}, "annotations": [{"id": 1, "was_cancelled": False, "result": [
        {"type": "rectanglelabels", "value": value} for value in regions("rectanglelabels", names)]}]}
    for image, names in REGIONS.items()
]  # fmt: skip
LABEL_STUDIO_MIN_BOXES = [
    {"image": image, "animal": regions("polygonlabels", names), "annotator": 1, "annotation_id": number}
    for number, (image, names) in enumerate(REGIONS.items())
]
# As datumaro 1.13 writes CVAT.
CVAT_BOXES = CVAT.replace("tag label", "box occluded='0' label").replace("</tag>", "</box>").replace("nose", "cat")


def as_tsv(text: str) -> str:
    sink = io.StringIO()
    csv.writer(sink, delimiter="\t").writerows(csv.reader(io.StringIO(text)))
    return sink.getvalue()


ANNOTATIONS = {
    "COCO": ("t.json", json.dumps(COCO), {}),
    "COCO, over lines": ("t.json", json.dumps(COCO, indent=2), {}),
    "Label Studio": ("t.json", json.dumps(LABEL_STUDIO), {"d.png": set[str]()}),
    "Label Studio's JSON-MIN": ("t.json", json.dumps(LABEL_STUDIO_MIN, indent=2), {}),
    "CVAT": ("annotations.xml", CVAT, {}),
    "Label Studio's CSV": ("t.csv", LABEL_STUDIO_CSV, {}),
    "Label Studio's TSV": ("t.tsv", as_tsv(LABEL_STUDIO_CSV), {}),
    "Label Studio, boxes": ("t.json", json.dumps(LABEL_STUDIO_BOXES), {}),
    "Label Studio's JSON-MIN, outlines": ("t.json", json.dumps(LABEL_STUDIO_MIN_BOXES), {}),
    "CVAT, boxes": ("annotations.xml", CVAT_BOXES, {}),
}  # fmt: skip


@pytest.mark.parametrize("tool", ANNOTATIONS)
def test_what_annotation_tools_say_of_images_are_labels(tool: str, tmp_path: Path) -> None:
    name, text, more = ANNOTATIONS[tool]
    (tmp_path / name).write_text(text)
    truth = read_truth(tmp_path / name, None)
    assert labels_of(truth) == {"a.png": {"snow dog"}, "b.png": {"cat", "snow dog"}} | more, "c.png says nothing"
    assert truth.understood.startswith(f"{name}: {tool.split(',')[0]}, path in ")
    [origin] = open_inputs([tmp_path / name])
    assert len([*origin.places()]) == sum(f"{letter}.png" in text for letter in "abcd")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json"])
def test_a_few_single_choices_of_label_studio_are_labels(suffix: str, tmp_path: Path) -> None:
    """Of any other table one text for each row is taken for no class, since captions look like that."""
    rows = [
        {
            "annotation_id": n,
            "annotator": "1",
            "animal": animal,
            "id": n,
            "image": f"/data/upload/1/1a2b3c4d-{name}.png",
        }
        for n, (name, animal) in enumerate([("a", "cat"), ("b", "dog"), ("c", "owl")])
    ]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / f"t.{suffix}"
    path.write_text(json.dumps(rows) if suffix == "json" else sink.getvalue())
    assert labels_of(read_truth(path, None)) == {"a.png": {"cat"}, "b.png": {"dog"}, "c.png": {"owl"}}
    (tmp_path / "other.csv").write_text("image,caption\na.png,a cat\nb.png,a dog\n")
    with pytest.raises(LanitError, match="no column"):
        read_truth(tmp_path / "other.csv", None)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", '{"images": [{"id": 1}], "categories": [], "annotations": []}', "is not COCO as it should be"),
        ("t.json", '[{"data": {}, "annotations": []}]', "task 1 is not Label Studio's as it should be"),
        ("t.json", '{\n"a": 1}', "is JSON, but neither rows nor annotations"),
        ("t.json", '[{"path": "a.png", "red": 1}, {"pa', "row 2 is not a JSON object"),
        ("t.xml", "<annotations><image>", "is not CVAT as it should be"),
        ("t.xml", "<?xml version='1.0'?><svg/>", "is XML without an image"),
        ("t.csv", b"path,red\na.png,1,2\n", "row 1 has 3 cells, and the header 2"),
        ("t.csv", b"path,title\na.png,one\nb.png,two\n", "has no column of labels"),
    ],
)
def test_damage_and_tables_without_labels_are_one_line(
    name: str, text: str | bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LanitError) as caught:
        read_truth(tmp_path / name, None)
    assert message in caught.value.message
    assert caught.value.hint


def write_tar(path: Path, members: dict[str, bytes | str]) -> None:
    with tarfile.open(path, "w") as sink:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data.encode() if isinstance(data, str) else data)
            sink.addfile(header, io.BytesIO(data.encode() if isinstance(data, str) else data))


def test_a_webdataset_says_itself_what_its_images_show(tmp_path: Path) -> None:
    about = {"labels": ["red"], "path": "elsewhere.png", "margins": {"red": 0.1}, "width": 1}
    write_tar(tmp_path / "0.tar", {"./s/0.jpg": b"x", "./s/0.json": json.dumps(about)})
    write_tar(tmp_path / "1.tar", {"s/1.0.jpg": b"x", "s/1.json": '{"labels": ["red", "round"]}', "s/2.jpg": b"x"})
    truth = read_truth(tmp_path / "{0..1}.tar", None)
    assert labels_of(truth) == {"s/0.jpg": {"red"}, "s/1.0.jpg": {"red", "round"}}
    assert truth.understood == "{0..1}.tar: 2 files, WebDataset, path in path, 2 classes in labels"
    write_tar(tmp_path / "c.tar", {"0.jpg": b"x", "0.cls": "1\n", "1.jpg": b"x", "1.cls": "0\n"})
    assert labels_of(read_truth(tmp_path / "c.tar", ["x", "y"])) == {"0.jpg": {"y"}, "1.jpg": {"x"}}
    write_tar(
        tmp_path / "t.tar", {f"{n}.{kind}": "cat" if kind == "txt" else "x" for n in "ab" for kind in ("jpg", "txt")}
    )
    assert labels_of(read_truth(tmp_path / "t.tar", None)) == {"a.jpg": {"cat"}, "b.jpg": {"cat"}}


def found(store: Store, table: Path) -> tuple[list[int], str]:
    """Which row of the table each image of the store has."""
    images = store.ok_images()
    truth = fitted(read_truth(table, None), store, images["image_id"], images["path"])
    return truth.align(images["image_id"], images["path"]).tolist(), truth.understood


NAMES = {
    "as they are": (["a/0.png", "b/0.png", "b/é.png"], ""),
    "dots": (["./a/0.png", "b//0.png", "b/./é.png"], ""),
    "Windows": ([".\\a\\0.png", "b\\0.png", "b\\é.png"], ""),
    "letters of a Mac": (["a/0.png", "b/0.png", "b/e\u0301.png"], ""),
    "whole paths": (["/d/photos/a/0.png", "/d/photos/b/0.png", "/d/photos/b/é.png"], "the end of their paths"),
    "from above": (["photos/a/0.png", "photos/b/0.png", "photos/b/é.png"], "the end of their paths"),
}


@pytest.mark.parametrize("spelling", NAMES)
def test_an_image_is_found_in_any_spelling_of_its_name(spelling: str, make_store: MakeStore, tmp_path: Path) -> None:
    names, how = NAMES[spelling]
    paths = ["a/0.png", "b/0.png", "b/é.png"]
    store = make_store(np.eye(3, dtype=np.float32), paths=paths, sources=["/d/photos"] * 3)
    with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "red"], *([name, n % 2] for n, name in enumerate(names))])
    rows, understood = found(store, tmp_path / "t.csv")
    assert rows == [0, 1, 2]
    assert how in understood


def test_a_name_that_could_be_of_two_images_is_of_none(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(np.eye(2, dtype=np.float32), paths=["a/0.png", "b/0.png"], sources=["/d"] * 2)
    (tmp_path / "t.csv").write_text("path,red\n0.png,1\n")
    with pytest.raises(LanitError, match="no path of the known labels is an image of the store"):
        found(store, tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("path,red\ntrain/a/0.png,1\n")  # another folder's, whose files are called the same
    with pytest.raises(LanitError, match="no path of the known labels is an image of the store"):
        found(store, tmp_path / "t.csv")


def test_where_ids_are_of_an_earlier_store_the_paths_count(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store(np.eye(2, dtype=np.float32), paths=["a.png", "b.png"])
    (tmp_path / "t.csv").write_text(f"image_id,path,red\n{'e' * 16},b.png,1\n{'f' * 16},a.png,0\n")
    rows, understood = found(store, tmp_path / "t.csv")
    assert rows == [1, 0]
    assert understood.endswith("; the images go by path")
    (tmp_path / "t.csv").write_text(f"image_id,path,label\n{'e' * 16},b.png,cat\n{'f' * 16},a.png,dog\n")
    assert found(store, tmp_path / "t.csv")[0] == [1, 0]


def test_a_name_with_a_backslash_is_read_and_labelled(tmp_path: Path, make_store: MakeStore) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x.png", "a\\y.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "t.csv").write_text("path,red\na\\x.png,1\na\\y.png,0\n")
    [origin] = open_inputs([tmp_path / "t.csv"])
    read = {place.path: origin.read(place.path, None, None) for place in origin.places()}
    assert read == {"a/x.png": b"a/x.png", "a\\y.png": b"a\\y.png"}
    store = make_store(np.eye(2, dtype=np.float32), paths=[*read])
    assert found(store, tmp_path / "t.csv")[0] == [0, 1]


def test_folders_of_an_earlier_store_of_a_tar_have_their_names() -> None:
    paths = pa.chunked_array([["./cat/0.png", "./dog/0.png", "./1.png"]])
    assert folder_names(folders_of_paths(pa.chunked_array([["1", "2", "3"]]), paths)) == ("cat", "dog")
