"""One-shot translation: its step is the formulas, one image at a time; one image teaches its own ends and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lanit
from lanit.errors import LanitError, UsageError
from lanit.methods.one_shot import OneShot
from lanit.networks import Discriminator
from lanit.one_shot_networks import OneShotNetworks, OneShotSizes
from lanit.one_shot_objectives import OneShotLearners, OneShotTerms, one_shot_step
from lanit.ranks import ALONE
from pipeline.model_exports.export_model import export_model
from pipeline.models import translator
from pipeline.models.bundle import load_bundle
from pipeline.store.store import Store
from pipeline.training.train_options import make_options
from tests.test_methods import COMMON
from tests.test_steps import assert_gradients, softplus
from tests.training_world import copy_of, draw_store, go, killed_after, labelled, metrics
from tests.translation_world import as_batch

TERMS = OneShotTerms(reconstruction=1.5, shrink=0.2, adversarial=0.8, one=1.1, one_cycle=1.3)


@pytest.fixture
def nets(monkeypatch: pytest.MonkeyPatch) -> OneShotLearners:
    """In float64, as in tests/test_steps.py."""
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))
    torch.manual_seed(0)
    sizes = OneShotSizes(image_size=64, domains=1, channels=4, max_channels=16, style_dim=1, latent_dim=0)
    made = OneShotLearners(OneShotNetworks(sizes), Discriminator(sizes), torch.zeros(3, 64, 64)).to(torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def images(seed: int, count: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 64, 64, generator=random, dtype=torch.float64) * 2 - 1


def take_step(nets: OneShotLearners, one: Tensor | None, r1: float = 0.0) -> dict[str, Tensor]:
    parts = {"generative": nets.generative, "discriminator": nets.discriminator}
    optimisers = {name: torch.optim.SGD(part.parameters(), lr=0.0) for name, part in parts.items()}
    return one_shot_step(nets, optimisers, images(1, 3), one, r1, TERMS, ALONE)


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


@pytest.mark.parametrize("phase", [1, 2])
def test_a_step_is_the_losses_one_image_at_a_time(nets: OneShotLearners, phase: int) -> None:
    g, judge = nets.generative.generator, lambda image: nets.discriminator(image)[0, 0]
    one = images(2, 3) if phase == 2 else None
    parts = take_step(nets, one, r1=0.7)
    many = list(images(1, 3)[:, None])
    content = [g.read(image, "many") for image in many]
    redrawn = [g.draw(h, "many") for h in content]
    expected = {
        "reconstruction": mean([(a - b).abs().mean() for a, b in zip(many, redrawn, strict=True)]),
        "shrink": mean([h.square().mean() for h in content]),
        "adversarial_BB": mean([softplus(-judge(image)) for image in redrawn]),
    }
    of_many = 1.5 * expected["reconstruction"] + 0.2 * expected["shrink"] + 0.8 * expected["adversarial_BB"]
    of_one, fakes = torch.zeros((), dtype=torch.float64), list(redrawn)
    if one is not None:
        own, back, translated = [], [], []
        for s in one[:, None]:
            own.append((s - g.draw(g.read(s, "one"), "one")).abs().mean())
            translated.append(g.draw(g.read(s, "one"), "many"))
            back.append((s - g.draw(g.read(translated[-1], "many"), "one")).abs().mean())
        expected |= {"one": mean(own), "one_cycle": mean(back)}
        expected["adversarial_AB"] = mean([softplus(-judge(image)) for image in translated])
        of_one = 1.1 * expected["one"] + 1.3 * expected["one_cycle"] + 0.8 * expected["adversarial_AB"]
        fakes += translated
    for name, value in (expected | {"total": of_many + of_one}).items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-6), name
    assert_gradients(nn.ModuleList([g.from_rgb, g.encoder, g.decoder, g.to_rgb]), of_many)
    if one is None:
        assert all(parameter.grad is None for parameter in g.one.parameters())
    else:
        assert_gradients(g.one, of_one)
    penalties = []
    for image in many:
        seen = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(judge(seen), seen, create_graph=True)
        penalties.append(gradient.square().sum() / 2)
    told = mean([softplus(-judge(image)) for image in many]) + mean([softplus(judge(i.detach())) for i in fakes])
    assert_gradients(nets.discriminator, told + 0.7 * mean(penalties))


def test_a_style_of_1_draws_the_word_and_of_0_what_the_one_image_is_like(nets: OneShotLearners) -> None:
    generative, picture = nets.generative, images(3, 2)
    g = generative.generator
    (to_many, to_one) = generative.drawn_codes(torch.zeros(2, 0)).to(torch.float64).unbind(dim=1)
    content = generative.content(picture)
    drawn = generative.render(content, to_many, picture)
    torch.testing.assert_close(drawn, g.draw(g.read(picture, "one"), "many"))
    drawn = generative.render(content, to_one, picture)
    torch.testing.assert_close(drawn, g.draw(g.read(picture, "many"), "one"))


# --- from a word and one image to pictures ---


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    store = draw_store(tmp_path_factory.mktemp("one-shot"), tiny_clip)
    labelled(Store.open(store))
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    return copy_of(original, tmp_path / "store")


def options(original: Path, **settings: Any) -> Any:
    image = str(original.parent / "images" / "00.png")
    own = {"method": "one-shot", "present": "hat", "example": image, "channels": 4, "max_channels": 8}
    return make_options(COMMON | own | {"checkpoint_every": 2, "one_from": 0.5} | settings)


def test_it_goes_on_bit_for_bit_through_both_phases(
    original: Path, store: Store, tiny_clip: Any, tmp_path: Path
) -> None:
    chosen = options(original, steps=6)
    go(tmp_path / "whole", tiny_clip, chosen)
    for steps in (2, 4):  # before the second phase, and in it
        killed_after(tmp_path / "parts", tiny_clip, chosen, steps)
    assert go(tmp_path / "parts", tiny_clip, chosen).started_at == 4
    for name in OneShot.groups:
        files = [next((tmp_path / run).rglob(f"step-00000006/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    kinds = [set(line) for line in metrics(tmp_path / "whole") if line["kind"] == "losses"]
    assert "one_cycle" not in kinds[0]
    assert "one_cycle" in kinds[-1]
    bundle = load_bundle(tmp_path / "whole")
    assert bundle.prompt_set.domains == ("hat",)
    generator: Any = bundle.networks.generator
    picture = as_batch(original.parent / "images" / "01.png")
    assert not torch.equal(generator.read(picture, "one"), generator.read(picture, "many"))


def test_it_is_exported_as_onnx_and_a_reference_changes_nothing(
    original: Path, store: Store, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path / "run", tiny_clip, options(original, steps=2))
    report = export_model(tmp_path / "run", tmp_path / "out", onnx=True)
    assert report.onnx is not None
    assert set(report.onnx) == {"generator"}
    assert "the one that it was given into hat" in (tmp_path / "out" / "README.md").read_text()
    monkeypatch.setattr(translator, "load_clip", lambda *_: tiny_clip)
    picture, other = (str(original.parent / "images" / name) for name in ("00.png", "01.png"))
    model = lanit.load(tmp_path / "run", device="cpu")
    plain = model.translate(picture, to="hat")
    with pytest.warns(UserWarning, match="one style a domain"):
        referred = model.translate(picture, to="hat", reference=other)
    assert np.array_equal(plain, referred)
    with pytest.raises(UsageError, match=r"one style a domain.*--method one-shot"):
        model.mix(picture, {"hat": 1}, own=(), styles=2)


def test_what_a_run_cannot_be_is_said_in_one_line(original: Path, store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this method learns from one image") as found:
        go(tmp_path / "a", tiny_clip, options(original, example=""))
    assert "--from" in found.value.hint
    with pytest.raises(LanitError, match=r"none\.jpg"):
        go(tmp_path / "b", tiny_clip, options(original, example="none.jpg"))
