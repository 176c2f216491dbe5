"""A CLIP outside its world, and phrases that tell no more than chance, are said so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.clip.models import load_clip
from pipeline.clip.world import FILE_NAME, World, read_world
from pipeline.labelling.chance import phrases_of_chance, shuffled_phrases
from pipeline.labelling.label import label
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import prompt_set_of_words, read_prompt_set
from pipeline.sample_world.faces import draw_faces
from pipeline.store.store import Store
from pipeline.store.store_clip import are_strangers, sampled_embeddings, warn_of_strangers
from tests.store_builders import store_of_embeddings


@pytest.fixture(scope="module")
def sample() -> Any:
    return load_clip("sample")


def embedded(clip: Any, pictures: np.ndarray) -> np.ndarray:
    """Embeddings of pictures, uint8 (n×h×w×3)."""
    with torch.inference_mode():
        found: np.ndarray = clip.encode_preprocessed(
            clip.preprocessing(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        ).numpy()
    return found


@pytest.fixture(scope="module")
def faces(sample: Any) -> np.ndarray:
    return embedded(sample, draw_faces(4711, range(60), 64)[0])


def store_of(place: Path, embeddings: np.ndarray, clip: Any, name: str = "store") -> Store:
    made = store_of_embeddings(place, embeddings, name)
    return Store(made.root, dataclasses.replace(made.manifest, fingerprint=clip.fingerprint))


def smooth_pictures(seed: int, count: int) -> np.ndarray:
    """Clouds of colours, which no face is, and most photographs are rather like."""
    small = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 6)).astype(np.float32))
    large = torch.nn.functional.interpolate(small, (64, 64), mode="bicubic").clamp(0, 255)
    return large.permute(0, 2, 3, 1).to(torch.uint8).numpy()


def test_drawn_faces_are_the_world_of_the_sample_clip_and_other_pictures_are_not(
    sample: Any, faces: np.ndarray
) -> None:
    assert sample.world.outside(faces).mean() < 0.05
    assert not are_strangers(sample.world, faces)
    assert are_strangers(sample.world, embedded(sample, smooth_pictures(0, 40)))


def test_the_distance_is_mahalanobis(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 5)) @ np.diag([1, 2, 3, 4, 5.0]) + 7
    world = World.of(rows, 3.0, "numbers", ridge=0.0)
    centred = rows - rows.mean(axis=0)
    inverse = np.linalg.inv(centred.T @ centred / 499)
    np.testing.assert_allclose(world.distances(rows), [row @ inverse @ row for row in centred])
    (tmp_path / FILE_NAME).write_bytes(world.to_bytes())
    read = read_world(tmp_path)
    assert read is not None
    assert (read.limit, read.shows) == (3.0, "numbers")
    np.testing.assert_array_equal(read.outside(rows), world.outside(rows))
    (tmp_path / FILE_NAME).write_bytes(b"damaged")
    with pytest.raises(LanitError, match="cannot be read"):
        read_world(tmp_path)


def test_labels_say_that_images_are_strangers(sample: Any, faces: np.ndarray, tmp_path: Path, tiny_clip: Any) -> None:
    prompts = read_prompt_set("sample-faces")
    known = store_of(tmp_path, faces, sample, "known")
    assert label(known, sample, prompts, Rule()).warnings == ()
    others = embedded(sample, smooth_pictures(1, 60))
    strange = store_of(tmp_path, others, sample, "strange")
    assert "which are faces that lanit draws" in label(strange, sample, prompts, Rule()).warnings[0]
    nonsense = label(known, sample, prompt_set_of_words(["smiling", "qzvx"], "face"), Rule())
    assert nonsense.chance == ("qzvx",)
    assert "shuffled letters tell of these images: 'qzvx'; use other words" in nonsense.warnings[0]
    assert warn_of_strangers(known, tiny_clip) == [], "a CLIP that does not say what it was made for"


def test_the_words_of_the_sample_world_tell_more_than_chance_and_shuffled_ones_do_not(
    sample: Any, faces: np.ndarray, tmp_path: Path
) -> None:
    store = store_of(tmp_path, faces, sample)
    known = read_prompt_set("sample-faces")
    assert phrases_of_chance(store, sample, known, embed_prompts(sample, known)) == ()
    words = ["smiling", "eyeglasses", "qzvx", "wrgl bnf"]
    for prompts in (prompt_set_of_words(words, "face"), prompt_set_of_words(words, "face").first_template()):
        assert phrases_of_chance(store, sample, prompts, embed_prompts(sample, prompts)) == ("qzvx", "wrgl bnf")


def test_shuffled_phrases_have_the_letters_of_the_phrases() -> None:
    phrases = ["wearing hat", "smiling"]
    made = shuffled_phrases(phrases)
    assert made == shuffled_phrases(phrases)
    assert len(set(made)) == 16
    assert {"".join(sorted(text)) for text in made} == {"".join(sorted(text)) for text in phrases}
    assert not set(made) & set(phrases)
    assert shuffled_phrases(["a"]) == []


def test_a_sample_is_of_all_of_the_store_and_of_no_image_twice(
    make_store: Callable[..., Any],
) -> None:
    rows = np.eye(24, dtype=np.float32)[np.arange(2000) % 24]
    assert len(sampled_embeddings(make_store(rows))) == 8 * 64
    assert len(sampled_embeddings(make_store(rows[:30], "small"))) == 30
