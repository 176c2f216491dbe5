"""The page of ``lanit play``, in Gradio: its controls, and what each of them sets off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lanit.errors import LanitError
from pipeline.play import panels
from pipeline.play.workbench import MOST_STYLES, Reading, Wish, Workbench
from pipeline.serving.uploads import Uploads

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "DejaVu Sans Mono", "Menlo", "monospace")


@dataclass(frozen=True)
class _Desk:
    """What one visitor has before them: the picture, none at first, and the words ticked last."""

    reading: Reading | None = None
    ticked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Controls:
    picture: gr.Image
    notice: gr.HTML
    words: gr.CheckboxGroup
    weights: list[gr.Slider]
    weights_note: gr.HTML
    reference: gr.Image
    reference_notice: gr.HTML
    take_words: gr.Button
    keep: gr.Checkbox
    seed: gr.Number
    another: gr.Button
    styles: gr.Slider
    results: gr.HTML
    seen: gr.HTML

    @property
    def settings(self) -> list[Any]:
        """What :func:`_wish` reads, in its order."""
        return [self.reference, self.keep, self.seed, self.styles, *self.weights]

    @property
    def outcome(self) -> list[Any]:
        return [self.notice, self.results, self.seen]


def page_theme() -> gr.themes.Base:
    """Fonts of the system: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", font=_FONTS, font_mono=_MONO, text_size="md", radius_size="md"
    )


def build_page(bench: Workbench, uploads: Uploads, model: str, examples: Sequence[Path]) -> gr.Blocks:
    """uploads: what visitors gave, and nothing else is opened. examples: pictures to pick from, none where none are at
    hand."""
    remark = panels.SAMPLE_REMARK if model == "sample" else ""
    with gr.Blocks(title="lanit play", analytics_enabled=False) as page:
        domains = bench.model.domains
        gr.HTML(panels.introduction(model, len(domains), bench.model.image_size, remark, bench.model.reader))
        with gr.Row(elem_classes="bench"):
            with gr.Column(min_width=300, scale=3):
                picture, notice = _picture_column(examples)
            with gr.Column(min_width=300, scale=4, elem_classes="words"):
                words, weights, note = _word_controls(domains, bench.model.reader)
                style = _style_controls(bench.model.draws_styles)
            with gr.Column(min_width=300, scale=6, elem_classes="result"):
                _step(3, "Result", "Only the middle square of your picture is redrawn.")
                results = gr.HTML(panels.results(None, []), elem_id="results")
        seen = gr.HTML(panels.margin_table(None, [], (), bench.model.reader), elem_id="seen")
        _connect(_Hands(bench, uploads), _Controls(picture, notice, words, weights, note, *style, results, seen))
    return page


def _step(number: int, title: str, text: str) -> None:
    gr.HTML(f'<div class="step"><h2><b>{number}</b>{title}</h2><p>{text}</p></div>')


def _picture_column(examples: Sequence[Path]) -> tuple[gr.Image, gr.HTML]:
    _step(1, "Picture", "Drop one, paste one, or choose a file.")
    picture = _image("Your picture", "picture", 300)
    notice = gr.HTML(panels.notice(""), elem_id="notice", elem_classes="notice")
    if examples:
        gr.HTML('<p class="lead">Or pick one of those that the model knows:</p>')
        with gr.Row(elem_classes="examples"):
            for number, path in enumerate(examples, start=1):  # gr.Examples gives its buttons no name
                button = gr.Button(f"Example {number}", icon=path, min_width=40, elem_classes="example")
                button.click(partial(str, path), None, picture, show_progress="hidden", api_visibility="private")
    return picture, notice


def _image(label: str, name: str, height: int) -> gr.Image:
    """As a file, untouched: lanit's own reader turns it and knows more formats."""
    return gr.Image(
        label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=height, elem_id=name,
        buttons=[], format="png",
    )  # fmt: skip


def _word_controls(domains: Sequence[str], reader: str) -> tuple[gr.CheckboxGroup, list[gr.Slider], gr.HTML]:
    _step(2, "Words", f"Ticked are those that the result shall have: at first, what {reader} reads in your picture.")
    words = gr.CheckboxGroup(list(domains), label="Words", show_label=False, container=False, elem_id="words",
                             interactive=True)  # fmt: skip
    with gr.Accordion("How much of each word", open=False, elem_id="weights"):
        note = gr.HTML(_weights_note(()))
        weights = [
            gr.Slider(0.05, 1, 1, step=0.05, label=name, visible=False, buttons=[], elem_classes="weight")
            for name in domains
        ]
    return words, weights, note


def _weights_note(ticked: Sequence[str]) -> str:
    text = "Words share the style of the result: one at 0.5 beside one at 1 has a third of it, and one alone has all."
    if len(ticked) < 2:
        text += " Tick two words or more to weigh them against each other."
    return f'<p class="lead">{text}</p>'


def _style_controls(drawn: bool) -> tuple[gr.Image, gr.HTML, gr.Button, gr.Checkbox, gr.Number, gr.Button, gr.Slider]:
    """drawn: whether a word has more than one style."""
    text = "A word can look in many ways. Which one is drawn by its seed, or taken from a picture."
    with gr.Accordion("Style", open=False, elem_id="style"):
        gr.HTML(f'<p class="lead">{text if drawn else "This model draws each word in one way."}</p>')
        with gr.Row():
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=120, visible=drawn)
            another = gr.Button("Draw another", min_width=120, size="sm", visible=drawn)
        styles = gr.Slider(1, MOST_STYLES, 1, step=1, label="Styles side by side", buttons=[], visible=drawn)
        reference = _image("Picture to take the style from", "reference", 180)
        notice = gr.HTML(panels.notice(""), elem_classes="notice")
        take = gr.Button("Tick its words", interactive=False, size="sm")
        keep = gr.Checkbox(True, label="Words that your picture has keep their own style")
    return reference, notice, take, keep, seed, another, styles


def _connect(hands: _Hands, controls: _Controls) -> None:
    """Every change redraws; of changes that come faster than results, the last one counts."""
    desk = gr.State(_Desk())
    listen: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
    ticking = [desk, controls.words, controls.weights_note, *controls.weights]
    controls.picture.change(hands.give, [controls.picture, *controls.settings], [*ticking, *controls.outcome], **listen)
    controls.words.input(
        hands.tick, [desk, controls.words, *controls.settings], [*ticking, *controls.outcome], **listen
    )
    redraw = (hands.redraw, [desk, *controls.settings], controls.outcome)
    for slider in [*controls.weights, controls.styles]:
        slider.input(*redraw, **listen)
    controls.seed.change(*redraw, **listen)
    controls.keep.input(*redraw, **listen)
    controls.another.click(lambda seed: int(seed or 0) + 1, controls.seed, controls.seed, **listen)
    controls.reference.change(
        hands.refer, [controls.reference], [controls.reference_notice, controls.take_words, controls.styles], **listen
    ).then(*redraw, **listen)
    controls.take_words.click(hands.take_words, [desk, *controls.settings], [*ticking, *controls.outcome], **listen)


class _Hands:
    """The handlers: values of controls in, values of controls out, in the orders that :func:`_connect` gives.

    A path is what a browser sent: it is opened only where ``uploads`` has it, whatever was checked before."""

    def __init__(self, bench: Workbench, uploads: Uploads) -> None:
        self.bench = bench
        self.uploads = uploads

    def give(self, path: str | None, *settings: Any) -> list[Any]:
        """A picture, or none any more."""
        try:
            reading = None if path is None else self.bench.read(self.uploads.path(path))
        except LanitError as error:
            return [*self._ticked(_Desk()), panels.notice(_sentence(error), wrong=True), *self._shown(_Desk(), [])]
        desk = _Desk(reading, () if reading is None else reading.labels.active)
        return [*self._ticked(desk), *self.redraw(desk, *settings)]

    def tick(self, desk: _Desk, words: Sequence[str], *settings: Any) -> list[Any]:
        desk = _Desk(desk.reading, self.bench.tick(desk.ticked, words))
        return [*self._ticked(desk), *self.redraw(desk, *settings)]

    def take_words(self, desk: _Desk, reference: str, *settings: Any) -> list[Any]:
        try:
            desk = _Desk(desk.reading, self.bench.read(self.uploads.path(reference)).labels.active)
        except LanitError as error:
            return [*self._ticked(desk), panels.notice(_sentence(error), wrong=True), *self._shown(desk, [])]
        return [*self._ticked(desk), *self.redraw(desk, reference, *settings)]

    def refer(self, path: str | None) -> list[Any]:
        """A picture to take the style from, or none any more."""
        text, readable = "", path is not None
        try:
            labels = () if path is None else self.bench.read(self.uploads.path(path)).labels.active
            seen = ", ".join(labels) or "none of the words"
            text = f"Seen in it by {self.bench.model.reader}: {seen}." if readable else ""
        except LanitError as error:
            text, readable = _sentence(error), False
        return [panels.notice(text), gr.update(interactive=readable), gr.update(interactive=path is None)]

    def redraw(self, desk: _Desk, *settings: Any) -> list[Any]:
        if desk.reading is None:
            return [panels.notice(""), *self._shown(desk, [])]
        try:
            made = self.bench.redraw(desk.reading, self._wish(desk, *settings))
        except LanitError as error:
            return [panels.notice(_sentence(error), wrong=True), *self._shown(desk, [])]
        return [panels.remarks(desk.reading, self.bench.model.reader), *self._shown(desk, made)]

    def _wish(
        self, desk: _Desk, reference: str | None, keep: bool, seed: float | None, styles: float, *weights: float
    ) -> Wish:
        every = dict(zip(self.bench.model.domains, weights, strict=True))
        chosen = (
            {word: every[word] for word in desk.ticked} if len(desk.ticked) > 1 else dict.fromkeys(desk.ticked, 1.0)
        )
        style = self.uploads.path(reference) if reference else None
        return Wish(chosen, style, keep, max(0, int(seed or 0)), int(styles))

    def _ticked(self, desk: _Desk) -> list[Any]:
        several = len(desk.ticked) > 1
        sliders = [gr.update(visible=several and word in desk.ticked) for word in self.bench.model.domains]
        return [desk, gr.update(value=list(desk.ticked)), _weights_note(desk.ticked), *sliders]

    def _shown(self, desk: _Desk, made: Sequence[Any]) -> list[str]:
        seen = panels.margin_table(desk.reading, made, desk.ticked, self.bench.model.reader)
        return [panels.results(desk.reading, made), seen]


def _sentence(error: LanitError) -> str:
    return f"{error.message[:1].upper()}{error.message[1:]}. {error.hint}".strip()
