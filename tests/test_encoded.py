"""From encoded bytes to squares of pixels: upright, scaled by its range, on one colour, by one resize."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isonas.data import encoded as encoded_images
from isonas.data import gathered, preprocessing
from isonas.data.encoded import Undecodable, chunk_images, common_shape, decoded, squares_for
from isonas.data.preprocessing import PADDING, Fit, Squares
from isonas.data.sources import open_dataset
from isonas.data.store import stored
from isonas.errors import DataError

Array = npt.NDArray[Any]


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels_of(content: bytes, side: int, fit: Fit = Fit.CROP) -> Array:
    """As (side, side, 3)."""
    return decoded(content, Squares(side, fit, side)).transpose(1, 2, 0)


def write(root: Path, files: list[bytes]) -> None:
    """Class folders in the order of the files, the last of them in a class of its own."""
    for number, content in enumerate(files):
        place = root / ("b" if number == len(files) - 1 else "a")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.png").write_bytes(content)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", [*UPRIGHT, 9])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_images_are_turned_as_their_exif_says(form: str, orientation: int) -> None:
    stored_pixels = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if form == "WEBP" else {}
    content = saved(Image.fromarray(stored_pixels), form, exif=exif, **lossless)
    turned = UPRIGHT.get(orientation, lambda a: a)(stored_pixels)
    np.testing.assert_array_equal(pixels_of(content, 8), turned)


def test_a_turned_photograph_is_cropped_as_it_is_seen() -> None:
    """Left half dark, right half light as seen; stored on its side."""
    seen = np.zeros((40, 80, 3), np.uint8)
    seen[:, 40:] = 240
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.fromarray(np.rot90(seen).copy()), "JPEG", exif=exif, quality=95)
    found = pixels_of(content, 8)
    assert found[:, :3].max() < 16
    assert found[:, 5:].min() > 224


def test_damaged_exif_is_no_damaged_image() -> None:
    content = saved(Image.fromarray(noise(8, 8)), "PNG", exif=b"Exif\0\0not what it says")
    np.testing.assert_array_equal(pixels_of(content, 8), noise(8, 8))


SIXTEEN = np.random.default_rng(1).integers(0, 65536, (8, 8)).astype(np.uint16)
SIXTEEN[0, :3] = (0, 65535, 257)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_scaled_by_its_range(form: str) -> None:
    options = {"irreversible": False} if form == "JPEG2000" else {}
    found = pixels_of(saved(Image.fromarray(SIXTEEN), form, **options), 8)
    expected = np.rint(SIXTEEN.astype(np.float64) * (255 / 65535))
    np.testing.assert_array_equal(found, np.stack([expected] * 3, axis=-1))
    assert found[0, :3, 0].tolist() == [0, 255, 1]


def test_16_bit_grey_may_have_a_transparent_value() -> None:
    found = pixels_of(saved(Image.fromarray(SIXTEEN), transparency=257), 8)
    assert found[0, :3, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (SIXTEEN.astype(np.int32), {}),
        (SIXTEEN.astype(np.float32), {}),
        (SIXTEEN, {"tiffinfo": {262: 0}}),
    ],
    ids=["32 bits", "floating point", "white is zero"],
)
def test_grey_whose_range_is_not_known_is_refused(pixels: Array, options: dict[str, Any]) -> None:
    with pytest.raises(Undecodable, match="whose range is not known"):
        pixels_of(saved(Image.fromarray(pixels), "TIFF", **options), 8)


def with_alpha() -> list[bytes]:
    """Noise whose left half is transparent, in every way that a PNG, a GIF or a WebP has for it."""
    rgba = noise(8, 8, 4)
    rgba[:, :4, 3], rgba[:, 4:, 3] = 0, 255
    image = Image.fromarray(rgba, "RGBA")
    grey = image.convert("LA")
    palette = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (8, 1)), "P")
    palette.putpalette(noise(1, 8).tobytes())
    one = rgba[..., :3].copy()
    one[:, :4] = (1, 2, 3)
    return [
        saved(image),
        saved(image, "WEBP", lossless=True, exact=True),
        saved(grey),
        saved(palette, transparency=bytes([0] * 4 + [255] * 4)),
        saved(Image.fromarray(one), transparency=(1, 2, 3)),
    ]


@pytest.mark.parametrize("content", with_alpha(), ids=["rgba", "webp", "grey", "palette", "one colour"])
def test_what_is_transparent_is_white(content: bytes) -> None:
    found = pixels_of(content, 8)
    assert (found[:, :4] == 255).all()
    with Image.open(io.BytesIO(content)) as image:
        seen = np.asarray(image.convert("RGBA"))[:, 4:, :3]
    np.testing.assert_array_equal(found[:, 4:], seen)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    rgba = noise(8, 8, 4)
    share = rgba[..., 3:].astype(np.float64) / 255
    mixed = rgba[..., :3] * share + 255 * (1 - share)
    assert np.abs(pixels_of(saved(Image.fromarray(rgba, "RGBA")), 8) - mixed).max() <= 1


def triangle(start: float, extent: float, pixels: int, side: int) -> Array:
    """(side, pixels) weights of a bilinear resize of [start, start + extent), each pixel at its centre."""
    scale = extent / side
    width = max(scale, 1.0)
    weights = np.zeros((side, pixels))
    for out in range(side):
        centre = start + (out + 0.5) * scale
        for pixel in range(pixels):
            weights[out, pixel] = max(0.0, 1 - abs(pixel + 0.5 - centre) / width)
    shares: Array = weights / weights.sum(axis=1, keepdims=True)
    return shares


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.sampled_from(Fit))
@settings(deadline=None, max_examples=60)
def test_one_resize_fits_an_image_to_a_square(height: int, width: int, side: int, fit: Fit) -> None:
    image = noise(height, width)
    short, long = min(height, width), max(height, width)
    tall, wide, top, left = side, side, 0, 0
    rows, columns = (0.0, float(height)), (0.0, float(width))
    if fit is Fit.CROP:
        rows, columns = (((extent - short) / 2, float(short)) for extent in (height, width))
    if fit is Fit.LETTERBOX:
        tall, wide = (max(1, round(extent * side / long)) for extent in (height, width))
        top, left = (side - tall) // 2, (side - wide) // 2
    across = triangle(*columns, width, wide)
    down = triangle(*rows, height, tall)
    # Pillow resizes along rows first, and rounds in between.
    halfway = np.rint(np.einsum("jw,hwc->hjc", across, image.astype(np.float64)))
    expected = np.broadcast_to(np.array(PADDING, np.float64), (side, side, 3)).copy()
    expected[top : top + tall, left : left + wide] = np.einsum("ih,hjc->ijc", down, halfway)
    found = pixels_of(saved(Image.fromarray(image)), side, fit)
    assert np.abs(found - expected).max() <= 1.6


@pytest.mark.parametrize("fit", Fit)
def test_a_jpeg_is_decoded_no_larger_than_needed(fit: Fit) -> None:
    """1600 × 1200 to 80 pixels: a quarter (300 ≥ 160), for a letterbox an eighth (200 × 150 ≥ 160 × 120)."""
    rows, columns = np.mgrid[:1200, :1600]
    smooth = np.stack([rows * 255 / 1200, columns * 255 / 1600, 128 + 0 * rows], axis=-1).astype(np.uint8)
    content = saved(Image.fromarray(smooth), "JPEG", quality=95)
    with Image.open(io.BytesIO(content)) as image:
        encoded_images._draft(image, Squares(80, fit, 80))
        assert image.size == ((200, 150) if fit is Fit.LETTERBOX else (400, 300))
    whole = pixels_of(saved(Image.fromarray(smooth)), 80, fit).astype(int)
    assert np.abs(pixels_of(content, 80, fit) - whole).max() <= 6


def test_images_above_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG that is small enough as it is decoded is read, others say plainly that they are too large."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    monkeypatch.setattr(encoded_images, "MOST_PIXELS", 10_000)
    large = Image.fromarray(np.full((200, 200, 3), 90, np.uint8))
    assert np.abs(pixels_of(saved(large, "JPEG"), 8).astype(int) - 90).max() <= 1
    for content, side in (
        (saved(large), 8),
        (saved(large, "JPEG", progressive=True), 8),
        (saved(large, "JPEG"), 150),
    ):
        with pytest.raises(Undecodable, match="more than 10,000 pixels, too many to decode; scale it down"):
            pixels_of(content, side)
    write(tmp_path / "set", [saved(large), *[saved(large.resize((40, 40)))] * 3])
    assert len(open_dataset(f"folder:{tmp_path / 'set'}", tmp_path / "cache").train) == 3


def test_of_images_that_fill_memory_one_is_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_images, "_LARGE_PIXELS", 63)
    with encoded_images._LARGE:
        monkeypatch.setattr(encoded_images, "_LARGE_PIXELS", 64)
        pixels_of(saved(Image.fromarray(noise(8, 8))), 8)
    assert not encoded_images._LARGE.locked()


def test_libraries_warnings_stay_out_of_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def chunks() -> list[tuple[Array, Array]]:
        warnings.warn("Palette images with Transparency …", stacklevel=1)
        return [(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64))]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stored(tmp_path / "cache", "key", "making", chunks)
        write(tmp_path / "set", [with_alpha()[3]] * 2)
        open_dataset(f"folder:{tmp_path / 'set'}", tmp_path / "cache")
    assert told == []
    assert "Warning" not in capsys.readouterr().err


MIXED = [(60, 40), (300, 200), (90, 120)]


@pytest.mark.parametrize(
    ("sizes", "asked", "side"),
    [
        (MIXED, None, 64),
        (MIXED, 112, 112),
        (MIXED, 30, 30),
        ([(50, 40), (60, 50)], None, 50),
        ([(50, 40), (60, 50)], 96, 96),
        ([(32, 32)] * 3, None, 32),
        ([(32, 32)] * 3, 112, 32),
        ([(32, 32)] * 3, 16, 16),
        ([(512, 512)] * 3, None, 256),
        ([(512, 512)] * 3, 384, 384),
        ([(60, 40)] * 3, 112, 112),
    ],
)
def test_the_side_that_images_are_fitted_to(
    sizes: list[tuple[int, int]], asked: int | None, side: int
) -> None:
    assert squares_for(*common_shape(sizes), asked, Fit.CROP).side == side


@pytest.mark.parametrize("side", [1, 64, 256, 1024, 4096])
def test_a_chunk_is_held_to_its_bytes(side: int) -> None:
    count = chunk_images(side)
    assert count == 1 or count * 3 * side**2 <= 2**25


def test_a_store_is_of_one_side_fit_and_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [saved(Image.fromarray(noise(*size))) for size in MIXED]
    write(tmp_path / "set", images)

    def opened(*form: Any) -> Array:
        data = open_dataset(f"folder:{tmp_path / 'set'}", tmp_path / "cache", *form)
        assert (data.fit, data.decoder) == (form[1], preprocessing.DECODER)
        return data.train.pixels

    for side in (20, 112, 250):
        by_fit = {fit: opened(side, fit) for fit in Fit}
        for fit, found in by_fit.items():
            expected = np.stack([pixels_of(image, side, fit) for image in images])
            np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))
    before = len(list((tmp_path / "cache").glob("*.pixels.npy")))
    assert before == 9
    opened(20, Fit.CROP)
    assert len(list((tmp_path / "cache").glob("*.pixels.npy"))) == before
    monkeypatch.setattr(preprocessing, "DECODER", preprocessing.DECODER + 1)
    monkeypatch.setattr(gathered, "DECODER", preprocessing.DECODER)
    opened(20, Fit.CROP)
    assert len(list((tmp_path / "cache").glob("*.pixels.npy"))) == before + 1


def test_what_is_left_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [saved(Image.fromarray(noise(8, 8, seed=number))) for number in range(3)]
    floating = saved(Image.fromarray(SIXTEEN.astype(np.float32)), "TIFF")
    write(tmp_path / "set", [floating, *images])
    open_dataset(f"folder:{tmp_path / 'set'}", tmp_path / "cache")
    told = capsys.readouterr().err
    assert "left out 1 of 4 training files or rows (1 damaged (.png)); the first is " in told
    assert "0.png (TIFF with pixels of mode F, whose range is not known)" in told
    write(tmp_path / "set", [floating] * 4)
    with pytest.raises(DataError, match="4 of 4 files"):
        open_dataset(f"folder:{tmp_path / 'set'}", tmp_path / "cache")
