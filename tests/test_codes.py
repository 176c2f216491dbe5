"""``codes``: one style a domain, or plain noise about a mean, through all that uses a model; ``mapping`` as ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lanit
from lanit.codes import CodeTable
from lanit.content_networks import ConstantCode
from lanit.errors import LanitError, UsageError
from lanit.inference import draw_latents, drawn_codes, target_style
from lanit.methods import stargan
from lanit.methods.method import Moment, Setting
from lanit.methods.stargan import Stargan, StarganOptions
from lanit.networks import CODES, NetworkOptions
from lanit.objectives import Batch
from lanit.one_shot_networks import EndCodes
from lanit.steps import StepPlan
from pipeline.model_exports.export_model import export_model
from pipeline.models.bundle import load_bundle, save_bundle
from pipeline.store.store import Store
from pipeline.translating.requests import TranslateRequest
from pipeline.translating.translation import translate
from tests.model_builders import random_bundle, random_networks
from tests.training_world import TINY, changed, draw_store, go, labelled, metrics
from tests.translation_world import as_batch, good, make_model, make_source, own_labels, pixels, to_pixels

KINDS = [kind for kind in CODES if kind != "mapping"]


@pytest.fixture
def source(make_images: Callable[..., Path]) -> Path:
    return make_source(make_images)


def model_of(kind: Any, folder: Path, source: Path, clip: Any) -> Path:
    """That of the translation tests, with other codes."""
    bundle = load_bundle(make_model(folder, source, clip))
    options = replace(bundle.options, codes=kind)
    save_bundle(folder, replace(bundle, options=options, networks=random_networks(options)))
    return folder


def test_a_table_is_one_learned_style_a_domain_and_normal_codes_are_noise_about_a_mean() -> None:
    sizes = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8)
    table = random_networks(replace(sizes, codes="table"))
    assert table.latent_dim == 0
    assert not table.reads_styles
    assert not any(name.startswith("style_encoder") for name, _ in table.named_parameters())
    codes = drawn_codes(table, draw_latents(0, 3, 2))
    assert codes.shape == (2, 4, 6)
    assert torch.equal(codes[0], codes[1])
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(table.own_codes(images), codes[:1].expand(3, -1, -1))
    normal = random_networks(replace(sizes, codes="normal"))
    assert normal.latent_dim == 6
    z = draw_latents(6, 3, 2)
    codes = drawn_codes(normal, z)
    for i in range(2):
        for n in range(4):
            torch.testing.assert_close(codes[i, n], dict(normal.named_parameters())["mapping.means"][n] + z[i])
    assert normal.own_codes(images).shape == (3, 4, 6)


def test_anchored_codes_are_a_direction_for_each_domain_and_half_as_much_of_what_was_learned(tmp_path: Path) -> None:
    sizes = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8)
    free, nets = random_networks(sizes), random_networks(replace(sizes, code_form="anchored"))
    assert free.state_dict().keys() == nets.state_dict().keys()
    nets.load_state_dict(free.state_dict())
    images, latents = torch.rand(3, 3, 32, 32), draw_latents(16, 0, 3)
    found = []
    for codes, plain in (
        (nets.own_codes(images), free.own_codes(images)),
        (nets.drawn_codes(latents), free.drawn_codes(latents)),
    ):
        length = (plain**2).mean(dim=-1, keepdim=True).sqrt()
        found.append(codes - plain / length / 2)
    for directions in found:
        torch.testing.assert_close(directions, found[0][:1].expand(3, -1, -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[0][0] @ found[0][0].T / 6, torch.eye(4), atol=1e-3, rtol=0)
    bundle = random_bundle()
    options = replace(bundle.options, code_form="anchored")
    save_bundle(tmp_path / "anchored", replace(bundle, options=options, networks=random_networks(options)))
    assert load_bundle(tmp_path / "anchored").options == options
    with pytest.raises(UsageError, match="code_form=anchored is of codes=mapping"):
        replace(sizes, codes="table", code_form="anchored")


def test_a_model_says_its_codes_only_where_they_are_not_mapped(tmp_path: Path) -> None:
    """What plain models have in their files stays as it was; those without a word are mapped."""
    bundle = random_bundle()
    save_bundle(tmp_path / "plain", bundle)
    assert "codes" not in json.loads((tmp_path / "plain" / "model.json").read_text())["networks"]
    assert load_bundle(tmp_path / "plain").options == bundle.options
    assert load_bundle("sample").options.codes == "mapping"
    for kind in KINDS:
        options = replace(bundle.options, codes=kind)  # type: ignore[arg-type]
        save_bundle(tmp_path / kind, replace(bundle, options=options, networks=random_networks(options)))
        assert load_bundle(tmp_path / kind).options.codes == kind
    unknown: Any = "tables"
    save_bundle(tmp_path / "table", replace(bundle, options=replace(bundle.options, codes=unknown)))
    with pytest.raises(LanitError, match="is damaged: codes 'tables' is unknown"):
        load_bundle(tmp_path / "table")


@pytest.mark.parametrize("kind", KINDS)
def test_translations_take_the_codes_of_the_model(kind: str, source: Path, tiny_clip: Any, tmp_path: Path) -> None:
    model = model_of(kind, tmp_path / "model", source, tiny_clip)
    networks = load_bundle(model).networks
    translate(source, tmp_path / "out", model, TranslateRequest(to=(("hat", 1.0),), seed=3))
    codes = drawn_codes(networks, draw_latents(networks.latent_dim, 3, 1))
    style = target_style(codes, torch.tensor([[0.0, 0.0, 1.0]]))
    for name in good(source):
        expected = to_pixels(networks.generator(as_batch(source / name), style))
        assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1


def test_one_style_a_domain_refuses_more_and_takes_of_a_reference_its_words(
    source: Path, tiny_clip: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of("table", tmp_path / "model", source, tiny_clip)
    bundle, hat = load_bundle(model), (("hat", 1.0),)
    with pytest.raises(UsageError, match="one style a domain") as caught:
        translate(source, tmp_path / "out", model, TranslateRequest(to=hat, styles=2))
    assert "codes=mapping" in caught.value.hint
    assert not (tmp_path / "out").exists()
    reference = next(source / name for name in good(source) if own_labels(bundle, tiny_clip, source / name))
    translate(source, tmp_path / "out", model, TranslateRequest(reference=reference))
    shown = torch.tensor(
        [[float(name in own_labels(bundle, tiny_clip, reference)) for name in bundle.prompt_set.domains]]
    )
    style = target_style(bundle.networks.drawn_codes(torch.zeros(1, 0)), shown)
    name = good(source)[0]
    expected = to_pixels(bundle.networks.generator(as_batch(source / name), style))
    assert np.abs(pixels(tmp_path / "out" / name) - expected).max() <= 1
    loaded = lanit.load(model, device="cpu")
    assert not loaded.draws_styles
    with pytest.raises(UsageError, match="one style a domain"):
        loaded.mix(source / name, {"hat": 1.0}, own=(), styles=2)
    assert len(loaded.mix(source / name, {"hat": 1.0}, own=())) == 1


def test_every_kind_with_one_style_a_domain_says_how_a_model_comes_to_have_it() -> None:
    single = [kind for kind in (CodeTable, ConstantCode, EndCodes) if not kind.of_images]
    assert len({kind.why_one for kind in single}) == 3
    assert all(how.startswith("trained") and several for how, several in (kind.why_one for kind in single))


@pytest.mark.parametrize("drawn", [True, False])
def test_the_page_shows_seed_and_styles_where_styles_are_drawn(drawn: bool) -> None:
    gr = pytest.importorskip("gradio")
    from pipeline.play.page import _style_controls

    with gr.Blocks():
        *_, seed, another, styles = _style_controls(drawn)
    assert seed.visible == another.visible == styles.visible == drawn


EVERY_TERM = {
    "table": {"adversarial_form": "lsgan", "identity": 1.0, "distance": 1.0, "self": 0.5, "direction": 0.5},
    "normal": {"adversarial_form": "hinge", "feature": 1.0, "triplet": 1.0, "shrink": 0.1, "content": 1.0,
               "mapping_rate": 0.1, "schedule": "paper"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_the_terms_goes_on_bit_for_bit(kind: str, tmp_path: Path, tiny_clip: Any) -> None:
    labelled(Store.open(draw_store(tmp_path, tiny_clip)))
    constant = {"prompts_from": 1.0, "diversity": 0.0}  # schedules would follow the number of steps
    options = changed(TINY, codes=kind, checkpoint_every=2, **constant, **EVERY_TERM[kind])
    go(tmp_path / "whole", tiny_clip, changed(options, steps=4))
    go(tmp_path / "parts", tiny_clip, changed(options, steps=2))
    assert go(tmp_path / "parts", tiny_clip, changed(options, steps=4)).started_at == 2
    for name in ("networks", "average", "generative_optimiser", "discriminator_optimiser"):
        files = [next((tmp_path / run).rglob(f"step-00000004/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    terms = {name for name in EVERY_TERM[kind] if name not in ("adversarial_form", "mapping_rate", "schedule")}
    lines = [line for line in metrics(tmp_path / "whole") if line["kind"] == "losses"]
    assert all(terms <= line.keys() for line in lines)


def test_codes_learn_at_a_rate_of_their_own() -> None:
    """After one step of Adam every entry has moved by its rate, wherever it has a gradient."""
    sizes = NetworkOptions(channels=4, max_channels=8, codes="table")
    nothing: Any = None
    setting = Setting(32, 3, torch.device("cpu"), False, nothing, nothing, None, 0.9, False, nothing)
    nets = Stargan(StarganOptions(sizes, learning_rate=1e-3, mapping_rate=0.1), setting)
    optimiser = nets.state()["generative_optimiser"]
    assert isinstance(optimiser, torch.optim.Adam)
    before = {name: value.clone() for name, value in nets.networks.generative.named_parameters()}
    for value in nets.networks.generative.parameters():
        value.grad = torch.ones_like(value)
    optimiser.step()
    for name, value in nets.networks.generative.named_parameters():
        rate = 1e-4 if name.startswith("mapping") else 1e-3
        torch.testing.assert_close((before[name] - value).abs().mean().item(), rate, rtol=0.01, atol=0)


@pytest.mark.parametrize(("until", "weights"), [(0.0, [2, 2, 2]), (0.5, [2, 1, 0]), (1.0, [2, 1.5, 0.2])])
def test_the_weight_of_diversity_falls_or_stays(
    until: float, weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Any = None
    setting = Setting(32, 3, torch.device("cpu"), False, nothing, nothing, None, 0.9, False, nothing)
    sizes = NetworkOptions(channels=4, max_channels=8, mapping_width=8)
    made = Stargan(StarganOptions(sizes, diversity=2.0, diversity_until=until), setting)
    seen: list[float] = []

    def note(nets: Any, optimisers: Any, batch: Any, prompts: Any, plan: StepPlan, *rest: Any) -> dict[str, Any]:
        seen.append(plan.diversity_weight)
        return {}

    monkeypatch.setattr(stargan, "fused_step", note)
    batch = Batch(*(nothing,) * 6, paired=True)
    for step in (0, 5, 18):
        made.step(batch, Moment(step, 20, False), nothing)
    assert seen == pytest.approx(weights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_export_holds_what_the_codes_need(kind: str, tmp_path: Path) -> None:
    """Of a table the styles themselves, and no network that nothing needs."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    bundle = random_bundle()
    options = replace(bundle.options, codes=kind)  # type: ignore[arg-type]
    save_bundle(tmp_path / "model", replace(bundle, options=options, networks=random_networks(options)))
    export_model(tmp_path / "model", tmp_path / "out", onnx=True)
    folder, nets = tmp_path / "out" / "onnx", load_bundle(tmp_path / "out").networks
    document = json.loads((folder / "networks.json").read_text())
    found = sorted(path.stem for path in folder.glob("*.onnx"))
    if kind == "table":
        assert found == ["generator"]
        np.testing.assert_allclose(document["styles"], nets.drawn_codes(torch.zeros(1, 0))[0].numpy(), atol=1e-6)
        assert "constants" in document["aggregation"]
    else:
        assert found == ["generator", "mapping", "style_encoder"]
        z = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
        session = runtime.InferenceSession((folder / "mapping.onnx").read_bytes())
        (made,) = session.run(None, {"latent": z})
        np.testing.assert_allclose(made, nets.drawn_codes(torch.from_numpy(z)).numpy(), atol=1e-5)
