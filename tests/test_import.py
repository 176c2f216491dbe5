"""Stage import: embeddings that exist become a store as embed would have made it, once they are proven."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import cli
import pipeline.importing.proving
from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.exports.export import export
from pipeline.exports.layouts import ExportRequest
from pipeline.importing.import_vectors import ImportReport, ImportRequest, import_vectors
from pipeline.importing.pairing import unit
from pipeline.store.store import Store

COUNT = 7


@pytest.fixture
def photos(make_images: Callable[..., Path]) -> Path:
    """Seven images, and one that is none."""
    folder = make_images(COUNT)
    (folder / "bad.png").write_text("no picture")
    return folder


@pytest.fixture
def embedded(photos: Path, tiny_clip: ClipModel, tmp_path: Path) -> Store:
    """What embed makes of them."""
    embed([photos], tmp_path / "embedded", tiny_clip)
    return Store.open(tmp_path / "embedded")


@pytest.fixture
def take(tiny_clip: ClipModel, tmp_path: Path) -> Callable[..., ImportReport]:
    def run(source: Path, *images: Path | str, root: str = "imported", clip: Any = tiny_clip, **more: Any) -> Any:
        request = ImportRequest(str(source), tuple(map(str, images)), **more)
        return import_vectors(request, tmp_path / root, clip, EmbedOptions())

    return run


def bytes_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "images").iterdir()}


def paths_and_vectors(store: Store) -> tuple[list[str], np.ndarray]:
    return store.ok_images()["path"].to_pylist(), store.embeddings()


def as_table(path: Path, names: list[str], vectors: np.ndarray, **more: list[Any]) -> Path:
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"image_path": names, "clip": flat, **more}), path)
    return path


def test_an_import_of_what_embed_found_is_what_embed_makes_byte_for_byte(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path, tiny_clip: ClipModel
) -> None:
    export(embedded, tmp_path / "laion", ExportRequest("clip-retrieval"))
    report = take(tmp_path / "laion", photos)
    assert bytes_of(tmp_path / "imported") == bytes_of(embedded.root)
    assert (report.rows, report.paired, report.imported, report.sampled) == (7, 7, 7, 7)
    assert (report.embedding.ok, report.embedding.failed) == (7, 1)
    assert report.least > 0.99999
    again = embed([photos], tmp_path / "imported", tiny_clip)
    assert (again.ok, again.skipped, again.failed_before) == (0, 7, 1)
    assert {path.name for path in (tmp_path / "imported").iterdir()} == {"store.json", "images", ".lock"}


def test_rows_in_any_order_and_precision_find_their_images_wherever_the_folder_lay(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    order = np.random.default_rng(1).permutation(COUNT)
    scaled = (vectors * np.arange(3, 10)[:, None]).astype(np.float16)[order]
    names = {
        "relative": [f"./{paths[row]}" for row in order],
        "elsewhere": [f"/mnt/cluster/photos/{paths[row]}" for row in order],
        "windows": ["D:\\photos\\" + paths[row].replace("/", "\\") for row in order],
    }
    for name, texts in names.items():
        source = as_table(tmp_path / f"{name}.parquet", texts, scaled)
        report = take(source, photos, root=name)
        assert (report.paired, report.imported) == (COUNT, COUNT), name
        found = Store.open(tmp_path / name)
        assert found.ok_images()["path"].to_pylist() == paths
        assert np.abs(found.embeddings() - vectors).max() < 1e-3
        assert np.allclose(np.linalg.norm(found.embeddings(), axis=1), 1, atol=1e-6)


class Killed(BaseException):
    """Stands for a process that ends here."""


def test_an_interrupted_import_goes_on_and_lanit_embed_may_end_it(
    embedded: Store, photos: Path, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    export(embedded, tmp_path / "laion", ExportRequest("clip-retrieval"))
    options = EmbedOptions(batch_size=1, part_rows=2)
    request = ImportRequest(str(tmp_path / "laion"), (str(photos),))
    import_vectors(request, tmp_path / "whole", tiny_clip, options)

    def killed(done: int, *_: Any) -> None:
        if done > 5:
            raise Killed

    for name in ("import", "embed"):
        with pytest.raises(Killed):
            import_vectors(request, tmp_path / name, tiny_clip, options, killed)
        assert (tmp_path / name / "images" / "unfinished.jsonl").exists()
        assert not (tmp_path / name / "store.json").exists()
    assert import_vectors(request, tmp_path / "import", tiny_clip, options).embedding.ok < COUNT
    assert embed([photos], tmp_path / "embed", tiny_clip, options).ok < COUNT
    assert bytes_of(tmp_path / "import") == bytes_of(tmp_path / "whole")
    assert np.abs(Store.open(tmp_path / "embed").embeddings() - embedded.embeddings()).max() < 1e-6


def test_images_that_are_gone_are_failed_rows_of_their_table(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    source = as_table(tmp_path / "some.parquet", [f"images/{path}" for path in paths], vectors)
    (photos / paths[0]).unlink()
    report = take(source)
    assert (report.imported, report.embedding.failed) == (COUNT - 1, 1)
    for path in paths[1:]:
        (photos / path).unlink()
    with pytest.raises(LanitError, match="none of the images of the embeddings can be read"):
        take(source, root="none")


def test_npy_takes_a_text_or_a_table_of_paths(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    np.save(tmp_path / "vectors.npy", vectors)
    (tmp_path / "paths.txt").write_text("\n".join(paths) + "\n")
    assert take(tmp_path / "vectors.npy", photos, paths=str(tmp_path / "paths.txt"), root="text").imported == COUNT
    table = tmp_path / "list.csv"
    table.write_text("image_path\n" + "".join(f"{photos / path}\n" for path in paths))
    report = take(tmp_path / "vectors.npy", table, root="table")
    assert (report.imported, Store.open(tmp_path / "table").ok) == (COUNT, COUNT)
    table.write_text(table.read_text() + f"{photos / paths[0]}\n")
    with pytest.raises(LanitError, match=r"has 7 embeddings, and .* names 8 images"):
        take(tmp_path / "vectors.npy", table, root="uneven")
    with pytest.raises(LanitError, match="nothing tells which image"):
        take(tmp_path / "vectors.npy", photos, root="nameless")


def test_a_table_that_holds_images_beside_embeddings_needs_nothing_else(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    source = as_table(tmp_path / "all.parquet", paths, vectors, image=[(photos / path).read_bytes() for path in paths])
    report = take(source)
    assert (report.imported, report.embedding.found) == (COUNT, COUNT)
    export(embedded, tmp_path / "hub", ExportRequest("huggingface", embeddings=True))
    report = take(tmp_path / "hub" / "data" / "train-00000.parquet", root="hub-store")
    assert (report.imported, report.embedding.found) == (COUNT, COUNT)


def test_lance_is_read_with_its_images_beside_it(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    lance = pytest.importorskip("lance", reason="the extra lance")
    paths, vectors = paths_and_vectors(embedded)
    table = pq.read_table(as_table(tmp_path / "some.parquet", paths, vectors))
    lance.write_dataset(table, tmp_path / "some.lance")
    assert take(tmp_path / "some.lance", photos).imported == COUNT


def test_tars_are_paired_by_webdatasets_keys(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for path in paths:
            tar.add(photos / path, f"{Path(path).stem}.orig.png")
    source = as_table(tmp_path / "some.parquet", [Path(path).stem for path in paths], vectors)
    assert take(source, tmp_path / "some.tar").imported == COUNT


def test_images_without_an_embedding_are_embedded_and_rows_without_an_image_are_counted(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    vectors = np.concatenate([vectors, vectors[:1]])
    vectors[1] = 0
    source = as_table(tmp_path / "some.parquet", [*paths[:5], "gone.png", paths[5], paths[5]], vectors)
    report = take(source, photos)
    assert (report.rows, report.paired, report.imported, report.embedding.ok) == (8, 4, 4, COUNT)
    assert any("4 of the 8 embeddings have no image" in warning for warning in report.warnings)
    assert np.abs(Store.open(tmp_path / "imported").embeddings() - embedded.embeddings()).max() < 1e-6


def test_embeddings_of_other_models_or_of_other_rows_are_refused_with_figures_and_nothing_is_written(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    from pipeline.clip.models import load_clip

    paths, vectors = paths_and_vectors(embedded)
    source = as_table(tmp_path / "some.parquet", paths, vectors)
    other = load_clip(str(make_clip(seed=1)))
    with pytest.raises(
        LanitError, match=r"of 7 images embedded again, 7 are below a cosine of 0.999 \(median"
    ) as caught:
        take(source, photos, clip=other)
    assert "--clip" in caught.value.hint
    wrong = np.concatenate([vectors[:5], np.roll(vectors[5:], 9, axis=1)])
    with pytest.raises(LanitError, match=r"2 are below a cosine of 0.999 \(median 1.0000, least -?0"):
        take(as_table(tmp_path / "wrong.parquet", paths, wrong), photos)
    short = as_table(tmp_path / "short.parquet", paths, np.ones((COUNT, 512), np.float32))
    with pytest.raises(LanitError, match=r"of 512 numbers, those of .* of 24") as caught:
        take(short, photos)
    assert "ViT-B-32/openai" in caught.value.hint
    with pytest.raises(LanitError, match=r"no name in .* is of an image"):
        take(as_table(tmp_path / "names.parquet", [f"x{path}" for path in paths], vectors), photos)
    root = tmp_path / "imported"
    assert not root.exists() or {path.name for path in root.iterdir()} <= {".lock"}


def test_the_sample_is_seeded_and_no_larger_than_said(
    embedded: Store, photos: Path, take: Callable[..., ImportReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    vectors[3] = np.roll(vectors[3], 9)
    source = as_table(tmp_path / "some.parquet", paths, vectors)
    monkeypatch.setattr(pipeline.importing.proving, "SAMPLED", 2)
    outcomes = []
    for seed in (*range(8), *range(8)):
        try:
            outcomes.append(take(source, photos, root=f"of-{len(outcomes)}", seed=seed).sampled)
        except LanitError:
            outcomes.append(0)
    assert outcomes[:8] == outcomes[8:]
    assert set(outcomes) == {0, 2}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "there is no file or folder"),
        ("https://host/vectors.npy", "is a URL"),
        ("photos.txt", "no embeddings of a form"),
        ("cut.npy", "no whole .npy file"),
        ("flat.npy", "not a row of floats"),
        ("two.parquet", "2 columns of embeddings"),
        ("none.parquet", "no columns of embeddings"),
        ("cut.parquet", "not a whole Parquet file"),
    ],
)
def test_sources_that_cannot_be_read_are_refused_in_one_line(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("x")
    (tmp_path / "paths.txt").write_text("x\n")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "cut.npy", np.zeros((3, 4)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-9])
    as_table(tmp_path / "two.parquet", ["a"], np.ones((1, 3)), other=[[1.0]])
    pq.write_table(pa.table({"image_path": ["a"]}), tmp_path / "none.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "two.parquet").read_bytes()[:-9])
    paths = str(tmp_path / "paths.txt") if name.endswith(".npy") and "://" not in name else None
    with pytest.raises(LanitError, match=message) as caught:
        ImportRequest(name if "://" in name else str(tmp_path / name), paths=paths).vectors()
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_options_of_another_form_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", np.ones((1, 3)))
    with pytest.raises(UsageError, match="--embedding-column is for"):
        ImportRequest(str(tmp_path / "some.npy"), embedding_column="x").vectors()
    as_table(tmp_path / "some.parquet", ["a"], np.ones((1, 3)))
    with pytest.raises(UsageError, match="--paths names"):
        ImportRequest(str(tmp_path / "some.parquet"), paths="x").vectors()


def test_unit_vectors_stay_to_the_bit_and_others_without_direction_become_nan() -> None:
    block = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    assert np.array_equal(unit(block), block)
    made = unit(np.array([[3, 4], [0, 0], [np.inf, 1], [np.nan, 1]], np.float16))
    assert np.allclose(made[0], [0.6, 0.8])
    assert np.isnan(made[1:]).all()


def test_the_command_prints_cosines_or_one_json_object(
    embedded: Store, photos: Path, tiny_clip_folder: Path, tmp_path: Path
) -> None:
    paths, vectors = paths_and_vectors(embedded)
    source = as_table(tmp_path / "some.parquet", paths, vectors)
    words = ["import", str(source), str(photos), "--clip", str(tiny_clip_folder), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "7 images embedded again" in result.stdout
    report = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).stdout)
    assert (report["paired"], report["imported"], report["embedding"]["skipped"]) == (7, 0, 7)
