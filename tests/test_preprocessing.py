"""One preprocessing from the search to the export: what the manifest says is what was tested."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps

from isonas.cli.evaluate import _split
from isonas.cli.retrain import retrain
from isonas.cli.retrain_inputs import Job, _crop_side, _crops, resolved
from isonas.data.dataset import Images, split_validation
from isonas.data.encoded import decoded
from isonas.data.preprocessing import DECODER, Fit, Preprocessing, Squares, parse_preprocessing, preprocessing
from isonas.data.synthetic import synthetic
from isonas.export.manifest import preprocessing_words
from isonas.export.origin import _inflated
from isonas.genome import parse_genome
from isonas.search.inputs import changed, inputs_document, parse_inputs
from isonas.training.augmentation import crop_side
from isonas.training.distributed import Processes
from isonas.training.recipes import load_recipe
from isonas.training.version import TRAINING_VERSION
from isonas.training.weights_file import Weights, read_weights, write_weights
from tests.commands import document, isonas
from tests.studies import INPUTS

Array = npt.NDArray[Any]

SPACE = """
input: 64
classes: 3
genes:
  depth: [1]
  channels: [32]
  internal_resolution: [8]
  expansion: [1, 2]
  stem: [s2d]
  head_multiple: [1]
  head_features: [0]
"""
ONE_IMAGE = 1e-9
"""Accuracies that differ by less are the same count of right answers."""

CLASSES = ("across", "both", "down")


def photograph(number: int, label: int) -> bytes:
    """Stripes of one direction under noise: a JPEG or a PNG of some size, orientation and mode."""
    drawn = np.random.default_rng((number, label))
    height, width = (int(extent) for extent in drawn.integers(34, 90, 2))
    y, x = np.mgrid[:height, :width] / min(height, width)
    wave = np.sin(12 * (y, x + y, x)[label] * (1 if label != 1 else 0.7))
    grey = np.clip(128 + 70 * wave + drawn.normal(0, 45, wave.shape), 0, 255)
    stream = io.BytesIO()
    if number % 4 == 0:
        Image.fromarray((grey * 257).astype(np.uint16)).save(stream, "PNG")
    elif number % 4 == 1:
        alpha = np.where(drawn.random(grey.shape) < 0.1, 0, 255)
        Image.fromarray(np.stack([grey, alpha], axis=-1).astype(np.uint8), "LA").save(stream, "PNG")
    else:
        # Stored on its side, and turned by EXIF.
        exif = Image.Exif()
        exif[0x0112] = 6
        colour = Image.fromarray(np.rot90(np.stack([grey] * 3, axis=-1)).astype(np.uint8))
        colour.save(stream, "JPEG", exif=exif, quality=90)
    return stream.getvalue()


def write(root: Path, numbers: range, classes: tuple[str, ...] = CLASSES) -> None:
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (root / name / f"{number:03}").write_bytes(photograph(number, CLASSES.index(name)))


def by_words(content: bytes, words: dict[str, Any]) -> Array:
    """The network's input, (3, input, input), by what a manifest says alone: Pillow and NumPy."""
    side, fit = words["side"], words["fit"]
    image: Image.Image = Image.open(io.BytesIO(content))
    if fit == "letterbox":
        inside = [max(1, round(extent * side / max(image.size))) for extent in image.size]
        image.draft(None, (2 * inside[0], 2 * inside[1]))
    else:
        image.draft(None, (2 * side, 2 * side))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, (*words["background"], 255))
        image = Image.alpha_composite(below, image.convert("RGBA"))
    image = image.convert("RGB")
    w, h = image.size
    if fit == "crop":
        m = min(w, h)
        box = ((w - m) / 2, (h - m) / 2, (w - m) / 2 + m, (h - m) / 2 + m)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box)
    elif fit == "stretch":
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    else:
        size = [max(1, round(n * side / max(w, h))) for n in (w, h)]
        square = Image.new("RGB", (side, side), tuple(words["padding"]))
        square.paste(
            image.resize((size[0], size[1]), Image.Resampling.BILINEAR),
            ((side - size[0]) // 2, (side - size[1]) // 2),
        )
        image = square
    pixels: Array = np.asarray(image).astype(np.float64)
    if to := words["area_to"]:
        # Each pixel split into to × to equal ones, of which side × side lie in each new one.
        fine = pixels.repeat(to, axis=0).repeat(to, axis=1)
        pixels = np.rint(fine.reshape(to, side, to, side, 3).mean(axis=(1, 3)))
    x = (pixels / 255 - words["mean"]) / words["std"]
    x = x.repeat(words["repeat"], axis=0).repeat(words["repeat"], axis=1)
    planes: Array = x.transpose(2, 0, 1).astype(np.float32)
    return planes


def top1_by_words(export: Path, root: Path, names: tuple[str, ...], kept: Array | None = None) -> float:
    """Of an export's folder and a folder of images, or some of these in their order."""
    manifest = json.loads((export / "manifest.json").read_text(encoding="utf-8"))
    files = [(file, name) for name in names for file in sorted((root / name).iterdir())]
    chosen = files if kept is None else [files[index] for index in kept]
    inputs = np.stack([by_words(file.read_bytes(), manifest["preprocessing"]) for file, _ in chosen])
    network = torch.export.load(export / "model.pt2").module()
    with torch.no_grad():
        answers = network(torch.from_numpy(inputs)).argmax(1).tolist()
    right = [manifest["class_names"][a] == name for a, (_, name) in zip(answers, chosen, strict=True)]
    return float(np.mean(right))


def labelled() -> Images:
    """The training photographs' labels; splits look at nothing else where none is another's copy."""
    return Images(np.zeros((120, 3, 1, 1), np.uint8), np.repeat(np.arange(3), 40))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`set/train` and `set/val`, class folders of images of mixed sizes, orientations and modes."""
    place = tmp_path_factory.mktemp("photographs")
    write(place / "set" / "train", range(40))
    write(place / "set" / "val", range(40, 60))
    (place / "space.yaml").write_text(SPACE, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def run(photographs: Path) -> Path:
    run = photographs / "run"
    document(
        "search", str(photographs / "space.yaml"), "--data", f"folder:{photographs / 'set'}", "--trials", "2",
        "--epochs", "4", "--threads", "1", "--precision", "fp32", "--image-side", "36", "--run", str(run),
        "--cache", str(photographs / "cache"), "--batch-size", "16", "--sampler", "random",
    )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def retrained(run: Path, photographs: Path) -> Any:
    return document(
        "retrain", str(run), "--epochs", "4", "--batch-size", "16", "--threads", "1", "--precision", "fp32",
        "--cache", str(photographs / "cache"), "--warm-start", "--run", str(photographs / "retrained"),
    )  # fmt: skip


def test_search_retrain_export_and_the_reported_accuracy_from_the_export_alone(
    retrained: dict[str, Any], photographs: Path
) -> None:
    assert (retrained["image_side"], retrained["fit"], retrained["crop_side"]) == (64, "crop", 80)
    stores = {file.name.split("-", 1)[1] for file in (photographs / "cache").glob("*.pixels.npy")}
    assert {f"{part}-64-crop-v2.pixels.npy" for part in ("train", "held-back")} <= stores
    assert "train-80-crop-v2.pixels.npy" in stores
    assert "held-back-80-crop-v2.pixels.npy" not in stores
    manifest = document("export", str(photographs / "retrained"), "--output", str(photographs / "out"))
    words = manifest["preprocessing"]
    assert (words["side"], words["area_to"], words["upsample_to"], words["repeat"]) == (64, None, None, 1)
    assert words["recorded"]
    place = photographs / "set"
    tested = top1_by_words(photographs / "out", place / "val", CLASSES)
    assert tested == pytest.approx(retrained["test"]["top1"], abs=ONE_IMAGE)
    _, carved = split_validation(labelled(), retrained["split_seed"])
    validated = top1_by_words(photographs / "out", place / "train", CLASSES, carved)
    assert validated == pytest.approx(retrained["validation"]["top1"], abs=ONE_IMAGE)
    assert manifest["origin"]["test_error"] == retrained["test"]["error"]
    # A network that answers the same to everything would agree with any preprocessing.
    assert retrained["test"]["top1"] > 0.5


def test_a_proxys_weights_by_the_manifest(run: Path, photographs: Path) -> None:
    """Squares of 36 pixels, of which trials read 32: the inflated stem reads each pixel twice."""
    manifest = document("export", str(run), "--output", str(photographs / "proxy"))
    words = manifest["preprocessing"]
    assert (words["side"], words["area_to"], words["upsample_to"], words["repeat"]) == (36, 32, None, 2)
    _, carved = split_validation(labelled(), 0)
    found = top1_by_words(photographs / "proxy", photographs / "set" / "train", CLASSES, carved)
    assert found == pytest.approx(1 - manifest["origin"]["validation_error"], abs=ONE_IMAGE)


def evaluated(weights: Path, data: Path) -> Any:
    return document("evaluate", weights, "--data", f"folder:{data}", "--cache", weights.parent / "cache")


def test_classes_go_by_their_names(retrained: dict[str, Any], photographs: Path) -> None:
    whole = evaluated(photographs / "retrained", photographs / "set")
    assert whole["top1"] == retrained["test"]["top1"]
    assert (whole["image_side"], whole["fit"], whole["split"]) == (64, "crop", "held-back split")
    by_name = {row["class"]: row for row in whole["per_class"]}
    write(photographs / "some", range(40, 60), ("both", "down"))
    some = evaluated(photographs / "retrained", photographs / "some")
    assert some["per_class"] == [by_name["both"], by_name["down"]]
    assert some["split"] == "all images"
    shutil.copytree(photographs / "some" / "down", photographs / "others" / "up")
    shutil.copytree(photographs / "some" / "both", photographs / "others" / "both")
    refused = isonas(
        "evaluate", str(photographs / "retrained"), "--data", f"folder:{photographs / 'others'}",
        "--cache", str(photographs / "cache"),
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "has a class 'up' that" in refused.stderr
    assert "its classes are across, both, down" in refused.stderr


def test_other_images_do_not_start_from_the_trials_weights(run: Path, photographs: Path) -> None:
    write(photographs / "more", range(50))
    refused = isonas(
        "retrain", str(run), "--warm-start", "--data", f"folder:{photographs / 'more'}", "--batch-size", "16",
        "--cache", str(photographs / "cache"), "--run", str(photographs / "refused"),
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "may have been trained on some that would validate here" in refused.stderr
    assert not (photographs / "refused").exists()


def test_images_that_were_trained_on_are_not_evaluated_on(
    retrained: dict[str, Any], photographs: Path
) -> None:
    """Without a held-back split those that validated the weights are taken."""
    folder = photographs / "alone"
    result = document(
        "retrain", retrained["genome"], "--data", f"folder:{photographs / 'set' / 'train'}", "--input", "32",
        "--epochs", "1", "--batch-size", "16", "--threads", "1", "--run", str(folder), "--fit", "letterbox",
        "--cache", str(photographs / "cache"),
    )  # fmt: skip
    assert result["test"] is None
    found = evaluated(folder, photographs / "set" / "train")
    assert found["split"] == "validation images; the others were trained on"
    assert (found["images"], found["top1"]) == (24, result["validation"]["top1"])
    assert (found["image_side"], found["fit"]) == (32, "letterbox")


@pytest.mark.parametrize(
    ("changes", "split"),
    [
        ({}, "validation images; the others were trained on"),
        ({"data_fingerprint": "other"}, "all images"),
        ({"decoder": 1}, "all images, most of them trained on"),
        ({"training_version": 1}, "all images, most of them trained on"),
        ({"decoder": None, "training_version": None}, "all images, most of them trained on"),
    ],
)
def test_a_split_is_drawn_again_where_it_was_drawn_so(changes: dict[str, Any], split: str) -> None:
    """The split depends on which images could be decoded and on which are copies."""
    data = replace(synthetic(), held_back=None)
    training = {
        "data_fingerprint": data.fingerprint,
        "split_seed": 3,
        "decoder": data.decoder,
        "training_version": TRAINING_VERSION,
    }
    kept = {name: value for name, value in {**training, **changes}.items() if value is not None}
    weights = Weights(parse_genome("isonet_l1_c8_r4_e1_se0_s2d_m1_h0"), 16, data.class_names, {}, kept, None)
    images, said, rows = _split(data, weights)
    assert (images, said) == (data.train, split)
    drawn = split_validation(data.train, 3)[1].tolist()
    assert (rows.tolist() if rows is not None else None) == (drawn if not changes else None)


def test_an_older_retraining_is_shown_without_its_images(
    retrained: dict[str, Any], run: Path, photographs: Path
) -> None:
    """Its photographs were decoded otherwise; only going on would need them."""
    older = photographs / "older"
    shutil.copytree(photographs / "retrained", older)
    written = json.loads((older / "retrain.json").read_text(encoding="utf-8"))
    for name in ("training_version", "image_side", "fit", "crop_side", "decoder"):
        del written[name]
    (older / "retrain.json").write_text(json.dumps({**written, "data": "folder:/moved"}), encoding="utf-8")
    assert document("retrain", run, "--run", older, "--warm-start", "--epochs", "4") == retrained
    refused = isonas("retrain", run, "--run", older, "--epochs", "5")
    assert (refused.exit_code, "other inputs: recipe.epochs" in refused.stderr) == (2, True)


def test_what_was_understood_is_told_once(photographs: Path) -> None:
    """Images to test on are opened, and larger ones to cut crops from."""
    asked = ("retrain", "isonet_l1_c8_r4_e1_se0_s2d_m1_h0", "--data", f"folder:{photographs / 'set'}")
    where = ("--cache", photographs / "cache", "--run", photographs / "never")
    told = isonas(*asked, "--input", "24", "--batch-size", "999", *where).stderr
    assert "is more than the 96 training images" in told
    assert told.count("training images are those of train/") == 1
    assert ("(train) to 24×24" in told, "(train) to 32×32" in told) == (True, True)
    options = {parameter.name: None for parameter in retrain.params} | {
        "data": f"folder:{photographs / 'set'}", "input_side": 24, "cache": photographs / "cache",
    }  # fmt: skip
    job = Job(parse_genome("isonet_l1_c8_r4_e1_se0_s2d_m1_h0"), photographs / "never", "again")
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        resolved(job, {**options, "batch_size": 64}, Processes(rank=1, count=2))
    assert stream.getvalue() == ""


def test_crops_of_other_images_are_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = replace(synthetic(), decoder=DECODER)
    larger = Images(np.zeros((len(data.train) - 1, 3, 32, 32), np.uint8), data.train.labels[1:])
    found = replace(data, train=larger)
    monkeypatch.setattr("isonas.data.sources.open_dataset", lambda *_, **__: found)
    assert _crops("synthetic", data, 32, {"cache": Path()}, Processes()) is None
    told = "of synthetic other images can be decoded to 32 pixels than to 16; training crops are cut from"
    assert told in capsys.readouterr().err
    found = replace(data, train=replace(data.train, pixels=np.zeros((len(data.train), 3, 32, 32), np.uint8)))
    assert _crops("synthetic", data, 32, {"cache": Path()}, Processes()) is found.train


@pytest.mark.parametrize(("side", "crops"), [(36, 48), (64, 80), (100, 100)])
def test_crops_are_cut_from_what_the_asked_side_needs(side: int, crops: int) -> None:
    """At an input of 64, which reads no more than there is."""
    data = replace(synthetic(), train=Images(np.zeros((1, 3, side, side), np.uint8), np.zeros(1, np.int64)))
    assert _crop_side(64, data, {"recipe": "lamb"}) == crops


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("side", [12, 50, 100])
def test_the_words_are_the_decoder(fit: Fit, side: int) -> None:
    words = preprocessing_words(preprocessing(fit, side, side, 2), side)
    for number in range(8):
        content = photograph(number, number % 3)
        found = decoded(content, Squares(side, fit, side)).astype(np.float64) / 255
        normalised = (found.transpose(1, 2, 0) - words["mean"]) / words["std"]
        np.testing.assert_allclose(by_words(content, words), normalised.transpose(2, 0, 1), atol=1e-6)


def test_weights_carry_their_preprocessing(tmp_path: Path, photographs: Path, retrained: Any) -> None:
    weights = read_weights(photographs / "retrained")
    assert weights.preprocessing == Preprocessing(Fit.CROP, 64, 64, 64, 1, 2)
    write_weights(tmp_path / "older.safetensors", replace(weights, preprocessing=None))
    assert read_weights(tmp_path / "older.safetensors").preprocessing is None
    assert parse_preprocessing(None) is None
    assert preprocessing_words(None, 64)["recorded"] is False
    assert preprocessing_words(weights.preprocessing, 64)["recorded"] is True
    assert preprocessing_words(replace(weights.preprocessing, decoder=1), 64)["recorded"] is False


def test_of_an_older_runs_photographs_nothing_is_claimed() -> None:
    assert _inflated(INPUTS, 16, 16, 32) == Preprocessing(Fit.CROP, 32, 16, 16, 2, 0)
    assert _inflated(replace(INPUTS, training_version=1, fit=Fit.STRETCH), 16, 16, 32) is None


def test_an_older_studys_images_were_stretched() -> None:
    old = inputs_document(INPUTS)
    for name in ("image_side", "fit", "decoder"):
        del old[name]
    read = parse_inputs(old)
    assert (read.image_side, read.fit, read.decoder) == (None, Fit.STRETCH, 0)
    assert changed(read, replace(read, decoder=2)) == ["how images are decoded (version 0 there)"]
    assert changed(INPUTS, replace(INPUTS, fit=Fit.LETTERBOX)) == ["fit (crop there)"]


@pytest.mark.parametrize(
    ("recipe", "side", "crops"), [("adamw", 112, 144), ("lamb", 224, 320), ("lamb", 64, 80)]
)
def test_a_crop_of_mean_area_has_the_inputs_pixels(recipe: str, side: int, crops: int) -> None:
    assert crop_side(side, load_recipe(recipe)) == crops
    assert crop_side(side, replace(load_recipe(recipe), crop_area=1.0)) == side
