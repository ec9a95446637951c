"""`isonas export --format c` and `isonas verify`, from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from isonas.data.synthetic import synthetic
from isonas.export.reference import logits, shown
from tests.commands import document, isonas
from tests.integers import integers_of, lively_network

GENOME = "isonet_l1_c8_r4_e2_se4_s2d_m2_h0"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c") / "net"
    found = document(
        "export", GENOME, "--format", "c", "--epochs", "1", "--data", "synthetic", "--input", "16",
        "--threads", "1", "--precision", "fp32", "--output", folder,
    )  # fmt: skip
    assert json.loads((folder / "manifest.json").read_text()) == found
    return folder


def test_the_manifest_says_what_int8_costs(exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    int8 = manifest["int8"]
    assert int8["scored_images"] == min(500, len(synthetic().held_back or ()))
    assert int8["top1_loss"] == int8["fp32_top1"] - int8["int8_top1"]
    assert manifest["memory"]["predicted_arena_bytes"] == int8["arena_bytes"]
    assert (exported / "classes.txt").read_text().splitlines() == manifest["class_names"]
    header = (exported / "isonas_net.h").read_text()
    assert f"_ARENA_BYTES {int8['arena_bytes']}\n" in header


def test_verify_measures_what_was_promised(exported: Path) -> None:
    found = document("verify", exported)
    assert found["measured"][0]["target"] == "host"
    assert all(one["differing"] == 0 for one in found["measured"])
    assert json.loads((exported / "manifest.json").read_text())["measured"] == found["measured"]


def test_other_logits_or_another_arena_are_an_error(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    shutil.copytree(exported, folder)
    test = folder / "isonas_net_test.c"
    text = test.read_text()
    first = re.search(r"int8_t \w+\[\d+\] ALIGNED = \{\n(-?\d+)", text)
    assert first is not None
    other = "0" if first[1] != "0" else "1"
    test.write_text(text[: first.start(1)] + other + text[first.end(1) :])
    result = isonas("verify", folder)
    assert result.exit_code == 1
    assert "2 runs on host give other logits than the reference" in result.output
    test.write_text(text)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["int8"]["arena_bytes"] -= 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    result = isonas("verify", folder)
    assert result.exit_code == 1
    assert "the arena on host takes" in result.output


def test_what_cannot_be_verified_or_quantised(tmp_path: Path) -> None:
    result = isonas("verify", tmp_path)
    assert (result.exit_code, "is no export of isonas export --format c" in result.output) == (2, True)
    result = isonas("export", GENOME, "--format", "c", "--epochs", "0", "--output", tmp_path / "net")
    assert (result.exit_code, "give those of the training with --data" in result.output) == (2, True)
    assert not (tmp_path / "net").exists()


def test_eight_bits_are_the_upper_half_of_sixteen() -> None:
    network = integers_of(lively_network(GENOME, 16), GENOME, 16)
    wide = logits(network, synthetic().train.pixels[:8].repeat(1, axis=2)[:, :, :16, :16])
    assert np.abs(shown(wide).astype(int) * 256 - wide.astype(int)).max() <= 128
