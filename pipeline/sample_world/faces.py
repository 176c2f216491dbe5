"""Drawn faces with exact ground truth: the world that lanit ships.

A face is a pure function of ``(seed, index)``: the same pair gives the same attributes and, at any
size, the same picture. Attributes (the domains) and content (skin, eyes, background, clothes,
position, hair style) are drawn independently, so that nothing but the drawing itself tells them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

HAIR = ("blond hair", "black hair", "brown hair", "red hair", "gray hair", "bald")
"""Exactly one of these holds for a face."""

ATTRIBUTES = (*HAIR, "bangs", "eyeglasses", "smiling", "mustache", "wearing hat", "wearing lipstick")
"""Every domain of the sample world, in the order of the truth vectors."""

_CANVAS = 256  # drawn at this size, then reduced: smooth edges at every output size
_HAIR_SHARE = (0.18, 0.18, 0.18, 0.18, 0.18, 0.10)
_SHARE = {
    "bangs": 0.4,
    "eyeglasses": 0.35,
    "smiling": 0.5,
    "mustache": 0.3,
    "wearing hat": 0.3,
    "wearing lipstick": 0.35,
}
_HAIR_RGB = {
    "blond hair": (238, 203, 108),
    "black hair": (30, 26, 30),
    "brown hair": (112, 70, 40),
    "red hair": (205, 74, 30),
    "gray hair": (170, 170, 176),
    "bald": (96, 76, 62),  # brows and mustache of a bald face
}
_SKIN_RGB = (
    (255, 224, 200),
    (245, 205, 170),
    (228, 180, 140),
    (200, 150, 110),
    (165, 115, 80),
    (120, 80, 56),
    (90, 60, 44),
)
_EYE_RGB = ((70, 110, 170), (80, 130, 80), (90, 60, 35), (40, 32, 30), (110, 120, 130))
_LIP_RGB = ((205, 25, 50), (225, 50, 110), (160, 15, 60))
_FRAME_RGB = ((25, 25, 30), (60, 30, 20), (30, 40, 90))


@dataclass(frozen=True)
class Face:
    """What a face shows (``truth``, the attributes) and how (``content``, everything else).

    truth: bool array of shape (12,), one entry per :data:`ATTRIBUTES`.
    content: float64 array of shape (24,), uniform in [0, 1).
    """

    truth: np.ndarray
    content: np.ndarray

    def has(self, attribute: str) -> bool:
        return bool(self.truth[ATTRIBUTES.index(attribute)])

    @property
    def hair(self) -> str:
        return HAIR[int(np.argmax(self.truth[: len(HAIR)]))]


def sample_face(seed: int, index: int) -> Face:
    """Draw the attributes and the content of face ``index`` of world ``seed``."""
    rng = np.random.default_rng([seed, index])
    truth = np.zeros(len(ATTRIBUTES), bool)
    truth[rng.choice(len(HAIR), p=_HAIR_SHARE)] = True
    for position, attribute in enumerate(ATTRIBUTES[len(HAIR) :], len(HAIR)):
        truth[position] = rng.random() < _SHARE[attribute]
    truth[ATTRIBUTES.index("bangs")] &= not truth[HAIR.index("bald")]
    return Face(truth, rng.random(24))


def draw_face(face: Face, size: int) -> np.ndarray:
    """Draw ``face`` as a uint8 RGB array of shape (size, size, 3)."""
    image = Image.new("RGB", (_CANVAS, _CANVAS))
    _Painter(image, face).paint()
    if size != _CANVAS:
        image = image.resize((size, size), Image.Resampling.BOX if _CANVAS % size == 0 else Image.Resampling.LANCZOS)
    return np.asarray(image)


def draw_faces(seed: int, indices: Iterable[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 (n, size, size, 3), and truths, bool (n, 12), of the given faces."""
    faces = [sample_face(seed, index) for index in indices]
    return np.stack([draw_face(face, size) for face in faces]), np.stack([face.truth for face in faces])


def _shade(rgb: Iterable[float], factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(min(255, max(0, channel * factor))) for channel in rgb)
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    sector = hue * 6
    channels = [
        value - value * saturation * max(0.0, min(1.0, abs((sector + shift) % 6 - 3) * -1 + 2)) for shift in (3, 1, 5)
    ]
    return _shade(tuple(255 * channel for channel in channels), 1)


class _Painter:
    """Lays a face on a canvas from back to front; lengths are shares of the canvas."""

    def __init__(self, image: Image.Image, face: Face) -> None:
        self.draw = ImageDraw.Draw(image)
        self.face = face
        c = face.content
        self.scale = 0.94 + 0.16 * c[0]
        self.x = 0.5 + 0.07 * (c[1] - 0.5)
        self.y = 0.53 + 0.05 * (c[2] - 0.5)
        self.width = (0.205 + 0.03 * c[3]) * self.scale
        self.height = (0.255 + 0.03 * c[4]) * self.scale
        self.skin = _shade(_SKIN_RGB[int(c[5] * len(_SKIN_RGB))], 0.95 + 0.1 * c[6])
        self.dark_skin = _shade(self.skin, 0.84)
        self.ink = _shade(self.skin, 0.45)
        tint = 0.9 + 0.2 * c[7]
        self.hair_rgb = _shade(_HAIR_RGB[face.hair], tint)
        self.long = c[8] < 0.45
        self.curly = c[9] < 0.3

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Canvas pixels of a point given in face units: (0, 0) the centre, (±1, ±1) the outline."""
        return (self.x + x * self.width) * _CANVAS, (self.y + y * self.height) * _CANVAS

    def ellipse(self, x: float, y: float, rx: float, ry: float, **style: object) -> None:
        self.draw.ellipse((*self.at(x - rx, y - ry), *self.at(x + rx, y + ry)), **style)  # type: ignore[arg-type]

    def box(self, x0: float, y0: float, x1: float, y1: float, radius: float, fill: tuple[int, int, int]) -> None:
        self.draw.rounded_rectangle((*self.at(x0, y0), *self.at(x1, y1)), radius * self.width * _CANVAS, fill)

    def polygon(self, points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.draw.polygon([self.at(*point) for point in points], fill)

    def stroke(self, points: list[tuple[float, float]], fill: tuple[int, int, int], width: float) -> None:
        self.draw.line(
            [self.at(*point) for point in points], fill, max(1, round(width * self.width * _CANVAS)), joint="curve"
        )

    def paint(self) -> None:
        self.background()
        self.hair_behind()
        self.body()
        self.head()
        self.hair_in_front()
        self.eyes()
        self.mouth()
        if self.face.has("mustache"):
            self.mustache()
        if self.face.has("eyeglasses"):
            self.eyeglasses()
        if self.face.has("wearing hat"):
            self.hat()

    def background(self) -> None:
        c = self.face.content
        near = np.array(_hsv(c[10], 0.15 + 0.4 * c[11], 0.6 + 0.38 * c[12]), float)
        far = near * (0.72 + 0.2 * c[13])
        bands = 16
        for band in range(bands):
            colour = near + (far - near) * band / (bands - 1)
            self.draw.rectangle(
                (0, band * _CANVAS // bands, _CANVAS, (band + 1) * _CANVAS // bands), _shade(tuple(colour), 1)
            )

    def body(self) -> None:
        c = self.face.content
        cloth = _hsv(c[14], 0.35 + 0.5 * c[15], 0.35 + 0.5 * c[16])
        self.ellipse(0, 2.15, 1.75, 0.95, fill=cloth)
        self.box(-0.42, 0.7, 0.42, 1.42, 0.3, self.dark_skin)
        if c[17] < 0.5:
            self.polygon(
                [(-0.5, 1.22), (0, 1.75), (0.5, 1.22), (0.3, 1.2), (0, 1.45), (-0.3, 1.2)], _shade(cloth, 1.35)
            )
        else:
            self.polygon([(-0.36, 1.25), (0.36, 1.25), (0, 1.6)], self.dark_skin)

    def head(self) -> None:
        for side in (-1, 1):
            self.ellipse(side * 0.99, 0.05, 0.17, 0.2, fill=self.dark_skin)
        self.ellipse(0, 0, 1, 1, fill=self.skin)
        if self.face.content[18] < 0.5:
            for side in (-1, 1):
                self.ellipse(
                    side * 0.55,
                    0.32,
                    0.2,
                    0.13,
                    fill=_shade((self.skin[0] * 1.03, self.skin[1] * 0.9, self.skin[2] * 0.88), 1),
                )
        self.stroke([(0.02, -0.02), (0.1, 0.22), (-0.05, 0.25)], self.dark_skin, 0.09)

    def hair_behind(self) -> None:
        if self.face.hair == "bald":
            return
        if self.long:
            self.box(-1.2, -0.6, 1.2, 1.35, 0.5, _shade(self.hair_rgb, 0.85))
        self.ellipse(0, -0.28, 1.2, 0.98, fill=self.hair_rgb)
        if self.curly:
            for angle in np.linspace(np.pi * 0.98, np.pi * 2.02, 9):
                self.ellipse(
                    1.1 * float(np.cos(angle)), -0.25 + 0.88 * float(np.sin(angle)), 0.3, 0.24, fill=self.hair_rgb
                )

    def hair_in_front(self) -> None:
        if self.face.hair == "bald":
            self.ellipse(-0.35, -0.68, 0.18, 0.09, fill=_shade(self.skin, 1.12))
            return
        # The hair line: a cap over the top of the skull, and temples that stay visible under a hat.
        left, top = self.at(-1.02, -1.04)
        right, bottom = self.at(1.02, 1.0)
        self.draw.chord((left, top, right, bottom), 205, 335, self.hair_rgb)
        for side in (-1, 1):
            self.polygon(
                [(side * 1.08, -0.5), (side * 0.82, -0.62), (side * 0.9, 0.0), (side * 1.06, 0.12)], self.hair_rgb
            )
        if self.face.has("bangs"):
            light = _shade(self.hair_rgb, 1.12)
            self.box(-0.86, -0.78, 0.86, -0.37, 0.18, self.hair_rgb)
            for x in (-0.62, -0.2, 0.22, 0.62):
                self.stroke([(x, -0.72), (x + 0.03, -0.42)], light, 0.07)

    def eyes(self) -> None:
        c = self.face.content
        iris = _EYE_RGB[int(c[19] * len(_EYE_RGB))]
        brow = _shade(self.hair_rgb, 0.7) if self.face.hair != "blond hair" else _shade(self.hair_rgb, 0.75)
        for side in (-1, 1):
            self.ellipse(side * 0.4, -0.1, 0.19, 0.12, fill=(250, 250, 250))
            self.ellipse(side * 0.4, -0.1, 0.1, 0.1, fill=iris)
            self.ellipse(side * 0.4, -0.1, 0.05, 0.05, fill=(15, 15, 20))
            lift = 0.04 * (c[20] - 0.5)
            self.stroke([(side * 0.2, -0.29 + lift), (side * 0.42, -0.34 - lift), (side * 0.6, -0.28)], brow, 0.07)

    def mouth(self) -> None:
        lipstick = self.face.has("wearing lipstick")
        lips = _LIP_RGB[int(self.face.content[21] * len(_LIP_RGB))]
        if self.face.has("smiling"):
            edge = lips if lipstick else self.ink
            outer = 0.09 if lipstick else 0.035
            for grow, fill in ((outer, edge), (0.0, (252, 250, 246))):
                box = (*self.at(-0.42 - grow, 0.3 - grow), *self.at(0.42 + grow, 0.74 + grow))
                self.draw.chord(box, 5 - 60 * grow, 175 + 60 * grow, fill)
            self.stroke([(-0.42, 0.54), (0.42, 0.54)], edge, 0.1 if lipstick else 0.05)
        elif lipstick:
            self.ellipse(0, 0.56, 0.32, 0.105, fill=lips)
            self.stroke([(-0.3, 0.56), (0.3, 0.56)], _shade(lips, 0.6), 0.04)
        else:
            self.stroke([(-0.26, 0.56), (0.26, 0.56)], self.ink, 0.06)

    def mustache(self) -> None:
        colour = _shade(self.hair_rgb, 0.72)
        if sum(abs(ours - skin) for ours, skin in zip(colour, self.skin, strict=True)) < 150:
            colour = _shade(self.skin, 0.35)  # never the colour of the skin: the truth must be visible
        for side in (-1, 1):
            self.polygon([(0, 0.26), (side * 0.34, 0.28), (side * 0.6, 0.5), (side * 0.32, 0.47), (0, 0.45)], colour)

    def eyeglasses(self) -> None:
        c = self.face.content
        frame = _FRAME_RGB[int(c[22] * len(_FRAME_RGB))]
        width = max(2, round(0.085 * self.width * _CANVAS))
        for side in (-1, 1):
            box = (*self.at(side * 0.42 - 0.31, -0.32), *self.at(side * 0.42 + 0.31, 0.16))
            half = min(box[2] - box[0], box[3] - box[1]) / 2
            radius = (half - 2) * (1.0 if c[23] < 0.5 else 0.3)
            self.draw.rounded_rectangle(box, radius, outline=frame, width=width)
            self.stroke([(side * 0.72, -0.12), (side * 1.0, -0.16)], frame, 0.07)
        self.stroke([(-0.12, -0.12), (0.12, -0.12)], frame, 0.08)

    def hat(self) -> None:
        c = self.face.content
        cloth = _hsv((c[14] + 0.3 + 0.4 * c[10]) % 1, 0.3 + 0.6 * c[12], 0.3 + 0.6 * c[16])
        band = _shade(cloth, 0.6)
        kind = int(c[23] * 3)
        if kind == 0:  # brimmed hat
            self.box(-0.78, -1.62, 0.78, -0.72, 0.18, cloth)
            self.box(-0.78, -0.98, 0.78, -0.76, 0.0, band)
            self.box(-1.4, -0.82, 1.4, -0.66, 0.08, cloth)
        elif kind == 1:  # beanie
            left, top = self.at(-1.06, -1.45)
            right, bottom = self.at(1.06, 0.1)
            self.draw.chord((left, top, right, bottom), 180, 360, cloth)
            self.ellipse(0, -1.45, 0.2, 0.17, fill=band)
            self.box(-1.1, -0.88, 1.1, -0.64, 0.08, band)
        else:  # cap
            left, top = self.at(-1.04, -1.38)
            right, bottom = self.at(1.04, 0.02)
            self.draw.chord((left, top, right, bottom), 180, 360, cloth)
            self.box(-0.3, -0.82, 1.5, -0.66, 0.08, band)
