"""Reading pictures: what cameras and programs write becomes RGB; what cannot be used ends in one sentence."""

import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dpose.pictures import check_view, exif_focal, intrinsics, read_image, square_box


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)


# Kinds of pictures


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp", ".ppm", ".webp", ".JPG"])
def test_the_colours_are_those_that_were_written(suffix, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / f"a{suffix}", **{"lossless": True} if suffix == ".webp" else {})
    found = read_image(tmp_path / f"a{suffix}")
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.abs(found.astype(int) - picture).max() <= (60 if suffix == ".JPG" else 0)
    assert np.abs(found.astype(int) - picture).mean() < 3


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_pictures_of_more_than_eight_bits_are_as_bright_as_of_eight(bits, suffix, picture, tmp_path):
    full = picture.copy()
    full[0, 0] = 255  # a white pixel
    deep = (full.astype(np.uint16) << (bits - 8)) + (1 << (bits - 8)) - 1
    cv2.imwrite(str(tmp_path / f"a{suffix}"), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), full)


def test_grey_one_bit_palette_and_cmyk_pictures_become_rgb(picture, tmp_path):
    image = Image.fromarray(picture)
    for mode, suffix, close in (("L", ".png", 1), ("1", ".png", 1), ("P", ".png", 1), ("CMYK", ".jpg", 60)):
        image.convert(mode).save(tmp_path / f"{mode}{suffix}", **{"quality": 100} if mode == "CMYK" else {})
        found = read_image(tmp_path / f"{mode}{suffix}")
        expected = np.asarray(image.convert(mode).convert("RGB"))
        assert found.shape == (480, 640, 3)
        assert np.abs(found.astype(int) - expected).mean() < (4 if mode == "CMYK" else close), mode


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_a_transparent_picture_lies_over_grey(suffix, picture, tmp_path):
    alpha = np.zeros((480, 640), np.uint8)
    alpha[:, 200:400], alpha[:, 400:] = 255, 128
    rgba = np.dstack([picture, alpha])
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", **{"lossless": True} if suffix == ".webp" else {})
    found = read_image(tmp_path / f"a{suffix}").astype(float)
    np.testing.assert_array_equal(found[:, :200], 114)
    np.testing.assert_array_equal(found[:, 200:400], picture[:, 200:400])
    np.testing.assert_allclose(
        found[:, 400:], (picture[:, 400:].astype(float) * 128 + 114 * 127) / 255, atol=1
    )


def test_arrays_and_tensors_in_the_usual_forms_are_the_same_picture(picture):
    floats = picture.astype(np.float32) / 255
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)
    for same in (
        picture,
        floats,
        floats.astype(np.float64),
        channels_first,
        channels_first / 255,
        torch.tensor(picture),
    ):
        np.testing.assert_array_equal(read_image(same), picture)
    np.testing.assert_array_equal(read_image(picture[..., 0]), np.repeat(picture[..., :1], 3, 2))
    opaque = np.dstack([picture, np.full((480, 640), 255, np.uint8)])
    np.testing.assert_array_equal(read_image(opaque), picture)


@pytest.mark.filterwarnings("error")
def test_pillow_s_limit_on_pixels_does_not_count(picture, tmp_path, monkeypatch):
    """Pillow warns of more than 89 megapixels, and refuses more than 179; phones make 200. Here 89 pixels."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(picture).save(tmp_path / "phone.jpg", exif=exif)
    Image.new("RGBA", (640, 480)).save(tmp_path / "clear.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89)
    assert exif_focal(tmp_path / "phone.jpg") == pytest.approx(26 * 800 / 43.2666, rel=1e-4)
    assert read_image(tmp_path / "clear.png")[7, 8].tolist() == [114] * 3
    with pytest.raises(Image.DecompressionBombError):  # of other callers
        Image.open(tmp_path / "clear.png")


def test_the_orientation_in_a_jpeg_is_applied(picture, tmp_path):
    upright = tmp_path / "upright.jpg"
    cv2.imwrite(str(upright), picture)
    data = upright.read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)  # turn right
    exif = b"Exif\0\0" + tiff
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    np.testing.assert_array_equal(read_image(turned), np.rot90(read_image(upright), -1))


def test_the_focal_length_is_that_of_the_35_mm_equivalent(picture, tmp_path):
    """26 mm along a diagonal of 43.27 mm, on 800 pixels from corner to corner."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(picture).save(tmp_path / "phone.jpg", exif=exif)
    assert exif_focal(tmp_path / "phone.jpg") == pytest.approx(26 * 800 / 43.2666, rel=1e-4)


def test_files_that_say_nothing_about_the_lens_have_no_focal_length(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "plain.jpg")
    for strange in (0, 1, 60_000):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = strange
        Image.fromarray(picture).save(tmp_path / f"{strange}.jpg", exif=exif)
    (tmp_path / "text.jpg").write_bytes(b"a letter, say")
    for path in (*tmp_path.iterdir(), tmp_path / "missing.jpg"):
        assert exif_focal(path) is None


# Boxes and cameras


def test_without_a_box_the_whole_image_is_the_person():
    center, side = square_box(None, 640, 480)
    np.testing.assert_array_equal(center, [320, 240])
    assert side == pytest.approx(1.2 * 640)


@pytest.mark.parametrize(
    ("box", "fact"),
    [
        ((10, 10, 0, 50), "8 pixels"),
        ((10, 10, 50, -1), "8 pixels"),
        ((0.1, 0.1, 0.7, 0.9), "fractions"),
        ((200, 200, 1, 1), "8 pixels"),
        ((0, 0, 1e-300, 1e-300), "8 pixels"),
        ((640, 0, 10, 10), "640 x 480"),
        ((-50, 0, 50, 10), "640 x 480"),
        ((0, 480, 10, 10), "640 x 480"),
        ((630, 470, 400, 400), "640 x 480"),
        ((0, 0, 20_000, 20_000), "640 x 480"),
        ((0, 0, 1e308, 1e308), "640 x 480"),
        ((1, 2, 3), "four"),
        ((0, 0, float("nan"), 1), "four"),
        ((0, 0, 100, float("inf")), "four"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_useless_box_is_refused(box, fact):
    with pytest.raises(ValueError, match=fact):
        square_box(box, 640, 480)


@pytest.mark.parametrize("focal", [0.0, -5.0, float("nan"), float("inf"), 1e-45, 1e39, 0.1])
def test_an_impossible_focal_length_is_refused(focal):
    with pytest.raises(ValueError, match=re.escape(f"{focal:g}")):
        intrinsics(640, 480, focal)


@pytest.mark.parametrize(
    "cam_int",
    [
        np.eye(4),
        np.zeros((3, 3)),
        [[500, 0, 320], [0, 500, float("nan")], [0, 0, 1]],
        [[500, 1, 320], [0, 500, 240], [0, 0, 1]],
        [[500, 0, 320], [0, 500, 240], [0, 0, 2]],
        [[500, 0, 320], [0, -500, 240], [0, 0, 1]],
    ],
)
def test_an_impossible_camera_is_refused(cam_int):
    with pytest.raises(ValueError, match="pixels"):
        intrinsics(640, 480, cam_int=cam_int)


def test_a_focal_length_and_a_camera_at_once_are_refused():
    with pytest.raises(ValueError, match="focal or cam_int"):
        intrinsics(640, 480, 500, np.eye(3))


@pytest.mark.parametrize(
    ("size", "focal", "view", "millimetres", "larger"),
    [  # a 35 mm film frame is 43.27 mm from corner to corner
        ((4000, 3000), 26, 179, ["3005"], False),
        ((640, 480), 3500, 13, [], True),
        ((640, 480), 9000, 5.09, [], True),
        ((640, 480), 2, 179, [], False),  # no lens
    ],
)
def test_a_focal_length_that_is_hardly_in_pixels_gets_a_warning_with_what_it_may_be(
    size, focal, view, millimetres, larger
):
    with pytest.warns(UserWarning, match=f"{focal} is taken as pixels.* {view}") as caught:
        check_view(intrinsics(*size, focal), *size)
    text = str(caught[0].message)
    assert re.findall(r"millimetres, give (\d+)", text) == millimetres
    assert ("larger version" in text) == larger


@pytest.mark.filterwarnings("error")
def test_usual_focal_lengths_give_no_warning():
    for focal in (None, 250, 800, 3000):
        check_view(intrinsics(640, 480, focal), 640, 480)
    check_view(intrinsics(6000, 600), 6000, 600)


# What cannot be read


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def bad_images(picture) -> dict[str, bytes]:
    png, jpeg = (cv2.imencode(kind, picture)[1].tobytes() for kind in (".png", ".jpg"))
    return {
        "empty.jpg": b"",
        "cut.png": png[:60],
        "half.png": png[: len(png) // 2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "flipped.png": png[:200] + bytes([png[200] ^ 255]) + png[201:],
        "text.png": b"a letter, say",
        "nothing.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "nothing.bmp": b"BM" + bytes(100),
        "nothing.gif": b"GIF89a" + bytes(100),
        "40000 x 40000.png": png_of(40_000, 40_000),
        "20000 x 20000.png": png_of(20_000, 20_000),
        "30000 x 40000.jpg": jpeg_of(30_000, 40_000),
        "4294967295 x 1.png": png_of(2**32 - 1, 1),
    }


@pytest.mark.parametrize("name", bad_images(np.zeros((999, 999, 3), np.uint8)))
def test_an_unreadable_image_is_named_and_nothing_else_is_said(name, picture, tmp_path, capfd, monkeypatch):
    path = tmp_path / name
    path.write_bytes(bad_images(picture)[name])
    size = name.rsplit(".", 1)[0] if " x " in name else ""
    if size:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=re.escape(str(path)) + f".*{size}"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_an_error_inside_opencv_is_a_sentence_about_the_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(png_of(10, 10))

    def fails(*_):
        raise cv2.error("OpenCV: insufficient memory")

    monkeypatch.setattr(cv2, "imdecode", fails)
    with pytest.raises(ValueError, match=r"image\.png"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "head", "fact"),
    [
        ("photo.heic", b"\0\0\0\x18ftypheic", "HEIC.*JPEG"),
        ("photo.jpg", b"\0\0\0\x1cftypmif1", "HEIC.*JPEG"),
        ("photo.NEF", b"MM\0*", "raw.*JPEG"),
    ],
)
def test_phone_and_raw_formats_are_named_with_what_to_do(name, head, fact, tmp_path):
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} .*{fact}"):
        read_image(tmp_path / name)


def test_a_missing_image_a_folder_and_a_wrong_array_are_named(picture, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)
    wrong = (picture.astype(np.int32), picture[..., :2], np.zeros((0, 5, 3), np.uint8), picture[None])
    for array in wrong:
        with pytest.raises(ValueError, match="uint8 RGB"):
            read_image(array)
    for values in (picture.astype(np.float32), np.full((9, 9, 3), np.nan), np.full((9, 9, 3), -0.1)):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            read_image(values)
    with pytest.raises(ValueError, match="dict"):
        read_image({})
