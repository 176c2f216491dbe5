"""Everything that can be set about a training run, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from lanit.errors import UsageError
from lanit.methods.clusters import ClusterOptions
from lanit.methods.method import Options
from lanit.methods.table import DEFAULT_METHOD, METHODS
from lanit.options import check_settings, choices, flat, nested

_ANY_BATCH = 1024  # in which any method's default clusters fit
Precision = Literal["auto", "fast", "float32", "bf16"]


@dataclass(frozen=True)
class TrainOptions:
    """Options of ``lanit train``: those of every method, and under ``settings`` a method's own; the defaults are
    METHOD §5's. People see them flat, under one name each.

    method: see :mod:`lanit.methods.table`. size: image side S, pixels, a power of two. steps: iterations in all, 0 for
    no limit. minutes: training time after which to stop, 0 for no limit; where it is given, schedules are planned from
    the speed of the first steps. prompts_from: share of the steps at which phase 2 begins; 1 never learns prompts.
    refresh_every: steps between label refreshes in phase 2 (METHOD 15). keep_prompts: ``stable`` takes what was learned
    only where a refresh makes labels of two crops agree more by 0.01 (mean κ), and learns no more after two in a row by
    which they agree less; ``last`` takes all, as the paper does. slack: ``domain`` trains images without a label
    as ∅, ``drop`` leaves them out. pairs: ``yes`` learns from pairs alone (``lanit pair``), each image with its partner
    for its reference. balance: draw rows ``uniform``-ly, or a ``domain`` first and then a row of it.
    crop: probability of a random crop. precision: of the networks; ``auto`` is bf16 where the processor has it,
    ``fast`` where it is also the faster of the two: on a CPU, with matrix units (AMX).
    ema: decay of the averages. cache_gb: images at training size are decoded once into the store where they fit into
    this, in 10⁹ bytes; else whenever they are drawn.
    log_every, sample_every, checkpoint_every, evaluate_every: steps between metric lines, sample grids, checkpoints and
    evaluations. evaluate_images: how many are translated to every domain in one. keep: how many checkpoints stay,
    besides the best by ``best_by``: ``kid`` or ``fid`` of CLIP embeddings, or the share ``recognised``.
    """

    method: str = DEFAULT_METHOD
    size: int = 256
    steps: int = 150_000
    minutes: float = 0.0
    batch_size: int = 8
    seed: int = 0
    settings: Options = field(default_factory=METHODS[DEFAULT_METHOD].options)
    prompts_from: float = 0.66
    refresh_every: int = 1000
    keep_prompts: Literal["stable", "last"] = "stable"
    slack: Literal["domain", "drop"] = "domain"
    pairs: Literal["no", "yes"] = "no"
    balance: Literal["uniform", "domain"] = "uniform"
    crop: float = 0.5
    precision: Precision = "auto"
    ema: float = 0.999
    cache_gb: float = 100.0
    log_every: int = 50
    sample_every: int = 1000
    checkpoint_every: int = 1000
    evaluate_every: int = 5000
    evaluate_images: int = 64
    keep: int = 2
    best_by: Literal["kid", "fid", "recognised"] = "kid"

    def __post_init__(self) -> None:
        check_settings(self, ("ema", "crop", "prompts_from"))
        if self.batch_size < 2:
            raise UsageError(f"a batch needs at least 2 images, not {self.batch_size}", "Try --batch-size 8.")
        if not self.steps and not self.minutes:
            raise UsageError("neither steps nor minutes of training are given", "Try --steps 20000.")
        self.settings.network_options(self.size, 1)
        if isinstance(self.settings, ClusterOptions):
            self.settings.check_batch(self.batch_size)
            for name in ("balance", "slack", "pairs"):
                if getattr(self, name) != getattr(type(self), name):
                    message = f"the method {self.method} finds labels itself, and draws images whatever they are"
                    raise UsageError(message, f"Leave out {name}.")

    @property
    def phase_2_from(self) -> float:
        """Share of the steps at which phase 2 begins: prompts are learned; where clusters are found, the generator."""
        return self.settings.warm_up if isinstance(self.settings, ClusterOptions) else self.prompts_from

    def to_json(self) -> dict[str, Any]:
        return flat(self)


def _of_size(size: int, batch_size: int, r1: float) -> dict[str, dict[str, Any]]:
    """Presets of an image size: for many images, and for a few hundred to a few thousand."""
    many = {"size": size, "batch_size": batch_size, "r1": r1}
    few = {"augment": "differentiable", "steps": 100_000, "evaluate_every": 2000}
    return {str(size): many, f"{size}-few": many | few}


_SMALL: dict[str, Any] = {
    "max_channels": 128, "mapping_width": 64, "output": "masked", "code_form": "anchored", "batch_size": 8,
    "learning_rate": 1e-3, "mapping_rate": 0.1, "classification": 4.0, "edits": 0.5, "cycle": 2.0, "diversity": 2.0,
    "diversity_until": 0.0, "domain": 1.0, "domain_scope": "all", "domain_images": "first", "guidance_crop": 1.0,
    "r1": 0.05, "r1_every": 16, "balance": "domain", "crop": 0.0, "prompts_from": 1.0, "precision": "fast",
    "clip_precision": "bf16", "evaluate_every": 1000,
}  # fmt: skip
_PHOTOS: dict[str, Any] = _SMALL | {
    "size": 64, "channels": 16, "steps": 20_000, "ema": 0.998, "learning_rate": 2e-3, "cycle": 4.0, "domain": 0.0,
}  # fmt: skip
LABELLED: dict[str, Any] = {
    "domain": 0.0, "prompts_from": 1.0, "balance": "domain", "classification": 1.0, "edits": 0.0, "mapping_rate": 1.0,
}  # fmt: skip
ONE_STYLE: dict[str, Any] = LABELLED | {"codes": "table", "code_form": "free", "diversity": 0.0, "style": 0.0}
_PAIRED = {"pairs": "yes", "discriminator_input": "pair", "classification": 0.0}
SYSTEMS: dict[str, dict[str, Any]] = {
    "cyclegan": ONE_STYLE | {"adversarial_form": "lsgan", "cycle": 1.0, "identity": 0.5},
    "discogan": ONE_STYLE | {"cycle": 0.5},
    "dualgan": ONE_STYLE | {"adversarial_form": "hinge", "cycle": 2.0},
    "stargan": ONE_STYLE | {"cycle": 4.0},
    "unit": ONE_STYLE | {"adversarial_form": "lsgan", "cycle": 3.0, "identity": 3.0},
    "distancegan": ONE_STYLE | {"adversarial_form": "lsgan", "cycle": 0.0, "distance": 0.1},
    "selfreg": ONE_STYLE | {"cycle": 0.0, "self": 0.3},
    "dtn": ONE_STYLE | {"cycle": 0.0, "feature": 1.0, "identity": 1.0},
    "smoothing": LABELLED | {
        "code_form": "free", "cycle": 2.0, "triplet": 1.0, "shrink": 0.1, "content": 0.1, "style": 2.0,
        "mapping_rate": 0.01, "diversity": 1.0,
    },
    "pix2pix": ONE_STYLE | _PAIRED | {"cycle": 0.0, "pair": 100.0},
    "bicyclegan": LABELLED | _PAIRED | {
        "codes": "normal", "code_form": "free", "style_dim": 8, "diversity": 0.0, "cycle": 0.0, "pair": 10.0,
        "style": 0.5,
    },
}  # fmt: skip
"""The job of other systems with our networks, on labels that are there (``lanit label --rule given``, two domains or
more): what keeps content is theirs; networks, R1 and averages are not, nor the weights, which are those of a
discriminator with one logit for an image rather than one for each patch. So results compare with each other, within
lanit, and not with the systems' papers."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"schedule": "paper"},
    **_of_size(256, 8, 1.0),
    **_of_size(128, 16, 0.25),
    **_of_size(64, 32, 0.1),
    **_of_size(32, 32, 0.05),
    "small-32": _SMALL | {"size": 32, "channels": 32, "steps": 8000, "ema": 0.995},
    "small-64": _SMALL | {"size": 64, "channels": 16, "steps": 20_000, "ema": 0.998},
    "photos-64": _PHOTOS,
    "photos-64-few": _PHOTOS | {"augment": "differentiable"},
    **SYSTEMS,
}
"""Named sets of options. ``paper``: METHOD §5 as published. The others take the ``fused`` schedule: half of the passes
a step, and for equal quality about twice the steps (docs/LOG.md). ``256`` to ``32``: the paper's networks at that image
size, R1 weighed down with it, since a weight of 1 keeps a small discriminator too smooth to see noise; ``…-few``: for
few images. ``small-32``, ``small-64``: drawings and a CPU, minutes to hours. ``photos-64``: photographs and a CPU,
where a CLIP of full size would cost more than all else in a step, so that D's classifier guides alone. The others:
:data:`SYSTEMS`."""

_CLASSIFIED = {"tunit": {"reconstruction": 2.0}}
"""What of a method's own goes with a discriminator that classifies: it asks for changes, and TUNIT has no cycle."""


def options_from(preset: str, changes: dict[str, Any]) -> TrainOptions:
    """The options of a preset, or of several with commas between them of which the later count, with ``changes`` (those
    not None) laid over; minutes alone lift the limit of steps.

    What presets say of settings and choices that the method has not counts for nothing; one that finds clusters draws
    images evenly, and enough at once to tell them apart. Where D does not classify, a mask hardly learns to open
    (docs/LOG.md, 2026-11-30): there the presets that have one add what the generator draws. Where it does, a method
    may keep more of an image (``_CLASSIFIED``)."""
    chosen: dict[str, Any] = {}
    for name in (part.strip() for part in preset.split(",")):
        if name not in PRESETS:
            raise UsageError(f"there is no preset '{name}'", f"Choose one of {', '.join(PRESETS)}.")
        chosen |= PRESETS[name]
    given = {name: value for name, value in changes.items() if value is not None}
    method = (chosen | given).get("method", DEFAULT_METHOD)
    known = _settings_of(method)
    can = choices(METHODS[method].options)
    start = {name: value for name, value in chosen.items() if name in known and value in can.get(name, (value,))}
    if (start | given).get("classification"):
        start = _CLASSIFIED.get(method, {}) | start
    elif start.get("output") == "masked":
        start["output"] = "residual"
    if given.get("minutes") and "steps" not in given:
        given["steps"] = 0
    options = METHODS[method].options
    if issubclass(options, ClusterOptions):
        least = options.images_for(given.get("clusters", options().clusters))
        size = max(least, start.get("batch_size", TrainOptions.batch_size))
        start = {name: value for name, value in start.items() if name != "balance"} | {"batch_size": size}
    return make_options(start | given)


def make_options(settings: dict[str, Any]) -> TrainOptions:
    """The options of a flat view (:func:`lanit.options.flat`), all others at their defaults. Raises UsageError for a
    method that there is not, and a setting that it has not."""
    name = settings.get("method", DEFAULT_METHOD)
    foreign, own = settings.keys() - _settings_of(name), METHODS[name].options
    if foreign:
        raise UsageError(f"the method {name} has no setting '{min(foreign)}'", _whose(min(foreign)))
    mine = {field.name for field in fields(TrainOptions)}
    return TrainOptions(
        settings=nested(own, settings), **{name: value for name, value in settings.items() if name in mine}
    )


def _settings_of(method: str) -> set[str]:
    """Names of all that can be set of a run by a method. Raises UsageError where there is no such method."""
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'", f"Choose one of {', '.join(METHODS)}.")
    return set(flat(TrainOptions(settings=METHODS[method].options(), batch_size=_ANY_BATCH)))


def _whose(setting: str) -> str:
    """What to do about a setting that is of another method."""
    methods = [name for name, method in METHODS.items() if setting in flat(method.options())]
    return f"It is of --method {' or '.join(methods)}." if methods else "Leave it out."


def all_settings() -> dict[str, Any]:
    """Every setting of every method, with its default."""
    found = flat(TrainOptions())
    for method in METHODS.values():
        found = flat(method.options()) | found
    return found
