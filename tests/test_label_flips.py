"""Labels under mirror and crop: against images that are mirrored, embedded and labelled by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lanit.augment import flip_and_crop
from lanit.errors import LanitError, UsageError
from lanit.labels import Rule
from lanit.ranks import Draws
from pipeline.embedding.embed import embed
from pipeline.inspection.flips import count_flips
from pipeline.inspection.inspect_labels import InspectOptions, inspect_labels, inspect_store
from pipeline.inspection.label_report import label_and_report
from pipeline.labelling.label import label, relabel
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store

PROMPTS = PromptSet(("red", "a large green", "blue noise"), ("a photo of {}.",), ("a photo.",), "colours")


@pytest.fixture
def folder(make_images: Callable[..., Path]) -> Path:
    folder = make_images(24)
    symmetric = np.random.default_rng(0).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    for name in ("x.png", "y.png"):
        Image.fromarray(np.concatenate([symmetric, symmetric[:, ::-1]], axis=1)).save(folder / name)
    return folder


@pytest.fixture
def store(folder: Path, tiny_clip: Any, tmp_path: Path) -> Store:
    """Labels whose margins lie close to the bar, so that some flip."""
    embed([folder], tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    made = label_and_report(store, tiny_clip, PROMPTS, Rule(), dry_run=True).statistics
    offsets = tuple(d.margin_p50 for d in made.domains)
    label(store, tiny_clip, PromptSet(*list(vars(PROMPTS).values())[:4], offsets), Rule())
    return store


def test_mirrored_labels_are_those_of_mirrored_files(
    store: Store, folder: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    mirrored = tmp_path / "mirrored"
    for path in folder.rglob("*.png"):
        target = mirrored / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        side = tiny_clip.preprocessing.size  # what CLIP sees, mirrored
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target)
        assert side == 32
    embed([mirrored], tmp_path / "other", tiny_clip)
    revision = store.revision_file()
    prompts = revision.prompt_set
    other = Store.open(tmp_path / "other")
    label(other, tiny_clip, prompts, Rule())
    assert list(other.labels().paths) == list(store.labels().paths)
    expected = (other.labels().active != store.labels().active).mean(axis=0)
    flips = count_flips(store, revision, tiny_clip, images=1000, seed=0)
    assert (flips.sample.images, flips.sample.failed) == (26, 0)
    np.testing.assert_allclose(flips.mirror, expected, atol=1.5 / 26)  # a resize may round differently when mirrored
    assert max(flips.mirror) > 0


def test_a_sample_is_drawn_by_its_seed_and_shown_in_the_report(store: Store, tiny_clip: Any) -> None:
    revision = store.revision_file()
    one, same, other = (count_flips(store, revision, tiny_clip, images=9, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.sample.images == other.sample.images == 9
    assert one != other
    calls: list[tuple[int, int]] = []
    count_flips(store, revision, tiny_clip, 5, 0, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)
    statistics = one.added_to(inspect_labels(revision))
    assert [d.mirror_flips for d in statistics.domains] == list(one.mirror)
    assert [d.crop_flips for d in statistics.domains] == list(one.crop)
    assert statistics.augmented == one.sample
    high = max(zip(one.crop, revision.domains, strict=True))
    assert high[0] > 0.1
    assert any(f"the label '{high[1]}' changes" in warning and "cropped" in warning for warning in statistics.warnings)


def test_images_that_are_gone_are_counted(store: Store, folder: Path, tiny_clip: Any) -> None:
    (folder / "x.png").unlink()
    (folder / "y.png").write_bytes(b"no picture")
    flips = count_flips(store, store.revision_file(), tiny_clip, images=26, seed=0)
    assert (flips.sample.images, flips.sample.failed) == (24, 2)
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(LanitError, match="none of the sampled images is there as it was embedded"):
        count_flips(store, store.revision_file(), tiny_clip, images=26, seed=0)


def test_learned_prompts_and_given_labels_are_refused(store: Store, tiny_clip: Any) -> None:
    prompts = embed_prompts(tiny_clip, PROMPTS)
    learned = relabel(store, store.labels(), prompts.moved(prompts.domains.flip(0), prompts.base), "train:run step 1")
    with pytest.raises(LanitError, match="does not come from words"):
        count_flips(store, store.revision_file(learned), tiny_clip, images=5, seed=0)
    given = label(store, tiny_clip, PROMPTS, Rule("given")).revision
    with pytest.raises(LanitError, match="does not come from words"):
        count_flips(store, store.revision_file(given), tiny_clip, images=5, seed=0)
    with pytest.raises(UsageError, match="at least 1"):
        count_flips(store, store.revision_file(1), tiny_clip, images=0, seed=0)


def test_the_stage_counts_flips_with_the_stores_own_clip(store: Store) -> None:
    plain = inspect_store(store, InspectOptions()).statistics
    assert plain.augmented is None
    augmented = inspect_store(store, InspectOptions(augment=6, seed=3)).statistics
    assert augmented.augmented is not None
    assert (augmented.augmented.images, augmented.augmented.seed) == (6, 3)


def test_a_crop_without_a_mirror_is_no_mirror() -> None:
    ramp = torch.linspace(-1, 1, 16).expand(8, 3, 16, 16)
    cropped = flip_and_crop(ramp, Draws(torch.Generator().manual_seed(0)), 1, 0)
    assert (cropped[..., 12] > cropped[..., 3]).all()
    assert not torch.equal(cropped, ramp)
    assert torch.equal(flip_and_crop(ramp, Draws(torch.Generator().manual_seed(0)), 0, 1), ramp.flip(3))
