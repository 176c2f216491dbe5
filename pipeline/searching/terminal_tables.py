"""What ``lanit search``, ``duplicates`` and ``index`` print about their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.searching.duplicates import DuplicateReport
    from pipeline.searching.search import SearchReport
    from pipeline.store.index import IndexReport


def show_search(report: SearchReport) -> None:
    """The images found, nearest first."""
    several = len({hit.source for hit in report.hits}) > 1
    rows = [(str(hit.rank), hit.path, *([hit.source] if several else []), f"{hit.cosine:.4f}") for hit in report.hits]
    query = f"“{report.query}”" if report.kind == "text" else report.query
    columns = ("rank", "image", "source", "cosine") if several else ("rank", "image", "cosine")
    of = f"{report.searched:,} images" + (f" labelled {' and '.join(report.labels)}" if report.labels else "")
    console.table(f"Nearest to {query}, of {of}", columns, rows, left=len(columns) - 1)


_GROUPS_SHOWN = 10


def show_duplicates(report: DuplicateReport) -> None:
    """images = to keep + copies + near-duplicates; the largest groups; how many look alike and are not."""
    copies = {"of the same content": report.exact_copies, "of the same picture": report.near_copies}
    if report.between is None or report.sizes is None:
        title = f"Images of {report.store}, copies of others among them"
        entries = {"images": report.images, "without those below": report.images - sum(copies.values())}
    else:
        first, second = report.between
        title = f"Images of {second} that are in {first} too"
        entries = {f"images of {second}": report.sizes[1], "not there": report.sizes[1] - sum(copies.values())}
    console.counts(title, entries | copies)
    if report.group_count:
        shown = list(report.groups(_GROUPS_SHOWN))
        rows = [
            (group.members[0].path, group.members[1].path, f"{len(group.members):,}",
             f"{min(member.cosine for member in group.members[1:]):.4f}") for group in shown
        ]  # fmt: skip
        title = f"The largest of {report.group_count:,} groups" if report.group_count > len(shown) else "Groups"
        console.table(title, ("first", "second", "images", "lowest cosine"), rows, left=2)
    if report.look_alike:
        some = "1 image looks" if report.look_alike == 1 else f"{report.look_alike:,} images look"
        console.say(f"{some} like another, from a cosine of {report.threshold:g} on, but not by the pixels")
    if report.nearest:
        parts = (f"{100 * share:g} % of images at most {cosine:.4f}" for share, cosine in report.nearest)
        console.say(f"cosine with the nearest other image: {', '.join(parts)}")


def show_index(report: IndexReport) -> None:
    """What kind it is, and how large."""
    lists = f", {report.probes:,} of {report.lists:,} lists looked through" if report.lists else ""
    state = f"built in {report.seconds:.1f} s" if report.built else "unchanged"
    console.say(f"index of {report.rows:,} embeddings: {report.kind}{lists}, {report.bytes / 1e6:,.1f} MB, {state}")
