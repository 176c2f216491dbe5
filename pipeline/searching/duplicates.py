"""Near-duplicates: groups of images of equal content or of the same picture, and leakage between two folders."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lanit.errors import UsageError
from pipeline.files import atomic_path
from pipeline.path_names import one_spelling
from pipeline.progress import Progress
from pipeline.searching.equal_content import content_numbers, first_of_equal, on_both_sides
from pipeline.searching.linkage import complete_groups
from pipeline.searching.near_pairs import ROUNDING, Components, Sides, near_pairs, nearest_cosines
from pipeline.searching.pixels import SAME_PICTURE, Miniatures, read_miniatures
from pipeline.store.caches import scratch_folder
from pipeline.store.store import Store

USUAL_THRESHOLD = 0.9
SAMPLE_THRESHOLD = 0.7
"""Of the sample CLIP, which was made for drawn faces and puts a photograph and its mirror image further apart."""
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
_COLUMNS = ["image_id", "path", "source", "width", "height", "bytes", "sha256"]
_MEMBERS_AT_ONCE = 16_384

Side = Literal["first", "second"]


@dataclass(frozen=True)
class Member:
    """An image of a group. row: its number in :meth:`pipeline.store.store.Store.embeddings`.

    cosine: with the group's first image; between two folders, with the nearest image of the other folder.
    exact: of the same bytes as an earlier image of the group; between two folders, as one of the other folder.
    side: which of the two folders it lies in.
    """

    row: int
    image_id: str
    source: str
    path: str
    width: int | None
    height: int | None
    bytes: int | None
    cosine: float
    exact: bool
    side: Side | None = None


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that hang together; the first is the one to keep: of the most pixels, then of the largest file. Between
    two folders, those of the first folder come first."""

    members: tuple[Member, ...]

    @property
    def near(self) -> bool:
        """Whether any of it is more than a copy of the same bytes."""
        return not all(member.exact for member in self.members[1:])


@dataclass(frozen=True)
class DuplicateReport:
    """What ``lanit duplicates`` found; the groups are kept in arrays, largest group first.

    images: compared, ``sizes`` of them in each of the two folders ``between``, where such were named.
    every_pair: whether each was compared with each; else an index found nearly all pairs of a high cosine.
    starts: int64 (groups + 1), where each group begins among members. rows, cosines, exact, sides: of each member, see
    :class:`Member`; sides: int8, 1 first, 2 second, 0 no folders named. info: columns of the images table for each.
    nearest: (share of images, cosine that this share does not exceed with its nearest other image).
    look_alike: images in no group with another from the threshold on, which is of another picture. unseen: such images
    that could not be opened, or are of one colour.
    """

    store: str
    threshold: float
    images: int
    every_pair: bool
    between: tuple[str, str] | None
    sizes: tuple[int, int] | None
    starts: np.ndarray
    rows: np.ndarray
    cosines: np.ndarray
    exact: np.ndarray
    sides: np.ndarray
    info: pa.Table
    nearest: tuple[tuple[float, float], ...]
    look_alike: int = 0
    unseen: int = 0

    @property
    def group_count(self) -> int:
        return len(self.starts) - 1

    @property
    def grouped(self) -> int:
        """Images in any group."""
        return len(self.rows)

    @property
    def largest(self) -> int:
        """Images of the largest group."""
        return int(np.diff(self.starts).max(initial=0))

    @property
    def redundant(self) -> np.ndarray:
        """Rows to leave out so that one of each group stays, int64; between two folders, those of the second."""
        return np.sort(self.rows[self._redundant])

    @property
    def exact_copies(self) -> int:
        """Of the redundant images, those of the same bytes as another."""
        return int(self.exact[self._redundant].sum())

    @property
    def near_copies(self) -> int:
        """Of the redundant images, the others."""
        return len(self.redundant) - self.exact_copies

    @property
    def _redundant(self) -> np.ndarray:
        if self.between is not None:
            return self.sides == 2
        chosen = np.ones(len(self.rows), bool)
        chosen[self.starts[:-1]] = False
        return chosen

    def groups(self, count: int | None = None) -> Iterator[DuplicateGroup]:
        """The first ``count`` groups, or all."""
        names: dict[int, Side | None] = {0: None, 1: "first", 2: "second"}
        for start, end in zip(self.starts[:-1][:count].tolist(), self.starts[1:][:count].tolist(), strict=True):
            columns = self.info.slice(start, end - start).to_pydict()
            yield DuplicateGroup(
                tuple(
                    Member(
                        row=int(self.rows[place]),
                        image_id=columns["image_id"][place - start],
                        source=columns["source"][place - start],
                        path=columns["path"][place - start],
                        width=columns["width"][place - start],
                        height=columns["height"][place - start],
                        bytes=columns["bytes"][place - start],
                        cosine=round(float(self.cosines[place]), 6),
                        exact=bool(self.exact[place]),
                        side=names[int(self.sides[place])],
                    )
                    for place in range(start, end)
                )
            )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before acting on the groups."""
        found = []
        if self.unseen:
            some = "1 image that looks" if self.unseen == 1 else f"{self.unseen:,} images that look"
            found.append(f"{some} like another could not be opened, or show one colour: only equal files count there")
        if not self.every_pair:
            found.append("too many images to compare each with each: an index was used, which misses a few pairs")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        own = "store threshold images every_pair group_count grouped exact_copies near_copies look_alike unseen"
        values: dict[str, Any] = {name: getattr(self, name) for name in own.split()}
        values["between"] = None if self.between is None else list(self.between)
        values["sizes"] = None if self.sizes is None else list(self.sizes)
        values["nearest"] = [{"share": share, "cosine": cosine} for share, cosine in self.nearest]
        values["warnings"] = list(self.warnings)
        values["groups"] = [[_as_json(member) for member in group.members] for group in self.groups()]
        return values


def find_duplicates(
    store: Store,
    threshold: float | None = None,
    between: tuple[str, str] | None = None,
    *,
    every_pair: bool = False,
    progress: Progress | None = None,
) -> DuplicateReport:
    """Group the images of ``store`` that have the same bytes, or show the same picture.

    Embeddings tell which images look alike, by a cosine of at least ``threshold``; these are opened, and their pixels
    decide (:mod:`pipeline.searching.pixels`). In a group each image is the same as each other one.
    between: two folders, tars or parts of a path; only pairs with an image in each count, as for images that leaked
    from a training set into a validation set, and groups hang together by these pairs.
    every_pair: compare each with each however many there are; else, beyond
    :data:`pipeline.searching.near_pairs.EXACT_WORK`, an inverted index is asked for the nearest images of each.
    Memory grows by some tens of bytes an image, and by the embeddings of 32 768 images; 3 kB of disk for each opened.
    Raises UsageError for a threshold that is none, and for folders that hold no image or share some.
    """
    if threshold is None:
        threshold = SAMPLE_THRESHOLD if store.clip_spec == "sample" else USUAL_THRESHOLD
    if not -1 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold:g} is no cosine", "Choose one from -1 to 1, such as 0.9.")
    side = np.zeros(store.ok, np.int8) if between is None else _sides(store, between)
    content = content_numbers(store)
    first = first_of_equal(content, side)
    sides = _to_compare(first, side)
    best, compared = nearest_cosines(store, sides, every_pair, progress)
    near = best >= threshold - ROUNDING
    with scratch_folder(store, "miniatures") as folder:
        seen = read_miniatures(store, np.flatnonzero(near), folder / "pixels.npy", progress)
        pairs = _same_pictures(
            near_pairs(store, sides.among(seen.places >= 0), threshold, compared, seen, progress), seen
        )
        roots = _complete(pairs, seen, store.ok) if between is None else _linked(pairs, content, side)
    roots = roots[first] if between is None else _across(roots[first], side)
    order, starts = _order(store, roots, side)
    exact = _exact(content[order], starts, side[order])
    best = _of_copies(best[first], content, side)
    cosines = _to_first(store, order, starts) if between is None else np.where(exact, 1, best[order])
    left, right = (np.arange(store.ok),) * 2 if between is None else (np.flatnonzero(side == n) for n in (1, 2))
    compares = len(left) > 1 if between is None else bool(len(left) and len(right))
    found = np.bincount(roots, minlength=store.ok)[roots] > 1
    return DuplicateReport(
        store=str(store.root),
        threshold=threshold,
        images=len(left) if between is None else len(left) + len(right),
        every_pair=compared,
        between=between,
        sizes=None if between is None else (len(left), len(right)),
        starts=starts,
        rows=order,
        cosines=cosines.astype(np.float32),
        exact=exact,
        sides=side[order],
        info=store.images_of(order, _COLUMNS),
        nearest=_quantiles(best[right]) if compares else (),
        look_alike=int((near & ~found & (seen.places >= 0)).sum()),
        unseen=int((near & ~found & (seen.places < 0)).sum()),
    )


def _quantiles(cosines: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple((share, round(float(np.quantile(np.maximum(cosines, -1), share)), 6)) for share in QUANTILES)


def write_duplicates(report: DuplicateReport, path: Path) -> None:
    """One CSV row for each image of a group: group, keep (1 or 0), and what :class:`Member` says of it."""
    names = ("image_id", "source", "path", "width", "height", "bytes", "cosine", "exact", "side")
    redundant = set(report.redundant.tolist())
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["group", "keep", *names])
        for number, group in enumerate(report.groups(), 1):
            for member in group.members:
                values = _as_json(member) | {"exact": int(member.exact)}
                writer.writerow([number, int(member.row not in redundant), *(values[name] for name in names)])


def _as_json(member: Member) -> dict[str, Any]:
    names = ("row", "image_id", "source", "path", "width", "height", "bytes", "cosine", "exact", "side")
    return {name: getattr(member, name) for name in names}


def _to_compare(first: np.ndarray, side: np.ndarray) -> Sides:
    distinct = np.unique(first)
    if not side.any():
        return Sides(distinct, distinct, within=True)
    return Sides(distinct[side[distinct] == 1], distinct[side[distinct] == 2], within=False)


def _same_pictures(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]], seen: Miniatures
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of ``pairs`` that show the same picture, int64 (m) each, and how alike they are, float32 (m)."""
    both = [np.zeros((2, 0), np.int64), *(np.sort(pair, axis=0) for pair in pairs)]
    left, right = np.unique(np.concatenate(both, axis=1), axis=1)
    alike = seen.correlations(left, right)
    chosen = alike >= SAME_PICTURE
    return left[chosen], right[chosen], alike[chosen]


def _complete(pairs: tuple[np.ndarray, np.ndarray, np.ndarray], seen: Miniatures, count: int) -> np.ndarray:
    """The smallest row of the group of each row, int64 (n)."""
    roots = np.arange(count)
    for rows in complete_groups(*pairs, seen.same):
        roots[rows] = rows[0]
    return roots


def _linked(pairs: tuple[np.ndarray, np.ndarray, np.ndarray], content: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The smallest row that each row hangs together with, by pairs across the two sides, int64 (n)."""
    components = Components(len(content))
    components.join(pairs[0], pairs[1])
    chosen = np.flatnonzero(on_both_sides(content, side))
    order = chosen[np.argsort(content[chosen], kind="stable")]
    same = content[order][1:] == content[order][:-1]
    components.join(order[:-1][same], order[1:][same])
    return components.roots()


def _across(roots: np.ndarray, side: np.ndarray) -> np.ndarray:
    """``roots``, those of one side only taken apart, int64 (n)."""
    has = [np.bincount(roots, side == number, len(roots)) > 0 for number in (1, 2)]
    return np.where((has[0] & has[1])[roots], roots, np.arange(len(roots)))


def _of_copies(best: np.ndarray, content: np.ndarray, side: np.ndarray) -> np.ndarray:
    """``best``, with 1 for images of the same content as another; float32 (n)."""
    equal = on_both_sides(content, side) if side.any() else np.bincount(content)[content] > 1
    return np.where(equal, np.float32(1), best)


def _order(store: Store, roots: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of groups of two or more, group by group, and where each group begins: largest group first, then that of the
    smallest row; within a group by side, then most pixels, largest file, smallest row."""
    sizes = np.bincount(roots, minlength=len(roots))
    rows = np.flatnonzero(sizes[roots] > 1)
    pixels, weight = np.empty(len(roots), np.int64), np.empty(len(roots), np.int64)
    start = 0
    for table in store.ok_parts(["width", "height", "bytes"]):
        width, height, weight[start : start + len(table)] = (
            pc.fill_null(table[name].cast(pa.int64()), 0).to_numpy() for name in table.column_names
        )
        pixels[start : start + len(table)] = width * height
        start += len(table)
    keys = (rows, -weight[rows], -pixels[rows], side[rows], roots[rows], -sizes[roots[rows]])
    order = rows[np.lexsort(keys)]
    firsts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    return order, np.append(firsts, len(order))


def _exact(content: np.ndarray, starts: np.ndarray, side: np.ndarray) -> np.ndarray:
    """See :class:`Member`; all arguments in the order of the groups' members."""
    if side.any():
        both = np.intersect1d(content[side == 1], content[side == 2])
        return np.isin(content, both)
    exact = np.ones(len(content), bool)
    exact[np.unique(content, return_index=True)[1]] = False  # equal content is always in one group
    return exact


def _to_first(store: Store, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Cosine of each member with the first of its group, float32."""
    firsts = np.repeat(order[starts[:-1]], np.diff(starts))
    out = np.empty(len(order), np.float32)
    for start in range(0, len(order), _MEMBERS_AT_ONCE):
        chosen = slice(start, start + _MEMBERS_AT_ONCE)
        known, place = np.unique(firsts[chosen], return_inverse=True)
        members, others = store.embeddings_of(order[chosen]), store.embeddings_of(known)[place]
        out[chosen] = np.minimum(np.einsum("ij,ij->i", members, others), 1)
    return out


def _sides(store: Store, between: tuple[str, str]) -> np.ndarray:
    """1 for images of the first folder, 2 for those of the second, 0 for others: int8 (n)."""
    found = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for table in store.ok_parts(["source", "path"]):
        for matches, name in zip(found, between, strict=True):
            matches.append(_inside(table, name, absolute=True))
    masks = [np.concatenate(matches) for matches in found]
    for number, name in enumerate(between):
        if not masks[number].any():  # no folder or tar of the store: the beginning of a path in any of them
            parts = store.ok_parts(["source", "path"])
            masks[number] = np.concatenate([_inside(table, name, absolute=False) for table in parts])
        if not masks[number].any():
            known = ", ".join(entry.source for entry in store.manifest.sources[:4])
            raise UsageError(f"the store has no image in {name}", f"It has {known}, and their subfolders.")
    if (masks[0] & masks[1]).any():
        raise UsageError(f"{between[0]} and {between[1]} share images", "Name two folders that lie apart.")
    return (masks[0] + 2 * masks[1].astype(np.int8)).astype(np.int8)


def _inside(table: pa.Table, name: str, *, absolute: bool) -> np.ndarray:
    """Whether each image lies in the folder, tar, table or URL ``name``; else whether its path begins so. bool."""
    bare = one_spelling(name).rstrip("/")
    if not absolute:
        return pc.starts_with(table["path"], bare + "/").to_numpy()
    full = pc.binary_join_element_wise(table["source"], table["path"], "/")
    names = {bare, str(Path(name).resolve())}
    masks = [pc.starts_with(full, each.rstrip("/") + "/").to_numpy() for each in names]
    return np.logical_or.reduce(masks)
