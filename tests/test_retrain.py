"""Full retraining: exact resumes, several processes, and what is written."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from isonas.cli.retrain_inputs import _micro_batch
from isonas.data.dataset import Images, split_validation
from isonas.data.synthetic import synthetic
from isonas.errors import LogError, TrainingError, UsageError
from isonas.genome import parse_genome
from isonas.networks.build import build_network, inflate_stem
from isonas.report.retrain import print_comparison
from isonas.training import retrain as training
from isonas.training.augmentation import AugmentedImages, loader
from isonas.training.distributed import Processes
from isonas.training.evaluate import right_answers
from isonas.training.machine import Machine
from isonas.training.recipes import FullRecipe, load_recipe, parse_recipe, shipped_recipes
from isonas.training.retrain import retrain
from isonas.training.retrain_folder import Retraining, State, load_state
from isonas.training.version import TRAINING_VERSION
from isonas.training.weights_file import read_weights
from tests.commands import document, isonas

CPU = Machine("cpu", "fp32", 1)
GENOME = "isonet_l1_c8_r4_e2_se4_s2d_m2_h0"
EVERYTHING = FullRecipe(
    epochs=3,
    batch_size=32,
    optimizer="adamw",
    rate=0.02,
    dropout=0.1,
    label_smoothing=0.1,
    mixup=0.2,
    cutmix=0.5,
    randaugment="rand-m5-n2-mstd0.5",
    erasing=0.3,
)
PLAIN = FullRecipe(epochs=2, batch_size=64, optimizer="sgd", rate=0.1, rate_scaling="linear")
DATA = synthetic()


def asked(recipe: FullRecipe = EVERYTHING, **changes: Any) -> Retraining:
    inputs = Retraining(
        genome=parse_genome(GENOME),
        input_side=16,
        data="synthetic",
        data_fingerprint=DATA.fingerprint,
        class_names=DATA.class_names,
        recipe=recipe,
        micro_batch=recipe.batch_size,
        seed=5,
        split_seed=3,
        device="cpu",
        precision="fp32",
        threads=1,
        training_version=TRAINING_VERSION,
    )
    return replace(inputs, **changes)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "rmsproptf"])
def test_going_on_from_a_state_is_never_having_stopped(optimizer: str, tmp_path: Path) -> None:
    """Through the checkpoint's file, and whatever was drawn in between."""
    inputs = asked(replace(EVERYTHING, optimizer=optimizer))
    *_, whole = retrain(inputs, DATA)
    first = next(iter(retrain(inputs, DATA)))
    torch.save({**vars(first), "history": [vars(row) for row in first.history]}, tmp_path / "checkpoint.pt")
    random.seed(1)
    torch.rand(3)
    *_, resumed = retrain(inputs, DATA, state=load_state(tmp_path))
    assert_equal(whole.network, resumed.network)
    assert_equal(whole.average, resumed.average)
    assert_equal(whole.best, resumed.best)
    rows = [[replace(row, seconds=0) for row in state.history] for state in (whole, resumed)]
    assert rows[0] == rows[1]


def test_global_randomness_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    list(retrain(asked(replace(EVERYTHING, epochs=1)), DATA))
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_worker_processes_change_nothing() -> None:
    images = AugmentedImages(DATA.train, 16, EVERYTHING, mirror=True, seed=9)
    starts = [(epoch, start) for epoch in (0, 1) for start in (0, 8, 16)]
    keys = [[(epoch, index) for index in range(start, start + 8)] for epoch, start in starts]
    alone, helped = (list(loader(images, list(keys), workers)) for workers in (0, 2))
    for (pixels, labels), (same, too) in zip(alone, helped, strict=True):
        assert torch.equal(pixels, same)
        assert torch.equal(labels, too)
    first, again = alone[0][0], alone[3][0]
    assert not torch.equal(first, again), "an epoch augments anew"


def test_crops_are_as_small_as_what_reads_them_bears() -> None:
    """Whatever the larger squares that they are cut from: at 72 pixels no less than 35% of an image."""
    y, x = np.mgrid[:112, :112].astype(np.uint8)
    squares = Images(np.stack([2 * x, 2 * y, 0 * x])[None], np.zeros(1, np.int64))

    def areas(side: int) -> list[float]:
        recipe = replace(load_recipe("lamb"), randaugment="")
        images = AugmentedImages(squares, side, recipe, mirror=True, seed=1)
        spans = [np.ptp(images[epoch, 0][0][:2].astype(np.int64), axis=(1, 2)) for epoch in range(300)]
        return [float(np.prod(span / 2 / 112)) for span in spans]

    # An enlarged crop reaches from the first pixel's centre to the last's.
    assert 0.3 < min(areas(72)) < 0.5
    assert min(areas(96)) < 0.15


@pytest.mark.parametrize("choice", ["", "-inc1", "-tweights", "-t3a", "-t3aw"])
def test_augmentation_hangs_on_no_images_size(choice: str) -> None:
    """Whichever of timm's transforms a text chooses: none needs the side that absolute shifts are of."""
    recipe = replace(EVERYTHING, randaugment=f"rand-m9-n2{choice}")
    images = AugmentedImages(DATA.train, 16, recipe, mirror=False, seed=1)
    for epoch in range(60):
        assert images[epoch, 0][0].shape == (3, 16, 16)


def test_the_average_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """average ← d·average + (1 − d)·weights with d = min(1 − n^(−2/3), decay) after step n + 1."""
    kept: list[dict[str, Tensor]] = []
    make = training._average

    def spied(network: Any, recipe: FullRecipe) -> Any:
        average = make(network, recipe)
        update = average.update

        def noted(of: nn.Module, step: int) -> None:
            update(of, step)
            kept.append({name: tensor.clone() for name, tensor in of.state_dict().items()})

        average.update = noted
        return average

    monkeypatch.setattr(training, "_average", spied)
    *_, state = retrain(asked(replace(EVERYTHING, average_decay=0.8)), DATA)
    name = "blocks.0.expand.conv.weight"
    expected = kept[0][name].double()
    for step, weights in enumerate(kept[1:], start=2):
        decay = min(1 - (1 + step - 1) ** (-2 / 3), 0.8)
        expected = decay * expected + (1 - decay) * weights[name].double()
    torch.testing.assert_close(state.average[name].double(), expected, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_those_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where batch norm does not tell micro-batches apart, the steps are the same."""

    def without_norm(*arguments: Any) -> nn.Module:
        network = build_network(*arguments)
        for module in network.modules():
            if hasattr(module, "norm"):
                module.norm = nn.Identity()
        return network

    monkeypatch.setattr(training, "build_network", without_norm)
    *_, whole = retrain(asked(PLAIN), DATA)
    *_, parts = retrain(asked(PLAIN, micro_batch=16), DATA)
    for name, tensor in whole.network.items():
        torch.testing.assert_close(parts.network[name], tensor, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(UsageError, match="is more than the 384 training images"):
        next(retrain(asked(replace(PLAIN, batch_size=400)), DATA))
    with pytest.raises(UsageError, match="not shared out evenly by 1 process in micro-batches of 24"):
        next(retrain(asked(micro_batch=24), DATA))
    with pytest.raises(UsageError, match="mixup takes images in pairs"):
        next(retrain(asked(replace(EVERYTHING, batch_size=33), micro_batch=33), DATA))
    assert training.plan(asked(micro_batch=8), 384, Processes(0, 2)) == (12, 2)


def test_a_loss_that_is_no_number_is_a_reason() -> None:
    with pytest.raises(TrainingError, match="the loss became nan in epoch 1"):
        next(retrain(asked(replace(PLAIN, rate=1e30)), DATA))


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_make_their_optimizer_and_end_at_their_final_rate(name: str) -> None:
    recipe = load_recipe(name)
    network = build_network(parse_genome(GENOME), 16, 4)
    groups = training.optimizer_of(network, recipe).param_groups
    decayed = {group["weight_decay"] for group in groups}
    assert decayed == {0.0, recipe.weight_decay}
    for group in groups:
        for parameter in group["params"]:
            assert (parameter.ndim > 1) == (group["weight_decay"] > 0)
    assert recipe.rate_at(1) == pytest.approx(recipe.peak_rate * recipe.final)
    assert recipe.rate_at(recipe.warmup) == pytest.approx(recipe.peak_rate)
    double = replace(recipe, batch_size=recipe.batch_size * 4).peak_rate / recipe.peak_rate
    assert double == pytest.approx(4 if recipe.rate_scaling == "linear" else 2)


def test_the_rates_are_timms() -> None:
    from timm.scheduler.cosine_lr import CosineLRScheduler

    import isonas.networks.timm  # noqa: F401

    recipe = replace(PLAIN, warmup=0.2, final=0.01, batch_size=256)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.peak_rate)
    schedule = CosineLRScheduler(
        optimizer, 80, lr_min=recipe.peak_rate / 100, warmup_t=20, warmup_prefix=True, t_in_epochs=False
    )
    for step in range(100):
        schedule.step_update(step)
        assert recipe.rate_at(step / 100) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_the_papers_rate_decays_by_the_same_factor_everywhere() -> None:
    recipe = load_recipe("mobilenetv3")
    # timm's recipe for it: × 0.973 every 2.4 of 600 epochs.
    assert recipe.final == pytest.approx(0.973 ** (600 / 2.4), rel=0.1)
    rates = [recipe.rate_at(progress) for progress in (0.2, 0.4, 0.6, 0.8)]
    assert rates[1] / rates[0] == pytest.approx(rates[3] / rates[2])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"epochs": 1}, "batch_size is missing"),
        ({"epoch": 1}, "'epoch' is unknown; did you mean epochs"),
        ({"epochs": 0}, "epochs is 0; give a whole number from 1"),
        ({"rate": "fast"}, "rate is 'fast'; give a number"),
        ({"decay": "linear"}, "decay is 'linear'; give cosine or exponential"),
        ({"optimizer_options": 3}, "give a mapping"),
        ([1], "a mapping with the keys"),
    ],
)
def test_recipes_are_checked(document: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_recipe(document, "mine")


def test_right_answers_equal_a_count_by_hand() -> None:
    network = build_network(parse_genome(GENOME), 16, 10).eval()
    images = Images(DATA.train.pixels[:300], np.arange(300) % 10)
    found = right_answers(network, images, 16, CPU)
    from isonas.data.augment import normalise

    with torch.no_grad():
        logits = network(normalise(torch.from_numpy(images.pixels)))
    for label in range(10):
        own = [row for row, one in zip(logits.tolist(), images.labels, strict=True) if one == label]
        ranks = [sorted(range(10), key=row.__getitem__, reverse=True).index(label) for row in own]
        assert found.images[label] == len(own)
        assert found.top1[label] == sum(rank == 0 for rank in ranks)
        assert found.top5[label] == sum(rank < 5 for rank in ranks)
    assert found.error == 1 - found.top1.sum() / 300


TYPED = [
    GENOME,
    "--data",
    "synthetic",
    "--input",
    "16",
    "--epochs",
    "4",
    "--batch-size",
    "32",
    "--threads",
    "1",
    "--precision",
    "fp32",
]


def test_a_retraining_from_start_to_export(here: Path) -> None:
    result = document("retrain", *TYPED)
    folder = here / "retrain" / GENOME
    history = pq.read_table(folder / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    errors = [row[kind] for row in history for kind in ("average_error", "error")]
    assert result["best"]["error"] == min(errors)
    best = history[result["best"]["epoch"] - 1]
    assert best["average_error" if result["best"]["average"] else "error"] == min(errors)
    assert "once, after that choice" in result["how_chosen"]
    assert json.loads((folder / "result.json").read_text(encoding="utf-8")) == result

    # The weights are those that the result speaks of: on the validation images, and on the held-back.
    weights = read_weights(folder)
    _, carved = split_validation(DATA.train, result["split_seed"])
    validation = Images(DATA.train.pixels[carved], DATA.train.labels[carved])
    machine = Machine("cpu", result["precision"], 1)
    assert right_answers(weights.network(), validation, 16, machine).error == pytest.approx(
        result["best"]["error"], abs=0.011
    )
    evaluated = document("evaluate", str(folder), "--data", "synthetic")
    assert evaluated["error"] == result["test"]["error"]
    assert (evaluated["split"], evaluated["images"]) == ("held-back split", 120)
    counted = sum(row["top1"] * row["images"] for row in evaluated["per_class"])
    assert counted == pytest.approx(evaluated["top1"] * 120)
    assert evaluated["top5"] == 1
    assert "top-1" in isonas("evaluate", str(folder / "average.safetensors"), "--data", "synthetic").stdout

    # The same command does nothing more, other inputs are refused by name.
    assert document("retrain", *TYPED) == result
    refused = isonas("retrain", *TYPED, "--seed", "4", "--recipe", "lamb")
    assert refused.exit_code == 2
    assert "other inputs: seed, recipe.optimizer, recipe.rate" in refused.stderr

    manifest = document("export", str(folder))
    assert manifest["origin"]["weights"] == "retrained"
    assert manifest["origin"]["test_error"] == result["test"]["error"]
    assert_equal(load_file(folder / "export" / "model.safetensors"), weights.tensors)
    average = document("export", str(folder / "average.safetensors"), "--output", "average")
    assert average["origin"]["average"] is True
    assert isonas("export", str(folder), "--epochs", "2").exit_code == 2


def test_a_fit_that_squares_of_pixels_ignore_is_no_other_input(here: Path) -> None:
    typed = ("retrain", *TYPED, "--epochs", "1", "--fit", "stretch")
    result = document(*typed)
    assert result["fit"] == "crop"
    assert document(*typed) == result


def test_killed_and_gone_on_weights_are_bit_identical(here: Path) -> None:
    """The whole command, really killed in the middle of an epoch."""
    command = [sys.executable, "-m", "isonas", "retrain", *TYPED]
    document("retrain", *TYPED, "--run", "whole")
    killed = subprocess.Popen(
        [*command, "--run", "cut"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (here / "cut" / "checkpoint.pt").exists() and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (here / "cut" / "result.json").exists()
    result = isonas("retrain", GENOME, "--run", "cut")
    assert "going on after epoch" in result.stderr
    for name in ("best.safetensors", "average.safetensors"):
        assert (here / "whole" / name).read_bytes() == (here / "cut" / name).read_bytes()
    whole, cut = (load_state(here / name) for name in ("whole", "cut"))
    assert isinstance(whole, State)
    assert isinstance(cut, State)
    assert_equal(whole.network, cut.network)


@pytest.mark.slow
def test_two_processes_train_as_two_accumulated_halves(here: Path) -> None:
    """`torchrun` with two processes against one that takes the same micro-batches, one after the other.

    Both normalise by the halves' own statistics and draw alike, so their losses differ by rounding.
    """
    typed = ["retrain", *TYPED, "--batch-size", "64", "--epochs", "3"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "--", "isonas", *typed, "--run", "two", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = document(*typed, "--run", "one", "--micro-batch", "32")
    assert (two["processes"], two["micro_batch"]) == (2, 32)
    losses = [pq.read_table(here / name / "history.parquet")["loss"].to_pylist() for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert abs(one["best"]["error"] - two["best"]["error"]) < 3 * math.sqrt(0.5 / 96)
    assert done.stderr.count("at input 16 in two") == 1


SPACE = """
input: 16
classes: 4
genes: {depth: [1], channels: [32], internal_resolution: [4], expansion: [1, 2], se_ratio: [0],
        head_multiple: [1], head_features: [0]}
"""


def test_from_a_search_to_retrained_exports_in_one_breath(here: Path) -> None:
    (here / "space.yaml").write_text(SPACE, encoding="utf-8")
    (here / "short.yaml").write_text(
        "{epochs: 1, batch_size: 32, optimizer: adamw, rate: 0.01}", encoding="utf-8"
    )
    short = ["--data", "synthetic", "--epoch-images", "64", "--epochs", "1", "--threads", "1"]
    result = isonas("search", "space.yaml", *short, "--trials", "2", "--run", "run", "--retrain", "0")
    assert (result.exit_code, "number of front members" in result.stderr) == (2, True)
    isonas("search", "space.yaml", *short, "--trials", "2", "--run", "run", "--board", "stm32f746")
    best = document("front", "run")["front"][0]

    # From the proxy's weights, at twice the input: steps of next to nothing leave them as they are.
    (here / "still.yaml").write_text(
        "{epochs: 1, batch_size: 32, optimizer: adamw, rate: 1.0e-9}", encoding="utf-8"
    )
    typed = ["retrain", "run", "--recipe", "still.yaml", "--threads", "1", "--input", "32"]
    result = isonas(*typed, "--warm-start", "--run", "warm")
    assert result.exit_code == 0, result.output
    assert "--input 16 would train and deploy at theirs" in result.stderr
    assert "the proxy's was" in result.stdout
    proxy = load_file(here / "run" / "weights" / f"{best['trial']}.safetensors")
    inflated = inflate_stem(proxy, parse_genome(best["genome"]), 16, 32)
    for name, tensor in read_weights(here / "warm").tensors.items():
        if "norm.running" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, inflated[name], rtol=0, atol=1e-6)

    typed = ["retrain", "run", "--recipe", "short.yaml", "--threads", "1"]
    found = document(*typed)
    assert (found["genome"], found["trial"]) == (best["genome"], best["trial"])
    assert found["proxy_error"] == best["error"]
    folder = here / "run" / "retrain" / best["genome"]
    assert (folder / "result.json").is_file()
    manifest = document("export", "run")
    assert manifest["origin"]["weights"] == "retrained"
    assert manifest["origin"]["checkpoint"] == str(Path("run") / "retrain" / best["genome"])
    larger = document("export", "run", "--input", "32", "--output", "larger")
    assert larger["origin"]["weights"] == "proxy"
    # Asked for by its folder, a run's retraining is held to the run's board all the same.
    alone = document("export", str(folder), "--output", "alone")
    assert alone["memory"] == manifest["memory"]
    assert alone["memory"]["board"] == "stm32f746"


@pytest.mark.slow
def test_a_search_goes_on_to_retrain(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "space.yaml").write_text(SPACE, encoding="utf-8")
    short = FullRecipe(epochs=1, batch_size=32, optimizer="adamw", rate=0.01)
    monkeypatch.setattr("isonas.training.recipes.shipped_recipes", lambda: {"adamw": short})
    typed = [
        "--data",
        "synthetic",
        "--epoch-images",
        "64",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--trials",
        "2",
    ]
    front = document("search", "space.yaml", *typed, "--run", "run", "--retrain", "front")["front"]
    done = {path.parent.name for path in (here / "run" / "retrain").glob("*/result.json")}
    assert done == {row["genome"] for row in front}


def test_retrained_beside_their_proxies(capsys: pytest.CaptureFixture[str]) -> None:
    """Three members, proxy errors rising, retrained errors 2nd < 1st < 3rd: two of three pairs agree."""
    results = [
        {"genome": name, "proxy_error": proxy, "best": {"error": best, "error_se": 0.01}, "test": test}
        for name, proxy, best, test in (
            ("first", 0.5, 0.4, {"error": 0.45}),
            ("second", 0.6, 0.3, None),
            ("third", 0.7, 0.6, None),
        )
    ]
    print_comparison(results)
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()[1:4]] == [
        ["first", "0.500", "0.400", "0.010", "0.450"],
        ["second", "0.600", "0.300", "0.010"],
        ["third", "0.700", "0.600", "0.010"],
    ]
    assert "2 of 3 pairs stand in the same order" in printed


@pytest.mark.parametrize(
    ("genome", "batch", "processes", "micro"),
    [
        ("isonet_l8_c64_r14_e6_se4_s2d", 256, 1, 32),
        ("isonet_l8_c64_r14_e6_se4_s2d", 256, 2, 32),
        ("isonet_l8_c32_r14_e2_se4_s2d", 256, 1, 128),
        ("isonet_l2_c32_r4_e2_se4_s2d", 256, 1, 256),
        ("isonet_l8_c64_r56_e6_se4_s2d", 64, 4, 16),
        ("isonet_l8_c64_r14_e6_se4_s2d", 90, 1, 90),
    ],
)
def test_batches_are_halved_to_fit_a_cpus_cache(genome: str, batch: int, processes: int, micro: int) -> None:
    """384 channels at 14×14 in two bytes are 147 KiB an image, 32 of which are below 5 MiB."""
    recipe = replace(PLAIN, batch_size=batch)
    found = _micro_batch(parse_genome(genome), recipe, CPU, Processes(0, processes))
    assert found == micro
    assert _micro_batch(parse_genome(genome), recipe, replace(CPU, device="cuda"), Processes()) == batch


def test_memory_that_runs_out_names_the_option(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("isonas.training.retrain.normalise", exhausted)
    result = isonas("retrain", *TYPED, "--run", "mine")
    assert result.exit_code == 1
    assert "memory does not hold 32 images at a time" in result.stderr
    assert "with a --micro-batch below 32" in result.stderr


@pytest.mark.parametrize(
    ("says", "code", "arguments"),
    [
        ("is neither a run nor a genome", 2, "retrain nowhere"),
        ("a GENOME alone has no images: give --data SOURCE", 2, f"retrain {GENOME}"),
        ("--select is for a run", 2, f"retrain {GENOME} --select best"),
        ("--warm-start is for a run", 2, f"retrain {GENOME} --warm-start"),
        ("no recipe 'nosuch'", 2, f"retrain {GENOME} --data synthetic --input 16 --recipe nosuch"),
        (
            "optimizer 'adom' is unknown",
            2,
            f"retrain {GENOME} --data synthetic --input 16 --recipe adom.yaml",
        ),
        ("randaugment 'many' is not", 2, f"retrain {GENOME} --data synthetic --input 16 --recipe many.yaml"),
        ("does not divide input 18", 2, f"retrain {GENOME} --data synthetic --input 18"),
        ("is more than the 384", 2, f"retrain {GENOME} --data synthetic --input 16 --batch-size 999"),
        ("exists and is no retraining", 2, f"retrain {GENOME} --data synthetic --input 16 --run full"),
        ("nowhere is not there", 2, "evaluate nowhere --data synthetic"),
        ("is no readable weights file", 1, "evaluate full/thesis.tex --data synthetic"),
    ],
)
def test_mistakes_get_one_sentence(here: Path, says: str, code: int, arguments: str) -> None:
    common = "epochs: 1\nbatch_size: 32\nrate: 0.1\n"
    (here / "adom.yaml").write_text(common + "optimizer: adom", encoding="utf-8")
    (here / "many.yaml").write_text(common + "optimizer: sgd\nrandaugment: many", encoding="utf-8")
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("mine", encoding="utf-8")
    before = sorted(here.rglob("*"))
    result = isonas(*arguments.split())
    assert says in result.stderr, result.output
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert sorted(here.rglob("*")) == before


def test_an_interrupt_tells_how_to_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isonas.training.retrain_folder.save_state", interrupt)
    result = isonas("retrain", *TYPED, "--run", "mine")
    assert result.exit_code == 130
    assert f"Go on with: isonas retrain {GENOME} --run mine" in result.stderr


def test_a_torn_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK torn")
    with pytest.raises(LogError, match=r"checkpoint.pt cannot be read \(.*remove it to train from the start"):
        load_state(tmp_path)


def test_a_folder_is_trained_by_one_command_at_a_time(here: Path) -> None:
    from isonas.training.retrain_folder import hold

    isonas("retrain", *TYPED, "--run", "mine", "--epochs", "1")
    (here / "mine" / "result.json").unlink()
    with hold(here / "mine"):
        result = isonas("retrain", GENOME, "--run", "mine")
    assert (result.exit_code, "is being trained by another process" in result.stderr) == (1, True)
