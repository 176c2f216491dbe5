"""Content transfer: its losses and its step are the formulas, one image at a time; its models add, swap and remove."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lanit
from lanit.content_networks import CodeBank, ContentNetworks, ContentSizes, LatentDiscriminator
from lanit.content_objectives import (
    ContentLearners,
    ContentTerms,
    confusion_loss,
    content_step,
    over_both,
    telling_loss,
)
from lanit.errors import LanitError, UsageError
from lanit.methods.content import Content
from lanit.networks import Discriminator
from lanit.objectives import Batch
from lanit.ranks import Draws
from pipeline import api
from pipeline.evaluation import evaluate
from pipeline.evaluation.options import EvaluationOptions
from pipeline.model_exports.export_model import export_model
from pipeline.models import translator
from pipeline.models.bundle import load_bundle
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.training.train_options import make_options, options_from
from tests.label_builders import add_labels
from tests.test_methods import COMMON
from tests.test_steps import assert_gradients, softplus
from tests.training_world import copy_of, draw_store, go, killed_after, labelled
from tests.translation_world import as_batch, to_pixels

ROWS = 5
TERMS = ContentTerms(reconstruction=1.2, confusion=0.3, adversarial=0.9, cycle=1.1, guidance=0.7)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is float64, as in tests/test_steps.py."""
    monkeypatch.setattr(Tensor, "float", lambda self: self.to(torch.float64))


def build(guide: Any = "map", output: Any = "image") -> ContentLearners:
    torch.manual_seed(0)
    sizes = ContentSizes(
        image_size=32, domains=2, channels=4, max_channels=8, style_dim=32, guide=guide, guide_channels=2, output=output
    )
    generative = ContentNetworks(sizes)
    made = ContentLearners(generative, LatentDiscriminator(generative.generator.channels), Discriminator(sizes))
    made = made.to(torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def draw_batch() -> Batch:
    """Sources and references with the word and without it, all four combinations."""
    random = torch.Generator().manual_seed(1)
    x, y = (torch.rand(ROWS, 3, 32, 32, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(2))
    has = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 0, 0, 1]], dtype=torch.bool)[:, :, None]
    latents = torch.zeros(ROWS, 16)
    return Batch(x, has[0], y, has[1], latents, latents)


def still(nets: ContentLearners) -> dict[str, torch.optim.Optimizer]:
    parts = {"generative": nets.generative, "latent": nets.latent, "discriminator": nets.images}
    return {name: torch.optim.SGD(part.parameters(), lr=0.0) for name, part in parts.items()}


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean() if values else torch.zeros(())


def of_both(values: list[Tensor], present: list[bool]) -> Tensor:
    """The mean over images with the word plus that over the others."""
    with_it, without = ([v for v, on in zip(values, present, strict=True) if on is kind] for kind in (True, False))
    return mean(with_it) + mean(without)


def test_both_kinds_count_alike_however_many_there_are() -> None:
    values = torch.tensor([1.0, 5.0, 6.0, 10.0], requires_grad=True)
    loss = over_both(values, torch.tensor([True, False, False, False]))
    assert loss.item() == pytest.approx(1 + (5 + 6 + 10) / 3)
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([1.0, 1 / 3, 1 / 3, 1 / 3]))
    assert over_both(values.detach(), torch.zeros(4, dtype=torch.bool)).item() == pytest.approx(22 / 4)


def test_the_latent_discriminator_tells_and_content_confuses_by_cross_entropy() -> None:
    logits = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    present = torch.tensor([True, True, False])
    p = [1 / (1 + math.exp(-v)) for v in logits.tolist()]
    told = telling_loss(logits, present)
    assert told.item() == pytest.approx(-(math.log(p[0]) + math.log(p[1])) / 2 - math.log(1 - p[2]))
    (gradient,) = torch.autograd.grad(told, logits)
    torch.testing.assert_close(gradient, torch.tensor([(p[0] - 1) / 2, (p[1] - 1) / 2, p[2]], dtype=torch.float64))
    confused = confusion_loss(logits, present)
    assert confused.item() == pytest.approx(-(math.log(1 - p[0]) + math.log(1 - p[1])) / 2 - math.log(p[2]))
    (gradient,) = torch.autograd.grad(confused, logits)
    torch.testing.assert_close(gradient, torch.tensor([p[0] / 2, p[1] / 2, p[2] - 1], dtype=torch.float64))


class Naive:
    """The losses of one step with passes of their own for every term of every image."""

    def __init__(self, nets: ContentLearners, batch: Batch) -> None:
        self.nets, self.g = nets, nets.generative
        self.x, self.y = list(batch.x[:, None]), list(batch.y[:, None])
        self.dx, self.dy = (labels[:, 0].tolist() for labels in (batch.x_labels, batch.y_labels))

    def code(self, image: Tensor, present: bool) -> Tensor:
        code = self.g.own_codes(image)[:, 0]
        return code if present else torch.zeros_like(code)

    def drawn(self, image: Tensor, code: Tensor) -> Tensor:
        return self.g.render(self.g.content(image), code, image)

    def fakes(self) -> list[Tensor]:
        return [self.drawn(x, self.code(y, on)) for x, y, on in zip(self.x, self.y, self.dy, strict=True)]

    def latent(self) -> Tensor:
        logits = [self.nets.latent(self.g.content(image).detach())[0] for image in self.x + self.y]
        present = self.dx + self.dy
        values = [softplus(-v) if on else softplus(v) for v, on in zip(logits, present, strict=True)]
        return of_both(values, present)

    def images(self, r1: float) -> Tensor:
        real, fake, penalties = [], [], []
        for x, on in zip(self.x, self.dx, strict=True):
            image = x.clone().requires_grad_()
            logit = self.nets.images(image)[0, 0 if on else 1]
            (gradient,) = torch.autograd.grad(logit, image, create_graph=True)
            real.append(softplus(-logit))
            fake.append(softplus(self.nets.images(x)[0, 1 if on else 0]))
            penalties.append(gradient.square().sum() / 2)
        for made, on in zip(self.fakes(), self.dy, strict=True):
            fake.append(softplus(self.nets.images(made.detach())[0, 0 if on else 1]))
        return mean(real) + mean(fake) + r1 * mean(penalties)

    def generative(self, terms: ContentTerms, confusion: float) -> dict[str, Tensor]:
        everyone, present = self.x + self.y, self.dx + self.dy
        found: dict[str, Tensor] = {}
        if terms.reconstruction:
            back = [self.drawn(image, self.code(image, on)) for image, on in zip(everyone, present, strict=True)]
            apart = [(a - b).abs().mean() for a, b in zip(everyone, back, strict=True)]
            found["reconstruction"] = of_both(apart, present)
        if confusion:
            logits = [self.nets.latent(self.g.content(image))[0] for image in everyone]
            found["confusion"] = of_both(
                [softplus(v) if on else softplus(-v) for v, on in zip(logits, present, strict=True)], present
            )
        if terms.adversarial:
            fakes = self.fakes()
            found["adversarial"] = mean(
                [softplus(-self.nets.images(made)[0, 0 if on else 1]) for made, on in zip(fakes, self.dy, strict=True)]
            )
            again = [self.drawn(made, self.code(x, on)) for made, x, on in zip(fakes, self.x, self.dx, strict=True)]
            found["cycle"] = mean([(a - b).abs().mean() for a, b in zip(self.x, again, strict=True)])
            found["guidance"] = mean([
                (self.code(made, True) - self.code(y, True).detach()).abs().mean()
                for made, y, on in zip(fakes, self.y, self.dy, strict=True) if on
            ])  # fmt: skip
        weights = {name: getattr(terms, name) for name in found} | {"confusion": confusion}
        return found | {"total": torch.stack([weights[name] * value for name, value in found.items()]).sum()}


VARIANTS = {
    "map": ("map", "image", TERMS),
    "vector": ("vector", "image", TERMS),
    "residual": ("map", "residual", replace(TERMS, reconstruction=0.0, confusion=0.0)),
    "paper": ("map", "image", replace(TERMS, adversarial=0.0)),
    "fader": ("constant", "image", replace(TERMS, adversarial=0.0)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("exact")
def test_a_step_is_the_losses_one_image_at_a_time(variant: str) -> None:
    guide, output, terms = VARIANTS[variant]
    nets, batch = build(guide, output), draw_batch()
    confusion = 0.2 if terms.confusion else 0.0
    parts = content_step(nets, still(nets), batch, confusion, 0.6, terms, Draws(torch.Generator().manual_seed(3)))
    naive = Naive(nets, batch)
    expected = naive.generative(terms, confusion)
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=1e-6), name
        assert not parts[name].requires_grad
    assert_gradients(nets.generative, expected["total"])
    for module, loss, part in (
        (nets.latent, naive.latent() if terms.confusion else None, "d_latent"),
        (nets.images, naive.images(0.6) if terms.adversarial else None, "d_adversarial"),
    ):
        if loss is None:
            assert part not in parts
            assert all(parameter.grad is None for parameter in module.parameters())
        else:
            assert_gradients(module, loss)


# --- from words to pictures ---


def options(**settings: Any) -> Any:
    small = {"method": "content", "present": "Hat", "channels": 4, "max_channels": 8, "guide_channels": 1}
    return make_options(COMMON | small | {"checkpoint_every": 2, "r1_every": 2} | settings)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    store = draw_store(tmp_path_factory.mktemp("content"), tiny_clip)
    labelled(Store.open(store))
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    return copy_of(original, tmp_path / "store")


@pytest.fixture(scope="module")
def run(original: Path, tiny_clip: Any) -> Path:
    go(original.parent / "run", tiny_clip, options(steps=6))
    return original.parent / "run"


@pytest.mark.parametrize("settings", [{}, {"output": "image"}, {"output": "image", "guide": "constant"}])
def test_it_goes_on_bit_for_bit(store: Store, tiny_clip: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    chosen = options(steps=4, **settings)
    go(tmp_path / "whole", tiny_clip, chosen)
    killed_after(tmp_path / "parts", tiny_clip, chosen, 2)
    assert go(tmp_path / "parts", tiny_clip, chosen).started_at == 2
    for name in Content.groups:
        files = [next((tmp_path / run).rglob(f"step-00000004/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_the_model_knows_the_word_and_its_absence_and_nothing_else(run: Path) -> None:
    bundle = load_bundle(run)
    assert bundle.prompt_set.domains == ("hat",)
    assert isinstance(bundle.networks, ContentNetworks)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    codes = bundle.networks.own_codes(picture)
    assert not codes[:, 1].any()
    assert codes[:, 0].any()
    drawn = bundle.networks.drawn_codes(torch.randn(40, bundle.networks.latent_dim))
    bank = bundle.networks.mapping.bank
    assert all(any(torch.equal(row, kept) for kept in bank) for row in drawn[:, 0])
    assert not drawn[:, 1].any()


def test_a_guide_gives_what_is_added_and_nothing_what_is_removed(
    run: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translator, "load_clip", lambda *_: tiny_clip)
    monkeypatch.setattr(api, "load_labeller", lambda *_: tiny_clip)
    model, nets = lanit.load(run, device="cpu"), load_bundle(run).networks
    images = sorted((run.parent / "images").iterdir())
    source, guide = (as_batch(images[n]) for n in (0, 1))
    added = model.translate(images[0], add="hat", reference=images[1])
    expected = nets.render(nets.content(source), nets.code(guide), source)
    assert abs(np.asarray(added).astype(int) - to_pixels(expected)).max() <= 1
    removed = model.translate(images[0], remove="hat")
    expected = nets.render(nets.content(source), torch.zeros(1, 16), source)
    assert abs(np.asarray(removed).astype(int) - to_pixels(expected)).max() <= 1


def test_the_newest_codes_are_kept(run: Path) -> None:
    bank = CodeBank(ContentSizes(style_dim=3))
    bank.remember(torch.full((60, 3), 1.0))
    bank.remember(torch.full((10, 3), 2.0))
    assert bank.bank[:, 0].tolist() == [2.0] * 10 + [1.0] * 54


def test_what_a_run_cannot_be_is_said_in_one_line(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this method learns one word") as found:
        go(tmp_path / "a", tiny_clip, options(present=""))
    assert "--present" in found.value.hint
    with pytest.raises(LanitError, match="label revision 1 has no 'hats'") as missing:
        go(tmp_path / "b", tiny_clip, options(present="hats"))
    assert "Did you mean 'hat'?" in missing.value.hint
    with pytest.raises(UsageError, match="output residual learns by translations"):
        options(adversarial=0.0)
    with pytest.raises(UsageError, match="the method stargan has no setting 'present'") as foreign:
        make_options({"present": "hat"})
    assert "--method content" in foreign.value.hint
    every = np.ones((store.ok, 1), bool)
    add_labels(store, every, every.astype(np.float32), prompts=PromptSet(("face",), ("a {}.",), ("a.",), "all"))
    with pytest.raises(LanitError, match="label revision 2 has 'face' on every image"):
        go(tmp_path / "c", tiny_clip, options(present="face"))
    assert not list(tmp_path.glob("?"))


def test_presets_say_nothing_of_settings_that_a_method_has_not() -> None:
    found = options_from("small-32", {"method": "content", "present": "hat"}).to_json()
    assert found["output"] == "residual", "masked learns next to nothing there"
    assert found["channels"] == 32
    assert "domain_scope" not in found
    with pytest.raises(UsageError, match="the method content has no setting 'domain_scope'"):
        options_from("small-32", {"method": "content", "domain_scope": "drawn"})


def test_evaluation_counts_what_is_left_over_and_what_else_is_kept(
    run: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "load_labeller", lambda *_: tiny_clip)
    store = Store.open(run.parent / "store")
    settings = EvaluationOptions(styles=2, sources=0, guide="reference", neighbours=1, bootstrap=20)
    (measured,) = evaluate.evaluate_runs([str(run)], store, settings, evaluate.Tools()).runs
    (domain,) = measured.guides[0].domains
    assert domain.domain == "hat"
    bundle, labels = load_bundle(run), store.labels()
    prompts = embed_prompts(tiny_clip, labels.prompt_set)
    nets, column = bundle.networks, labels.domains.index("hat")
    rows = np.flatnonzero(labels.active[:, column])
    left = []
    for row in rows:
        picture = as_batch(run.parent / "images" / Path(labels.paths[row]).name)
        made = nets.render(nets.content(picture), torch.zeros(1, 16), picture).clamp(-1, 1)
        as_bytes = ((made + 1) * 127.5).round() / 127.5 - 1
        left.append(bool(prompts.labels(tiny_clip.encode_images(as_bytes))[0, column]))
    assert domain["left_over"].value == pytest.approx(np.mean(left))
    assert 0 <= domain["kept"].value <= 1


def test_it_is_exported_with_a_card_that_says_what_it_does_and_as_onnx(run: Path, tmp_path: Path) -> None:
    report = export_model(run, tmp_path / "out", onnx=True)
    assert report.onnx is not None
    assert set(report.onnx) == {"generator", "style_encoder", "mapping"}
    assert max(report.onnx.values()) < 1e-4
    assert "Adds hat to images of its kind" in (tmp_path / "out" / "README.md").read_text()
