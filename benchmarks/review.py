"""``lanit review``: keys, kills, a million images, the map, what answers win. Needs the extra review and a Chromium.

    python -m benchmarks.review keys [--kills 20]
    python -m benchmarks.review scale [--rows 1000000] [--folder DIR]
    python -m benchmarks.review map [--rows 100000]
    python -m benchmarks.review person --store S --truth FILE --phrases "smiling,eyeglasses"

keys: 300 judgements by keys in a browser, each timed from the key to the next image shown, then SIGKILL; and SIGKILL at
random moments while answers are sent: all that were acknowledged must be in the store. scale: a store of random unit
vectors (512) and 10,000 small JPEGs in a tar: first images, memory, scrolling, search. map: laid out, and drawn while
it is dragged; frames are counted by the browser. person: a labelled store and its truth; F1 of the labels after answers
in the proposed order (near the threshold and the random queue by turns) and in random order, offsets as suggested.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

DIM, PHRASES, DISTINCT = 512, ("smiling", "eyeglasses", "hat", "bald"), 10_000
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("keys", "scale", "map", "person"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--phrases", default="")
    arguments = parser.parse_args()
    if arguments.task == "person":
        return person(arguments.store, arguments.truth, tuple(arguments.phrases.split(",")))
    folder = Path(tempfile.mkdtemp(prefix="lanit-review-", dir=arguments.folder))
    try:
        rows = arguments.rows or {"keys": 400, "scale": 1_000_000, "map": 100_000}[arguments.task]
        write_store(folder, rows)
        print(f"{rows:,} rows, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
        {"keys": lambda: keys(folder, arguments.kills), "scale": lambda: scale(folder), "map": lambda: drawn(folder)}[
            arguments.task
        ]()
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------- the store


def write_store(folder: Path, rows: int) -> None:
    from benchmarks.labels_at_scale import write_clip
    from lanit.rules import Rule
    from pipeline.clip.models import load_clip
    from pipeline.embedding.parts import rows_of_a_part
    from pipeline.files import sha256_bytes, write_json
    from pipeline.prompts.prompt_sets import prompt_set_of
    from pipeline.store.label_revisions import BLOCK_ROWS, LabelBlock, RevisionHeader
    from pipeline.store.schemas import SCHEMA_VERSION, Manifest, Part, SourceEntry, images_schema, with_metadata
    from pipeline.store.store import Store

    write_clip(folder / "clip", DIM)
    clip, tar, root = load_clip(str(folder / "clip")), folder / "images.tar", folder / "store"
    rng, places = np.random.default_rng(0), []
    with tarfile.open(tar, "w") as sink:
        for number in range(min(rows, DISTINCT)):
            data = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
            coarse.resize((160, 120), Image.Resampling.BICUBIC).save(data, "JPEG", quality=80)
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(data.getvalue())
            sink.addfile(member, io.BytesIO(data.getvalue()))
            places.append((sink.offset - -(-member.size // 512) * 512, member.size, sha256_bytes(data.getvalue())))
    described = {"schema_version": SCHEMA_VERSION, "kind": "images", "fingerprint": clip.fingerprint.to_json()}
    schema, parts, part_rows = with_metadata(images_schema(DIM), described), [], rows_of_a_part(rows)
    (root / "images").mkdir(parents=True)
    ids = [f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}" for n in range(rows)]
    for start in range(0, rows, part_rows):
        numbers = range(start, min(start + part_rows, rows))
        vectors = rng.standard_normal((len(numbers), DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        columns: dict[str, Any] = {field.name: [None] * len(numbers) for field in schema} | {
            "image_id": ids[start : numbers.stop], "path": [f"{n % DISTINCT:06d}.jpg" for n in numbers],
            "source": [str(tar)] * len(numbers), "status": ["ok"] * len(numbers), "width": [160] * len(numbers),
            "height": [120] * len(numbers),
        }  # fmt: skip
        for name, place in (("offset", 0), ("bytes", 1), ("sha256", 2)):
            columns[name] = [places[n % DISTINCT][place] for n in numbers]
        arrays = [pa.array(columns[field.name], field.type) for field in schema if field.name != "embedding"]
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM))
        file = f"images/part-{len(parts):05d}-{start:08x}.parquet"
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), root / file, write_page_checksum=True)
        parts.append(Part(file, len(numbers), len(numbers)))
    entries = (SourceEntry(str(tar)),)
    write_json(
        root / "store.json", Manifest(clip.fingerprint, clip.spec, None, "float32", entries, tuple(parts)).to_json()
    )

    def blocks() -> Iterator[LabelBlock]:
        for start in range(0, rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows)
            margin = rng.normal(-0.01, 0.02, (len(PHRASES), stop - start)).astype(np.float32).T
            yield LabelBlock(
                start, stop - start, active=margin > 0, margin=margin, similarity_base=margin[:, 0],
                image_ids=pa.array(ids[start:stop]),
                paths=pa.array([f"{n % DISTINCT:06d}.jpg" for n in range(start, stop)]),
            )  # fmt: skip

    prompts = prompt_set_of(PHRASES, "benchmark", "benchmark")
    header = RevisionHeader(clip.fingerprint, prompts, Rule(), "label", None, "0")
    Store.open(root).write_labels(header, blocks())


# ---------------------------------------------------------------- a server and a browser


@contextlib.contextmanager
def served(store: Path) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """The process, its address, and when it was started."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from lanit import command; command()", "review", "--port", "0", "--store", store],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "it did not start"
        yield process, found[0], begun
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_function("document.getElementById('shown').dataset.row !== ''")
    return page


def memory(process: subprocess.Popen[str]) -> str:
    children = "".join(file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/children")).split()
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in (process.pid, *children)]
    names = ("VmRSS", "RssAnon", "RssFile")
    sizes = [[int(text.partition(f"{name}:")[2].split()[0]) / 1024 for name in names] for text in texts]
    beside = f"; beside it {max(each[0] for each in sizes[1:]):.0f} MiB of CLIP" if children else ""
    return "{:.0f} MiB resident, {:.0f} its own, {:.0f} of files".format(*sizes[0]) + beside


# ---------------------------------------------------------------- keys and kills

WATCH = """() => {
  window.took = []; let begun = 0;
  addEventListener('keydown', () => { begun = performance.now(); }, true);
  new MutationObserver(() => window.took.push(performance.now() - begun)).observe(
    document.getElementById('shown'), { attributes: true, attributeFilter: ['data-row'] });
}"""


def keys(folder: Path, kills: int) -> None:
    from pipeline.labelling.people import read_people
    from pipeline.store.store import Store

    with served(folder / "store") as (process, address, _), chromium() as browser:
        page = opened(browser, address)
        page.evaluate(WATCH)
        for number in range(300):
            page.keyboard.press("x" if number % 3 == 0 else "Space")
            page.wait_for_function("n => window.took.length > n", arg=number, polling=1)
        took = page.evaluate("window.took")
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = read_people(Store.open(folder / "store")).kept
    tail = statistics.quantiles(took, n=20)[-1]
    print(
        f"300 judgements by keys: median {statistics.median(took):.1f} ms to the next image, 95 % below {tail:.1f} ms"
    )
    print(f"after SIGKILL {kept} of 300 in the store", flush=True)
    lost = sent = 0
    for number in range(kills):
        shutil.rmtree(folder / "store" / "labels" / "none", ignore_errors=True)
        acknowledged, under_way = killed_while_answering(folder, random.Random(number), PHRASES[1 + number % 3])
        table = read_people(Store.open(folder / "store")).table.to_pylist()
        said = {(row["image_id"], row["phrase"]): row["label"] for row in table}
        assert len(said) == len(table), "an answer is doubled"
        ids = Store.open(folder / "store").ok_images()["image_id"].to_pylist()
        for (row, phrase), label in acknowledged.items():
            may_be = {label, under_way.get((row, phrase), label)}  # kept, and killed before it could say so
            lost += said.get((ids[row], phrase)) not in may_be
        sent += len(acknowledged)
    print(f"killed at {kills} random moments: {sent - lost:,} of {sent:,} acknowledged answers kept, none twice")


Given = dict[tuple[int, str], bool]


def killed_while_answering(folder: Path, rng: random.Random, phrase: str) -> tuple[Given, Given]:
    """Answers that were acknowledged, and the one that was under way at the end."""
    acknowledged, under_way = Given(), Given()
    with served(folder / "store") as (process, address, _):
        port = int(address.rstrip("/").rpartition(":")[2])
        timer = threading.Timer(rng.uniform(0.1, 2.0), lambda: os.kill(process.pid, signal.SIGKILL))
        timer.start()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                row, label = rng.randrange(400), rng.random() < 0.5
                under_way = {(row, phrase): label}
                body = json.dumps({"rows": [row], "phrase": PHRASES.index(phrase), "label": label})
                connection.request("POST", "/api/answers", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status == 200:
                    acknowledged[row, phrase] = label
        timer.join()
    return acknowledged, under_way


# ---------------------------------------------------------------- a million images


def scale(folder: Path) -> None:
    imports = "import cli, starlette.applications, uvicorn, pipeline.review.answering, pipeline.review.workplace"
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", imports], check=True)
    importing = time.perf_counter() - begun
    with served(folder / "store") as (process, address, started), chromium() as browser:
        ready = time.perf_counter() - started
        print(f"address printed after {ready:.1f} s, of which importing {importing:.1f} s", flush=True)
        begun = time.perf_counter()
        page = opened(browser, address)
        page.wait_for_function("[...document.querySelectorAll('.cell img')].filter((i) => i.complete).length >= 20")
        print(f"first images {time.perf_counter() - begun:.1f} s later; {memory(process)}", flush=True)
        begun, seen = time.perf_counter(), page.evaluate(SCROLL)
        seconds = time.perf_counter() - begun
        print(
            f"{seen:,} thumbnails scrolled through in {seconds:.1f} s: {seen / seconds:.0f} a second; {memory(process)}"
        )
        begun, seen = time.perf_counter(), page.evaluate(SCROLL)
        print(f"again, kept by now: {seen / (time.perf_counter() - begun):.0f} a second", flush=True)
        for text in ("a cat", "a striped cat", "two dogs"):
            print(f"search for '{text}': {searched(page, text):.2f} s; {memory(process)}", flush=True)
    with served(folder / "store") as (process, address, _), chromium() as browser:
        page = opened(browser, address)
        print(f"started again, known words at once: {searched(page, 'a cat'):.2f} s; {memory(process)}", flush=True)
        print(f"new words at once: {searched(page, 'three birds'):.2f} s; {memory(process)}", flush=True)


def searched(page: Any, text: str) -> float:
    """Seconds from the key to what was found."""
    page.evaluate("document.getElementById('left').textContent = ''")
    page.fill("#query", text)
    begun = time.perf_counter()
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('left').textContent.startsWith('1 of 1\\u202f000')", polling=5)
    return time.perf_counter() - begun


SCROLL = """async () => {
  const grid = document.getElementById('grid'), seen = new Set(), frame = () => new Promise(requestAnimationFrame);
  grid.scrollTop = 0;
  while (seen.size < 10000) {
    await frame();
    const cells = [...document.querySelectorAll('.cell')];
    if (!cells.length || cells.some((c) => !c.querySelector('img')?.complete)) { await frame(); continue; }
    for (const cell of cells) seen.add(cell.dataset.at);
    grid.scrollTop += grid.clientHeight;
  }
  return seen.size;
}"""


# ---------------------------------------------------------------- the map


def drawn(folder: Path) -> None:
    import umap  # noqa: F401  # it compiles as it is imported

    from pipeline.review.layout import lay_out
    from pipeline.review.workplace import Workplace
    from pipeline.store.caches import keep_array
    from pipeline.store.store import Store

    store = Store.open(folder / "store")
    clock, processors = time.perf_counter(), time.process_time()
    points = lay_out(store, lambda what, done, total: None)
    print(f"laid out in {time.perf_counter() - clock:.0f} s, {time.process_time() - processors:.0f} s of processors")
    key = Workplace(store, None).key  # type: ignore[arg-type]
    keep_array(store.root / "cache" / f"map-{key}.npy", points)
    with served(store.root) as (_, address, _), chromium() as browser:
        page = opened(browser, address)
        page.keyboard.press("m")
        page.wait_for_function(f"document.getElementById('canvas').dataset.drawn === '{store.ok}'")
        box = page.locator("#canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.evaluate("window.frames_ = 0; (function count() { window.frames_++; requestAnimationFrame(count); })()")
        begun, steps = time.perf_counter(), 0
        while time.perf_counter() - begun < 5:
            page.mouse.move(x + 100 * np.sin(steps / 5), y + 60 * np.cos(steps / 7))
            steps += 1
        seconds = time.perf_counter() - begun
        frames = page.evaluate("window.frames_")
        page.mouse.up()
        name = page.evaluate("""() => { const gl = document.createElement('canvas').getContext('webgl');
          return gl.getParameter(gl.getExtension('WEBGL_debug_renderer_info').UNMASKED_RENDERER_WEBGL); }""")
        print(f"dragged: {frames / seconds:.0f} frames a second ({name})")


# ---------------------------------------------------------------- a person


def person(store: Path, truth: Path, phrases: tuple[str, ...]) -> None:
    from pipeline.labelling.known_labels import fitted, image_keys, read_truth
    from pipeline.store.store import Store

    opened_store = Store.open(store)
    labels = opened_store.labels()
    known = fitted(read_truth(truth, phrases, blanks=True), opened_store, *image_keys(opened_store))
    values = known.values(known.align(*image_keys(opened_store)), phrases)
    for seed in range(3):
        rows: dict[str, list[list[float]]] = {"proposed": [], "random": []}
        for n, phrase in enumerate(phrases):
            margins = labels.margin[:, labels.domains.index(phrase)]
            for order, found in rows.items():
                found.append(reviewed(margins, values[:, n] == 1, order, seed))
        for order, found in rows.items():
            means = " ".join(f"{value:.3f}" for value in np.mean(found, axis=0))
            print(f"seed {seed}, {order:9} mean F1 after 0, 50, 150, 300 answers: {means}")


def reviewed(margins: np.ndarray, truth: np.ndarray, order: str, seed: int) -> list[float]:
    """F1 of the labels, people's before CLIP's, after 0, 50, 150 and 300 answers."""
    from sklearn.metrics import f1_score

    from pipeline.review.figures import suggest_offset
    from pipeline.review.samples import next_of_sample, sample_of, strata_of

    rng = np.random.default_rng(seed)
    keys_, said = rng.permutation(len(margins)).astype(np.uint64), np.full(len(margins), -1, np.int8)
    strata, falling = strata_of(margins), np.argsort(-margins, kind="stable")
    offset, scores = 0.0, []
    for answers in range(301):
        if answers % 50 == 0:
            suggested = suggest_offset(margins, falling, said)
            offset = offset if suggested is None else suggested[0]
        if answers in (0, 50, 150, 300):
            scores.append(float(f1_score(truth, np.where(said >= 0, said == 1, margins > np.float32(offset)))))
        waiting = np.flatnonzero(said < 0)
        if order == "random":
            row = int(rng.choice(waiting))
        elif answers % 2:
            row = int(waiting[np.abs(margins[waiting] - offset).argmin()])
        else:
            row = int(next_of_sample(keys_, sample_of(keys_, strata, said), said, margins > offset, 1)[0])
        said[row] = truth[row]
    return scores


if __name__ == "__main__":
    main()
