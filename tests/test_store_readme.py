"""The tables of manifests/README.md are the schemas of pipeline/store/schemas.py."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from pipeline.clip.fingerprint import Fingerprint
from pipeline.store.schemas import SCHEMA_VERSION, Manifest, images_schema, labels_schema, pairs_schema, people_schema

README = Path(__file__).parents[1] / "manifests" / "README.md"


def table(heading: str) -> list[list[str]]:
    """Cells of the first table under ``heading``, without its head."""
    text = README.read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    first = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    width = len(first[0])
    return [cells for cells in first[2:] if len(cells) == width]


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("images/part-NNNNN-XXXXXXXX.parquet", images_schema(512)),
        ("labels/rNNNN.parquet", labels_schema(["<domain>"], human=True)),
        ("labels/people.parquet", people_schema(dictionary=False)),
        ("pairs.parquet", pairs_schema()),
    ],
)
def test_columns(heading: str, schema: object) -> None:
    documented = [tuple(row[:3]) for row in table(heading)]
    actual = [
        (field.name, str(field.type).replace("[512]", "[k]"), "yes" if field.nullable else "no")
        for field in schema  # type: ignore[attr-defined]
    ]
    assert documented == actual


def test_fingerprint_and_manifest_keys() -> None:
    fingerprint = Fingerprint("a", "b", {}, "gelu", "fp32", 4)
    assert [row[0] for row in table("The fingerprint")] == [field.name for field in fields(Fingerprint)]
    manifest = Manifest(fingerprint, "sample", None, "float32", (), (), frame=2).to_json()
    assert [row[0] for row in table("store.json")] == list(manifest)


def test_version() -> None:
    assert re.search(rf"schema version {SCHEMA_VERSION}\b", README.read_text())
