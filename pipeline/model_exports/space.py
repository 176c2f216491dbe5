"""The page of ``lanit play`` as a Space of the Hugging Face hub: a folder that runs there, and here by its ``app.py``.

It holds the model, and lanit's own source, which is on no package index.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, SpaceCardData

from lanit.errors import LanitError
from pipeline.clip.local_folders import SAMPLE_FOLDER
from pipeline.files import write_bytes
from pipeline.folders import appearing_folder, foreign_files, locked_beside
from pipeline.model_exports.bundle_folder import CARD_NAME, files_of
from pipeline.models.bundle import Bundle

GRADIO_VERSION = "6.31.0"
REQUIREMENTS = (
    "torch>=2.11,<2.16",
    "torchvision>=0.26",
    "open_clip_torch>=3",
    "huggingface_hub>=0.30",
    "safetensors>=0.5",
    "numpy>=2.1",
    "threadpoolctl>=3.5",
    "pillow>=11",
    "simplejpeg>=1.9",
    "pyarrow>=18",
    "fsspec>=2024.6",
    "filelock>=3.12",
    "rich>=13",
    "jinja2>=3.1",
    "markupsafe>=2.1",
    "gradio>=6.20",
)
"""Of lanit's own, those that the page needs."""

_MODEL = "model"
_SOURCE = Path(__file__).parents[2]
_APP = '''\
"""The page of lanit play: on the hub for whoever opens it, elsewhere for this machine alone."""

import os
from pathlib import Path

from pipeline.play.server import PlayOptions, play

HOST = os.environ.get("SPACE_HOST")  # Hugging Face sets it
OPTIONS = PlayOptions(
    model=str(Path(__file__).parent / "model"),
    host="0.0.0.0" if HOST else "127.0.0.1",
    port=int(os.environ.get("PORT", "7860")),
    allow_hosts=(HOST,) if HOST else (),
    framed_by="huggingface.co" if HOST else "",
)

if __name__ == "__main__":
    play(OPTIONS, lambda address: print(f"Open {address} in a browser; Ctrl-C ends it.", flush=True))
'''
_TEXT = """\
# {title}

Drop a picture, tick words, see it redrawn: the page of `lanit play`, for the model in `model/`, whose card says what
it is and what it is for. To run it on your own machine: `pip install -r requirements.txt`, then `python app.py`.

`lanit/` and `pipeline/` are the source of lanit, under the Apache License 2.0.
"""


def check_clip(bundle: Bundle) -> None:
    """Raise LanitError where the model's CLIP is a file of this machine, which a Space could not have."""
    if Path(bundle.clip_spec).is_absolute() or Path(bundle.clip_spec).exists():
        raise LanitError(
            f"a Space cannot have the CLIP of this model, {Path(bundle.clip_spec).name}, a file of this machine",
            "Train with a CLIP of the hub: lanit models lists some.",
        )


def write_space(model: Path, bundle: Bundle, folder: Path, title: str) -> None:
    """Fill an empty ``folder``. model: an export, whose ``bundle`` is this."""
    licence = ModelCard.load(model / CARD_NAME).data.license
    head = SpaceCardData(
        title=title, sdk="gradio", sdk_version=GRADIO_VERSION, python_version="3.11", app_file="app.py", license=licence
    )
    text = f"---\n{head.to_yaml(line_break=chr(10))}\n---\n\n{_TEXT.format(title=title)}"
    write_bytes(folder / CARD_NAME, text.encode())
    write_bytes(folder / "app.py", _APP.encode())
    write_bytes(folder / "requirements.txt", "\n".join([*REQUIREMENTS, ""]).encode())
    sources = {f"{_MODEL}/{name}": model / name for name in files_of(model) if not name.startswith("onnx/")}
    for name, source in (sources | dict(_own_source(bundle))).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)


def _own_source(bundle: Bundle) -> Iterator[tuple[str, Path]]:
    """Modules, what pages are made of, and the sample CLIP where the model is one of its."""
    found = [path for top in ("lanit", "pipeline") for path in sorted((_SOURCE / top).rglob("*.py"))]
    found += sorted(path for path in (_SOURCE / "pipeline" / "assets").iterdir() if path.is_file())
    if bundle.clip_spec == "sample":
        found += sorted(path for path in SAMPLE_FOLDER.iterdir() if path.is_file())
    for path in found:
        yield path.relative_to(_SOURCE).as_posix(), path


@contextlib.contextmanager
def appearing_space(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which takes the name of ``out``. Raises LanitError where something is there."""
    whole = out.resolve()
    if out.exists() and (not out.is_dir() or foreign_files(whole, frozenset[str]().__contains__)):
        raise LanitError(f"--out {out} is taken", "Give a new folder.")
    with locked_beside(whole, "--out"), appearing_folder(whole, frozenset[str]().__contains__) as folder:
        yield folder
