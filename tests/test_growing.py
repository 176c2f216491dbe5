"""Networks for a size begin with those for half of it: what is inside is the same, and a run says what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lanit.errors import LanitError, UsageError
from lanit.growing import grow
from lanit.networks import NetworkOptions
from lanit.objectives import Networks
from pipeline.models.bundle import load_bundle
from pipeline.models.tensor_folders import read_tensors
from pipeline.store.store import Store
from tests.training_world import PROMPTS, TINY, changed, copy_of, draw_store, go, labelled

INNER = NetworkOptions(32, 4, 8, 16, 0, 6, 5, 8, "residual", "mapping", "anchored", "image", True)


def networks(size: int, channels: int, **changes: Any) -> Networks:
    torch.manual_seed(size)
    made = Networks(NetworkOptions(**{**vars(INNER), "image_size": size, "channels": channels, **changes}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made


@torch.no_grad()
def test_the_inner_layers_do_what_they_did() -> None:
    small, large = networks(32, 8), networks(64, 4)
    before = large.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    grow(large, small.state_dict())
    random = torch.Generator().manual_seed(0)
    wide = torch.randn(2, 8, 32, 32, generator=random)
    style, latents = torch.randn(2, 6, generator=random), torch.randn(2, 5, generator=random)
    g, inner = large.generator, small.generator
    content = inner.encoder(wide)
    assert torch.equal(g.encoder[1:](wide), content)
    one, other = content, content
    for block, its in zip(g.decoder, inner.decoder, strict=False):
        one, other = block(one, style), its(other, style)
    assert torch.equal(one, other)
    assert one.shape == (2, 8, 32, 32)
    for part, its in ((large.style_encoder, small.style_encoder), (large.discriminator, small.discriminator)):
        assert torch.equal(part.trunk[2:](wide), its.trunk[1:](wide))
    top = torch.randn(2, 16, 1, 1, generator=random)
    assert torch.equal(large.discriminator.classes(top), small.discriminator.classes(top))
    assert torch.equal(large.discriminator.logits(top), small.discriminator.logits(top))
    assert torch.equal(large.style_encoder.heads(top.flatten(1)), small.style_encoder.heads(top.flatten(1)))
    assert torch.equal(large.mapping(latents), small.mapping(latents))
    new = [name for name, tensor in large.state_dict().items() if torch.equal(tensor, before[name])]
    outer = ("from_rgb", "to_rgb", "norm.", "encoder.0.", "decoder.3.", "trunk.0.", "trunk.1.")
    assert new
    assert all(any(part in name for part in outer) for name in new)


def test_networks_of_the_same_size_are_taken_whole() -> None:
    first, second = networks(32, 8), networks(32, 8)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    grow(second, first.state_dict())
    found = second.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in first.state_dict().items())
    with pytest.raises(UsageError, match=r"to_rgb\.weight is 3×8×1×1 there and 4×8×1×1 here") as caught:
        grow(networks(32, 8, output="masked"), first.state_dict())
    assert "--config" in caught.value.hint


@pytest.mark.parametrize(
    ("of_small", "of_large", "message"),
    [({}, {"channels": 8}, "encoder.0.norm1.weight is 8 there and 16 here"),
     ({"classifies": False}, {"channels": 4}, "classes.weight is missing there"),
     ({}, {"channels": 4, "style_dim": 7}, "affine.weight is 32×6 there and 32×7 here")],
)  # fmt: skip
def test_networks_that_do_not_fit_are_refused(of_small: dict[str, Any], of_large: dict[str, Any], message: str) -> None:
    small, large = networks(32, 8, **of_small), networks(64, **of_large)
    before = {name: tensor.clone() for name, tensor in large.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        grow(large, small.state_dict())
    assert all(torch.equal(tensor, before[name]) for name, tensor in large.state_dict().items())


@pytest.fixture(scope="module")
def grown_from(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    """A folder with a store and a run at 32 px."""
    folder = tmp_path_factory.mktemp("grown")
    labelled(Store.open(draw_store(folder, tiny_clip)))
    go(folder / "run-32", tiny_clip, changed(TINY, steps=2, prompts_from=1.0, channels=8, max_channels=16))
    return folder


LARGE = {"size": 64, "steps": 2, "prompts_from": 1.0, "channels": 4, "max_channels": 16}


def test_a_run_begins_with_the_newest_checkpoint_and_goes_on_without_it(
    grown_from: Path, tmp_path: Path, tiny_clip: Any
) -> None:
    store = copy_of(grown_from / "store", tmp_path / "store")
    shutil.copytree(grown_from / "run-32", tmp_path / "run-32")
    options = changed(TINY, **LARGE, grow=str(tmp_path / "run-32"))
    go(tmp_path / "run", tiny_clip, options)
    first, inner = (
        read_tensors(tmp_path / name / "checkpoints" / step / "networks.safetensors")
        for name, step in (("run", "step-00000000"), ("run-32", "step-00000002"))
    )
    assert torch.equal(first["generative.generator.encoder.1.conv1.weight"],
                       inner["generative.generator.encoder.0.conv1.weight"])  # fmt: skip
    average = read_tensors(tmp_path / "run" / "checkpoints" / "step-00000000" / "average.safetensors")
    same = "generator.decoder.0.conv1.weight"
    assert torch.equal(average[same], inner[f"generative.{same}"])
    told = load_bundle(tmp_path / "run").training["options"]
    assert told == options.to_json() | {"grow": "run-32"}, "nothing of where it lay"
    shutil.rmtree(tmp_path / "run-32")
    report = go(tmp_path / "run", tiny_clip, changed(options, steps=3))
    assert (report.started_at, report.steps) == (2, 3)
    assert store.labels().domains == PROMPTS.domains


def test_a_run_may_begin_with_one_of_its_own_size(grown_from: Path, tmp_path: Path, tiny_clip: Any) -> None:
    copy_of(grown_from / "store", tmp_path / "store")
    its = dict(steps=1, prompts_from=1.0, channels=8, max_channels=16, grow=str(grown_from / "run-32"))
    go(tmp_path / "run", tiny_clip, changed(TINY, **its, learning_rate=5e-4))
    first, inner = (
        read_tensors(path / "networks.safetensors")
        for path in (
            tmp_path / "run" / "checkpoints" / "step-00000000",
            grown_from / "run-32" / "checkpoints" / "step-00000002",
        )
    )
    assert first.keys() == inner.keys()
    assert all(torch.equal(tensor, inner[name]) for name, tensor in first.items())


def test_a_run_of_another_size_or_other_phrases_is_refused(grown_from: Path, tmp_path: Path, tiny_clip: Any) -> None:
    copy_of(grown_from / "store", tmp_path / "store")
    grow_from = str(grown_from / "run-32")
    with pytest.raises(UsageError, match="is of 32 px, not of 64 or 128") as caught:
        go(tmp_path / "run", tiny_clip, changed(TINY, **LARGE | {"size": 128}, grow=grow_from))
    assert caught.value.hint == "Add --size 64."
    with pytest.raises(LanitError, match="nowhere"):
        go(tmp_path / "run", tiny_clip, changed(TINY, **LARGE, grow=str(tmp_path / "nowhere")))
    shutil.copytree(grown_from / "run-32" / "model", tmp_path / "model")
    with pytest.raises(LanitError, match="there is no file") as caught:
        go(tmp_path / "run", tiny_clip, changed(TINY, **LARGE, grow=str(tmp_path / "model")))
    assert caught.value.hint == "Name the folder of a run, with its checkpoints."
    labelled(Store.open(tmp_path / "store"), PROMPTS.of_domains(range(2)))
    with pytest.raises(UsageError, match="learned other phrases"):
        go(tmp_path / "run", tiny_clip, changed(TINY, **LARGE, grow=grow_from))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run" / "checkpoints").glob("*"))
