"""The project's words, explained where a page first uses them: the text of ``docs/GLOSSARY.md``, without its markup."""

from __future__ import annotations

from markupsafe import Markup

WORDS = {
    "phrase": "what a person writes on a line of a prompt file: smiling, snow leopard",
    "prompt": 'a sentence that CLIP reads, made of a phrase by a template: "a face photo of the smiling."',
    "base prompt": (
        'a prompt\'s sentence without its phrase, which names nothing: "a face." A phrase has to describe an image '
        "better than its base prompt does"
    ),
    "margin": (
        "CLIP's cosine of an image to a phrase's prompts minus its cosine to their base prompts. Above 0, or "
        "above the offset, the image has the label"
    ),
    "offset": (
        "the bar of a phrase: the margin from which on it labels; 0 unless a person, or --choose-offsets, moved it"
    ),
    "domain": "a phrase as labels and a model know it: a column of a table, a thing to translate to",
    "slack domain": (
        "one more domain inside the networks, which images without any label belong to. It has no phrase, and "
        "nothing is translated to it"
    ),
    "store": (
        "the folder, manifests unless --store or $LANIT_STORE names another, with the embeddings, the labels and "
        "the index; its files are Parquet, JSON and FAISS"
    ),
    "revision": (
        "one labelling of the whole store, with the rule and the prompts that made it. They are numbered; a new "
        "one replaces none, and commands take the newest unless --revision names one"
    ),
    "stability": (
        "Cohen's κ: how far the labels of two crops of an image agree beyond chance. High says stable, not right"
    ),
    "run": "a folder of lanit train: its options, metrics, checkpoints, sample grids and the model",
    "recognised": "the share of translations in which a judge, CLIP or another, sees the domain that was asked for",
    "kept": (
        "the share of the other domains that are, in the judge's eyes, after a translation as they were before. A "
        "picture that is not touched keeps all, and one that is drawn anew few"
    ),
    "style": (
        "a code that tells the generator how to draw what was asked for: drawn at random by a seed, or taken from "
        "a reference image"
    ),
    "sample world": (
        "faces drawn by a program, with a small CLIP, a generator and a judge that know only these: part of the "
        "package, so that everything can be tried without a download"
    ),
}
"""Each word with its meaning; a test holds both equal to the glossary's."""


class PageWords:
    """The words that one page explains, in the order in which it uses them."""

    def __init__(self) -> None:
        self._used: dict[str, str] = {}

    def link(self, word: str, shown: str = "") -> Markup:
        """``word``, or another form of it, as a link to its meaning below, which is shown at the pointer too."""
        self._used[word] = WORDS[word]
        return Markup('<a class="term" href="#{}" title="{}">{}</a>').format(anchor(word), WORDS[word], shown or word)

    @property
    def used(self) -> list[tuple[str, str, str]]:
        """Of each word used so far its anchor, itself and its meaning."""
        return explained(*self._used)


def explained(*words: str) -> list[tuple[str, str, str]]:
    """Of each word its anchor, itself and its meaning."""
    return [(anchor(word), word, WORDS[word]) for word in words]


def anchor(word: str) -> str:
    """What a page calls the place where a word is explained."""
    return "word-" + word.replace(" ", "-")
