"""`lanit translate` against the bare forward pass of its generator, side by side in one run.

    python benchmarks/translate.py [--faces 2000] [--rounds 3] [--batch-size 32] [--model sample] [--device auto]
    python benchmarks/translate.py --untrained 256 --faces 16 --batch-size 4

The second has the paper's networks for that size and ViT-B/32, of random weights: their speed is that of trained ones.

Prints images/s (medians over rounds, all in turn in every round): of the bare generator on pictures that lie in memory,
in batches of the same size and with one style, as torch runs it and with batches of its own on each core; of `lanit
translate --to` as a whole (listing, decoding, writing and the tables included, loading the model not), without and with
CLIP's look at results, with its look at sources too, and of --add; and of what a short script would do: PIL, one batch
after another, PNG as PIL writes it. Then what a PNG level or JPEG costs.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize

from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.clip.models import load_clip
from pipeline.computing.devices import pick_device
from pipeline.computing.timing import usable_processors
from pipeline.models.bundle import load_bundle, save_bundle
from pipeline.models.translator import Translator, load_labeller
from pipeline.prompts.embed_prompts import with_texts
from pipeline.sample_world.dataset import write_faces
from pipeline.translating.pictures import encode_picture
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import TranslateOptions, translate


def save_untrained(root: Path, size: int) -> str:
    """A model folder with the sample's domains, the paper's networks for ``size`` pixels and ViT-B/32 beside it."""
    torch.manual_seed(0)
    weights = root / "clip.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), weights)
    clip, sample = load_clip(str(weights), "cpu", "ViT-B-32"), load_bundle("sample")
    options = NetworkOptions(size, sample.options.domains)
    texts = clip.encode_texts([*sample.prompt_set.domains, "a face"])
    bundle = replace(
        sample,
        networks=GenerativeNetworks(options),
        options=options,
        fingerprint=clip.fingerprint,
        clip_spec=str(weights),
        clip_architecture="ViT-B-32",
        prompts=with_texts(sample.prompt_set, normalize(texts[:-1], dim=1), normalize(texts[-1], dim=0)),
    )
    save_bundle(root / "model", bundle)
    return str(root / "model")


def bare_forward(translator: Translator, count: int, batch: int) -> float:
    """Images/s of the generator alone."""
    size, width = translator.bundle.options.image_size, translator.bundle.options.style_dim
    images = torch.rand(batch, 3, size, size, device=translator.device) * 2 - 1
    style = torch.randn(1, width, device=translator.device).expand(batch, -1)
    rounds = -(-count // batch)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(rounds):
            translator.networks.generator(images, style)
    if translator.device.type == "cuda":
        torch.cuda.synchronize()
    return rounds * batch / (time.perf_counter() - began)


def bare_per_core(translator: Translator, count: int, batch: int) -> float:
    """Images/s of the generator alone, each core with batches of its own: the most that this machine can do."""
    size, width = translator.bundle.options.image_size, translator.bundle.options.style_dim
    cores, before = usable_processors(), torch.get_num_threads()
    rounds = -(-count // (batch * cores)) * cores

    @torch.inference_mode()
    def one(_: int) -> None:
        images = torch.rand(batch, 3, size, size) * 2 - 1
        translator.networks.generator(images, torch.randn(1, width).expand(batch, -1))

    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(one, range(cores)))
        began = time.perf_counter()
        list(pool.map(one, range(rounds)))
        seconds = time.perf_counter() - began
    torch.set_num_threads(before)
    return rounds * batch / seconds


def bare_with_clip(translator: Translator, count: int, batch: int) -> float:
    """Images/s of the generator and of CLIP's look at its results: what the tables cost at least."""
    size, width = translator.bundle.options.image_size, translator.bundle.options.style_dim
    clip = load_labeller(translator.bundle, None, translator.device)
    images = torch.rand(batch, 3, size, size, device=translator.device) * 2 - 1
    style = torch.randn(1, width, device=translator.device).expand(batch, -1)
    rounds = -(-count // batch)
    began = time.perf_counter()
    with torch.inference_mode():
        for _ in range(rounds):
            translator.margins(translator.networks.generator(images, style), clip)
    if translator.device.type == "cuda":
        torch.cuda.synchronize()
    return rounds * batch / (time.perf_counter() - began)


def plain_loop(folder: Path, out: Path, translator: Translator, batch: int) -> float:
    """Images/s of a short script."""
    size, width = translator.bundle.options.image_size, translator.bundle.options.style_dim
    style = torch.randn(1, width, device=translator.device)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = sorted(folder.glob("*.png"))
    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(files), batch):
            chosen = files[start : start + batch]
            opened = [np.asarray(Image.open(file).convert("RGB").resize((size, size))) for file in chosen]
            images = torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2).to(translator.device).float() / 127.5 - 1
            made = translator.networks.generator(images, style.expand(len(images), -1)).clamp(-1, 1)
            pixels = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            for file, picture in zip(chosen, pixels, strict=True):
                Image.fromarray(picture).save(out / file.name)
    return len(files) / (time.perf_counter() - began)


def whole(
    folder: Path, out: Path, model: str, request: TranslateRequest, options: TranslateOptions, device: str
) -> float:
    shutil.rmtree(out, ignore_errors=True)
    return translate(folder, out, model, request, options, device=device).images_per_second


def formats(pictures: list[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Milliseconds and bytes of a picture, one thread."""

    def png(level: int) -> Callable[[np.ndarray], bytes]:
        def encode(picture: np.ndarray) -> bytes:
            sink = io.BytesIO()
            Image.fromarray(picture).save(sink, "PNG", compress_level=level)
            return sink.getvalue()

        return encode

    ways: dict[str, Callable[[np.ndarray], bytes]] = {f"PNG level {level}": png(level) for level in (1, 3, 6, 9)}
    ways |= {"JPEG 95, full colours": lambda picture: encode_picture(picture, "x.jpg")}
    ways |= {"WebP 95": lambda picture: encode_picture(picture, "x.webp")}
    found = {}
    for name, encode in ways.items():
        began = time.perf_counter()
        sizes = [len(encode(picture)) for picture in pictures]
        found[name] = (1000 * (time.perf_counter() - began) / len(pictures), statistics.mean(sizes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--untrained", type=int, metavar="SIZE", help="the paper's networks for that size instead")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = save_untrained(root, given.untrained) if given.untrained else given.model
        translator = Translator(load_bundle(model), device)
        domain = translator.domains[0]
        to, add = TranslateRequest(to=((domain, 1.0),)), TranslateRequest(add=(domain,))
        write_faces(root / "faces", given.faces, 0, 64)

        def run(request: TranslateRequest, *, margins: bool = True, before: bool = False) -> float:
            options = TranslateOptions(given.batch_size, margins=margins, before=before)
            return whole(root / "faces", root / "out", model, request, options, str(device))

        works: dict[str, Callable[[], float]] = {
            "bare generator": lambda: bare_forward(translator, given.faces, given.batch_size),
            **(
                {
                    "bare generator, a batch on each core": lambda: bare_per_core(
                        translator, given.faces, given.batch_size
                    )
                }
                if device.type == "cpu"
                else {}
            ),
            "bare generator and CLIP once": lambda: bare_with_clip(translator, given.faces, given.batch_size),
            "translate --to --no-margins": lambda: run(to, margins=False),
            "translate --to": lambda: run(to),
            "translate --to --before": lambda: run(to, before=True),
            "translate --add": lambda: run(add),
            "plain loop": lambda: plain_loop(root / "faces", root / "plain", translator, given.batch_size),
        }
        bare_forward(translator, 4 * given.batch_size, given.batch_size)  # warm
        rates: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(given.rounds):
            for name, work in works.items():
                rates[name].append(work())
        medians = {name: statistics.median(values) for name, values in rates.items()}
        shown = f"untrained, {given.untrained} px" if given.untrained else given.model
        print(f"\n{given.faces} faces, model {shown}, {device}, batches of {given.batch_size}, images/s")
        for name, rate in medians.items():
            print(f"  {name:38} {rate:8.1f}   {rate / medians['bare generator']:.3f} of the bare generator")
        pictures = [np.asarray(Image.open(file)) for file in sorted((root / "out").glob("*.png"))[:200]]
        made = formats(pictures)
        print(f"\nwriting one result of {pictures[0].shape[0]} px, one thread")
        for name, (milliseconds, size) in made.items():
            print(f"  {name:24} {milliseconds:7.3f} ms {size:8.0f} bytes")
    print(json.dumps({"images_per_second": medians, "formats": made}))


if __name__ == "__main__":
    main()
