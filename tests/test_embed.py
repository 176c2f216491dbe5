"""Every file becomes a row; runs resume to the same bytes; what is unchanged is not embedded again."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pipeline.embedding.embedding_steps
from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel, load_clip
from pipeline.clip.towers import Towers
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.embedding.embed import EmbedOptions, EmbedReport
from pipeline.embedding.embed import embed as embed_inputs
from pipeline.store.store import Store

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.tar"


def embed(
    source: Path | list[Path], store: Path, clip: ClipModel, *, progress: Any = None, engine: Any = None, **options: Any
) -> EmbedReport:
    inputs = source if isinstance(source, list) else [source]
    return embed_inputs(inputs, store, clip, EmbedOptions(**options), progress=progress, engine=engine)


def contents(store: Path) -> dict[str, bytes]:
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def statuses(store: Path) -> dict[str, str | None]:
    table = Store.open(store).images(["path", "error_message"])
    return dict(zip(table["path"].to_pylist(), table["error_message"].to_pylist(), strict=True))


def sources(store: Store) -> list[str]:
    return [entry.source for entry in store.manifest.sources]


def adds_up(report: EmbedReport) -> bool:
    return report.found == report.ok + report.failed + report.skipped


class Counting(torch.nn.Module):
    """Counts the images that pass; raises as an interrupted process would once ``limit`` of them have."""

    def __init__(self, model: Any, limit: int | None = None) -> None:
        super().__init__()
        self.model, self.limit, self.seen = model, limit, 0

    def encode_image(self, images: torch.Tensor) -> Any:
        if self.limit is not None and self.seen + len(images) > self.limit:
            raise KeyboardInterrupt
        self.seen += len(images)
        return self.model.encode_image(images)


def counting(clip: ClipModel, limit: int | None = None) -> tuple[ClipModel, Counting]:
    model = Counting(clip.model, limit)
    return replace(clip, towers=Towers(model)), model


def test_odd_files_become_rows_and_counts_add_up(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(3)
    jpeg = io.BytesIO()
    Image.effect_noise((200, 100), 80).convert("CMYK").save(jpeg, "JPEG")
    (folder / "cmyk ü.JPG").write_bytes(jpeg.getvalue())
    (folder / "cut.jpeg").write_bytes(jpeg.getvalue()[:2000])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("not an image")
    (folder / "bomb.pgm").write_bytes(b"P5 30000 30000 255 ")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "notes.txt").write_text("ignored")
    report = embed(folder, tmp_path / "store", tiny_clip, batch_size=2)
    assert (report.found, report.ok, report.failed, report.skipped) == (9, 4, 5, 0)
    assert report.ignored == 1
    assert adds_up(report)
    found = statuses(tmp_path / "store")
    assert list(found) == sorted(found)
    reasons = {"cut.jpeg": "truncated", "empty.png": "empty", "text.jpg": "not an image"}
    reasons |= {"bomb.pgm": "exceeds limit", "gone.png": "No such file"}
    assert {path for path, message in found.items() if message} == set(reasons)
    for path, reason in reasons.items():
        assert reason in str(found[path])
    store = Store.open(tmp_path / "store")
    rows = {row["path"]: row for row in store.images().to_pylist()}
    good = rows["cmyk ü.JPG"]
    assert (good["width"], good["height"], good["bytes"]) == (200, 100, len(jpeg.getvalue()))
    assert good["sha256"] == hashlib.sha256(jpeg.getvalue()).hexdigest()
    assert good["status"] == "ok"
    assert good["source"] == str(folder)
    assert good["image_id"] == hashlib.blake2b(f"{folder}\0cmyk ü.JPG".encode(), digest_size=8).hexdigest()
    assert rows["cut.jpeg"]["embedding"] is None
    assert rows["cut.jpeg"]["status"] == "failed"


def test_a_name_that_is_not_utf8_is_a_failed_row(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(1)
    try:
        shutil.copy(folder / "b" / "000.png", (str(folder) + "/caf\udce9.png"))
    except OSError:
        pytest.skip("this file system takes only valid names")
    report = embed(folder, tmp_path / "store", tiny_clip)
    assert (report.ok, report.failed) == (1, 1)
    assert "UTF-8" in str(statuses(tmp_path / "store")["caf\\xe9.png"])


def test_embeddings_are_those_of_the_model_in_path_order(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(7)
    embed(folder, tmp_path / "store", tiny_clip, batch_size=3, workers=3)
    store = Store.open(tmp_path / "store")
    for path, embedding in zip(store.ok_images()["path"].to_pylist(), store.embeddings(), strict=True):
        decoded = decode_for_clip((folder / path).read_bytes(), tiny_clip.preprocessing)
        expected = tiny_clip.encode_preprocessed(tiny_clip.preprocessing.normalise(decoded.pixels[None]))[0].numpy()
        np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_workers_and_a_second_run_give_the_same_bytes(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder = make_images(9)
    embed(folder, tmp_path / "one", tiny_clip, workers=1, batch_size=2, part_rows=4)
    embed(folder, tmp_path / "four", tiny_clip, workers=4, batch_size=2, part_rows=4)
    before = contents(tmp_path / "one")
    assert contents(tmp_path / "four") == before
    clip, model = counting(tiny_clip)
    report = embed(folder, tmp_path / "one", clip, part_rows=4)
    assert (report.found, report.ok, report.skipped, report.index) == (9, 0, 9, "left")
    assert model.seen == 0
    assert contents(tmp_path / "one") == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("earlier_store", [False, True])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, overwrite: bool, earlier_store: bool
) -> None:
    folder = make_images(4)
    root = tmp_path / "store"
    if earlier_store:
        embed(folder, root, tiny_clip, part_rows=3)
    make_images(9)
    shutil.copy(folder / "a" / "001.png", folder / "c.png")  # one content thrice, over several parts
    shutil.copy(folder / "a" / "001.png", folder / "a" / "002.png")
    (folder / "a" / "004.jpg").write_text("not an image")
    shutil.copytree(root, tmp_path / "whole") if earlier_store else None
    embed(folder, tmp_path / "whole", tiny_clip, batch_size=2, part_rows=3, overwrite=overwrite)

    before = contents(root) if earlier_store else {}
    clip, model = counting(tiny_clip, limit=4)
    with pytest.raises(KeyboardInterrupt):  # one worker: of several, any batch could be the one that is interrupted
        embed(folder, root, clip, batch_size=2, part_rows=3, overwrite=overwrite, workers=1)
    assert (root / "images" / "unfinished.jsonl").exists()
    for name, data in before.items():
        assert (root / name).read_bytes() == data, "the old store stays whole"
    if not earlier_store:
        with pytest.raises(LanitError, match="unfinished"):
            Store.open(root)

    clip, rest = counting(tiny_clip)
    report = embed(folder, root, clip, batch_size=2, part_rows=3, overwrite=overwrite)
    assert adds_up(report)
    assert contents(root) == contents(tmp_path / "whole")
    assert model.seen + rest.seen <= report.found, "finished parts are not embedded again"
    assert report.skipped > 0


def test_new_files_are_added_deleted_ones_dropped_moved_ones_kept(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder, root = make_images(8), tmp_path / "store"
    embed(folder, root, tiny_clip, part_rows=3)
    (folder / "a" / "001.png").unlink()
    (folder / "a" / "003.png").rename(folder / "zzz.png")
    Image.new("RGB", (30, 30), (1, 2, 3)).save(folder / "new.png")
    Image.new("RGB", (30, 30), (9, 2, 3)).save(folder / "b" / "000.png")  # changed
    clip, model = counting(tiny_clip)
    report = embed(folder, root, clip, part_rows=3)
    assert (report.found, report.ok, report.skipped, report.failed) == (8, 2, 6, 0)
    assert report.dropped == 2  # the deleted name and the moved one
    assert model.seen == 2
    fresh = tmp_path / "fresh"
    embed(folder, fresh, tiny_clip, part_rows=3)
    assert Store.open(root).images(["image_id", "path", "sha256"]) == Store.open(fresh).images(
        ["image_id", "path", "sha256"]
    )
    np.testing.assert_allclose(Store.open(root).embeddings(), Store.open(fresh).embeddings(), atol=1e-6)
    named = {part.file for part in Store.open(root).manifest.parts}
    assert {f"images/{path.name}" for path in (root / "images").iterdir()} == named


def test_failures_are_tried_again(make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path) -> None:
    folder, root = make_images(2), tmp_path / "store"
    (folder / "x.png").write_bytes(b"")
    assert embed(folder, root, tiny_clip).failed == 1
    assert embed(folder, root, tiny_clip).failed == 1
    Image.new("RGB", (9, 9)).save(folder / "x.png")
    report = embed(folder, root, tiny_clip)
    assert (report.ok, report.failed, report.skipped) == (1, 0, 2)


def test_two_folders_in_one_store(make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path) -> None:
    first, second, root = make_images(4, "first"), make_images(3, "second", seed=1), tmp_path / "store"
    (first / "bad.png").write_bytes(b"")
    embed(first, root, tiny_clip, part_rows=2)
    report = embed(second, root, tiny_clip, part_rows=2)
    assert (report.found, report.ok, report.kept, report.stored) == (3, 3, 5, 7)
    store = Store.open(root)
    assert sources(store) == [str(first), str(second)]
    assert store.images(["source"])["source"].to_pylist() == [str(first)] * 5 + [str(second)] * 3
    first.rename(tmp_path / "third")
    clip, model = counting(tiny_clip)
    report = embed(tmp_path / "third", root, clip, part_rows=2, forget=(str(first),))
    assert (report.skipped, report.failed, report.dropped, report.kept, model.seen) == (4, 1, 5, 3, 0)
    assert sources(Store.open(root)) == [str(second), str(tmp_path / "third")]
    report = embed(second, root, tiny_clip, overwrite=True)
    assert (report.ok, report.kept, report.stored) == (3, 0, 3)


def test_another_model_is_refused_unless_overwriting(
    make_images: Callable[..., Path], make_clip: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder, root = make_images(3), tmp_path / "store"
    embed(folder, root, tiny_clip)
    before = contents(root)
    other = load_clip(str(make_clip(seed=5)))
    with pytest.raises(LanitError, match="weights_sha256 differ") as caught:
        embed(folder, root, other)
    assert "--overwrite" in caught.value.hint
    assert contents(root) == before
    assert embed(folder, root, other, overwrite=True).ok == 3
    assert Store.open(root).fingerprint == other.fingerprint


@pytest.mark.parametrize("earlier_store", [False, True])
def test_where_nothing_decodes_the_store_is_as_it_was(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, earlier_store: bool
) -> None:
    root, bad = tmp_path / "store", tmp_path / "bad"
    if earlier_store:
        embed(make_images(3), root, tiny_clip)
    before = contents(root)
    bad.mkdir()
    for number in range(3):
        (bad / f"{number}.png").write_text("text")
    for overwrite in (False, True):
        with pytest.raises(LanitError, match=r"none of the 3 images .*0\.png: not an image"):
            embed(bad, root, tiny_clip, part_rows=2, overwrite=overwrite)
        assert contents(root) == before
        assert root.exists() is earlier_store


def test_bad_folders_and_options(tiny_clip: ClipModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").touch()
    for source, message in [
        ("missing", "there is no folder"),
        ("empty", "only 1 other files"),
        ("empty/readme.md", "is a file, but"),
    ]:
        with pytest.raises(LanitError, match=message) as caught:
            embed(tmp_path / source, tmp_path / "store", tiny_clip)
        assert caught.value.hint
    with pytest.raises(UsageError, match="batch-size"):
        embed(tmp_path, tmp_path / "store", tiny_clip, batch_size=0)
    assert not (tmp_path / "store").exists()


def test_a_damaged_part_is_embedded_again(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    folder, root = make_images(5), tmp_path / "store"
    embed(folder, root, tiny_clip, part_rows=2, batch_size=2)
    before = contents(root)
    part = root / Store.open(root).manifest.parts[1].file
    part.write_bytes(part.read_bytes()[:100])
    report = embed(folder, root, tiny_clip, part_rows=2, batch_size=2)
    assert (report.ok, report.skipped) == (2, 3)
    assert any("damaged" in warning for warning in report.warnings)
    assert contents(root) == before


def test_embeddings_that_are_not_finite_fail(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    class Broken(Counting):
        def encode_image(self, images: torch.Tensor) -> Any:
            features = super().encode_image(images).clone()
            features[0] = float("nan")
            return features

    clip = replace(tiny_clip, towers=Towers(Broken(tiny_clip.model)))
    report = embed(make_images(3), tmp_path / "store", clip)
    assert (report.ok, report.failed) == (2, 1)
    assert np.isfinite(Store.open(tmp_path / "store").embeddings()).all()


@pytest.mark.parametrize("small", [False, True])
def test_no_more_images_are_decoded_ahead_of_a_model_on_the_cpu_than_a_batch_or_a_few_of_a_small_one(
    small: bool, make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, monkeypatch: Any
) -> None:
    if not small:
        monkeypatch.setattr(pipeline.embedding.embedding_steps, "_SMALL", -1)
    decoded, ahead = [0], [0]
    real = pipeline.embedding.embedding_steps.decode_for_clip

    def decode(*arguments: Any) -> Any:
        decoded[0] += 1
        ahead[0] = max(ahead[0], decoded[0] - model.seen)
        return real(*arguments)

    monkeypatch.setattr(pipeline.embedding.embedding_steps, "decode_for_clip", decode)
    clip, model = counting(tiny_clip)
    calls: list[tuple[int, int]] = []
    embed(
        make_images(60), tmp_path / "store", clip, batch_size=2, part_rows=7, workers=2,
        progress=lambda done, total, _: calls.append((done, total)),
    )  # fmt: skip
    assert decoded[0] == 60
    assert ahead[0] <= 2 * 2 + 8 + 2 * 2 if small else ahead[0] == 2  # what is read ahead, and a batch on each core
    assert calls == sorted(calls)
    assert calls[-1] == (60, 60)


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/photos.tar beside the repository")
def test_real_photographs(tiny_clip: ClipModel, tmp_path: Path) -> None:
    shutil.unpack_archive(PHOTOS, tmp_path)  # tarfile's own filters came with Python 3.11.4
    report = embed(tmp_path / "photos", tmp_path / "store", tiny_clip)
    assert (report.found, report.ok, report.failed) == (63, 63, 0)
    embeddings = Store.open(tmp_path / "store").embeddings()
    assert len(np.unique(embeddings, axis=0)) == 63


def test_a_small_model_run_by_the_threads_that_decode_gives_the_same_bytes(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path, monkeypatch: Any
) -> None:
    images, stores = make_images(50), []
    for name, most in (("threads", 20_000_000), ("turns", -1)):
        monkeypatch.setattr(pipeline.embedding.embedding_steps, "_SMALL", most)
        embed(images, tmp_path / name, tiny_clip, batch_size=8, part_rows=20, workers=3)
        stores.append([(file.name, file.read_bytes()) for file in sorted((tmp_path / name / "images").iterdir())])
    assert stores[0] == stores[1]
    assert len(stores[0]) == 3
