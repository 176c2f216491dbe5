"""Shared fixtures: a tiny CLIP of random weights, folders of drawn images, stores; a browser."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
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
    """``make_store(embeddings, name="store", …)`` writes a store straight from unit-norm embeddings, float32 (n×k), as
    ``lanit embed`` would, and opens it. paths, sources, contents: of each row; equal contents are equal images.

    Parts have ``part_rows`` rows with an embedding; each begins with one that failed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.clip.fingerprint import Fingerprint
    from pipeline.files import sha256_bytes, write_json
    from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, images_schema, with_metadata
    from pipeline.store.store import Store

    def make(
        embeddings: np.ndarray,
        name: str = "store",
        paths: list[str] | None = None,
        sources: list[str] | None = None,
        contents: list[str] | None = None,
        storage: Any = "float32",
        part_rows: int = 2048,
    ) -> Store:
        count, dim = embeddings.shape
        paths = paths or [f"{number:07d}.jpg" for number in range(count)]
        sources = sources or [str(tmp_path / "images")] * count
        contents = contents or paths
        fingerprint = Fingerprint("made-up", "0" * 64, {"size": 32}, "gelu", "fp32", dim)
        metadata = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": fingerprint.to_json()}
        schema = with_metadata(images_schema(dim, storage), metadata)
        root, parts = tmp_path / name, []
        (root / "images").mkdir(parents=True)
        for start in range(0, count, part_rows):
            chosen = slice(start, min(start + part_rows, count))
            ok = chosen.stop - start
            values = np.concatenate([np.zeros((1, dim)), embeddings[chosen]]).astype(storage)
            mask = pa.array([True] + [False] * ok)
            columns: dict[str, list[Any]] = {
                "image_id": [f"{row:016x}" for row in (count + start, *range(start, chosen.stop))],
                "path": [f"bad-{start}", *paths[chosen]],
                "source": [sources[start], *sources[chosen]],
                "offset": [None] * (ok + 1),
                "modified_ns": [None] * (ok + 1),
                "width": [None, *range(100 + start, 100 + chosen.stop)],
                "height": [None] + [50] * ok,
                "bytes": [0] + [1234] * ok,
                "sha256": [None, *(sha256_bytes(text.encode()) for text in contents[chosen])],
                "status": ["failed"] + ["ok"] * ok,
                "error_message": ["made up"] + [None] * ok,
            }
            arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name != "embedding"]
            flat = pa.array(values.ravel(), schema.field("embedding").type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, dim, mask=mask))
            file = f"images/part-{len(parts):05d}-{sha256_bytes(values.tobytes())[:8]}.parquet"
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), root / file)
            parts.append(Part(file, ok + 1, ok))
        entries = tuple(SourceEntry(source) for source in dict.fromkeys(sources))
        manifest = Manifest(fingerprint, "sample", None, storage, entries, tuple(parts))
        write_json(root / "store.json", manifest.to_json())
        return Store.open(root)

    return make


@pytest.fixture
def make_labelled_store(tmp_path: Path) -> Callable[..., Any]:
    """``make_labelled_store(folder, labels, …)`` writes a store of the image files of a folder, as ``lanit embed`` and
    ``lanit label`` would, with random embeddings, and opens it. labels: domains to the paths having them, or none for
    no revision. Files whose name begins with "bad" have failed. Parts have ``part_rows`` rows."""
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.clip.fingerprint import Fingerprint
    from pipeline.files import sha256_bytes, write_json
    from pipeline.prompts.prompt_sets import PromptSet
    from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, images_schema, with_metadata
    from pipeline.store.store import Store

    def make(
        folder: Path, labels: dict[str, set[str]] | None, name: str = "store", storage: Any = "float32",
        part_rows: int = 3, dim: int = 6,
    ) -> Store:  # fmt: skip
        rng = np.random.default_rng(len(name))
        fingerprint = Fingerprint("made-up", "0" * 64, {"size": 32}, "gelu", "fp32", dim)
        metadata = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": fingerprint.to_json()}
        schema = with_metadata(images_schema(dim, storage), metadata)
        source, rows = str(folder.resolve()), []
        for path in sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()):
            data, vector = (folder / path).read_bytes(), rng.normal(size=dim)
            row: dict[str, Any] = dict.fromkeys(schema.names)
            row |= {"path": path, "source": source, "bytes": len(data), "sha256": sha256_bytes(data)}
            row["image_id"] = hashlib.blake2b(f"{source}\0{path}".encode(), digest_size=8).hexdigest()
            if path.startswith("bad"):
                row |= {"status": "failed", "error_message": "made up, with a comma"}
            else:
                with Image.open(folder / path) as image:
                    row |= {"width": image.width, "height": image.height}
                unit = (vector / np.linalg.norm(vector)).astype(storage)
                row |= {"status": "ok", "embedding": list(unit)}
            rows.append(row)
        root, parts = tmp_path / name, []
        (root / "images").mkdir(parents=True)
        for start in range(0, len(rows), part_rows):
            table = pa.Table.from_pylist(rows[start : start + part_rows], schema)
            digest = sha256_bytes(repr(rows[start : start + part_rows]).encode())[:8]
            file = f"images/part-{len(parts):05d}-{digest}.parquet"
            pq.write_table(table, root / file)
            parts.append(Part(file, table.num_rows, table["status"].to_pylist().count("ok")))
        manifest = Manifest(fingerprint, "sample", None, storage, (SourceEntry(source),), tuple(parts))
        write_json(root / "store.json", manifest.to_json())
        store = Store.open(root)
        if labels is not None:
            paths = [row["path"] for row in rows if row["status"] == "ok"]
            active = np.array([[path in having for having in labels.values()] for path in paths])
            size = rng.uniform(0.01, 0.1, active.shape).astype(np.float32)
            prompts = PromptSet(tuple(labels), ("a {}.",), ("a.",), "made up")
            base = np.full(len(paths), 0.2, np.float32)
            from tests.label_builders import add_labels

            add_labels(store, active, np.where(active, size, -size), base, prompts=prompts)
        return store

    return make


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
