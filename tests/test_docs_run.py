"""Every command that the pages print runs: on drawn faces, with the sample CLIP where a page takes another."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import app
from pipeline.models.bundle import load_bundle
from pipeline.sample_world.dataset import write_faces
from tests.test_docs import PAGES, shell_blocks, shell_lines

ELSEWHERE = {
    "s3://": "the tests of inputs behind URLs, tests/test_inputs_remote.py",
    "owner/": "the tests of the hub, which have one, tests/test_hub.py and tests/test_inputs_remote.py",
    "--engine": "the tests that start a cluster, tests/test_ray.py",
    "review": "the tests that open its page, tests/test_review_browser.py",
    "play": "the tests that open its page, tests/test_play_browser.py",
    "--learn-prompts": "tests/test_learned_prompts.py, on more faces",
    "--choose-template": "tests/test_stability.py, on more faces",
    "--fail-under": "tests/test_stability.py, on more faces",
    "mutual-information": "tests/test_clusters.py, on more faces",
}
SMALL = "small-32"
_TRAIN = "--steps 2 --batch-size 4 --set evaluate_every=0"
QUICK = {"train": _TRAIN.split(), "evaluate": ["--sources", "4", "--styles", "2"]}
LEARNED = ["--preset", "small-32", "--set", "prompts_from=0", "--set", "keep_prompts=last"]
FACES = 24
FOLDERS = {"more-photos": slice(0, 3), "styles": slice(4, 6), "horses": slice(8, 16), "zebras": slice(16, 24)}


def run(*words: str) -> None:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, f"lanit {' '.join(words)}: {result.output}"


def runs_here(words: list[str]) -> bool:
    return not any(word in part or part == word for word in ELSEWHERE for part in words)


def adapted(words: list[str]) -> list[str]:
    """The command as the page has it, but for the CLIP, how long it learns, and the number of shards."""
    words = [word.replace("00099", "00001") for word in words]
    if "--clip" in words:
        words[words.index("--clip") + 1] = "sample"
    if words[0] == "train":
        if "--size" in words:
            del words[words.index("--size") : words.index("--size") + 2]
        if "--preset" in words:
            at = words.index("--preset") + 1
            words[at] = words[at].replace("128", SMALL)
        else:
            words += ["--preset", SMALL]
        if "--clusters" in words:  # a batch has as many images at least
            return [*words, *QUICK["train"], "--batch-size", "16"]
    if "runs/kinds" in words and "--to" in words:  # the names of clusters are found, and are no one's to foresee
        words[words.index("--to") + 1] = load_bundle("runs/kinds").prompt_set.domains[0]
    return words + QUICK.get(words[0], [])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """All that the pages' commands name, made of drawn faces; and a copy of it, since a store knows where its images
    lie."""
    place = tmp_path_factory.mktemp("world") / "here"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_faces(place / "faces", FACES, 3, 64)
        faces = sorted((place / "faces").glob("*.png"))
        for half, folder in enumerate(("train", "val")):
            (place / "photos" / folder).mkdir(parents=True)
            for face in faces[half::2]:
                shutil.copy(face, place / "photos" / folder)
        for folder, chosen in FOLDERS.items():
            (place / folder).mkdir()
            for face in faces[chosen]:
                shutil.copy(face, place / folder)
        for name in ("a.jpg", "b.jpg", "other.jpg"):
            shutil.copy(faces[0], place / name)
        (place / "shards").mkdir()
        for number in range(2):
            with tarfile.open(place / "shards" / f"{number:05d}.tar", "w") as tar:
                for face in faces[number::2]:
                    tar.add(face, face.name)
        shutil.copy(place / "shards" / "00000.tar", place / "shards.tar")
        with zipfile.ZipFile(place / "photos.zip", "w") as packed:
            packed.write(faces[1], "inner.png")
        pq.write_table(pa.table({"image_path": [str(face) for face in faces[:5]]}), place / "scans.parquet")
        (place / "list.csv").write_text("image_path\n" + "".join(f"{face}\n" for face in faces[5:8]))
        (place / "prompts.txt").write_text(
            "noun: face\nsmiling\neyeglasses\nwearing hat\nbangs\nblond hair\nblack hair\n"
        )
        some = [f"{face.name},{number % 2}" for number, face in enumerate(faces)]
        for name in ("labels.csv", "some.csv", "checked.csv"):
            (place / name).write_text("\n".join(["path,smiling", *some]) + "\n")
        run("embed", "photos", "--clip", "sample")
        run("label", "--prompts", "prompts.txt")
        run("train", "--out", "runs/first", *QUICK["train"], *LEARNED)
        for name in ("a", "b"):
            shutil.copytree(place / "runs" / "first", place / "runs" / name)
        shutil.copytree(place / "manifests", place / "test-store")
        run("translate", "photos", "--model", "runs/first", "--to", "smiling", "--out", "translated")
        run("translate", "photos", "--model", "runs/first", "--to", "smiling", "--out", "augmented")
        run("export", "--to", "clip-retrieval", "--out", "laion", "--store", "manifests")
        write_vectors(place)
    return place, Path(shutil.copytree(place, place.parent / "copy"))


def write_vectors(place: Path) -> None:
    """The embeddings of the store as NumPy, with the path of each row, and in a table of images."""
    parts = [pq.read_table(path) for path in sorted((place / "manifests" / "images").glob("*.parquet"))]
    rows = pa.concat_tables(parts)
    vectors = np.stack(rows["embedding"].to_pylist()).astype(np.float32)
    np.save(place / "vectors.npy", vectors)
    (place / "paths.txt").write_text("".join(f"{path}\n" for path in rows["path"].to_pylist()))
    paths = [str(place / "photos" / path) for path in rows["path"].to_pylist()]
    pq.write_table(pa.table({"image_path": paths, "clip": list(vectors)}), place / "photos.parquet")


BLOCKS = [
    pytest.param(lines, id=f"{page} {number}")
    for page in sorted(PAGES)
    for number, block in enumerate(shell_blocks(page))
    if (lines := [words for words in block if words[0] != "--version" and runs_here(words)])
]


@pytest.mark.slow
@pytest.mark.parametrize("lines", BLOCKS)
def test_the_commands_of_a_block_run_one_after_the_other(
    lines: list[list[str]], world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one of them would write is removed before, since a reader has it not yet."""
    place, copy = world
    shutil.rmtree(place)
    shutil.copytree(copy, place)
    monkeypatch.chdir(place)
    for words in lines:
        if "--out" in words:
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        if words[0] == "import":  # into a store of its own
            shutil.rmtree("manifests")
        run(*adapted(words))


def test_what_does_not_run_here_runs_in_another_test() -> None:
    """Each reason names a page's command, and a file of tests that is there."""
    for word, where in ELSEWHERE.items():
        commands = [" ".join(words) for page in PAGES for words in shell_lines(page)] + list(PAGES.values())
        assert any(word in command for command in commands), word
        for name in where.split("tests/")[1:]:
            assert (Path(__file__).parent / name.split(",")[0].split()[0]).is_file(), where
