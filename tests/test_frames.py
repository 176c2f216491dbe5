"""--frame: of files with several frames the one that was asked for, by every command that reads images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import pipeline.store.image_cache
from cli import app
from lanit.errors import LanitError, UsageError
from pipeline.clip.models import ClipModel, load_clip
from pipeline.computing.ray_cluster import Workforce
from pipeline.decoding.clip_input import decode_for_clip
from pipeline.decoding.frames import Frame, parse_frame
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import MAX_PIXELS, ImageError
from pipeline.embedding.embed import EmbedOptions, embed
from pipeline.embedding.embedding_steps import RowReader
from pipeline.embedding.ray_embed import embed_job
from pipeline.exports.export import export
from pipeline.exports.layouts import ExportRequest
from pipeline.importing.import_vectors import ImportRequest, import_vectors
from pipeline.searching.search import embed_image, search
from pipeline.stability.views import views_path
from pipeline.store.image_cache import open_sized_images
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate
from tests.image_builders import dicom
from tests.translation_world import make_model, make_source

FRAMES = [1, 2, 3, 4, 5]


def scenes(count: int, seed: int = 0, side: int = 40) -> list[np.ndarray]:
    """Pictures of a few flat colours, uint8 (side×side×3)."""
    rng = np.random.default_rng(seed)
    return [np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((side // 4, side // 4, 1))).astype(np.uint8)
            for _ in range(count)]  # fmt: skip


def several(pictures: Sequence[np.ndarray], kind: str = "TIFF") -> bytes:
    sink = io.BytesIO()
    first, *others = map(Image.fromarray, pictures)
    first.save(sink, kind, save_all=True, append_images=others, **({"lossless": True} if kind == "WEBP" else {}))
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize(("frame", "place"), [*((n, n - 1) for n in FRAMES), ("middle", 2), (None, 0)])
def test_pages_and_animations_are_counted_from_one(kind: str, frame: Frame | None, place: int) -> None:
    pictures = scenes(5)
    np.testing.assert_array_equal(decode_rgb(several(pictures, kind), frame=frame), pictures[place])
    with pytest.raises(ImageError, match="it has 5 frames, and frame 6 was asked for"):
        decode_rgb(several(pictures, kind), frame=6)


@pytest.mark.parametrize(("frame", "place"), [*((n, n - 1) for n in FRAMES), ("middle", 2), (None, 3)])
def test_a_frame_of_dicom_is_the_slice_that_a_file_of_its_own_would_hold(frame: Frame | None, place: int) -> None:
    """Without --frame the one that the file names: RepresentativeFrameNumber (0028,6010) is 4."""
    pydicom = pytest.importorskip("pydicom")
    slices = [np.random.default_rng(n).integers(0, 4096, (24, 32), dtype=np.uint16) for n in range(5)]
    data = pydicom.dcmread(io.BytesIO(dicom(slices[0])))
    data.NumberOfFrames, data.RepresentativeFrameNumber = 5, 4
    data.PixelData = b"".join(each.tobytes() for each in slices)
    sink = io.BytesIO()
    data.save_as(sink)
    np.testing.assert_array_equal(decode_rgb(sink.getvalue(), frame=frame), decode_rgb(dicom(slices[place])))
    with pytest.raises(ImageError, match="it has 5 frames, and frame 9 was asked for"):
        decode_rgb(sink.getvalue(), frame=9)


def test_a_jpeg_has_one_frame_however_it_is_read(tiny_clip: ClipModel) -> None:
    sinks = io.BytesIO(), io.BytesIO()
    Image.fromarray(scenes(1)[0]).save(sinks[0], "JPEG")
    one, two, three = map(Image.fromarray, scenes(3))
    one.save(sinks[1], "MPO", save_all=True, append_images=[two, three])
    for data in (sink.getvalue() for sink in sinks):
        plain = decode_rgb(data)
        np.testing.assert_array_equal(decode_rgb(data, frame="middle"), plain)
        np.testing.assert_array_equal(decode_rgb(data, frame=1), plain)
        assert decode_for_clip(data, tiny_clip.preprocessing, frame="middle").width == 40
        for read in (decode_rgb, lambda data, **given: decode_for_clip(data, tiny_clip.preprocessing, **given)):
            with pytest.raises(ImageError, match="it has 1 frame, and frame 2 was asked for"):
                read(data, frame=2)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "last", "", "²"])
def test_what_is_no_frame_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(UsageError, match="is no frame") as caught:
        parse_frame(text)
    assert "--frame middle" in caught.value.hint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six stacks of four pages, one of two."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.tif").write_bytes(several(scenes(4, number)))
    (folder / "short.tif").write_bytes(several(scenes(2, 9)))
    return folder


def test_a_store_is_of_one_frame_and_says_so(folder: Path, tiny_clip: ClipModel, tmp_path: Path) -> None:
    root = tmp_path / "store"
    report = embed([folder], root, tiny_clip, EmbedOptions(frame=3))
    store = Store.open(root)
    assert (report.ok, report.failed, json.loads((root / "store.json").read_text())["frame"]) == (6, 1, 3)
    assert "it has 2 frames, and frame 3 was asked for" in store.images(["error_message"])["error_message"].to_pylist()

    single = tmp_path / "pages"
    single.mkdir()
    for number in range(6):
        Image.fromarray(scenes(4, number)[2]).save(single / f"{number}.png")
    embed([single], tmp_path / "plain", tiny_clip)
    plain = Store.open(tmp_path / "plain")
    assert "frame" not in json.loads((tmp_path / "plain" / "store.json").read_text())
    np.testing.assert_array_equal(store.embeddings(), plain.embeddings())

    assert embed([folder], root, tiny_clip).skipped == 6, "the store's own is the default"
    for other in (2, "middle"):
        with pytest.raises(LanitError, match=f"holds frame 3, not frame {other}") as caught:
            embed([folder], root, tiny_clip, EmbedOptions(frame=other))
        assert "--overwrite" in caught.value.hint
    with pytest.raises(LanitError, match="holds the frame that each file names, else its first, not frame 1"):
        embed([single], tmp_path / "plain", tiny_clip, EmbedOptions(frame=1))
    before = views_path(store)
    assert embed([folder], root, tiny_clip, EmbedOptions(overwrite=True)).ok == 7
    assert Store.open(root).manifest.frame is None
    assert views_path(Store.open(root)).name[:22] != before.name[:22], "crops of another frame are not these"


def test_whatever_reads_the_store_again_reads_its_frame(folder: Path, tiny_clip: ClipModel, tmp_path: Path) -> None:
    embed([folder], tmp_path / "store", tiny_clip, EmbedOptions(frame="middle"))
    store = Store.open(tmp_path / "store")
    images, rows = StoreImages(store), np.arange(6)
    sized = open_sized_images(store, 40, 1.0)
    assert isinstance(sized, pipeline.store.image_cache.CachedImages)
    drawn = open_sized_images(store, 40, 0.0)
    for number, found in enumerate(store.ok_images()["path"].to_pylist()[:6]):
        page = scenes(4, int(found[0]))[1]
        np.testing.assert_array_equal(images.decode(number), page)
        np.testing.assert_array_equal(sized.take(rows)[number].transpose(1, 2, 0), page)
        np.testing.assert_array_equal(drawn.take(rows)[number].transpose(1, 2, 0), page)
        assert images.thumbnail(number, 40) == _jpeg(page)
        seen = images.decode_for_clip(number, tiny_clip.preprocessing).pixels
        assert (seen == decode_for_clip(several([page]), tiny_clip.preprocessing).pixels).all()
    example = folder / "2.tif"
    hits = search(store, tiny_clip, image=example).hits
    assert (hits[0].path, round(hits[0].cosine, 4)) == ("2.tif", 1.0)
    assert not np.allclose(embed_image(tiny_clip, example), embed_image(tiny_clip, example, "middle"))


def _jpeg(page: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(page).save(sink, "JPEG", quality=80)
    return sink.getvalue()


def test_an_interrupted_run_goes_on_with_its_frame_only(
    folder: Path, tiny_clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reads = tmp_path / "store", list[str]()
    real: Callable[..., Any] = RowReader.__call__

    def read(self: RowReader, row: Any) -> Any:
        reads.append(row.path)
        return real(self, row)

    monkeypatch.setattr(RowReader, "__call__", read)
    stop = EmbedOptions(frame=3, part_rows=2, max_failures=0)  # the last image fails
    with pytest.raises(LanitError, match="1 images failed"):
        embed([folder], root, tiny_clip, stop)
    reads.clear()
    embed([folder], root, tiny_clip, EmbedOptions(frame=3, part_rows=2))
    assert len(reads) < 7
    with pytest.raises(LanitError, match="1 images failed"):
        embed([folder], tmp_path / "other", tiny_clip, stop)
    reads.clear()
    embed([folder], tmp_path / "other", tiny_clip, EmbedOptions(frame=2, part_rows=2))
    assert len(reads) == 7, "the pages of an interrupted run were others"


def test_processes_of_a_cluster_are_told(tiny_clip: ClipModel) -> None:
    reader = RowReader({}, tiny_clip.preprocessing, lambda _: None, MAX_PIXELS, True, "middle")
    job = embed_job(tiny_clip, EmbedOptions(frame="middle"), Workforce(1, 1, False), reader, "float32")
    assert job.frame == "middle"


def test_the_command_takes_a_number_or_middle(folder: Path, tiny_clip_folder: Path, tmp_path: Path) -> None:
    run = ["embed", str(folder), "--clip", str(tiny_clip_folder), "--store", str(tmp_path / "store"), "--frame"]
    assert CliRunner().invoke(app, [*run, "middle"]).exit_code == 0
    refused = CliRunner().invoke(app, [*run, "2"])
    assert refused.exit_code == 1
    assert "holds frame middle, not frame 2. Name another --store, or add --overwrite" in refused.output
    assert "'0' is no frame" in CliRunner().invoke(app, [*run, "0"]).output


def test_embeddings_of_a_frame_are_imported_with_that_frame_alone(folder: Path, tmp_path: Path) -> None:
    clip = load_clip("sample")  # random weights see no difference of 0.001
    embed([folder], tmp_path / "store", clip, EmbedOptions(frame=2))
    export(Store.open(tmp_path / "store"), tmp_path / "laion", ExportRequest("clip-retrieval"))
    request = ImportRequest(str(tmp_path / "laion"), (str(folder),))
    import_vectors(request, tmp_path / "imported", clip, EmbedOptions(frame=2))
    assert Store.open(tmp_path / "imported").manifest.frame == 2
    with pytest.raises(LanitError, match="not the embeddings that"):
        import_vectors(request, tmp_path / "first", clip, EmbedOptions())


@pytest.mark.parametrize("frame", [3, "middle"])
def test_translations_and_references_are_of_the_frame_that_is_asked_for(
    frame: Frame, make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    """As of folders that hold that page of each file alone."""
    model = make_model(tmp_path / "model", make_source(make_images), tiny_clip)
    stacks, pages = tmp_path / "stacks", tmp_path / "pages"
    place = 2 if frame == 3 else 1
    for root in (stacks, pages):
        root.mkdir()
    for number in range(3):
        pictures = scenes(4, number)
        (stacks / f"{number}.tif").write_bytes(several(pictures))
        (pages / f"{number}.tif").write_bytes(several(pictures[place : place + 1]))

    def made(source: Path, out: str, frame: Frame | None) -> list[np.ndarray]:
        reference = TranslateRequest(to=(("hat", 1.0),), reference=source / "0.tif")
        options = TranslateOptions(margins=False, frame=frame)
        assert translate(source, tmp_path / out, model, reference, options).ok == 3
        return [decode_rgb(path) for path in sorted((tmp_path / out).glob("*.tif"))]

    asked = made(stacks, "asked", frame)
    np.testing.assert_array_equal(asked, made(pages, "alone", None))
    assert not np.array_equal(asked, made(stacks, "first", None))
    with pytest.raises(LanitError, match="other"):
        made(stacks, "asked", None)


def test_the_command_that_translates_takes_a_frame(
    make_images: Callable[..., Path], tiny_clip: ClipModel, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", make_source(make_images), tiny_clip)
    (tmp_path / "stack.tif").write_bytes(several(scenes(2)))
    run = ["translate", str(tmp_path / "stack.tif"), "--model", str(model), "--to", "hat", "--no-margins"]
    assert CliRunner().invoke(app, [*run, "--out", str(tmp_path / "second"), "--frame", "2"]).exit_code == 0
    refused = CliRunner().invoke(app, [*run, "--out", str(tmp_path / "third"), "--frame", "3"])
    assert refused.exit_code == 1
    assert "it has 2 frames, and frame 3 was asked for" in refused.output
