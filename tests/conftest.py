"""Shared fixtures: a tiny CLIP of random weights, folders of drawn images, stores; a browser."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TINY_PREPROCESS: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def save_clip(folder: Path, config: dict[str, Any], seed: int, preprocess: dict[str, Any] | None = None) -> Path:
    """A random open_clip model in open_clip's folder layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    custom = config.get("custom_text", False)
    torch.manual_seed(seed)
    bare = {key: value for key, value in config.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**bare)
    for name, parameter in model.named_parameters():
        if name.endswith("bn3.weight"):  # zero at initialisation: the blocks would do nothing
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    document = {"model_cfg": config, "preprocess_cfg": TINY_PREPROCESS if preprocess is None else preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="session", autouse=True)
def no_terminal() -> Iterator[None]:
    """The library that reads lines from a terminal says in the environment how wide it is, even where there is none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLUMNS", "LINES"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def byte_pairs_read_once() -> Iterator[None]:
    """open_clip reads its list of byte pairs for every CLIP anew, which takes longer than most tests."""
    if "open_clip" not in sys.modules:  # no test module needs it: then nor do we
        yield
        return
    from open_clip.tokenizer import SimpleTokenizer

    read, known = SimpleTokenizer.__init__, {}

    def remember(self: Any, *given: Any, **named: Any) -> None:
        key = repr((given, named))
        if key not in known:
            read(self, *given, **named)
            known[key] = vars(self).copy()
        vars(self).update(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimpleTokenizer, "__init__", remember)
        yield


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_clip(seed=0, **changes)`` saves a tiny random CLIP and returns its folder; changes go to its config."""
    made: dict[str, Path] = {}

    def make(seed: int = 0, preprocess: dict[str, Any] | None = None, **changes: Any) -> Path:
        key = json.dumps([seed, preprocess, changes], sort_keys=True)
        if key not in made:
            made[key] = save_clip(tmp_path_factory.mktemp("clip"), TINY_CONFIG | changes, seed, preprocess)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_clip_folder(make_clip: Callable[..., Path]) -> Path:
    """Folder of a tiny random CLIP: 32 px, 24 dimensions, context of 20 tokens."""
    return make_clip()


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_folder: Path) -> Any:
    """The model of :func:`tiny_clip_folder`, loaded."""
    from pipeline.clip.models import load_clip

    return load_clip(str(tiny_clip_folder))


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """``make_images(count, name="images", seed=0)`` writes that many small PNG files of noise, in two folders."""

    def make(count: int, name: str = "images", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        folder = tmp_path / name
        for number in range(count):
            path = folder / ("a" if number % 2 else "b") / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            side = rng.integers(20, 60, 2)
            Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(path)
        return folder

    return make


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Any]:
    """``make_store(embeddings, name="store", …)``: :func:`tests.store_builders.store_of_embeddings`."""
    from tests.store_builders import store_of_embeddings

    return partial(store_of_embeddings, tmp_path)


@pytest.fixture
def make_labelled_store(tmp_path: Path) -> Callable[..., Any]:
    """``make_labelled_store(folder, labels, name="store", …)``: :func:`tests.store_builders.store_of_folder`."""
    from tests.store_builders import store_of_folder

    return partial(store_of_folder, tmp_path)


@pytest.fixture
def make_revision() -> Callable[..., Any]:
    """``make_revision(margin, active=None, …)`` is a label revision in memory, of images ``folder/0.png`` and on.

    active: by default margin > 0. paths, base, human, offsets, weights, domains, rule, number: see LabelRevision.
    """
    from lanit.rules import Rule
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.label_revisions import LabelRevision

    def make(
        margin: np.ndarray,
        active: np.ndarray | None = None,
        *,
        domains: tuple[str, ...] = ("blond hair", "smiling", "eyeglasses"),
        paths: list[str] | None = None,
        base: np.ndarray | None = None,
        human: np.ndarray | None = None,
        offsets: tuple[float, ...] = (),
        weights: tuple[float, ...] = (),
        rule: Any = None,
        number: int = 3,
    ) -> LabelRevision:
        count = len(margin)
        return LabelRevision(
            number=number,
            parent=None,
            origin="label",
            rule=rule or Rule(),
            prompt_set=PromptSet(domains, ("a {}.",), ("a.",), "test", offsets, weights),
            active=margin > 0 if active is None else active,
            margin=margin.astype(np.float32),
            similarity_base=np.zeros(count, np.float32) if base is None else base.astype(np.float32),
            image_ids=np.array([f"id{row}" for row in range(count)], dtype=object),
            paths=np.array(paths or [f"folder/{row}.png" for row in range(count)], dtype=object),
            human=human,
        )

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The Chromium of the system, by Playwright; nothing is downloaded. Skips where one of them is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()
