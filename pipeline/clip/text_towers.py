"""CLIP's text side as :class:`lanit.prompts.TextTower`: prompts are fed to it as embeddings, to be learned."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from lanit.errors import LanitError, excerpt
from lanit.prompts import TextTower


class OpenClipText:
    """open_clip's causal text transformer as :class:`lanit.prompts.TextTower`; accepts any context up to its own."""

    def __init__(self, tower: Any, tokenizer: open_clip.SimpleTokenizer) -> None:
        self.tower = tower
        self.tokenizer = tokenizer
        self.context_length = int(tower.context_length)
        self.sos = int(tokenizer.sot_token_id)
        self.eos = int(tokenizer.eot_token_id)

    def tokenize(self, text: str) -> list[int]:
        tokens = list(self.tokenizer.encode(text))
        if self.sos in tokens or self.eos in tokens:
            raise _holds_a_mark(text)
        return tokens

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.tower.token_embedding(tokens.to(self.tower.positional_embedding.device))
        return embedded

    def token_table(self) -> Tensor:
        table: Tensor = self.tower.token_embedding.weight
        return table.detach().float()

    def token_text(self, token: int) -> str:
        piece = str(self.tokenizer.decoder[token])
        letters = bytes(self.tokenizer.byte_decoder[letter] for letter in piece.removesuffix("</w>"))
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in letters.decode(errors="replace"))
        return text if piece.endswith("</w>") else f"{text}-"

    def encode(self, embedded: Tensor, eos_positions: Tensor) -> Tensor:
        tower, length = self.tower, embedded.shape[1]
        x = embedded + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = x[torch.arange(len(x), device=x.device), eos_positions.to(x.device)]
        if isinstance(tower.text_projection, nn.Linear):
            x = tower.text_projection(x)
        elif tower.text_projection is not None:
            x = x @ tower.text_projection
        features: Tensor = x.float()
        return features


class OpaqueText:
    """A text tower that lanit cannot feed with embeddings: prompts are neither assembled nor learned with it."""

    def __init__(self, model: nn.Module, reason: str) -> None:
        self.context_length = int(str(getattr(model, "context_length", 77)))
        self.sos = self.eos = 0
        self.reason = reason

    def tokenize(self, text: str) -> list[int]:
        raise self._error()

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        raise self._error()

    def token_table(self) -> Tensor:
        raise self._error()

    def token_text(self, token: int) -> str:
        raise self._error()

    def encode(self, embedded: Tensor, eos_positions: Tensor) -> Tensor:
        raise self._error()

    def _error(self) -> LanitError:
        return LanitError(
            f"prompts cannot be used with the text tower of this CLIP ({self.reason})",
            "Use a CLIP with open_clip's causal text transformer, such as --clip ViT-B-32/openai.",
        )


def text_tower(model: nn.Module, tokenizer: Any) -> TextTower:
    """The adapter for ``model``: :class:`OpenClipText` where it is faithful, else :class:`OpaqueText`."""
    tower = model if isinstance(model, open_clip.CLIP) else getattr(model, "text", None)
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    eos = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    if not isinstance(tokenizer, open_clip.SimpleTokenizer) or tokenizer.reduction_fn is not None:
        return OpaqueText(model, f"tokenizer {type(tokenizer).__name__}")
    if tower is None or not all(hasattr(tower, name) for name in ("transformer", "token_embedding", "ln_final")):
        return OpaqueText(model, type(tower).__name__)
    if getattr(tower, "attn_mask", None) is None or getattr(tower, "cls_emb", None) is not None:
        return OpaqueText(model, "not causal")
    if pool != "argmax" and not (pool == "eos" and eos == tokenizer.eot_token_id):
        return OpaqueText(model, f"pooling '{pool}'")
    return OpenClipText(tower, tokenizer)


def check_text(tokenizer: Any, text: str) -> None:
    """Raise LanitError where ``text`` is longer than the context of ``tokenizer``, which would cut it, or where it
    holds a mark such as ``</s>``, where the CLIP would take it to end; as far as the tokenizer can tell."""
    tokens = _tokens(tokenizer, text)
    if tokens is None:
        return
    if len(tokens) > tokenizer.context_length:
        message = f"'{excerpt(text)}' is longer than the {tokenizer.context_length} tokens this CLIP reads"
        raise LanitError(message, "Shorten the text.")
    if _marks(tokenizer, tokens) > _marks(tokenizer, _tokens(tokenizer, "") or []):
        raise _holds_a_mark(text)


def token_count(tokenizer: Any, text: str) -> int | None:
    """Tokens of ``text``, start and end included; none where the tokenizer cannot tell."""
    tokens = _tokens(tokenizer, text)
    return None if tokens is None else len(tokens)


def _tokens(tokenizer: Any, text: str) -> list[int] | None:
    """Ids of ``text`` with start and end, uncut, unpadded; none where the tokenizer shortens texts its own way."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        return None if tokenizer.reduction_fn is not None else ids
    if not isinstance(tokenizer, HFTokenizer) or tokenizer.tokenizer_mode:
        return None
    found: list[int] = tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False, verbose=False).input_ids
    return found


def _marks(tokenizer: Any, tokens: list[int]) -> int:
    """How many of ``tokens`` stand for no text."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        marks = set(tokenizer.all_special_ids)
    else:
        marks = set(tokenizer.tokenizer.all_special_ids) - {tokenizer.tokenizer.unk_token_id}
    return sum(token in marks for token in tokens)


def _holds_a_mark(text: str) -> LanitError:
    return LanitError(f"'{excerpt(text)}' holds a mark that this CLIP takes for the start or end of a text", "Drop it.")
