"""The benchmark of stability on photographs: which rows a CLIP may know, what captions say, what figures mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.photographs.faces_data import CAPTIONS, FURTHER_PHRASES, PHRASES, FaceTable, read_faces
from benchmarks.photographs.figures import Case, Start
from lanit.sentences import without_phrase

ROWS = 60


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, FaceTable, FaceTable]:
    rng = np.random.default_rng(0)
    columns = {name: (rng.random(ROWS) < 0.4).astype(np.int8) for name in (*PHRASES, *FURTHER_PHRASES)}
    table = pa.table({"path": [f"{n}.jpg" for n in range(ROWS)], "jpeg": [b""] * ROWS} | columns)
    file: Path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    pq.write_table(table, file)
    return table, *read_faces(file)


def test_the_clip_and_the_labels_share_no_face(halves: tuple[pa.Table, FaceTable, FaceTable]) -> None:
    table, known, other = halves
    names = [half.table["path"].to_pylist() for half in (known, other)]
    assert not set(names[0]) & set(names[1])
    assert sorted(names[0] + names[1]) == sorted(table["path"].to_pylist())
    assert len(known.held) == len(other.held) == ROWS / 2
    rows = {path: number for number, path in enumerate(table["path"].to_pylist())}
    place = [rows[path] for path in names[1]]
    assert (other.truth()[:, list(PHRASES).index("Goatee")] == (table["Goatee"].to_numpy()[place] == 1)).all()
    assert (other.truth()[:, list(PHRASES).index("No_Beard")] == (table["No_Beard"].to_numpy()[place] == 0)).all()


def test_a_caption_names_nothing_that_a_face_has_not(halves: tuple[pa.Table, FaceTable, FaceTable]) -> None:
    _, known, _ = halves
    rng, bare, said = np.random.default_rng(1), 0, set[str]()
    bases = {without_phrase(template) for template in CAPTIONS}
    for _ in range(1000):
        row = int(rng.integers(len(known.held)))
        caption = known.caption(row, rng)
        held = {phrase for phrase, has in zip(known.phrases, known.held[row], strict=True) if has}
        if caption in bases:
            bare += 1
            continue
        template = next(t for t in CAPTIONS if caption.startswith(t.split("{}")[0]) and _named(t, caption) <= held)
        named = _named(template, caption)
        assert 1 <= len(named) <= 3
        said |= named
    assert said == set(known.phrases)
    assert 0.1 < bare / 1000 < 0.2


def _named(template: str, caption: str) -> set[str]:
    before, after = template.split("{}")
    return set(caption.removeprefix(before).removesuffix(after).split(" and "))


def test_the_gain_is_that_of_the_most_stable_template_over_the_median() -> None:
    starts = [Start(f"{n} {{}}.", kappa, f1, 0, 0, 0, 0, 0)
              for n, (kappa, f1) in enumerate([(0.5, 0.2), (0.9, 0.7), (0.6, 0.4), (0.7, 0.8)])]  # fmt: skip
    case = Case("faces", "long", tuple(starts), ((0.5, 0.2), (0.9, 0.7), (0.6, 0.4)), (), 0.0)
    assert case.gain == pytest.approx(0.7 - (0.4 + 0.7) / 2)
    assert case.rho == pytest.approx(0.8)
    assert case.rho_of_all == pytest.approx(1.0)
