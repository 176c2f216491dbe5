"""What ``lanit embed`` prints about its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.computing.devices import warning_of_bf16
from pipeline.showing import console

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.computing.ray_cluster import Workforce
    from pipeline.embedding.embed import EmbedReport


def tell_model(clip: ClipModel, force: Workforce | None, store: Path) -> None:
    """What embeds, where to, and whether that will be slow for its precision: on this machine, of a cluster ``force``
    it is not known."""
    precision = clip.fingerprint.precision
    console.note(f"CLIP {clip.spec} in {precision} on {force or clip.device}; store {store}")
    if precision == "bf16" and force is None and (slow := warning_of_bf16(clip.device)):
        console.warn(f"{slow}: --precision fp32 in a new store")


def show_embed(report: EmbedReport) -> None:
    """images = embedded + failed + skipped."""
    names = ", ".join(report.sources[:3]) + (f" and {len(report.sources) - 3} more" if len(report.sources) > 3 else "")
    entries = {"images found": report.found, "embedded": report.ok, "failed": report.failed}
    console.counts(f"Images of {names}", entries | {"skipped (unchanged)": report.skipped})
    shares = {"waiting for images to decode": report.waiting, "in CLIP": report.model, "writing": report.writing}
    text = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    console.say(f"{report.seconds:.1f} s, {report.images_per_second:.1f} images/s on {report.device}: {text}")
    if report.more_workers:
        console.say(f"the loader is the limit: try --workers {2 * report.workers}")
    if report.dropped or report.kept:
        away = f" ({report.away:,} of them of what cannot be found or listed now)" if report.away else ""
        console.say(
            f"{report.dropped:,} rows of images that are gone dropped, {report.kept:,} of other inputs kept{away}"
        )
    console.say(f"the store {report.store} holds {report.stored:,} embeddings")
