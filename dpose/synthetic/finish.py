"""What a lens, a sensor and a file do to a picture, where `dpose.data.augment` cannot: it has no depth of the
scene and only mild losses of resolution. Labels and depth are unchanged.
"""

import cv2
import numpy as np


def focused(rng: np.random.Generator, image: np.ndarray, depth: np.ndarray, person: np.ndarray) -> np.ndarray:
    """The picture (S, S, 3) uint8 with what is behind the person out of focus.

    depth: (S, S) metres of the visible surface. person: (S, S) bool.
    """
    if not person.any():
        return image
    far = depth > depth[person].max() + 0.3
    sigma = image.shape[0] / 160 * float(np.exp(rng.uniform(np.log(0.8), np.log(5))))
    weight = cv2.GaussianBlur(far.astype(np.float32), (0, 0), sigma)[..., None]
    spread = cv2.GaussianBlur(np.where(far[..., None], image, 0).astype(np.float32), (0, 0), sigma)
    share = cv2.GaussianBlur(far.astype(np.float32), (0, 0), 0.7)[..., None]
    return (image * (1 - share) + spread / np.maximum(weight, 1e-3) * share).clip(0, 255).astype(np.uint8)


def toned(rng: np.random.Generator, image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture with another contrast, brightness, saturation and white balance, maybe a vignette.

    inside: (S, S) bool, pixels of the full picture, whose mean brightness comes close to a random one as an
    automatic exposure has it.
    """
    level = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.normal(0.05, 0.2))
    mean = max(float(image[inside].mean()), 8.0) if inside.any() else 1.0
    level = (level * (rng.uniform(60, 150) / mean) ** 0.6).clip(0, 1.2)
    gain = np.exp(rng.normal(0, 0.06, 3) + rng.normal(0, 0.08))
    table = (level - 0.45) * np.exp(rng.normal(0.1, 0.13)) + 0.45  # beyond black and white is clipped
    image = cv2.LUT(image, (table * gain * 255).astype(np.float32)[None])
    saturation = rng.uniform(0.5, 1.25)
    image = cv2.transform(image, saturation * np.eye(3) + (1 - saturation) / 3)
    if rng.random() < 0.2:
        ramp = np.linspace(-1, 1, image.shape[0], dtype=np.float32) ** 2
        image *= 1 - np.float32(rng.uniform(0.1, 0.35)) * (ramp[:, None, None] + ramp[:, None])
    return image.clip(0, 255).astype(np.uint8)


def coarse(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The picture as if it had been cut from one where the person is small: few pixels, noise, JPEG."""
    size = image.shape[0]
    side = max(int(size * np.exp(rng.uniform(np.log(0.2), np.log(0.7)))), 16)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    small = (small + rng.normal(0, rng.uniform(0, 8), small.shape)).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.7:
        quality = int(rng.integers(25, 90))
        small = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    way = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    return cv2.resize(small, (size, size), interpolation=way)
