"""An exported model is whole, says what it is, loads everywhere a run does, and replaces nothing but its like."""

from __future__ import annotations

import ast
import csv
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import EvalResult, ModelCard
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from cli import app
from lanit.errors import LanitError, UsageError
from pipeline.api import Model
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.squares import fit_square
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.figures import DomainFigures, ExtractorFacts, Figure, GuideFigures, Repeats, RunFigures
from pipeline.evaluation.options import EvaluationOptions
from pipeline.files import sealed, write_json
from pipeline.model_exports import export_model as module
from pipeline.model_exports.export_model import export_model
from pipeline.models.bundle import Bundle, load_bundle, save_bundle
from pipeline.models.run_folder import RESULT_NAME, find_run, is_run
from pipeline.prompts.learned_prompts import FILE_NAME, read_learned_prompts, read_prompts, with_context
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from tests.model_builders import COUNTS, DOMAINS, random_bundle, write_run


@pytest.fixture
def bundle() -> Bundle:
    return random_bundle()


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", bundle)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_export_is_the_model_of_the_run(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    report = export_model(run, tmp_path / "out")
    loaded = load_bundle(tmp_path / "out")
    for name, value in bundle.networks.state_dict().items():
        assert torch.equal(loaded.networks.state_dict()[name], value)
    assert (loaded.prompt_set, loaded.fingerprint, loaded.training) == (
        bundle.prompt_set, bundle.fingerprint, bundle.training,
    )  # fmt: skip
    found = contents(tmp_path / "out")
    assert report.files == {name: len(data) for name, data in found.items()}
    assert set(found) == {
        "model.json", "model.safetensors", "README.md", "config.json", "prompts.json", "domains.csv", "metrics.json",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").iterdir()), "others may read it"


def test_half_precision_rounds_the_networks_and_nothing_else(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    export_model(run, tmp_path / "half", half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    for name, value in bundle.networks.state_dict().items():
        assert torch.equal(stored[f"networks.{name}"], value.half())
    assert torch.equal(stored["domains_embedding"], bundle.prompts.domains)
    assert "float16" in (tmp_path / "half" / "README.md").read_text(encoding="utf-8")


def test_equal_models_give_equal_bytes(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "a")
    export_model(run / "model", tmp_path / "b")
    export_model(tmp_path / "a", tmp_path / "c")  # the metrics of an export are its own
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_the_prompts_are_a_file_that_lanit_label_takes(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    prompts = bundle.prompt_set
    export_model(run, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "prompts.json").read_text(encoding="utf-8"))
    assert document["domains"][:2] == ["blond hair", {"phrase": "black hair", "offset": 0.01}]
    document["domains"][2]["phrase"] = "bald"  # a prompt file cannot hold a bar, a model's folder labels may
    (tmp_path / "edited.json").write_text(json.dumps(document))
    again = read_prompt_set(str(tmp_path / "edited.json"))
    assert again.domains == (*prompts.domains[:2], "bald")
    assert (again.templates, again.bases, again.offsets, again.weights) == (
        prompts.templates, prompts.bases, prompts.offsets, prompts.weights,
    )  # fmt: skip


def test_learned_prompts_go_along_and_damaged_ones_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    prompts = with_context(bundle.prompt_set, torch.randn(2, 3, 4))
    run = write_run(tmp_path / "learned", replace(bundle, prompt_set=prompts))
    export_model(run, tmp_path / "out")
    assert (tmp_path / "out" / FILE_NAME).read_bytes() == (run / "model" / FILE_NAME).read_bytes()
    assert read_learned_prompts(tmp_path / "out" / FILE_NAME).fingerprint == bundle.fingerprint
    export_model(run, tmp_path / "out", overwrite=True)
    before, data = contents(tmp_path / "out"), (run / "model" / FILE_NAME).read_bytes()
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data.replace(b"fp32", b"bf16"), b""):
        (run / "model" / FILE_NAME).write_bytes(damaged)
        with pytest.raises(LanitError, match=r"prompts.*damaged") as caught:
            export_model(run, tmp_path / "out", overwrite=True)
        assert "the same lanit train command" in caught.value.hint
    (run / "model" / FILE_NAME).unlink()
    with pytest.raises(LanitError, match="is missing"):
        export_model(run, tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_damaged_figures_are_left_out_and_said_so(run: Path, tmp_path: Path) -> None:
    weights = sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert export_model(run, tmp_path / "none").warnings == ()
    for text, reason in (
        (json.dumps(evaluation(run, weights))[:-9], "not valid JSON"),
        (json.dumps({"runs": []}), "of another lanit"),
        (json.dumps(evaluation(run, "0" * 64)), "other weights"),
    ):
        (run / RESULT_NAME).write_text(text)
        (warning,) = export_model(run, tmp_path / "out", overwrite=True).warnings
        assert reason in warning
        assert RESULT_NAME in warning
    (run / RESULT_NAME).unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")  # the torn line is no longer the last
    assert "1 damaged line" in export_model(run, tmp_path / "out", overwrite=True).warnings[0]
    figures = tmp_path / "out" / "metrics.json"
    figures.write_text(figures.read_text().replace("0.75", "0.95"))
    assert "metrics.json is damaged" in export_model(tmp_path / "out", tmp_path / "again").warnings[0]
    assert not (tmp_path / "again" / "metrics.json").exists()
    write_json(figures, sealed({"model_sha256": "0" * 64, "training": {"sample": {"recognised": 1.0}}}))
    assert "metrics.json is of another model" in export_model(tmp_path / "out", tmp_path / "third").warnings[0]


def test_learned_prompts_of_another_model_are_no_prompts_of_this_one(tmp_path: Path, tiny_clip: Any) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        bundle = random_bundle(clip=tiny_clip, seed=seed)
        context = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(seed))
        prompts = with_context(bundle.prompt_set, context)
        save_bundle(tmp_path / name, replace(bundle, prompt_set=prompts))
        assert read_prompts(str(tmp_path / name)).prompts == prompts  # type: ignore[union-attr]
    shutil.copy(tmp_path / "b" / "prompts.safetensors", tmp_path / "a" / "prompts.safetensors")
    with pytest.raises(LanitError, match="holds other prompts than the model beside it"):
        read_prompts(str(tmp_path / "a"))


@pytest.mark.parametrize("phrase", ["it's; rm -rf $HOME `id`", 'a "b" \\ c'])
def test_the_commands_of_a_card_can_be_typed_whatever_the_phrase(bundle: Bundle, tmp_path: Path, phrase: str) -> None:
    domains = (phrase, *DOMAINS[1:])
    save_bundle(tmp_path / "model", replace(bundle, prompt_set=replace(bundle.prompt_set, domains=domains)))
    export_model(tmp_path / "model", tmp_path / "out")
    lines = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").splitlines()
    (shell,) = (line for line in lines if line.startswith("lanit translate"))
    words = shlex.split(shell)
    assert words[words.index("--to") + 1] == phrase
    (python,) = (line for line in lines if line.startswith("model.translate"))
    (added,) = (word.value for word in ast.parse(python).body[0].value.func.value.keywords)  # type: ignore[attr-defined]
    assert ast.literal_eval(added) == [phrase]


def test_the_table_of_domains_counts_and_names_what_excludes_each_other(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "out")
    with (tmp_path / "out" / "domains.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["domain"] for row in rows] == list(DOMAINS)
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert [int(row["images"]) for row in rows] == list(COUNTS.values())
    np.testing.assert_allclose([float(row["share"]) for row in rows], np.array([12, 1000, 0]) / 1600, atol=5e-5)
    assert [float(row["offset"]) for row in rows] == [0, 0.01, 0]
    assert [row["never_with"] for row in rows] == ["black hair", "blond hair", ""]


def test_the_card_says_what_the_model_is_and_leaves_the_licence_open(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    export_model(run, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")  # the hub's own reader
    assert card.data.library_name == "lanit"
    assert card.data.pipeline_tag == "image-to-image"
    assert card.data.license is None
    for part in (
        "| black hair | 1,000 | 62.5% | blond hair |", "größer &lt;5 \\| x", "63.1% of 1,600 images", "70 steps",
        "learning_rate=0.0001", bundle.fingerprint.weights_sha256, "## Intended use", "None is stated yet",
    ):  # fmt: skip
        assert part in card.text, part
    assert str(tmp_path) not in card.text


def test_the_metrics_are_the_runs_last_up_to_the_step_of_the_model(run: Path, tmp_path: Path) -> None:
    export_model(run, tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {kind: values["step"] for kind, values in metrics["training"].items()} == {"sample": 70, "losses": 70}
    assert "evaluation" not in metrics
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| sample | 70 | recognised | 0.75 |" in card
    assert "| sample | 70 | kept | 0.8 |" in card


def evaluation(run: Path, weights: str) -> dict[str, Any]:
    """What lanit evaluate leaves in a run, of one domain."""
    some = Figure(0.25, (0.125,) * 20)
    values = {"frechet": Figure(0.5), "frechet_before": Figure(0.75), "kid": Figure(0.1), "density": some}
    domain = DomainFigures("black hair", 40, 30, 60, values, Repeats(0.0, 0.0, 0.0, 40, 60))
    figures = RunFigures(str(run), weights, 32, 70, DOMAINS, 0.5, (GuideFigures("latent", (domain,), {}),))
    extractor = ExtractorFacts("CLIP tiny", "cd" * 32, "shortest side to 32 px", 5)
    judge = f"{run / 'judge.pt'}: the judge"
    return Evaluation(
        str(run / "store"), 1600, EvaluationOptions(styles=2), extractor, "the store's", judge, f"none at {run}",
        (figures,), (f"of {run}",), None, (), (f"{run}: no figures for 'hat'",),
    ).to_json()  # fmt: skip


def test_what_lanit_evaluate_found_is_told_if_it_was_of_these_weights(run: Path, tmp_path: Path) -> None:
    weights = sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    (run / RESULT_NAME).write_text(json.dumps(evaluation(run, weights)))
    export_model(run, tmp_path / "out", half=True)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["evaluation"]
    assert found["guides"]["latent"]["domains"][0]["kid"]["value"] == 0.1
    assert found["judge"] == "the judge"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for part in (
        "1,600 images, 2 styles",
        "| latent | frechet | 0.5 | - |",
        "| latent | density | 0.25 | 0.",
        "this model",
    ):
        assert part in card, part
    assert not [name for name, data in contents(tmp_path / "out").items() if str(run).encode() in data]
    for other in (evaluation(run, "0" * 64), {"runs": []}, "nothing"):
        (run / RESULT_NAME).write_text(json.dumps(other))
        export_model(run, tmp_path / "out", overwrite=True)
        assert "evaluation" not in json.loads((tmp_path / "out" / "metrics.json").read_text())
    (tmp_path / "out" / "metrics.json").write_text('{"evaluation": {"guides": {"latent": 1}}}')
    with pytest.raises(LanitError, match=r"metrics\.json beside the model is damaged"):
        export_model(tmp_path / "out", tmp_path / "again")


def test_figures_of_an_evaluation_stand_in_the_head_of_the_card_as_the_hub_reads_them(
    run: Path, tmp_path: Path
) -> None:
    weights = sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    (run / RESULT_NAME).write_text(json.dumps(evaluation(run, weights)))
    export_model(run, tmp_path / "out", license="apache-2.0", datasets=["ann/faces", "ann/more"])
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.license, data.datasets) == ("apache-2.0", ["ann/faces", "ann/more"])
    results: dict[str, EvalResult] = {result.metric_type: result for result in data.eval_results}
    assert set(results) == {"frechet", "kid", "density"}, "of the sources as they are there is none of its own"
    density = results["density"]
    assert (density.metric_value, density.dataset_type, density.task_type) == (0.25, "ann/faces", "image-to-image")
    assert density.metric_args["low"] <= 0.25 <= density.metric_args["high"]
    assert (density.metric_args["styles"], density.metric_args["features"]) == (2, "CLIP tiny")
    assert "apache-2.0" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("## Licence")[1]
    export_model(tmp_path / "out", tmp_path / "again")  # whose figures are its own
    again = ModelCard.load(tmp_path / "again" / "README.md").data
    assert [each.metric_value for each in again.eval_results] == [each.metric_value for each in data.eval_results]
    assert (again.license, again.datasets, again.eval_results[0].dataset_type) == (None, None, "images")


@pytest.mark.parametrize(
    ("spec", "repository"),
    [
        ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai"),
        ("good", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
        ("ViT-L-14-336/openai", "openai/clip-vit-large-patch14-336"),
        ("hf-hub:ann/clip@v1", "ann/clip"),
        ("sample", None),
        ("/home/ann/clip.safetensors", None),
    ],
)
def test_the_base_model_is_the_clip_as_the_hub_has_it(
    bundle: Bundle, tmp_path: Path, spec: str, repository: str | None
) -> None:
    save_bundle(tmp_path / "model", replace(bundle, clip_spec=spec))
    export_model(tmp_path / "model", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == repository
    assert (repository or "It is published") in card.text or repository is None


def test_what_the_hub_would_not_take_for_a_licence_or_a_data_set_is_refused(run: Path, tmp_path: Path) -> None:
    for words in ({"license": "Apache 2.0"}, {"datasets": ["a/b/c"]}, {"datasets": ["x: y"]}):
        with pytest.raises(UsageError, match="is no"):
            export_model(run, tmp_path / "out", **words)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_export_is_no_run_though_it_has_a_config(run: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The hub counts downloads by that file, and the runs of lanit train have one of the same name."""
    export_model(run, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["image_size"], config["domains"]) == ("lanit", 32, list(DOMAINS))
    assert find_run(str(run)) == run
    for text in (None, "damaged"):
        if text is not None:
            (tmp_path / "out" / "config.json").write_text(text)
        assert find_run(str(tmp_path / "out")) is None
        assert not is_run(tmp_path / "out")


def test_the_card_shows_named_pictures_before_and_after_and_no_others(
    bundle: Bundle, tiny_clip_folder: Path, tiny_clip: Any, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    save_bundle(tmp_path / "model", random_bundle(clip=tiny_clip, spec=str(tiny_clip_folder)))
    pictures = make_images(5, "mine")
    export_model(tmp_path / "model", tmp_path / "none")
    assert not (tmp_path / "none" / "examples.png").exists()
    export_model(tmp_path / "model", tmp_path / "out", examples=[pictures])
    model = Model(tmp_path / "model", device="cpu")
    grid = np.asarray(Image.open(tmp_path / "out" / "examples.png"))
    assert grid.shape == (26 + 4 * 96, 4 * 96, 3)
    path = sorted(pictures.rglob("*.png"))[1]
    shown = [fit_square(decode_rgb(path), 32), *(model.translate(path, add=[word]) for word in DOMAINS)]
    for column, image in enumerate(shown):
        scaled = Image.fromarray(np.asarray(image)).resize((96, 96), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(grid[26 + 96 : 26 + 192, column * 96 :][:, :96], np.asarray(scaled))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "](examples.png)" in card
    assert "mine" not in card
    (pictures / "broken.png").write_bytes(b"no picture")
    with pytest.raises(LanitError, match=r"cannot read .*broken\.png"):
        export_model(tmp_path / "model", tmp_path / "out", examples=[pictures / "broken.png"], overwrite=True)


def test_a_model_of_drawn_faces_shows_drawn_ones(tmp_path: Path) -> None:
    export_model("sample", tmp_path / "out")
    assert Image.open(tmp_path / "out" / "examples.png").size == (7 * 96, 26 + 4 * 96)


def test_a_model_that_says_little_of_its_training_has_a_card_too(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bare", replace(bundle, training={}))
    export_model(tmp_path / "bare", tmp_path / "out")
    assert "| black hair | - | - | blond hair |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_only_an_export_is_replaced_and_only_on_demand(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_model(run, out)  # an empty folder is as good as none
    before = contents(out)
    with pytest.raises(LanitError, match="already holds an exported model") as caught:
        export_model(run, out)
    assert "--overwrite" in caught.value.hint
    export_model(run, out, half=True, overwrite=True)
    assert contents(out) != before
    (out / "onnx").mkdir()
    (out / "onnx" / "mine.txt").write_text("mine")
    changed = contents(out)
    for taken in (out, run, run / "model"):
        with pytest.raises(LanitError, match="holds other files"):
            export_model(run, taken, overwrite=True)
    with pytest.raises(LanitError, match="is a file"):
        export_model(run, out / "README.md", overwrite=True)
    assert contents(out) == changed


def test_what_fails_on_the_way_leaves_the_old_export_and_no_trace(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_model(run, out)
    before, names = contents(out), sorted(tmp_path.iterdir())

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "model_card", full)
    with pytest.raises(LanitError, match="No space left"):
        export_model(run, out, half=True, overwrite=True)
    monkeypatch.setattr(module, "model_card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_model(run, out, half=True, overwrite=True)
    assert contents(out) == before
    assert sorted(tmp_path.iterdir()) == names


def test_a_missing_or_unfinished_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="no model at"):
        export_model(tmp_path / "none", tmp_path / "out")
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.json").write_text("{}")
    with pytest.raises(LanitError, match="no model yet"):
        export_model(tmp_path / "young", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exclusive": torch.zeros(4, 4, dtype=torch.bool)}, r"exclusive of \(4, 4\), not \(3, 3\)"),
        ({"domains": torch.zeros(2, 5)}, r"domains_embedding of \(2, 5\), not \(3, 5\)"),
        ({"base": torch.zeros(6)}, r"base_embedding of \(6,\), not \(5,\)"),
        ({"prompt_set": PromptSet(("hat",), ("a {}.",), ("a.",), "test")}, r"networks of \(4,\), not \(2,\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_model_whose_parts_are_of_other_domains_is_refused(
    bundle: Bundle, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    change = dict(change)
    texts = {name: change.pop(name) for name in ("domains", "base") if name in change}
    save_bundle(tmp_path / "model", replace(bundle, prompts=replace(bundle.prompts, **texts), **change))
    with pytest.raises(LanitError, match=rf"model is damaged: {message}"):
        load_bundle(tmp_path / "model")


def test_the_commands_take_an_export_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*words: str) -> str:
        result = runner.invoke(app, words)
        assert result.exit_code == 0, result.output
        return result.stdout

    report = json.loads(call("export-model", "sample", "--out", "exported", "--half", "--json"))
    assert (report["domains"], report["image_size"], report["onnx"]) == (12, 64, None)
    call("sample-faces", "faces", "--count", "3")
    shutil.move("exported", "elsewhere")
    for model in ("sample", "elsewhere"):
        call("translate", "faces", "--model", model, "--add", "eyeglasses", "--out", f"by-{model}", "--json")
    assert {name: data for name, data in contents(Path("by-sample")).items() if name.endswith(".png")} == {
        name: data for name, data in contents(Path("by-elsewhere")).items() if name.endswith(".png")
    }
