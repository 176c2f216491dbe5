"""A CLIP in a process of its own: the same vectors, and a process that is there no longer than it is used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError
from pipeline.clip.clip_process import ClipProcess
from pipeline.embedding.embed import embed
from pipeline.prompts.embed_prompts import prompt_vectors, sentence_vector
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.store.store import Store
from pipeline.store.store_clip import StoreClip, clip_elsewhere, clip_of

ROOT = Path(__file__).parent.parent


class Standing:
    """What the process loads here: questions alone matter to it."""

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return work(self, *arguments)


def standing() -> Any:
    return Standing()


def missing() -> Any:
    raise LanitError("the weights cannot be had", "Give local ones.")


def number(clip: Any) -> int:
    return os.getpid()


def divided(clip: Any, by: int) -> float:
    return 1 / by


def killed(clip: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def started() -> Iterator[Callable[..., ClipProcess]]:
    made: list[ClipProcess] = []

    def start(load: Callable[[], Any] = standing, **options: Any) -> ClipProcess:
        made.append(ClipProcess(load, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_one_process_answers_until_it_is_idle_and_another_after_that(started: Callable[..., ClipProcess]) -> None:
    process = started(idle=0.3)
    assert process.pid is None, "nothing is started before it is asked"
    first = process.ask(number)
    assert first == process.ask(number) == process.pid != os.getpid()
    assert gone(first)
    assert process.ask(number) != first


def test_a_process_that_was_killed_is_started_again_once_and_a_loss_while_it_works_is_told(
    started: Callable[..., ClipProcess],
) -> None:
    process = started()
    first = process.ask(number)
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert process.ask(number) != first
    with pytest.raises(LanitError, match="ended from outside") as told:
        process.ask(killed)
    assert "starts again" in told.value.hint
    assert process.ask(divided, 4) == 0.25


def test_what_fails_there_is_told_here_and_the_process_goes_on(started: Callable[..., ClipProcess]) -> None:
    with pytest.raises(LanitError, match="the weights cannot be had") as told:
        started(missing).ask(number)
    assert told.value.hint == "Give local ones."
    process = started()
    first = process.ask(number)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        process.ask(divided, 0)
    assert process.ask(number) == first


def test_it_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from pipeline.clip.clip_process import ClipProcess\n"
        "from tests.test_clip_process import number, standing\n"
        "print(ClipProcess(standing).ask(number), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_texts_read_elsewhere_have_the_same_vectors_and_known_ones_need_no_process(
    make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path
) -> None:
    """Loads torch and open_clip once more, which takes seconds: the whole way that a search in lanit review goes."""
    embed([make_images(4)], tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    prompts = PromptSet(("red", "large green hat"), ("a photo of {}.", "{} in it"), ("a photo.", "in it"), "two")
    clip: Any = clip_elsewhere(store, None, None)
    assert isinstance(clip, StoreClip)
    assert clip.process is not None
    found, sentence = prompt_vectors(clip, prompts), sentence_vector(clip, "red hat")
    assert clip.process.pid is not None
    assert "loaded" not in vars(clip), "not here"
    clip.process.close()
    for other in (tiny_clip, clip, clip_of(store, None, None)):
        again = prompt_vectors(other, prompts)
        np.testing.assert_array_equal(found.domains, again.domains)
        np.testing.assert_array_equal(found.base, again.base)
        np.testing.assert_array_equal(sentence, sentence_vector(other, "red hat"))
        assert again.scale == tiny_clip.logit_scale
    assert clip.process.pid is None
