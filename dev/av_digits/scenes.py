"""Camera frames: a card with a handwritten digit, held in front of a background.

A `Room` is what stays for a whole recording (background, light, camera), a `Card` what is held up, a `Pose` where it is
just now. Colors are RGB. Lengths are in units of the frame's height, so that one scene can be drawn at any size.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

CANVAS = 144  # height of a card's own drawing, pixels
LIGHT_UNIT = 96.0
GRAIN_SD = 32.0
GLYPH = 112  # side of the square a glyph is drawn in before it is cut to its ink


@dataclass(frozen=True)
class Room:
    """Everything before the card comes, and the camera.

    background: uint8 (h, w, 3). light: uint8 (h, w, 3), what multiplies every color, in units of 1 / LIGHT_UNIT. blur:
    standard deviation in frame heights.
    motion: (dx, dy) of motion blur in frame heights. noise: standard deviation in grey levels. shadow: strength 0..1.
    """

    background: np.ndarray
    light: np.ndarray
    blur: float
    motion: tuple[float, float]
    noise: float
    shadow: float


@dataclass(frozen=True)
class Card:
    """A drawing, uint8 (CANVAS, w, 3), and the rectangle of its ink (left, top, right, bottom) in canvas pixels; None
    on an empty card.
    """

    drawing: np.ndarray
    ink_box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Pose:
    """Center (x, y) and height in frame heights, rotation in radians, and the shifts of the four corners (4, 2)."""

    x: float
    y: float
    height: float
    angle: float
    pull: np.ndarray


@lru_cache(maxsize=1)
def _grain() -> np.ndarray:
    """uint8 (768, 1024, 3), normal noise around 128 with GRAIN_SD: frames cut pieces from it, which is far quicker than
    drawing anew.
    """
    noise = np.random.default_rng(5).standard_normal((768, 1024, 3), dtype=np.float32)
    return np.clip(np.round(noise * GRAIN_SD + 128.0), 0, 255).astype(np.uint8)


def _color(rng: np.random.Generator, low: float, high: float, tint: float) -> np.ndarray:
    return np.clip(rng.uniform(low, high) + rng.normal(0.0, tint, 3), 0.0, 255.0).astype(np.float32)


def glyph_ink(image: np.ndarray, rng: np.random.Generator, variety: float = 1.0) -> np.ndarray:
    """Ink of a handwritten digit, enlarged smoothly: uint8 (h, w), 255 is full ink, cut to the ink's rectangle.

    image: uint8 (n, n), MNIST's 28x28 or scikit-learn's 8x8. variety scales slant, elastic bending and stroke width; 0
    leaves them.
    """
    side = image.shape[0]
    pad = max(side // 8, 1)
    padded = np.pad(image, pad)
    way = rng.random()
    coarse = side < 16
    if way < 0.06 and variety > 0.8:
        interpolation = cv2.INTER_NEAREST
    elif way < 0.25 * variety:
        interpolation = cv2.INTER_LINEAR
    else:
        interpolation = cv2.INTER_CUBIC
    ink = cv2.resize(padded, (GLYPH, GLYPH), interpolation=interpolation).astype(np.float32) / 255.0
    ink = np.clip(ink, 0.0, 1.0) / max(float(ink.max()), 1e-3)
    cell = GLYPH / padded.shape[0]
    if interpolation != cv2.INTER_NEAREST:
        ink = cv2.GaussianBlur(ink, (0, 0), max(cell * rng.uniform(0.2, 0.42), 0.6))
        if coarse and rng.random() > 0.25 * variety:
            ink = _crisp(ink, cell, 1.7 + variety * rng.uniform(-0.9, 0.6))
    ink = _bent(ink, rng, variety)
    if rng.random() > 0.2 * variety:
        threshold = np.clip((0.54 if coarse else 0.42) + variety * rng.normal(0.0, 0.06), 0.25, 0.65) * float(ink.max())
        softness = rng.uniform(0.03, 0.22)
        ink = np.clip((ink - threshold) / (2.0 * softness) + 0.5, 0.0, 1.0)
    else:
        ink = np.clip(ink * 1.15, 0.0, 1.0)
    if rng.random() < 0.5 * variety:
        width = int(rng.integers(2, 4 if coarse else 6))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        thinner = rng.random() < (0.7 if coarse else 0.35)
        thinned = cv2.erode(ink, kernel) if thinner and width < 4 else cv2.dilate(ink, kernel)
        if np.count_nonzero(thinned > 0.5) > 150:
            ink = thinned
    solid = ink > 0.25
    columns, rows = np.flatnonzero(solid.any(axis=0)), np.flatnonzero(solid.any(axis=1))
    if len(columns) == 0:
        raise ValueError("a glyph without ink: the image is blank; give one with a digit on it")
    cut = ink[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    return np.round(cut * 255.0).astype(np.uint8)


def _crisp(ink: np.ndarray, cell: float, strength: float) -> np.ndarray:
    """Local contrast for 8x8 pixels, whose strokes are a cell or two wide: it keeps the holes of eights and nines."""
    around = cv2.GaussianBlur(ink, (0, 0), 1.3 * cell)
    return np.clip(ink + np.float32(strength) * (ink - around), 0.0, 1.0)


def _bent(ink: np.ndarray, rng: np.random.Generator, variety: float) -> np.ndarray:
    """Slanted, stretched, turned a little and bent elastically, in one remap."""
    slant, stretch, turn = (
        rng.normal(0.0, 0.13 * variety),
        np.exp(rng.normal(0.0, 0.1 * variety)),
        rng.normal(0.0, 0.05 * variety),
    )
    half = GLYPH / 2.0
    grid = np.linspace(-half, half, 5, dtype=np.float32)
    x, y = np.meshgrid(grid, grid)
    bend = rng.normal(0.0, GLYPH * 0.022 * variety, (2, 5, 5)).astype(np.float32)
    u = (x + slant * y) * stretch * np.cos(turn) - y * np.sin(turn) + bend[0] + half
    v = x * np.sin(turn) + y * np.cos(turn) / stretch + bend[1] + half
    u, v = (cv2.resize(m.astype(np.float32), (GLYPH, GLYPH), interpolation=cv2.INTER_CUBIC) for m in (u, v))
    return cv2.remap(ink, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0.0)


def make_card(glyph: np.ndarray | None, rng: np.random.Generator, variety: float = 1.0) -> Card:
    """Paper with the glyph on it, or empty. glyph: uint8 (h, w) of `glyph_ink`. variety 0 is plain white or cream paper
    with dark ink.
    """
    width = round(CANVAS * rng.uniform(0.68, 1.0 + 0.35 * variety))
    inverted = rng.random() < 0.14 * variety
    if inverted:
        paper, pen = _color(rng, 5, 80, 12 * variety), _color(rng, 185, 255, 10)
    elif rng.random() < 0.25 * variety:
        paper = _color(rng, 140, 240, 38)
        pen = _color(rng, 0, 60, 14)
    else:
        paper = np.clip(_color(rng, 215, 252, 4) - np.array([0, 2, 12], np.float32) * rng.random(), 0, 255)
        pen = _color(rng, 5, 60, 12) + np.array([0, 0, 70], np.float32) * (rng.random() < 0.25)
    drawing = np.empty((CANVAS, width, 3), np.float32)
    drawing[:] = paper
    _rule(drawing, paper, rng, variety)
    box = None
    if glyph is not None:
        tall = rng.uniform(0.78 - 0.34 * variety, 0.84) * CANVAS
        scale = min(tall / glyph.shape[0], 0.84 * width / glyph.shape[1])
        h, w = max(round(glyph.shape[0] * scale), 4), max(round(glyph.shape[1] * scale), 3)
        alpha = cv2.resize(glyph, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)[..., None]
        alpha = alpha.astype(np.float32) * ((rng.uniform(0.8, 1.0) if variety else 1.0) / 255.0)
        margin_x, margin_y = 0.5 * (width - w), 0.5 * (CANVAS - h)
        left = round(margin_x * (1.0 + 0.7 * rng.uniform(-1, 1)))
        top = round(margin_y * (1.0 + 0.7 * rng.uniform(-1, 1)))
        patch = drawing[top : top + h, left : left + w]
        patch += alpha * (pen - patch)
        box = (float(left), float(top), float(left + w), float(top + h))
    if rng.random() < 0.2 * variety:
        cv2.rectangle(
            drawing, (0, 0), (width - 1, CANVAS - 1), (paper * rng.uniform(0.3, 0.8)).tolist(), int(rng.integers(1, 5))
        )
    grain = rng.uniform(0, 5) * max(variety, 0.3)
    i, j = rng.integers(0, 600), rng.integers(0, 800)
    drawing += np.float32(grain / GRAIN_SD) * (_grain()[i : i + CANVAS, j : j + width, :1] - np.float32(128.0))
    return Card(np.clip(drawing, 0, 255).astype(np.uint8), box)


def _rule(drawing: np.ndarray, paper: np.ndarray, rng: np.random.Generator, variety: float) -> None:
    """Lined or squared paper, sometimes: faint lines, so that no line is a digit one."""
    if rng.random() > 0.15 * variety:
        return
    line = paper * rng.uniform(0.75, 0.92)
    step = int(rng.integers(9, 26))
    drawing[int(rng.integers(step)) :: step] = line
    if rng.random() < 0.5:
        drawing[:, int(rng.integers(step)) :: step] = line


def make_room(rng: np.random.Generator, width: int, height: int, variety: float = 1.0) -> Room:
    """A random background, light and camera. variety below 1 is calmer: less clutter, blur, noise and odd light."""
    background = _background(rng, width, height, variety)
    level = np.exp(rng.normal(-0.04, 0.26 * variety))
    balance = np.exp(rng.normal(0.0, 0.08 * variety, 3))
    falloff = np.exp(rng.normal(0.0, rng.uniform(0.02, 0.22) * max(variety, 0.4), (2, 3)))
    small = cv2.resize(
        (falloff[..., None] * (LIGHT_UNIT * level * balance)).astype(np.float32),
        (80, 60),
        interpolation=cv2.INTER_LINEAR,
    )
    if rng.random() < 0.15 * variety:
        small *= _hard_shadow(rng)[..., None]
    light = cv2.resize(
        np.clip(np.round(small), 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR
    )
    blur = 0.0
    motion = (0.0, 0.0)
    way = rng.random()
    if way < 0.45 * variety:
        blur = float(rng.gamma(1.6, 0.0032))
    elif way < 0.58 * variety:
        length, angle = rng.uniform(0.008, 0.055), rng.uniform(0, np.pi)
        motion = (float(length * np.cos(angle)), float(length * np.sin(angle)))
    noise = float(rng.gamma(1.5, 4.0)) * max(variety, 0.2)
    return Room(background, light, blur, motion, noise, float(rng.uniform(0.0, 0.6)))


def _hard_shadow(rng: np.random.Generator) -> np.ndarray:
    """Something between the lamp and the scene: float32 (60, 80), 1 where it is lit."""
    mask = np.ones((60, 80), np.float32)
    corners = (rng.uniform(-0.3, 1.3, (4, 2)) * (80, 60)).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners), float(rng.uniform(0.45, 0.85)))
    return cv2.GaussianBlur(mask, (0, 0), rng.uniform(1.0, 6.0))


def _background(rng: np.random.Generator, width: int, height: int, variety: float) -> np.ndarray:
    """uint8 (height, width, 3): gradients, clouds, stripes or plain, with clutter on top."""
    base = _color(rng, 20, 235, 28)
    kind = rng.random()
    if kind < 0.25:
        small = base + rng.normal(0.0, 30.0, (2, 2, 3))
    elif kind < 0.7:
        rows = int(rng.integers(3, 10))
        small = base + rng.normal(0.0, rng.uniform(5, 45), (rows, rows * 4 // 3, 3 if rng.random() < 0.5 else 1))
        if rng.random() < 0.5:
            fine = rng.normal(0.0, rng.uniform(4, 28), (rows * 5, rows * 20 // 3, 1))
            small = (
                cv2.resize(small.astype(np.float32), (fine.shape[1], fine.shape[0]), interpolation=cv2.INTER_CUBIC)
                + fine
            )
    elif kind < 0.85:
        y, x = np.mgrid[0:60, 0:80].astype(np.float32)
        phase = (x * np.cos(a := rng.uniform(0, np.pi)) + y * np.sin(a)) * rng.uniform(0.15, 1.2) + rng.uniform(0, 6)
        wave = np.sin(phase)
        wave = np.sign(wave) if rng.random() < 0.4 else wave
        small = base + wave[..., None] * rng.normal(0.0, 28.0, 3)
    else:
        small = np.broadcast_to(base, (2, 2, 3))
    picture = cv2.resize(np.clip(small, 0, 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.7 * max(variety, 0.7):
        for _ in range(int(rng.integers(1, 9))):
            _thing(picture, rng)
    if rng.random() < 0.5 * variety:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.8, 5.0) * height / 240.0)
    return picture


def _thing(picture: np.ndarray, rng: np.random.Generator) -> None:
    """One piece of clutter, drawn in place: a box, a disc, a line."""
    h, w = picture.shape[:2]
    color = _color(rng, 0, 255, 40).tolist()
    center = (int(rng.uniform(-0.1, 1.1) * w), int(rng.uniform(-0.1, 1.1) * h))
    size = rng.uniform(0.03, 0.4, 2) * h
    kind = rng.random()
    if kind < 0.55:
        box = cv2.boxPoints(
            (
                center,
                (float(size[0]), float(size[1] * 1.5)),
                float(rng.normal(0, 12) if rng.random() < 0.7 else rng.uniform(0, 90)),
            )
        )
        cv2.fillConvexPoly(picture, box.astype(np.int32), color, cv2.LINE_AA)
    elif kind < 0.75:
        cv2.ellipse(picture, center, (int(size[0] / 2) + 1, int(size[1] / 2) + 1), 0, 0, 360, color, -1, cv2.LINE_AA)
    else:
        end = (int(rng.uniform(-0.1, 1.1) * w), int(rng.uniform(-0.1, 1.1) * h))
        cv2.line(picture, center, end, color, max(int(rng.uniform(0.004, 0.03) * h), 1), cv2.LINE_AA)


def _corners(card: Card, pose: Pose) -> np.ndarray:
    """The card's corners in frame heights: float32 (4, 2), clockwise from top left."""
    half_w, half_h = 0.5 * pose.height * card.drawing.shape[1] / CANVAS, 0.5 * pose.height
    square = np.array([[-half_w, -half_h], [half_w, -half_h], [half_w, half_h], [-half_w, half_h]], np.float32)
    turn = np.array([[np.cos(pose.angle), np.sin(pose.angle)], [-np.sin(pose.angle), np.cos(pose.angle)]], np.float32)
    return ((square + pose.pull * pose.height) @ turn + (pose.x, pose.y)).astype(np.float32)


def _onto(card: Card, pose: Pose, height: int) -> np.ndarray:
    """The homography from canvas pixels to frame pixels: float64 (3, 3)."""
    w = card.drawing.shape[1]
    canvas = np.array([[0, 0], [w, 0], [w, CANVAS], [0, CANVAS]], np.float32)
    return cv2.getPerspectiveTransform(canvas, _corners(card, pose) * height)


def make_pose(card: Card, rng: np.random.Generator, aspect: float, variety: float = 1.0) -> Pose:
    """A pose that keeps the digit inside a frame of width `aspect` heights; the card's edge may leave it.

    The card is 45 to 85 % of the frame high (at full variety sometimes more, so that the paper fills the frame).
    """
    big = rng.random() < 0.12 * variety
    size = rng.uniform(0.85, 1.15) if big else rng.uniform(0.66 - 0.21 * variety, 0.85)
    size = min(size, 0.95 * aspect * CANVAS / card.drawing.shape[1]) if not big else size
    for attempt in range(40):
        calm = 1.0 / (1.0 + 0.1 * attempt)
        pose = Pose(
            float(aspect * (0.5 + calm * rng.uniform(-0.34, 0.34))),
            float(0.5 + calm * rng.uniform(-0.3, 0.3)),
            float(size),
            float(rng.normal(0.0, 0.11 * max(variety, 0.35))),
            rng.normal(0.0, 0.025 * variety, (4, 2)).astype(np.float32),
        )
        box = card.ink_box or (0, 0, card.drawing.shape[1], CANVAS)
        corners = np.array([[[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]], np.float32)
        seen = cv2.perspectiveTransform(corners, _onto(card, pose, 1))[0]
        if seen.min() > 0.02 and seen[:, 0].max() < aspect - 0.02 and seen[:, 1].max() < 0.98:
            return pose
        size *= 0.985
    return pose


def render(room: Room, card: Card | None, pose: Pose | None, rng: np.random.Generator) -> np.ndarray:
    """One frame: uint8 (h, w, 3) RGB of the room's size. Without a card the background alone."""
    height, width = room.background.shape[:2]
    picture = room.background
    if card is not None and pose is not None:
        picture = _with_card(picture, card, pose, room.shadow)
    picture = cv2.multiply(picture, room.light, scale=1.0 / LIGHT_UNIT)
    if room.blur * height > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), room.blur * height)
    length = int(np.hypot(*room.motion) * height)
    if length >= 2:
        picture = cv2.filter2D(picture, -1, _motion_kernel(room.motion, height, length))
    if room.noise > 0.3:
        share = room.noise / GRAIN_SD
        picture = cv2.addWeighted(picture, 1.0, _grain_piece(rng, height, width), share, -128.0 * share)
    return picture


def _with_card(picture: np.ndarray, card: Card, pose: Pose, shadow: float) -> np.ndarray:
    height, width = picture.shape[:2]
    paper = cv2.warpPerspective(
        card.drawing, _onto(card, pose, height), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    mask = np.zeros((height, width), np.uint8)
    corners = np.round(_corners(card, pose) * (height * 16.0)).astype(np.int32)
    cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_AA, 4)
    if shadow > 0.05:
        small = np.roll(cv2.resize(mask, (80, 60), interpolation=cv2.INTER_AREA), (2, 2), (0, 1))
        small = cv2.convertScaleAbs(cv2.GaussianBlur(small, (0, 0), 2.0), alpha=-shadow, beta=255.0)
        dim = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        picture = cv2.multiply(picture, cv2.merge([dim, dim, dim]), scale=1.0 / 255.0)
    over = mask.astype(np.float32) * np.float32(1.0 / 255.0)
    return cv2.blendLinear(paper, picture, over, 1.0 - over)


def _grain_piece(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    grain = _grain()
    if height > grain.shape[0] or width > grain.shape[1]:
        grain = np.tile(grain, (height // grain.shape[0] + 1, width // grain.shape[1] + 1, 1))
    i, j = rng.integers(0, grain.shape[0] - height + 1), rng.integers(0, grain.shape[1] - width + 1)
    return grain[i : i + height, j : j + width]


def _motion_kernel(motion: tuple[float, float], height: int, length: int) -> np.ndarray:
    kernel = np.zeros((length | 1, length | 1), np.float32)
    middle = (length | 1) // 2
    dx, dy = (0.5 * m * height for m in motion)
    start = (round(middle - dx), round(middle - dy))
    cv2.line(kernel, start, (round(middle + dx), round(middle + dy)), 1.0, 1)
    return kernel / kernel.sum()


def through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """What is left of uint8 (h, w, 3) RGB after JPEG."""
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(to_jpeg(picture, quality), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def to_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """uint8 (h, w, 3) RGB as a JPEG file."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"OpenCV could not write a picture of shape {picture.shape} as JPEG")
    return data.tobytes()


def training_frame(
    glyph_image: np.ndarray | None, rng: np.random.Generator, width: int = 320, height: int = 240
) -> np.ndarray:
    """One frame of a random world: uint8 (height, width, 3) RGB. glyph_image: uint8 (n, n), or None for nothing to
    read.

    Nothing to read is an empty card, no card at all, or a camera that sees black or white.
    """
    room = make_room(rng, width, height)
    card, pose = None, None
    if glyph_image is not None:
        card = make_card(glyph_ink(glyph_image, rng), rng)
    elif (way := rng.random()) < 0.55:
        card = make_card(None, rng)
    elif way > 0.94:
        room = replace(room, light=np.full_like(room.light, rng.choice([0, 3, 255])))
    if card is not None:
        pose = make_pose(card, rng, width / height)
    picture = render(room, card, pose, rng)
    if rng.random() < 0.35:
        picture = through_jpeg(picture, int(rng.integers(22, 92)))
    return picture
