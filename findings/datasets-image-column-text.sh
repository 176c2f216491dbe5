#!/bin/sh
# datasets 5.2.0 with pandas 3.1.1, Python 3.11: a data set with an Image column cannot be written as JSON Lines,
# and its CSV holds Python source.
#
# Dataset.to_json hands the bytes of the image to pandas, whose JSON writer takes bytes for UTF-8: it ends in
# "OverflowError: Unsupported UTF-8 sequence length when encoding string". Dataset.to_csv writes each cell as the repr of a
# dict, {'bytes': b'\x89PNG...', 'path': 'a.png'}, which no CSV reader takes for an image, load_dataset("csv") included:
# it comes back as a string. Parquet is the way that round-trips. Whoever reads such CSV gets the image back by
# ast.literal_eval.
#
# Seen: an OverflowError of to_json; a CSV cell that literal_eval turns into the bytes; a string from load_dataset.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1 pillow==13.0.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/hf" "$folder/venv/bin/python" - <<'PY'
import ast
import csv
import io

import datasets
from PIL import Image

sink = io.BytesIO()
Image.new("RGB", (4, 4), (255, 0, 0)).save(sink, "PNG")
png = sink.getvalue()
features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
table = datasets.Dataset.from_dict({"id": ["a"], "image": [{"bytes": png, "path": "a.png"}]}, features=features)
try:
    table.to_json("x.jsonl")
except (OverflowError, UnicodeDecodeError, ValueError) as error:
    print("to_json:", type(error).__name__, error)
else:
    raise SystemExit("to_json works now")
table.to_csv("x.csv")
[(_, cell)] = list(csv.reader(open("x.csv", newline="")))[1:]
print("to_csv:", cell[:40])
assert ast.literal_eval(cell) == {"bytes": png, "path": "a.png"}
again = datasets.load_dataset("csv", data_files="x.csv", split="train")
print("load_dataset:", again.features["image"])
assert "string" in repr(again.features["image"])
PY
