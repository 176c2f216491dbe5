"""The seam: a method that shares nothing of LANIT's step trains, stops, goes on and is translated with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from lanit.ema import Average
from lanit.errors import LanitError, UsageError
from lanit.inference import Target, drawn_codes, translate
from lanit.labels import EmbeddedPrompts
from lanit.losses import l1
from lanit.methods.method import Moment, Options, Setting
from lanit.methods.table import METHODS
from lanit.networks import GenerativeNetworks, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.ranks import Draws
from pipeline.models.bundle import load_bundle
from pipeline.store.store import Store
from pipeline.training.train_options import all_settings, make_options
from tests.training_world import TINY, changed, copy_of, draw_store, go, labelled, metrics

SMALL = {"channels": 4, "max_channels": 8, "mapping_width": 8}
COMMON = {name: value for name, value in TINY.to_json().items() if hasattr(TINY, name) and name != "method"}


@dataclass(frozen=True)
class MirrorOptions:
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    pull: float = 0.5

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        return replace(self.networks, image_size=image_size, domains=domains + 1)


class Mirror:
    """Learns to give back its images, by RMSprop; no discriminator, no prompts."""

    options: ClassVar[type[Options]] = MirrorOptions
    groups: ClassVar[tuple[str, ...]] = ("networks", "average", "generative_optimiser")
    learns_prompts = False

    def __init__(self, options: MirrorOptions, setting: Setting) -> None:
        self.networks = GenerativeNetworks(options.network_options(setting.image_size, setting.domains))
        self._average = Average(self.networks)
        self.averaged = self._average.module
        self._optimiser = torch.optim.RMSprop(self.networks.parameters(), 1e-3)
        self._setting, self._pull = setting, options.pull

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        style = self.networks.own_codes(batch.x)[:, 0]
        loss = self._pull * l1(batch.x, self.networks.render(self.networks.content(batch.x), style, batch.x))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._average.update(self.networks, 0.9)
        return {"mirror": loss.detach()}

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"networks": self.networks, "average": self.averaged, "generative_optimiser": self._optimiser}

    def compile(self) -> None:
        pass

    def context(self) -> None:
        return None

    def prompts(self, context: torch.Tensor | None) -> EmbeddedPrompts:
        return self._setting.prompts

    def settle(self, context: torch.Tensor | None) -> None:
        pass


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "mirror", Mirror)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Any) -> Path:
    return draw_store(tmp_path_factory.mktemp("mirror"), tiny_clip)


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Store:
    return labelled(copy_of(original, tmp_path / "store"))


def options(**settings: Any) -> Any:
    return make_options(COMMON | SMALL | {"method": "mirror", "checkpoint_every": 2} | settings)


def test_another_method_trains_goes_on_bit_for_bit_and_is_translated_with(
    store: Store, tiny_clip: Any, tmp_path: Path
) -> None:
    go(tmp_path / "whole", tiny_clip, options(steps=6))
    go(tmp_path / "parts", tiny_clip, options(steps=4))
    report = go(tmp_path / "parts", tiny_clip, options(steps=6))
    assert report.started_at == 4
    for name in ("networks", "average", "generative_optimiser"):
        files = [next((tmp_path / run).rglob(f"step-00000006/{name}.safetensors")) for run in ("whole", "parts")]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    losses = [line["mirror"] for line in metrics(tmp_path / "whole") if line["kind"] == "losses"]
    assert losses[-1] < losses[0]
    bundle = load_bundle(tmp_path / "whole")
    assert bundle.training["options"]["method"] == "mirror"
    assert "r1" not in bundle.training["options"]
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    codes = drawn_codes(bundle.networks, torch.randn(1, bundle.networks.latent_dim))
    made = translate(bundle.networks, images, Target(torch.ones(3, 3), None), codes)
    assert made.shape == (1, 3, 3, 32, 32)


def test_a_run_of_one_method_is_not_continued_by_another(store: Store, tiny_clip: Any, tmp_path: Path) -> None:
    go(tmp_path / "run", tiny_clip, options(steps=2))
    with pytest.raises(LanitError, match="was started with method mirror, not stargan"):
        go(tmp_path / "run", tiny_clip, changed(TINY, steps=2))


def test_settings_belong_to_their_method() -> None:
    assert all_settings()["pull"] == 0.5
    assert options(pull=0.25).to_json()["pull"] == 0.25
    with pytest.raises(UsageError, match="the method mirror has no setting 'r1'"):
        options(r1=1.0)
    with pytest.raises(UsageError, match="there is no method 'minor'"):
        make_options({"method": "minor"})
