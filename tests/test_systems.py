"""Presets of other systems, from two folders to a translation; that of pairs until it does its job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cli
from lanit.inference import draw_latents, drawn_codes, target_style
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.labelling.pairs import pair
from pipeline.models.bundle import load_bundle
from pipeline.store.store import Store
from pipeline.training.train_options import SYSTEMS, options_from
from pipeline.training.training import train

SIDE = 32
COLOURS = {"red": (200, 60, 60), "blue": (60, 60, 200)}
SMALL = {
    "batch_size": 4, "channels": 4, "max_channels": 16, "precision": "float32", "evaluate_every": 0, "sample_every": 0,
    "checkpoint_every": 0, "seed": 0,
}  # fmt: skip


def square(colour: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of that colour on grey, uint8 (32×32×3), and where it is, bool (32×32); place, size and grey by seed."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE, 3), rng.integers(90, 170), np.uint8)
    (top, left), (height, width) = rng.integers(4, 14, 2), rng.integers(8, 15, 2)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[top : top + height, left : left + width] = True
    image[inside] = COLOURS[colour]
    return image, inside


def squares(folder: Path, clip: ClipModel, count: int, *, paired: bool) -> Store:
    """Two folders, red and blue, labelled by their names: of the same squares, or of no two alike."""
    for place, colour in enumerate(COLOURS):
        (folder / colour).mkdir()
        for number in range(count):
            image, _ = square(colour, number if paired else number + place * count)
            Image.fromarray(image).save(folder / colour / f"{number:03d}.png")
    embed([folder / colour for colour in COLOURS], folder / "store", clip)
    store = Store.open(folder / "store")
    source = label_source(store, LabelRequest(from_folders=True))
    assert source is not None
    label(store, clip, *source)
    if paired:
        pair(store, tuple(COLOURS))
    return store


def paired(system: str) -> bool:
    return SYSTEMS[system].get("pairs") == "yes"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_preset_of_a_system_leads_from_two_folders_to_translations(
    system: str, tiny_clip: ClipModel, tmp_path: Path
) -> None:
    store = squares(tmp_path, tiny_clip, 6, paired=paired(system))
    options = options_from(f"small-32,{system}", SMALL | {"steps": 2})
    train(store, tmp_path / "run", options, tiny_clip, device="cpu")
    command = ["translate", str(tmp_path / "red"), "--to", "blue", "--model", str(tmp_path / "run"), "--no-margins"]
    done = CliRunner().invoke(cli.app, [*command, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_pix2pix_gives_squares_the_colour_of_their_partners_where_they_are(tmp_path: Path) -> None:
    """Judged by pixels, on 40 unseen squares: mean colours, and the change beside the squares."""
    store, clip = squares(tmp_path, load_clip("sample"), 100, paired=True), load_clip("sample")
    train(store, tmp_path / "run", options_from("small-32,pix2pix", SMALL | {"steps": 150}), clip, device="cpu")
    bundle = load_bundle(tmp_path / "run")
    seen = [square("red", 1000 + number) for number in range(40)]
    images, inside = (np.stack(each) for each in zip(*seen, strict=True))
    weights = torch.tensor([[float(name == "blue") for name in bundle.prompt_set.domains]])
    codes = drawn_codes(bundle.networks, draw_latents(0, 0, 1))
    with torch.no_grad():
        style = target_style(codes, weights).expand(len(images), -1)
        result = bundle.networks.generator(to_float(images), style).clamp(-1, 1)
    made = (result + 1).mul(127.5).permute(0, 2, 3, 1).numpy()
    colours = np.stack([image[where].mean(axis=0) for image, where in zip(made, inside, strict=True)])
    red, blue = (np.abs(colours - np.array(COLOURS[name])).sum(axis=1) for name in COLOURS)
    assert (blue < red).mean() >= 0.95
    assert np.abs(made - images)[~inside].mean() <= 10
