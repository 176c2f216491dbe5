"""A folder of hostile files: damaged, misnamed, oversized, odd or unreadable ones, beside good neighbours.

For tests: ``from tests.hostile_files import make_hostile_folder``.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from tests.hostile_contents import SECTIONS, Verdict
from tests.image_builders import encoded, picture


def _names() -> dict[str | bytes, tuple[bytes, Verdict]]:
    """Names that shells, terminals, tables and paths stumble over. One that is not UTF-8 cannot be stored."""
    names = [
        " space first.png",
        "space last .png",
        "new\nline.png",
        "tab\t.png",
        "return\r.png",
        '"quotes".png',
        "it's.png",
    ]
    names += [
        "-dash.png",
        "--help.png",
        "$(touch run).png",
        "`id`;ls&.png",
        "%s%n{}{0}.png",
        "back\\slash.png",
        "*?[a].png",
    ]
    names += [
        "{1..3}.png",
        "\x1b[31mred.png",
        "[bold]rich[/bold].png",
        "a" * 251 + ".png",
        "日本語.png",
        "🙂.png",
        "ß\u202egnp.png",
    ]
    names += [
        "é composed.png",
        "e\u0301 decomposed.png",
        "UPPER.PNG",
        "two.dots.tar.png",
        "a,b;c.png",
        "=1+1.png",
        "#.png",
        "con.png",
    ]
    deep = "/".join(["deeper"] * 20)
    found: dict[str | bytes, tuple[bytes, Verdict]] = {
        name: (encoded(picture(width=20 + number), "PNG"), "ok")
        for number, name in enumerate([*names, f"{deep}/x.png"])
    }
    found[b"latin-\xe9.png"] = encoded(picture(), "PNG"), "either"
    return found


def _special(folder: Path) -> dict[str, Verdict]:
    """What is no file, or cannot be opened."""
    good = encoded(picture(), "PNG")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "linked.png").symlink_to("good-01.png")
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes(good)
    (folder / "empty folder.png").mkdir()
    locked = folder / "locked.png"
    locked.write_bytes(good)
    locked.chmod(0)
    found: dict[str, Verdict] = {"pipe.jpg": "bad", "dangling.jpg": "bad", "loop.jpg": "bad", "endless.jpg": "bad"}
    found |= {"linked.png": "ok", "folder.jpg/inside.png": "ok"}
    found["locked.png"] = "ok" if os.access(locked, os.R_OK) else "bad"  # root reads it
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as plug:  # a long path cannot hold one
        plug.bind(str(folder / "socket.jpg"))
        found["socket.jpg"] = "bad"
    return found


def make_hostile_folder(folder: Path) -> dict[str, Verdict]:
    """Fill the new ``folder``. Returns what becomes of each file that counts as an image by name, by relative path.

    Beside them lie a link to the folder itself and files that do not count: a text and a hidden picture.
    """
    folder.mkdir(parents=True)
    found: dict[str, Verdict] = {}
    files: dict[str | bytes, tuple[bytes, Verdict]] = dict(_names())
    for section in SECTIONS:
        made = section()
        assert not made.keys() & files.keys()
        files.update(made)
    for name, (data, verdict) in files.items():
        text = os.fsdecode(name)
        with contextlib.suppress(OSError):  # a file system may refuse the name
            path = folder / text
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            found[text] = verdict
    (folder / "notes.txt").write_bytes(encoded(picture(), "PNG"))
    (folder / ".hidden.png").write_bytes(encoded(picture(), "PNG"))
    return found | _special(folder)
