"""The ONNX files compute what torch does, at any batch size, and say how to be used; a wrong one is never written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lanit
from cli import app
from lanit.errors import LanitError
from lanit.networks import GenerativeNetworks
from pipeline.extras import install
from pipeline.model_exports import onnx_networks
from pipeline.model_exports.export_model import export_model
from pipeline.model_exports.onnx_networks import write_onnx
from pipeline.models.bundle import Bundle, load_bundle, save_bundle
from tests.model_builders import DOMAINS, random_bundle

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.slow
KINDS = (("image", 32), ("residual", 64), ("masked", 32))
NETWORKS = {"generator": ("image", "style"), "style_encoder": ("image",), "mapping": ("latent",)}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export with ONNX of a random model of each kind of output."""
    folder = tmp_path_factory.mktemp("onnx")
    for output, size in KINDS:
        bundle = random_bundle(size, output)  # type: ignore[arg-type]
        assert all(parameter.abs().max() > 0 for parameter in bundle.networks.parameters())
        save_bundle(folder / f"{output}-model", bundle)
        export_model(folder / f"{output}-model", folder / output, onnx=True)
    return {output: folder / output for output, _ in KINDS}


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def inputs(networks: GenerativeNetworks, name: str, count: int, size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    shapes = {"image": (3, size, size), "style": (networks.generator.decoder[0].norm1.affine.in_features,)}
    shapes["latent"] = (networks.mapping.latent_dim,)
    return {key: random.uniform(-1, 1, (count, *shapes[key])).astype(np.float32) for key in NETWORKS[name]}


def assert_equal_to_torch(folder: Path, bundle: Bundle) -> None:
    for name in NETWORKS:
        loaded = session(folder / "onnx" / f"{name}.onnx")
        for count in (1, 3, 5):
            fed = inputs(bundle.networks, name, count, bundle.options.image_size)
            with torch.no_grad():
                expected = getattr(bundle.networks, name)(*map(torch.from_numpy, fed.values())).numpy()
            (made,) = loaded.run(None, fed)
            assert made.shape == expected.shape
            np.testing.assert_allclose(made, expected, rtol=0, atol=1e-4, err_msg=f"{name}, {count} images")
            assert expected.std() > 0.01, "all would agree on nothing"


@pytest.mark.parametrize("output", [output for output, _ in KINDS])
def test_random_networks_agree_with_torch_at_odd_batch_sizes(exports: dict[str, Path], output: str) -> None:
    assert_equal_to_torch(exports[output], load_bundle(exports[output]))


def test_the_sample_generator_agrees_with_torch(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export-model", "sample", "--out", str(tmp_path / "out"), "--onnx", "--json"])
    assert result.exit_code == 0, result.output
    differences = json.loads(result.stdout)["onnx"]
    assert set(differences) == set(NETWORKS)
    assert 0 < max(differences.values()) <= 1e-4
    assert_equal_to_torch(tmp_path / "out", load_bundle("sample"))


@pytest.mark.parametrize("output", [output for output, _ in KINDS])
def test_the_description_is_that_of_the_files(exports: dict[str, Path], output: str) -> None:
    document = json.loads((exports[output] / "onnx" / "networks.json").read_text(encoding="utf-8"))
    assert document["domains"] == list(DOMAINS)
    assert (document["slack_domain"], document["image_size"]) == (3, dict(KINDS)[output])
    assert document["never_together"] == [["blond hair", "black hair"]]
    assert set(document["networks"]) == {f"{name}.onnx" for name in NETWORKS}
    for name, described in document["networks"].items():
        loaded = session(exports[output] / "onnx" / name)
        for ports, found in (("inputs", loaded.get_inputs()), ("outputs", loaded.get_outputs())):
            assert list(described[ports]) == [port.name for port in found]
            for port in found:
                assert port.type == "tensor(float)"
                assert isinstance(port.shape[0], str), "the batch is dynamic"
                assert described[ports][port.name]["shape"][1:] == port.shape[1:]
        assert described["largest_difference_from_torch"] <= 1e-4


@pytest.mark.parametrize("words", [{"blond hair": 1.0}, {"black hair": 1.0, "größer <5 | x": 0.5}])
def test_a_translation_without_torch_follows_the_description(exports: dict[str, Path], words: dict[str, float]) -> None:
    """As networks.json tells it: styles of a latent, mixed by weights, given to the generator; then 8 bits."""
    folder = exports["residual"] / "onnx"
    document = json.loads((folder / "networks.json").read_text(encoding="utf-8"))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    latent = torch.randn(1, 16, generator=torch.Generator().manual_seed(4)).numpy()
    (styles,) = session(folder / "mapping.onnx").run(None, {"latent": latent})
    weights = np.array([words.get(domain, 0.0) for domain in document["domains"]] + [0.0], np.float32)
    style = (weights[:, None] * styles[0]).sum(axis=0, keepdims=True) / weights.sum()
    image = picture.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    (made,) = session(folder / "generator.onnx").run(None, {"image": image, "style": style.astype(np.float32)})
    pixels = np.rint((made[0].clip(-1, 1).transpose(1, 2, 0) + 1) * 127.5).astype(int)
    expected = np.asarray(lanit.load(exports["residual"], device="cpu").translate(picture, to=words, seed=4)).astype(
        int
    )
    assert np.abs(pixels - expected).max() <= 1
    assert np.abs(pixels - picture).max() > 20


def test_the_files_are_valid_and_tell_nothing_of_this_machine(exports: dict[str, Path]) -> None:
    for path in exports["image"].glob("onnx/*.onnx"):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        data = path.read_bytes()
        for trace in (str(Path(__file__).parent.parent), "site-packages", "stack_trace", "networks.py"):
            assert trace.encode() not in data, f"{path.name} names {trace}"


def test_half_precision_exports_the_rounded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = onnx_networks._networks
    monkeypatch.setattr(onnx_networks, "_networks", lambda bundle: networks(bundle)[2:])  # the quickest will do
    bundle = random_bundle()
    save_bundle(tmp_path / "model", bundle)
    export_model(tmp_path / "model", tmp_path / "out", onnx=True, half=True)
    fed = inputs(bundle.networks, "mapping", 3, 32)
    latent = torch.from_numpy(fed["latent"])
    (made,) = session(tmp_path / "out" / "onnx" / "mapping.onnx").run(None, fed)
    with torch.no_grad():
        rounded = load_bundle(tmp_path / "out").networks.mapping(latent).numpy()
        assert np.abs(bundle.networks.mapping(latent).numpy() - made).max() > 1e-5
    np.testing.assert_allclose(made, rounded, rtol=0, atol=1e-5)


def test_equal_networks_give_equal_bytes(exports: dict[str, Path]) -> None:
    bundle = load_bundle(exports["image"])
    *_, mapping = onnx_networks._networks(bundle)
    assert onnx_networks._converted(mapping) == (exports["image"] / "onnx" / "mapping.onnx").read_bytes()


def test_files_that_differ_from_torch_are_refused(
    exports: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_others(network: Any) -> bytes:
        return (exports["image"] / "onnx" / f"{network.name}.onnx").read_bytes()

    monkeypatch.setattr(onnx_networks, "_converted", of_others)
    write_onnx(tmp_path / "same", load_bundle(exports["image"]))
    bundle = random_bundle()
    with torch.no_grad():
        bundle.networks.style_encoder.heads.bias.add_(2e-4)
    save_bundle(tmp_path / "model", bundle)
    with pytest.raises(LanitError, match="style_encoder differs from torch by 2"):
        export_model(tmp_path / "model", tmp_path / "out", onnx=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "same"]
    with torch.no_grad():
        bundle.networks.style_encoder.heads.bias.fill_(float("nan"))
    with pytest.raises(LanitError, match="differs from torch by nan"):
        write_onnx(tmp_path / "nan", replace(bundle))


def test_a_missing_package_is_named_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_networks, "_MODULES", ("onnx", "no_such_runtime"))
    result = CliRunner().invoke(app, ["export-model", "sample", "--out", str(tmp_path / "out"), "--onnx"])
    assert result.exit_code == 1
    assert result.stderr == f"error: ONNX needs no_such_runtime. Install them: {install('onnx')}\n"
    assert not list(tmp_path.iterdir())
