"""Paired images: found by folders or a table, kept in the store, drawn and augmented together, learned from."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError, UsageError
from lanit.ranks import Draws, Ranks
from lanit.rules import Rule
from pipeline.embedding.embed import embed
from pipeline.evaluation.partners import Pictures, joined
from pipeline.labelling.pairs import pair
from pipeline.models.bundle import load_bundle
from pipeline.store.pairs import PAIRS_NAME, partners, record_of
from pipeline.store.store import Store
from pipeline.training.batches import make_batch
from pipeline.training.sampling import LabelSampler
from pipeline.training.train_options import PRESETS, make_options, options_from
from pipeline.training.training_data import TrainingData
from tests.training_world import TINY, changed, go, labelled, metrics

PAIRED = changed(TINY, pairs="yes", discriminator_input="pair", pair=3.0, codes="table", domain=0.0, prompts_from=1.0)


def draw(folder: Path, names: list[str], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name in names:
        coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 36)).save(folder / name)
    return folder


@pytest.fixture
def store(tmp_path: Path, tiny_clip: Any) -> Store:
    """Sketches 0 to 5 and photos 2 to 8, embedded as two folders."""
    sketches = draw(tmp_path / "sketches", [f"{n}.png" for n in range(6)], 0)
    photos = draw(tmp_path / "photos", [f"{n}.bmp" for n in range(2, 9)], 1)
    embed([sketches, photos], tmp_path / "store", tiny_clip)
    return Store.open(tmp_path / "store")


def names_of(store: Store) -> list[str]:
    images = store.ok_images()
    return [
        f"{Path(source).name}/{path}"
        for source, path in zip(images["source"].to_pylist(), images["path"].to_pylist(), strict=True)
    ]


def found(store: Store) -> dict[str, str]:
    rows, names = partners(store), names_of(store)
    assert rows is not None
    assert rows.shape == (store.ok,)
    return {names[row]: names[partner] for row, partner in enumerate(rows) if partner >= 0}


SKETCHED = {f"sketches/{n}.png": f"photos/{n}.bmp" for n in range(2, 6)}


def test_files_of_equal_names_are_pairs_of_the_first_folder_to_the_second(store: Store) -> None:
    assert partners(store) is None
    report = pair(store, ["sketches", "photos"])
    assert (report.pairs, report.alone) == (4, 2)
    assert found(store) == SKETCHED
    pair(store, ["photos", "sketches"])
    assert found(store) == {photo: sketch for sketch, photo in SKETCHED.items()}


def test_a_table_names_pairs_relative_to_it_or_absolute(store: Store, tmp_path: Path) -> None:
    rows = [
        ("sketches/0.png", "photos/8.bmp"),
        (str(tmp_path / "sketches/1.png"), ".\\photos\\3.bmp"),
        ("gone.png", ""),
    ]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_path", "target_path"), *rows])
    report = pair(store, [str(tmp_path / "pairs.csv")])
    assert (report.pairs, report.alone) == (2, 1)
    assert found(store) == {"sketches/0.png": "photos/8.bmp", "sketches/1.png": "photos/3.bmp"}


def test_pairs_outlive_another_embedding_and_lose_what_is_gone(store: Store, tmp_path: Path, tiny_clip: Any) -> None:
    pair(store, ["sketches", "photos"])
    (tmp_path / "photos" / "3.bmp").unlink()
    draw(tmp_path / "more", ["0.png"], 2)
    embed([tmp_path / name for name in ("more", "photos", "sketches")], tmp_path / "store", tiny_clip)
    rest = {sketch: photo for sketch, photo in SKETCHED.items() if "3" not in sketch}
    assert found(Store.open(tmp_path / "store")) == rest


def test_what_are_no_pairs_is_said_in_a_line(store: Store, tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no images lie in a folder paintings"):
        pair(store, ["paintings", "photos"])
    with pytest.raises(UsageError, match="not 3"):
        pair(store, ["a", "b", "c"])
    (tmp_path / "odd.csv").write_text("image_path,other\nsketches/0.png,photos/2.bmp\n")
    with pytest.raises(LanitError, match="has no column 'target_path'"):
        pair(store, [str(tmp_path / "odd.csv")])
    (tmp_path / "odd.csv").write_text("image_path,target_path\nno.png,photos/2.bmp\n")
    with pytest.raises(LanitError, match="are pairs"):
        pair(store, [str(tmp_path / "odd.csv")])
    assert partners(store) is None
    pair(store, ["sketches", "photos"])
    path = store.root / PAIRS_NAME
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LanitError, match="is damaged") as caught:
        partners(store)
    assert "lanit pair" in caught.value.hint


def test_the_command_says_how_many(store: Store) -> None:
    result = CliRunner().invoke(cli.app, ["pair", "sketches", "photos", "--store", str(store.root), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"store": str(store.root), "pairs": 4, "alone": 2}


# --- in training ---


class Labels:
    rule = Rule("given")

    def __init__(self, active: np.ndarray) -> None:
        self.active = active


def test_a_step_draws_sources_that_have_a_partner_and_their_partners(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = np.array([-1, 4, -1, 0, -1, 2])
    labels: Any = Labels(np.ones((6, 2), bool))
    data = TrainingData(np.zeros((6, 3, 32, 32), np.uint8), labels, "domain", "uniform", pairs)  # type: ignore[arg-type]
    whole = data.rows_of_step(3, 7, 8, Ranks())
    assert whole.shape == (16,)
    assert set(whole[:8]) <= {1, 3, 5}
    assert (whole[8:] == pairs[whole[:8]]).all()
    for rank in range(2):
        own = data.rows_of_step(3, 7, 8, Ranks(rank, 2))
        assert (own[4:] == pairs[own[:4]]).all()
    plain = TrainingData(np.zeros((6, 3, 32, 32), np.uint8), labels, "domain", "uniform")  # type: ignore[arg-type]
    assert not plain.paired
    assert isinstance(plain._sampler, LabelSampler)


def test_a_pair_is_mirrored_and_cropped_alike() -> None:
    """Pairs of equal pictures stay equal, though pictures come out changed, and unequally among each other."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    both, active = np.concatenate([pixels, pixels]), np.ones((8, 2), bool)
    draws = Draws(torch.Generator().manual_seed(2))
    batch = make_batch(both, active, 16, 1.0, torch.device("cpu"), draws, paired=True)
    assert batch.paired
    assert torch.equal(batch.x, batch.y)
    before = torch.from_numpy(pixels).float() / 127.5 - 1
    assert ((batch.x - before).abs().mean(dim=(1, 2, 3)) > 0.01).all()
    plain = make_batch(both, active, 16, 1.0, torch.device("cpu"), Draws(torch.Generator().manual_seed(2)))
    assert not torch.equal(plain.x, plain.y)


def test_paired_training_goes_on_bit_for_bit_and_learns_the_partners(
    store: Store, tmp_path: Path, tiny_clip: Any
) -> None:
    pair(store, ["sketches", "photos"])
    labelled(store)
    options = changed(PAIRED, checkpoint_every=2)
    go(tmp_path / "whole", tiny_clip, changed(options, steps=6))
    go(tmp_path / "parts", tiny_clip, changed(options, steps=4))
    go(tmp_path / "parts", tiny_clip, changed(options, steps=6))
    for name in ("networks", "average", "generative_optimiser", "discriminator_optimiser"):
        files = [next((tmp_path / run).rglob(f"step-00000006/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    losses = [line for line in metrics(tmp_path / "whole") if line["kind"] == "losses"]
    assert all("pair" in line and "style" not in line for line in losses)
    assert load_bundle(tmp_path / "whole").options.discriminator_input == "pair"


def test_a_run_notes_its_pairs_and_goes_on_with_no_others(store: Store, tmp_path: Path, tiny_clip: Any) -> None:
    """Wherever their images lie in the store by then; pairs of others are refused before anything is written."""
    pair(store, ["sketches", "photos"])
    labelled(store)
    go(tmp_path / "run", tiny_clip, changed(PAIRED, steps=2))
    noted = json.loads((tmp_path / "run" / "config.json").read_text())["pairs"]
    assert noted["count"] == 4
    assert load_bundle(tmp_path / "run").training["pairs"] == noted
    rows = partners(store)
    assert rows is not None
    assert record_of(store, rows) == noted
    pair(store, ["photos", "sketches"])
    with pytest.raises(LanitError, match="other pairs") as caught:
        go(tmp_path / "run", tiny_clip, changed(PAIRED, steps=4))
    assert "lanit pair" in caught.value.hint
    pair(store, ["sketches", "photos"])
    assert go(tmp_path / "run", tiny_clip, changed(PAIRED, steps=4)).started_at == 2


def test_without_pairs_nothing_paired_is_learned(store: Store, tmp_path: Path, tiny_clip: Any) -> None:
    labelled(store)
    with pytest.raises(LanitError, match="has no paired images") as caught:
        go(tmp_path / "run", tiny_clip, PAIRED)
    assert "lanit pair FROM TO" in caught.value.hint
    with pytest.raises(LanitError, match="takes images unpaired") as caught:
        go(tmp_path / "other", tiny_clip, changed(PAIRED, pairs="no"))
    assert "pairs=yes" in caught.value.hint


# --- in evaluation ---


def test_distances_to_partners_are_means_over_styles_in_blocks() -> None:
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (5, 3, 4, 4, 3), dtype=np.uint8)
    paired = np.array([True, False, True, True, False])
    images = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    pictures = Pictures(paired, images)
    apart, perceptual = joined([pictures.distances(made[:2], None), pictures.distances(made[2:], None)])
    assert perceptual is None
    assert apart is not None
    assert apart.isnan().tolist() == (~paired).tolist()
    for image, row in zip(images.astype(float), np.flatnonzero(paired), strict=True):
        expected = np.mean([np.abs(each - image).mean() / 255 for each in made[row].astype(float)])
        assert float(apart[row]) == pytest.approx(expected)


# --- presets ---


@pytest.mark.parametrize("name", [name for name in PRESETS if not name[0].isdigit() and name != "paper"])
def test_presets_go_together_and_the_later_count(name: str) -> None:
    both = options_from(f"small-32,{name}", {}).to_json()
    told = PRESETS["small-32"] | PRESETS[name]
    told |= {} if told["classification"] else {"output": "residual"}
    assert both == make_options(told).to_json()
    with pytest.raises(UsageError, match="there is no preset 'cyclgan'"):
        options_from("small-32,cyclgan", {})
