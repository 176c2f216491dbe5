"""Command, API, page, evaluation and a run's samples: asked for the same, all give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lanit.inference import draw_latents, drawn_codes
from pipeline.api import Model
from pipeline.clip.models import ClipModel, load_clip
from pipeline.evaluation.translations import Sources, Styles, translate_sources
from pipeline.models.bundle import load_bundle
from pipeline.models.translator import Translator
from pipeline.sample_world.dataset import write_faces
from pipeline.training import samples
from pipeline.training.learner import Learner
from pipeline.training.training_data import TrainingData
from pipeline.translating.recipe import BatchTranslator, Recipe
from pipeline.translating.translation import translate

FACES, DOMAIN, SEED = 11, "eyeglasses", 4


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "faces"
    write_faces(folder, FACES, 3, 64)
    return folder


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("sample", device="cpu")


@pytest.fixture(scope="module")
def pictures(faces: Path) -> np.ndarray:
    """uint8 (n×64×64×3), in the order of their names."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(faces.glob("*.png"))])


@pytest.fixture(scope="module")
def added(model: Model, pictures: np.ndarray) -> np.ndarray:
    """What the API makes of all faces at once."""
    made = model.translate_batch(list(pictures), add=[DOMAIN], seed=SEED)
    return np.stack([np.asarray(image) for image in made])


@pytest.fixture(scope="module")
def own(model: Model, pictures: np.ndarray) -> torch.Tensor:
    found = [set(labels.active) for labels in model.label_batch(list(pictures))]
    return torch.tensor([[name in labels for name in model.domains] for labels in found])


def test_the_command_gives_what_the_api_gives(faces: Path, added: np.ndarray, tmp_path: Path) -> None:
    from pipeline.translating.requests import TranslateRequest

    request = TranslateRequest(add=(DOMAIN,), seed=SEED)
    translate([str(faces)], tmp_path / "out", "sample", request)
    files = sorted((tmp_path / "out").rglob("*.png"))
    assert len(files) == FACES
    for path, expected in zip(files, added, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), expected), path


def test_the_api_gives_each_image_the_same_alone(model: Model, pictures: np.ndarray, added: np.ndarray) -> None:
    for row in (0, 5, FACES - 1):
        alone = model.translate(pictures[row], add=[DOMAIN], seed=SEED)
        assert np.array_equal(np.asarray(alone), added[row])


def test_the_page_gives_it_where_the_image_lacks_the_word(
    model: Model, pictures: np.ndarray, own: torch.Tensor, added: np.ndarray
) -> None:
    column, compared = model.domains.index(DOMAIN), 0
    for row in torch.nonzero(~own[:, column]).flatten().tolist()[:4]:
        keeps = [name for name, on in zip(model.domains, own[row], strict=True) if on]
        stays = [name for name in keeps if name not in model.exclusive(DOMAIN)]
        (made,) = model.mix(pictures[row], dict.fromkeys([*stays, DOMAIN], 1.0), keeps, seed=SEED)
        assert np.array_equal(np.asarray(made), added[row])
        compared += 1
    assert compared


def test_an_evaluation_judges_it(model: Model, pictures: np.ndarray, own: torch.Tensor, added: np.ndarray) -> None:
    translator = Translator(load_bundle("sample"), torch.device("cpu"))
    latents = draw_latents(translator.networks.latent_dim, SEED, 1)
    styles = Styles(latents, torch.zeros(FACES, 1, dtype=torch.int64))
    rows, column = np.arange(FACES), model.domains.index(DOMAIN)
    made = np.concatenate(list(translate_sources(translator, Sources(pictures, own), rows, column, styles)))
    assert np.array_equal(made[:, 0], added)


class Shown:
    """The pictures of a run."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.pictures[rows].transpose(0, 3, 1, 2))


class Fixed:
    """A method that has learned the sample model."""

    learns_prompts = False

    def __init__(self, translator: Translator) -> None:
        self.averaged, self._prompts = translator.networks, translator.prompts
        self.networks = translator.networks

    def prompts(self, context: None) -> Any:
        return self._prompts


def test_the_samples_of_a_run_show_it_whatever_the_image_has(
    pictures: np.ndarray, own: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip: ClipModel = load_clip("sample")
    translator = Translator(load_bundle("sample"), torch.device("cpu"))
    assert own.any(), "domains that are there already are redrawn too"
    grids: list[list[np.ndarray]] = []

    def grid(rows: list[np.ndarray], header: list[str]) -> np.ndarray:
        grids.append(rows)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(samples, "labelled_grid", grid)
    data: Any = TrainingData.__new__(TrainingData)
    data.images, data.exclusive = Shown(pictures), translator.exclusive
    data.labels = type("Labels", (), {"active": own.numpy(), "domains": translator.domains})
    learner: Any = Learner(Fixed(translator), 1.0)  # type: ignore[arg-type]
    samples.draw_sample(tmp_path / "sample.png", learner, data, clip)
    (rows,) = grids
    shown = np.linspace(0, FACES - 1, len(rows)).round().astype(int)
    count = len(translator.domains)
    latents = torch.randn(count, translator.networks.latent_dim, generator=torch.Generator().manual_seed(2**31))
    codes = drawn_codes(translator.networks, latents)
    for domain in range(count):
        add = torch.eye(count)[domain]
        recipe = Recipe(None, add, torch.zeros(count, dtype=torch.bool), codes[domain, None], None, None)
        monkeypatch.setattr(translator, "margins", lambda images, clip: torch.where(own[shown], 1.0, -1.0))
        batch = torch.from_numpy(pictures[shown]).permute(0, 3, 1, 2)
        made = BatchTranslator(translator, recipe, clip)(batch).pictures[0, 0].numpy()
        for row, picture in zip(rows, made, strict=True):
            assert np.array_equal(row[1 + domain], picture)
