"""Images for CLIP: the fast path gives what Pillow gives, refuses what Pillow refuses, and keeps to its thread."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from simplejpeg import decode_jpeg

from lanit.preprocessing import ClipPreprocessing
from pipeline.decoding import clip_input as decode
from pipeline.decoding.clip_input import JpegHeader, decode_for_clip, read_jpeg_header
from pipeline.decoding.gpu_decode import decode_batch
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos.tar"
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # torchvision's, of nvJPEG
CLIP_48 = ClipPreprocessing(48, MEAN, STD)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def drawing(height: int = 75, width: int = 101, mode: str = "RGB") -> Image.Image:
    """Smooth colours with a bright corner, so that no turn of it looks like another."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 250 // height, columns * 250 // width, (rows + columns) % 97], axis=2).astype(np.uint8)
    image[: height // 3, : width // 5] = 255
    return Image.fromarray(image).convert(mode)


def encoded(image: Image.Image, kind: str, orientation: int | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "maker", orientation
        options["exif"] = exif
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def by_pillow(data: bytes, preprocessing: ClipPreprocessing) -> torch.Tensor:
    """uint8 (3×s×s) by the slow path alone."""
    return preprocessing.resize(torch.from_numpy(decode_rgb(data)).permute(2, 0, 1)[None])[0]


def farthest(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.fixture
def no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, max_pixels: int) -> None:
        raise AssertionError("the fast path was not taken")

    monkeypatch.setattr(decode, "decode_rgb", refuse)


@pytest.mark.usefixtures("no_pillow")
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"optimize": True, "quality": 30}]
)
def test_a_plain_jpeg_takes_the_fast_path_to_the_same_pixels(mode: str, options: dict[str, object]) -> None:
    data = encoded(drawing(mode=mode), "JPEG", **options)
    decoded = decode_for_clip(data, CLIP_48)
    assert decoded.pixels.dtype == torch.uint8
    assert decoded.pixels.permute(1, 2, 0).is_contiguous()
    assert torch.equal(decoded.pixels, by_pillow(data, CLIP_48))
    assert (decoded.width, decoded.height) == (101, 75)


@pytest.mark.usefixtures("no_pillow")
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_on_the_fast_path(resize_mode: str, orientation: int) -> None:
    preprocessing = ClipPreprocessing(48, MEAN, STD, "bicubic", resize_mode, 40)  # type: ignore[arg-type]
    data = encoded(drawing(), "JPEG", orientation, quality=95)
    decoded = decode_for_clip(data, preprocessing)
    expected = by_pillow(data, preprocessing)
    assert (decoded.width, decoded.height) == ((101, 75) if orientation < 5 else (75, 101))
    assert (decoded.pixels.int() - expected.int()).abs().float().mean() < 0.2
    # a quarter turn after the resize swaps its two passes, which shows beside the white corner
    assert farthest(decoded.pixels, expected) <= (1 if orientation < 5 else 10)


def test_a_rotation_that_is_not_plain_to_see_is_left_to_pillow() -> None:
    image = drawing()
    plain = read_jpeg_header(encoded(image, "JPEG", 6))
    assert plain == JpegHeader(101, 75, 6)
    in_xmp = encoded(image, "JPEG", xmp=XMP)
    twice = encoded(image, "JPEG", 3).replace(b"\xff\xd8", encoded(image, "JPEG", 6)[:60].partition(b"\xff\xdb")[0], 1)
    no_number = encoded(image, "JPEG", 6).replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x04")
    many = b"\xff\xd8" + b"\xff\xfe\x00\x04ab" * 100 + encoded(image, "JPEG", 6)[2:]
    for data in (in_xmp, twice, no_number, many, encoded(image.convert("CMYK"), "JPEG"), encoded(image, "PNG")):
        assert read_jpeg_header(data) is None
        decoded = decode_for_clip(data, CLIP_48)
        assert torch.equal(decoded.pixels, by_pillow(data, CLIP_48))
    assert (decode_for_clip(in_xmp, CLIP_48).width, decode_for_clip(many, CLIP_48).width) == (75, 75)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (drawing(), "PNG"),
        (drawing(), "WEBP"),
        (drawing(mode="CMYK"), "JPEG"),
        (drawing(mode="L"), "PNG"),
        (drawing(mode="RGBA"), "PNG"),
        (drawing(mode="P"), "GIF"),
        (Image.fromarray(np.arange(3000, dtype=np.uint16).reshape(50, 60) * 21), "TIFF"),
        (drawing(400, 11), "PNG"),
        (drawing(48, 48), "BMP"),
        (drawing(1, 1), "BMP"),
    ],
)
def test_everything_else_goes_through_pillow_and_the_same_resize(image: Image.Image, kind: str) -> None:
    data = encoded(image, kind)
    decoded = decode_for_clip(data, CLIP_48)
    assert torch.equal(decoded.pixels, by_pillow(data, CLIP_48))
    assert (decoded.width, decoded.height) == image.size


def test_what_is_refused_is_refused_in_pillows_words() -> None:
    whole = encoded(drawing(), "JPEG")
    stray = whole[:-2] + b"\x12\x34" + whole[-2:]  # two bytes after the picture's own
    for data in (b"", b"text", whole[:-2], whole[: len(whole) // 2], whole[:30], encoded(drawing(), "PNG")[:-40]):
        with pytest.raises(ImageError) as slow:
            decode_rgb(data)
        with pytest.raises(ImageError) as fast:
            decode_for_clip(data, CLIP_48)
        assert fast.value.reason == slow.value.reason
    # and what Pillow forgives is forgiven: the fast path is strict, and hands it over
    with pytest.raises(ValueError, match="extraneous"):
        decode_jpeg(stray)
    assert torch.equal(decode_for_clip(stray, CLIP_48).pixels, by_pillow(stray, CLIP_48))


def test_random_damage_never_divides_the_two_paths() -> None:
    """Whatever the fast path accepts has Pillow's pixels. The EXIF is left whole: a damaged one may be read or not."""
    rng = np.random.default_rng(0)
    taken = 0
    for number in range(300):
        kind = {"progressive": bool(number % 2), "subsampling": number % 3}
        data = bytearray(encoded(drawing(40, 50, "L" if number % 5 == 0 else "RGB"), "JPEG", 3, **kind))
        start = data.index(b"maker") + 6
        for place in rng.integers(start, len(data), 1 + number % 3):
            data[place] = rng.integers(256)
        try:
            expected = by_pillow(bytes(data), CLIP_48)
        except ImageError:
            with pytest.raises(ImageError):
                decode_for_clip(bytes(data), CLIP_48)
        else:
            taken += 1
            assert farthest(decode_for_clip(bytes(data), CLIP_48).pixels, expected) <= 1
    assert taken > 30


def test_headers_of_random_bytes_raise_nothing() -> None:
    rng = np.random.default_rng(1)
    whole = encoded(drawing(16, 16), "JPEG", 6)
    for _ in range(2000):
        data = bytearray(whole[: rng.integers(3, 400)])
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        header = read_jpeg_header(bytes(data))
        assert header is None or header.orientation in range(1, 9)


def test_the_limit_of_pixels_holds_for_each_call_and_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also above Pillow's own, which is one for the whole process, and with several limits at once."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for kind in ("JPEG", "PNG", "TIFF"):
        data = encoded(drawing(60, 50), kind)
        for read in (decode_rgb, functools.partial(decode_for_clip, preprocessing=CLIP_48)):
            with pytest.raises(ImageError, match=r"3000 pixels.* limit of 2999 \(--max-pixels"):
                read(data, max_pixels=2999)
            limits = [2999 + number % 2 for number in range(40)]
            with ThreadPoolExecutor(4) as pool:
                attempts = [pool.submit(read, data, max_pixels=limit) for limit in limits]
            assert [attempt.exception() is None for attempt in attempts] == [limit == 3000 for limit in limits]
    assert Image.MAX_IMAGE_PIXELS == 1500


def test_decoding_keeps_to_its_thread() -> None:
    """Decode workers share the processors by being many, so that none may start threads of its own."""
    program = """
import io, json, os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
import torch
from lanit.preprocessing import ClipPreprocessing
from pipeline.decoding.clip_input import decode_for_clip
noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))
datas = []
for kind, orientation in (("JPEG", 1), ("JPEG", 6), ("PNG", 1)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    noise.save(buffer, kind, exif=exif)
    datas.append(buffer.getvalue())
counts = [torch.get_num_threads()]
with ThreadPoolExecutor(1) as pool:
    pool.submit(int).result()
    counts.append(len(os.listdir("/proc/self/task")))
    for mode in ("shortest", "squash"):
        preprocessing = ClipPreprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic", mode)
        list(pool.map(lambda data: decode_for_clip(data, preprocessing), datas))
    counts.append(len(os.listdir("/proc/self/task")))
    pool.submit(lambda: torch.rand(10_000_000).exp_()).result()
    counts.append(len(os.listdir("/proc/self/task")))
print(json.dumps(counts))
"""
    if not Path("/proc/self/task").exists() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("needs /proc, and a processor for which torch has a resize of uint8 by one thread")
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    threads, before, after, with_torch = json.loads(run.stdout)
    assert after == before
    assert threads == 1 or with_torch > before  # what fanning out looks like


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/photos.tar beside the repository")
def test_photographs_are_what_pillow_makes_of_them() -> None:
    with tarfile.open(PHOTOS) as tar:
        datas = [tar.extractfile(member).read() for member in tar.getmembers() if member.isfile()]  # type: ignore[union-attr]
    preprocessing = ClipPreprocessing(224, MEAN, STD)
    taken = 0
    for data in datas[::2]:
        taken += read_jpeg_header(data) is not None
        pixels = decode_for_clip(data, preprocessing).pixels
        assert torch.equal(pixels, by_pillow(data, preprocessing))
        image = Image.open(io.BytesIO(data)).convert("RGB")
        short = min(image.size)
        image = image.resize(
            (int(224 * image.width / short), int(224 * image.height / short)), Image.Resampling.BICUBIC
        )
        left, top = (round((side - 224) / 2) for side in image.size)
        theirs = torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1)
        assert farthest(pixels, theirs) <= 2
    assert taken > 0.9 * len(datas[::2])


def batch() -> list[bytes]:
    """JPEG of all kinds, whole and damaged, and other files."""
    whole = encoded(drawing(200, 301), "JPEG", quality=95)
    turned = [encoded(drawing(200, 301), "JPEG", orientation, quality=95) for orientation in (3, 5, 6, 8)]
    grey = encoded(drawing(90, 60, "L"), "JPEG", quality=95)
    others = [encoded(drawing(), "PNG"), encoded(drawing(mode="CMYK"), "JPEG"), b"", b"text", whole[:900], whole[:-2]]
    return [whole, *turned, *others, grey, encoded(drawing(), "JPEG", quality=95)]


def check_batch(device: torch.device, levels: float, average: float) -> None:
    datas = batch()
    results = decode_batch(datas, CLIP_48, device, max_pixels=200 * 301)
    assert len(results) == len(datas)
    for data, result in zip(datas, results, strict=True):
        if isinstance(result, ImageError):
            with pytest.raises(ImageError) as caught:
                decode_for_clip(data, CLIP_48)
            assert caught.value.reason == result.reason
            continue
        expected = decode_for_clip(data, CLIP_48)
        assert (result.width, result.height) == (expected.width, expected.height)
        assert result.pixels.device.type == device.type
        assert result.pixels.dtype == torch.uint8
        difference = (result.pixels.cpu().int() - expected.pixels.int()).abs().float()
        assert difference.max() <= levels
        assert difference.mean() <= average
    limited = decode_batch(datas[:1], CLIP_48, device, max_pixels=200 * 301 - 1)
    assert isinstance(limited[0], ImageError)
    assert decode_batch([], CLIP_48, device) == []


def test_a_batch_is_decoded_as_its_images_are() -> None:
    """On the CPU, where the batch goes the way that it goes on a GPU."""
    check_batch(torch.device("cpu"), levels=1, average=0.1)


def test_one_bad_image_costs_a_batch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device refuses a whole batch for one image; the others must still be decoded there."""
    import pipeline.decoding.gpu_decode as module

    real: Callable[..., list[torch.Tensor]] = module.decode_jpeg
    bad = encoded(drawing(64, 64), "JPEG")
    sizes = []

    def moody(buffers: list[torch.Tensor], *options: object) -> list[torch.Tensor]:
        sizes.append(len(buffers))
        if any(bytes(buffer.numpy()) == bad for buffer in buffers):
            raise RuntimeError("nvjpegDecode failed")
        return real(buffers, *options)

    monkeypatch.setattr(module, "decode_jpeg", moody)
    good = encoded(drawing(), "JPEG")
    results = decode_batch([good, bad, good], CLIP_48, torch.device("cpu"))
    assert sizes == [3, 1, 1, 1]
    for data, result in zip([good, bad, good], results, strict=True):
        assert not isinstance(result, ImageError)
        assert farthest(result.pixels, decode_for_clip(data, CLIP_48).pixels) <= 1


@pytest.mark.gpu
def test_nvjpeg_agrees_with_the_cpu() -> None:
    check_batch(torch.device("cuda"), levels=16, average=1.5)


@pytest.mark.gpu
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_the_resize_of_uint8_on_a_gpu_agrees_with_the_cpus(resize_mode: str) -> None:
    """It rounds once where the CPU rounds twice."""
    preprocessing = ClipPreprocessing(48, MEAN, STD, "bicubic", resize_mode, 30)  # type: ignore[arg-type]
    image = torch.from_numpy(np.array(drawing(90, 130))).permute(2, 0, 1)[None] // 2 + 60
    there = preprocessing.resize(image.cuda())
    assert there.dtype == torch.uint8
    assert farthest(there.cpu(), preprocessing.resize(image)) <= 2
