"""An exported network computes what the searched one computed, with PyTorch alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from isonas.data.augment import normalise
from isonas.data.preprocessing import Fit, preprocessing
from isonas.data.synthetic import synthetic
from isonas.errors import ExportError
from isonas.export.manifest import preprocessing_words
from isonas.export.pytorch import export_pytorch, standalone_source, timm_config
from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.networks.timm import TimmIsometricNet
from isonas.search.log import read_trials
from isonas.search.weights import load_weights
from tests.commands import document, isonas

SPACE = """
input: 32
classes: 4
genes:
  depth: [1]
  channels: [32]
  internal_resolution: [4]
  expansion: [1, 2]
  se_ratio: [0, 1/4]
  stem: [s2d, conv, resize]
  head_multiple: [1]
  head_features: [0, 8]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search on 16×16 images for a deployment at 32×32."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    document(
        "search", str(folder / "space.yaml"), "--data", "synthetic", "--epochs", "1", "--threads", "1",
        "--epoch-images", "128", "--seed", "1",
        "--trials", "8", "--sampler", "random", "--run", str(folder / "run"),
    )  # fmt: skip
    return folder / "run"


def test_every_front_member_is_exported_and_says_what_its_proxy_said(run: Path, tmp_path: Path) -> None:
    manifests = document("export", str(run), "--select", "front", "--output", str(tmp_path / "out"))
    front = document("front", str(run))["front"]
    assert [manifest["genome"] for manifest in manifests] == [row["genome"] for row in front]
    data = synthetic()
    by_number = {trial.number: trial for trial in read_trials(run)[0]}
    for manifest in manifests:
        origin = manifest["origin"]
        assert (origin["weights"], origin["stem_inflation"]) == ("proxy", 2)
        assert origin["stem_inflation_parity_error"] < 1e-4
        trial = by_number[origin["trial"]]
        weights = load_weights(run, trial.number)
        assert weights is not None
        proxy = build_network(trial.genome, 16, 4).eval()
        proxy.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
        deployed = torch.export.load(tmp_path / "out" / manifest["genome"] / "model.pt2").module()
        # A 32×32 image whose 2×2 box average is the 16×16 image that the proxy reads.
        small = normalise(torch.from_numpy(data.train.pixels[:6]))
        checker = 0.3 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
        large = functional.interpolate(small, scale_factor=2.0, mode="nearest") + checker
        torch.testing.assert_close(functional.avg_pool2d(large, 2), small, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(deployed(large), proxy(small), rtol=1e-3, atol=1e-4)


def test_the_folder_needs_pytorch_alone(run: Path, tmp_path: Path) -> None:
    manifest = document("export", str(run), "--output", str(tmp_path / "out"))
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "genome.json", "manifest.json", "model.pt2", "model.py", "model.safetensors",
    ]  # fmt: skip
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("isonas", "safetensors", "timm", "optuna"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(folder)!r})
import json, torch
from model import load_model
network = load_model()
program = torch.export.load({str(folder / "model.pt2")!r}).module()
images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    print(json.dumps([network(images).tolist(), program(images).tolist()]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    eager, program = (torch.tensor(logits) for logits in json.loads(done.stdout))
    torch.testing.assert_close(eager, program, rtol=1e-4, atol=1e-5)
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry["bytes"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["parity_error"] < 1e-4
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest


def test_the_manifest_states_the_costs_and_the_preprocessing(run: Path, tmp_path: Path) -> None:
    manifest = document("export", str(run), "--output", str(tmp_path / "out"))
    best = document("front", str(run))["front"][0]
    memory = manifest["memory"]
    assert memory["predicted_peak_bytes"] == best["peak_bytes"]
    assert memory["predicted_weight_bytes"] == best["weight_bytes"]
    assert memory["measured_peak_bytes"] is None
    assert manifest["costs"]["params"] == best["params"]
    chain = manifest["preprocessing"]
    assert manifest["input"] == chain["input"] == 32
    # The proxy read the source's 16 pixels, and its stem was inflated by two.
    assert (chain["side"], chain["area_to"], chain["upsample_to"], chain["repeat"]) == (16, None, None, 2)
    assert manifest["class_names"] == ["0 degrees", "45 degrees", "90 degrees", "135 degrees"]


def fails(says: str, code: int, *arguments: str) -> None:
    result = isonas(*arguments)
    assert says in result.stderr, result.output
    assert result.exit_code == code


def test_what_cannot_be_exported(run: Path, tmp_path: Path) -> None:
    front = {row["trial"] for row in document("front", str(run))["front"]}
    out = ["--output", str(tmp_path / "out")]
    off_front = next(number for number in range(8) if number not in front)
    fails("keeps no weights of trial", 1, "export", str(run), "--select", str(off_front), *out)
    fails("names no complete trial", 2, "export", str(run), "--select", "99", *out)
    fails("--classes is for a GENOME", 2, "export", str(run), "--classes", "3", *out)
    fails("which is no whole factor", 1, "export", str(run), "--input", "20", *out)
    fails("does not divide input 33", 1, "export", str(run), "--input", "33", *out)
    fails("--data is for a training; give --epochs", 2, "export", str(run), "--data", "digits", *out)
    fails("--seed is for a training", 2, "export", str(run), "--seed", "1", *out)
    fails("--threads is for a training", 2, "export", str(run), "--threads", "1", *out)
    fails("--precision is for a training", 2, "export", str(run), "--precision", "bf16", *out)
    genome = "isonet_l1_c8_r8_e2_se4_conv_m2_h0"
    for unused in (("--data", "digits"), ("--fit", "stretch"), ("--image-side", "48"), ("--threads", "1")):
        says = f"{unused[0]} is for a training, and --epochs 0 trains nothing"
        fails(says, 2, "export", genome, "--epochs", "0", *unused, *out)
    fails("--select is for a run", 2, "export", genome, "--select", "best", "--epochs", "0", *out)
    (tmp_path / "out").mkdir()
    fails("exists; remove it", 2, "export", str(run), *out)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_factor_that_is_not_whole_is_trained(run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    manifest = document("export", str(run), "--input", "20", "--epochs", "2", "--output", out)
    assert manifest["origin"]["weights"] == "trained"
    assert manifest["origin"]["test_error"] < 0.6
    assert manifest["input"] == 20


def test_genomes_are_trained_or_exported_untrained(tmp_path: Path) -> None:
    genome = "isonet_l1_c8_r8_e2_se4_conv_m2_h0"
    trained = document(
        "export",
        genome,
        "--data",
        "synthetic",
        "--epochs",
        "4",
        "--input",
        "16",
        "--output",
        str(tmp_path / "a"),
    )
    assert trained["origin"]["test_error"] < 0.4
    untrained = document(
        "export", genome, "--epochs", "0", "--classes", "7", "--input", "32", "--output", str(tmp_path / "b")
    )
    assert untrained["origin"]["weights"] == "untrained"
    assert untrained["classes"] == 7


def manifest(side: int, fit: Fit = Fit.CROP) -> dict[str, Any]:
    """What of a manifest is written in timm's words too, of a network of three classes."""
    chain = preprocessing(fit, side, side, 0)
    return {
        "classes": 3,
        "class_names": ["a", "b", "c"],
        "preprocessing": preprocessing_words(chain, side),
    }


@pytest.mark.parametrize("stem", list(Stem))
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("side", [12, 6, 4])
def test_every_kind_of_network_is_exported(stem: Stem, shared: bool, side: int, tmp_path: Path) -> None:
    """Pooled, at the internal resolution, upsampled; each form is compared as it is written."""
    genome = Genome(2, 8, 6, 2, Fraction(1, 2), stem, 5, 2, 0, shared)
    network = build_network(genome, side, 3)
    files = export_pytorch(
        network, genome, side, torch.randn(2, 3, side, side), manifest(side), tmp_path / "out"
    )["files"]
    assert set(files) == {"model.safetensors", "model.py", "model.pt2"}
    assert max(entry["parity_error"] for entry in files.values()) < 1e-4


@pytest.mark.parametrize(
    ("fit", "mode"), [(Fit.CROP, "center"), (Fit.LETTERBOX, "border"), (Fit.STRETCH, "squash")]
)
def test_timm_fits_images_as_they_were(fit: Fit, mode: str) -> None:
    config = timm_config(Genome(), 224, manifest(224, fit))["pretrained_cfg"]
    assert (config["crop_mode"], config["crop_pct"], config["interpolation"]) == (mode, 1.0, "bilinear")


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isonas.export.pytorch.TOLERANCE", -1.0)
    genome = Genome(1, 8, 4, 1, Fraction(0), head_features=0)
    with pytest.raises(ExportError, match="nothing was written"):
        export_pytorch(
            build_network(genome, 8, 3), genome, 8, torch.randn(2, 3, 8, 8), manifest(8), tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_the_standalone_source_imports_pytorch_and_the_standard_library_alone() -> None:
    lines = [line for line in standalone_source().splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].split(".")[0] for line in lines} == {
        "__future__",
        "json",
        "pathlib",
        "struct",
        "torch",
    }


def test_images_smaller_than_the_deployment_are_upsampled_in_training(tmp_path: Path) -> None:
    result = isonas(
        *("export", "isonet_l1_c8_r8_e1_se0_s2d_m1_h0", "--data", "synthetic", "--epochs", "1"),
        *("--input", "32", "--output", tmp_path / "out"),
    )
    assert result.exit_code == 0
    assert "--input 16 would train and deploy at theirs" in result.stderr


def test_members_that_are_exported_already_are_left_as_they_are(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = document("front", str(run))["front"][0]["genome"]
    document("export", str(run), "--select", first, "--output", str(out / first))
    written = (out / first / "model.pt2").stat().st_mtime_ns
    rest = document("export", str(run), "--select", "front", "--output", str(out))
    assert len(list(out.iterdir())) == len(rest) + 1
    assert (out / first / "model.pt2").stat().st_mtime_ns == written


def test_weights_of_something_else_are_refused(run: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    number = document("front", str(copy))["front"][0]["trial"]
    save_file({"a": np.zeros(3)}, copy / "weights" / f"{number}.safetensors")
    fails(f"does not hold the weights of trial {number}", 1, "export", str(copy))


def test_a_training_that_cannot_be_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("isonas.training.deployed.build_network", exhausted)
    genome = "isonet_l1_c8_r8_e2_se4_conv_m2_h0"
    arguments = ["--data", "synthetic", "--epochs", "1", "--input", "16", "--output", str(tmp_path / "out")]
    fails("training stopped: can't allocate memory", 1, "export", genome, *arguments)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.pt2", "manifest.json"])
def test_a_disk_that_fills_is_one_sentence_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device", str(path))

    def write_bytes(path: Path, content: bytes) -> int:
        return full(path) if path.name == name else wrote_bytes(path, content)

    def write_text(path: Path, content: str, **how: str) -> int:
        return full(path) if path.name == name else wrote_text(path, content, **how)

    wrote_bytes, wrote_text = Path.write_bytes, Path.write_text
    # All files are written by Python: PyTorch's own writer aborts the process where there is no room.
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(Path, "write_text", write_text)
    out = tmp_path / "out"
    arguments = ["isonet_l2_c32_r4_e2_se4_s2d", "--epochs", "0", "--input", "32", "--output", str(out)]
    fails(f"{out} cannot be written (No space left on device)", 1, "export", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_timm_loads_the_folder_and_refuses_the_rest_in_a_sentence(run: Path, tmp_path: Path) -> None:
    import timm
    from timm.data.config import resolve_data_config

    manifest = document("export", str(run), "--output", str(tmp_path / "out"))
    name = f"local-dir:{tmp_path / 'out'}"
    theirs = timm.create_model(name, pretrained=True).eval()
    assert isinstance(theirs, TimmIsometricNet)
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    side, classes = manifest["input"], manifest["classes"]
    images = torch.randn(4, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), program(images), rtol=1e-4, atol=1e-5)
        tuned = timm.create_model(name, pretrained=True, num_classes=classes + 3).eval()
        assert isinstance(tuned, TimmIsometricNet)
        assert tuned(images).shape == (4, classes + 3)
        # Another classifier on the same features.
        torch.testing.assert_close(tuned.forward_features(images), theirs.forward_features(images))
    config = resolve_data_config({}, model=theirs)  # type: ignore[no-untyped-call]
    assert config["input_size"] == (3, side, side)
    assert list(config["mean"]) == manifest["preprocessing"]["mean"]
    assert manifest["preprocessing"]["fit"] == "crop"
    assert (config["crop_pct"], config["crop_mode"]) == (1.0, "center")
    for arguments, says in (
        ({"features_only": True}, "has one resolution"),
        ({"img_size": 2 * side}, "leave img_size out"),
        ({"in_chans": 1}, "in_chans is 1"),
        ({"drop_path_rate": 0.1}, "isonet has no drop_path_rate; it takes genome"),
        ({"img_size": (side, 2 * side)}, "read squares"),
    ):
        with pytest.raises(ValueError, match=says):
            timm.create_model(name, pretrained=True, **arguments)
