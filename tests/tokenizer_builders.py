"""Tokenizer files of every kind that open_clip's CLIPs read text with, made here in the form of the real ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

TEXTS = [
    "a photo of many cats and a face with eyeglasses, smiling", "wearing a hat in Washington D.C.", "the nonbearded",
    "ein Foto von einem Hund mit Hut", "une photo d'un chat noir", "一张猫的照片 帽子", "tea & biscuits 100 % 3D",
]  # fmt: skip


def _sentencepiece(kind: str, size: int, **options: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 8), model_writer=model, vocab_size=size, model_type=kind, minloglevel=2,
        hard_vocab_limit=False, character_coverage=1.0, **options,
    )  # fmt: skip
    return model.getvalue()


def siglip(folder: Path) -> None:
    """SigLIP and mT5: T5's SentencePiece unigrams, ``</s>`` at the end, 1 as padding of SigLIP."""
    data = _sentencepiece("unigram", 160, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "spiece.model").write_bytes(data)
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>",
              "extra_ids": 0, "additional_special_tokens": []}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def mt5(folder: Path) -> None:
    """mT5, whose repository has neither ``tokenizer.json`` nor a class: its ``config.json`` tells."""
    (folder / "spiece.model").write_bytes(_sentencepiece("unigram", 160, pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 0}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "special_tokens_map.json").write_text(json.dumps({k: v for k, v in names.items() if k != "extra_ids"}))


def siglip2(folder: Path) -> None:
    """SigLIP 2: Gemma's byte pairs in a ``tokenizer.json``, ``<eos>`` at the end."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Replace("▁", " ")
    marks = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=marks))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, "bos_token": "<bos>",
              "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "padding_side": "right"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def xlm(folder: Path) -> None:
    """XLM-R and XLM-V (MetaCLIP 2): SentencePiece, with its own four marks before; its ``config.json`` tells."""
    (folder / "sentencepiece.bpe.model").write_bytes(_sentencepiece("unigram", 160, unk_id=0, bos_id=1, eos_id=2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))


def nllb(folder: Path) -> None:
    (folder / "sentencepiece.bpe.model").write_bytes(_sentencepiece("bpe", 160, unk_id=0, bos_id=1, eos_id=2))
    config = {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn", "tgt_lang": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def bert(folder: Path) -> None:
    """CLIPA: BERT's word pieces; the file has no class, its ``config.json`` tells."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for text in TEXTS for letter in text.lower() if not letter.isspace()})
    words = ["photo", "cat", "face", "hat", *(f"##{letter}" for letter in letters), "##s"]
    (folder / "vocab.txt").write_text("\n".join([*marks, *letters, *dict.fromkeys(words)]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 512}))


def roberta(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(TEXTS, vocab_size=400, special_tokens=marks)
    tokenizer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))


_SMALL = {"vocab_size": 1000, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
          "intermediate_size": 32, "max_position_embeddings": 514, "pad_token_id": 1}  # fmt: skip
_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _SMALL | {"model_type": "bert", "pad_token_id": 0},
    "roberta": _SMALL | {"model_type": "roberta"},
    "xlm": _SMALL | {"model_type": "xlm-roberta"},
    "mt5": {"model_type": "mt5", "vocab_size": 1000, "d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1,
            "num_heads": 2, "pad_token_id": 0, "is_encoder_decoder": True},
    "nllb": {"model_type": "m2m_100", "vocab_size": 1000, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
             "pad_token_id": 1, "is_encoder_decoder": True},
}  # fmt: skip
"""Their ``config.json``, with towers small enough for a test."""

_OF: dict[str, str] = {
    "bert-base-uncased": "bert", "roberta-base": "roberta", "xlm-roberta-base": "xlm", "xlm-roberta-large": "xlm",
    "facebook/xlm-v-base": "xlm", "facebook/nllb-200-distilled-600M": "nllb", "google/mt5-base": "mt5",
    "facebook/nllb-200-distilled-1.3B": "nllb", "google/mt5-xl": "mt5",
}  # fmt: skip
FAMILIES = {
    "siglip": siglip,
    "siglip2": siglip2,
    "mt5": mt5,
    "xlm": xlm,
    "nllb": nllb,
    "bert": bert,
    "roberta": roberta,
}


def family_of(repository: str) -> str:
    """Which of :data:`FAMILIES` the tokenizer of ``repository`` is of. Raises KeyError where it is of none."""
    if repository.startswith("timm/ViT-"):
        return "siglip2" if "SigLIP2" in repository else "siglip"
    return _OF[repository]


def write_tokenizer(folder: Path, family: str) -> Path:
    """``folder`` with the tokenizer of a family and, as in its repository, the configuration of its text tower."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[family](folder)
    if family in _CONFIGS:
        (folder / "config.json").write_text(json.dumps(_CONFIGS[family]))
    return folder
