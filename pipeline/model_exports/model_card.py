"""The model card: ``README.md`` of an exported model, as the Hugging Face hub shows it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from lanit.errors import LanitError
from lanit.guides import guide_of
from pipeline.clip.presets import repository_of
from pipeline.model_exports.bundle_folder import EXAMPLES_NAME, METRICS_NAME, ONNX_FOLDER, PAGE_NAME
from pipeline.model_exports.card_header import Publication, card_header
from pipeline.model_exports.examples import Examples
from pipeline.models.bundle import Bundle
from pipeline.showing.markdown import markdown_text as _text

_USE = """\
## Use

With lanit installed:

```sh
lanit translate photos/ --model FOLDER --to {typed} --out translated/
```

```python
import lanit

model = lanit.load("FOLDER")
print(model.label("photo.jpg"))
model.translate("photo.jpg", add=[{quoted}]).save("out.png")
```

FOLDER is the folder of this page, or `owner/name` where it lies on the Hugging Face hub.
"""

_INTENDED = """\
## Intended use

Research, teaching, and changing pictures of the kind that it was trained on, by the words above. It knows nothing else:
other pictures come out as nonsense. Its labels are {whose} judgement of pictures, not facts about what or whom they
show, and where the training images were one-sided, so are its changes. Do not use it to judge people, nor to show
people as they are not where others may take the result for a photograph.
"""

_NO_LICENCE = """\
## Licence

None is stated yet. Whoever publishes this model chooses one, with `lanit export-model --license`, or by a line in the
header of this page (`license: …`); the training images and the weights of CLIP may set conditions of their own.
"""


_OF_ONE_WORD = {
    "content": "Adds {word} to images of its kind as a guide image has it, swaps it and takes it off, at {size}×{size} "
    "pixels. It was learned from images that a word sorts, by content transfer (Press et al., ICLR 2019) with lanit's "
    "networks.",
    "one-shot": "Turns images like the one that it was given into {word}, and the other way round, at {size}×{size} "
    "pixels. It was learned from images that a word chose and that one image (Benaim and Wolf, NeurIPS 2018) with "
    "lanit's networks.",
}
"""What a model of one word does, by the method that it was learned with."""


_UNSAID = Publication()


def model_card(
    bundle: Bundle,
    metrics: Mapping[str, Any],
    onnx: Mapping[str, float] | None,
    *,
    half: bool = False,
    examples: Examples | None = None,
    publication: Publication = _UNSAID,
) -> str:
    """The card as Markdown: head, examples, use, domains with counts, training, metrics, CLIP, intended use, licence.

    metrics: as ``metrics.json``. onnx: differences from torch by network, where the export has ONNX files. Raises
    LanitError where ``metrics`` has other fields.
    """
    domains = bundle.prompt_set.domains
    size, prompts = bundle.options.image_size, _text(bundle.prompt_set.name)
    more = f" and {len(domains) - 4} more" if len(domains) > 4 else ""
    title = "Image translation: " + ", ".join(" ".join(domain.split()) for domain in domains[:4]) + more
    learned = "learned from images without labels and a list of words, with LANIT (Park, Kim, Kim et al., CVPR 2023)"
    if guide_of(bundle.networks) is not None:
        method = _text(str(bundle.training.get("options", {}).get("method", "tunit")))
        learned = (
            f"learned by {method} from images alone: domains are groups of look-alikes, named by the nearest words"
        )
    intro = (
        f"A generator that gives any image of its kind any mix of {len(domains)} domains, at {size}×{size} pixels. It "
        f"was {learned}."
    )
    of_one_word = _OF_ONE_WORD.get(bundle.training.get("options", {}).get("method"))
    if of_one_word is not None:
        intro = of_one_word.format(word=_text(domains[0]), size=size)
    word = " ".join(domains[0].split())  # it stands in a block of code, which a line of it could end
    use = _USE.format(typed=shlex.quote(word), quoted=json.dumps(word, ensure_ascii=False))
    head, figures = _of_metrics(bundle, metrics, title, publication)
    parts = [head, f"# {_text(title)}\n", f"{intro}\n", _examples(examples), use]
    parts += [_domains(bundle), f"The prompts ({prompts}) are in `prompts.json`, a file for `lanit label --prompts`.\n"]
    parts += [_training(bundle, half), figures, _clip(bundle), _onnx(onnx), _intended(bundle), _licence(publication)]
    return "\n".join(part for part in parts if part)


def _of_metrics(bundle: Bundle, metrics: Mapping[str, Any], title: str, publication: Publication) -> tuple[str, str]:
    """The head of the card, and its section of figures. Raises LanitError where ``metrics`` has other fields."""
    try:
        return card_header(bundle, metrics, title, publication), _metrics(metrics)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LanitError(
            f"the {METRICS_NAME} beside the model is damaged, or of another lanit ({error})",
            "Delete it: the model itself does not need it.",
        ) from error


def _examples(examples: Examples | None) -> str:
    if examples is None:
        return ""
    words = ", ".join(map(_text, examples.words))
    return f"![Each picture of the first column, then with one more domain: {words}]({EXAMPLES_NAME})\n"


def _intended(bundle: Bundle) -> str:
    whose = "CLIP's" if guide_of(bundle.networks) is None else "its guiding network's"
    return _INTENDED.format(whose=whose)


def _licence(publication: Publication) -> str:
    if publication.licence is None:
        return _NO_LICENCE
    text = f"{_text(publication.licence)}. The training images and the weights of CLIP may set conditions of their own."
    return f"## Licence\n\n{text}\n"


def _domains(bundle: Bundle) -> str:
    lines = ["## Domains", "", "| domain | training images | share | never with |", "|---|---:|---:|---|"]
    domains, training = bundle.prompt_set.domains, bundle.training
    counts, images = training.get("images_per_domain", {}), training.get("images")
    for index, domain in enumerate(domains):
        count = counts.get(domain)
        share = f"{count / images:.1%}" if images and count is not None else "-"
        never = [_text(name) for name, out in zip(domains, bundle.exclusive[index].tolist(), strict=True) if out]
        number = "-" if count is None else f"{count:,}"
        lines.append(f"| {_text(domain)} | {number} | {share} | {', '.join(never)} |")
    if "labelled" in training and images:
        lines += ["", f"Coverage: {training['labelled'] / images:.1%} of {images:,} images have a label."]
    return "\n".join([*lines, ""])


def _training(bundle: Bundle, half: bool) -> str:
    training = bundle.training
    lines = ["## Training", ""]
    if "steps" in training:
        facts = [f"{training['steps']:,} steps"]
        facts += [f"{training[key]:,} {words}" for key, words in _FACTS if key in training]
        facts += [f"in {training['precision']}"] if "precision" in training else []
        lines += [f"{', '.join(facts)}.", ""]
    options = training.get("options", {})
    if options:
        values = [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in options.items()
        ]
        lines += ["Options, as `lanit train --set` takes them:", "", "```", *_wrapped(values), "```", ""]
    if half:
        lines += ["The weights are stored in float16.", ""]
    return "\n".join(lines) if len(lines) > 2 else ""


_FACTS = (("images_seen", "images seen"), ("images", "different ones"), ("seconds", "seconds"))


def _wrapped(words: list[str], width: int = 110) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _metrics(metrics: Mapping[str, Any]) -> str:
    """Figures of ``lanit evaluate``, and of the run itself."""
    sections = [_evaluation(metrics.get("evaluation", {})), _while_training(metrics.get("training", {}))]
    found = [section for section in sections if section]
    return "\n".join(["## Metrics", "", "More are in `metrics.json`.", "", *found]) if found else ""


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    """Means over domains with 95 % intervals, what they rest on, and what to mind."""
    guides = evaluation.get("guides", {})
    rows = [
        f"| {guide} | {name.replace('_', ' ')} | {figure['value']:.4g} | {_interval(figure)} |"
        for guide, figures in guides.items()
        for name, figure in figures["mean"].items()
        if figure is not None
    ]
    if not rows:
        return ""
    extractor, options = evaluation["extractor"], evaluation["options"]
    basis = f"{evaluation['images']:,} images, {options['styles']} styles a source, seed {options['seed']}"
    features = f"{extractor['name']} ({extractor['sha256'][:12]}), {extractor['resize']}"
    lines = [f"By `lanit evaluate`, means over domains: {basis}; features of {_text(features)}.", ""]
    lines += ["| styles from | figure | value | 95 % |", "|---|---|---:|---|", *rows, ""]
    return "\n".join([*lines, *(f"- {_text(warning)}." for warning in evaluation["warnings"]), ""])


def _interval(figure: Mapping[str, float | None]) -> str:
    low, high = figure["low"], figure["high"]
    return "-" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _while_training(training: Mapping[str, Any]) -> str:
    """Figures by CLIP, which are said to be so: it also guided the training; or by the network that labels images."""
    rows = [
        f"| {kind} | {values.get('step', '-')} | {_text(name)} | {value:.4g} |"
        for kind, values in training.items()
        if kind in ("sample", "evaluation")
        for name, value in values.items()
        if isinstance(value, float) and name != "seconds"
    ]
    if not rows:
        return ""
    judges = {values.get("judge") for values in training.values() if isinstance(values, dict)}
    judge = "the guiding network that learned with it" if "guide" in judges else "the CLIP that also guided it"
    lines = [f"While training, by {judge}: no independent judgement, nor comparable with other models."]
    return "\n".join([*lines, "", "| kind | step | figure | value |", "|---|---:|---|---:|", *rows, ""])


def _clip(bundle: Bundle) -> str:
    guided = guide_of(bundle.networks) is not None
    what = "Labels were given by this CLIP, and only with the same one can they be read anew:"
    if guided:
        what = "Images are labelled by the guiding network, without a CLIP. This one found words for its groups:"
    lines = ["## CLIP", "", what, ""]
    lines += ["| | |", "|---|---|"]
    for name, value in bundle.fingerprint.to_json().items():
        shown = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else value
        lines.append(f"| {name} | {_text(str(shown))} |")
    if (repository := repository_of(bundle.clip_spec)) is not None:
        role = "" if guided else ", guided the training"
        lines += ["", f"It is published as `{repository}`{role}, and is no part of the model."]
    return "\n".join([*lines, ""])


def _onnx(differences: Mapping[str, float] | None) -> str:
    if differences is None:
        return ""
    lines = [
        "## ONNX",
        "",
        "`onnx/` holds the networks for use without torch; `onnx/networks.json` says what they take",
    ]
    lines += ["and how styles are mixed. Largest absolute difference from torch:", ""]
    lines += [f"- `{name}.onnx`: {value:.1e}" for name, value in differences.items()]
    lines += ["", f"`{ONNX_FOLDER}/{PAGE_NAME}` is a page that translates in a browser: pictures stay on the device."]
    return "\n".join([*lines, ""])
