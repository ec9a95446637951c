"""Networks beside a front: what they cost, and what a run's own proxy makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from isonas.cost import Deployment, MemoryModel
from isonas.data.synthetic import synthetic
from isonas.errors import TrainingError, UsageError
from isonas.evaluation import Curve, EpochResult
from isonas.hardware import Budget, budget_of
from isonas.networks.mobilenetv3_plan import plan_mobilenetv3
from isonas.paper.baseline_training import FILE, read_trained
from isonas.paper.baselines import MobileNetV3Large, chosen, costed
from isonas.paper.scales import MOBILENETV3_RATES
from isonas.search.log import read_trials
from isonas.training.proxy import ProxyEvaluator
from isonas.training.version import TRAINING_VERSION
from tests.commands import isonas

SPACE = """
input: 64
classes: 4
genes:
  depth: [1, 2]
  channels: [32]
  internal_resolution: [4, 8]
  expansion: [1, 2]
  se_ratio: [0]
  head_multiple: [1]
  head_features: [0]
"""
SMALL = "mobilenetv3_w0.05"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two complete trials for a deployment input above the images' side."""
    folder = tmp_path_factory.mktemp("baselines")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    result = isonas(
        *("search", folder / "space.yaml", "--data", "synthetic", "--trials", "2", "--epochs", "2"),
        *("--epoch-images", "64", "--threads", "1", "--precision", "fp32", "--sampler", "random"),
        *("--run", folder / "run", "--cache", folder / "cache"),
    )
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def run(searched: Path) -> Path:
    """The run, with nothing kept of any baseline."""
    (searched / FILE).unlink(missing_ok=True)
    return searched


def test_a_genome_of_the_log_trains_to_its_logged_error(run: Path) -> None:
    trials, _ = read_trials(run)
    names = [argument for trial in trials for argument in ("--with", trial.genome)]
    before = json.loads(isonas("front", run, *names, "--json").stdout)["baselines"]
    assert all(one["error"] is None for members in before.values() for one in members)
    after = json.loads(isonas("front", run, *names, "--train", "--json").stdout)["baselines"]
    for trial in trials:
        (one,) = after[str(trial.genome)]
        assert (one["error"], one["error_se"]) == (trial.error, trial.error_se)
        assert read_trained(run)[str(trial.genome)].curve_error == trial.curve_error
        columns = ("balanced_error", "balanced_error_se", "arena_bytes", "peak_bytes", "madds", "params",
                   "file_bytes", "weight_bytes")  # fmt: skip
        assert {name: one[name] for name in columns} == {name: getattr(trial, name) for name in columns}


def test_what_was_trained_is_kept_and_shown(run: Path) -> None:
    first = isonas("front", run, "--with", SMALL, "--train")
    assert first.stderr.startswith(f"{SMALL}: error ")
    kept = (run / FILE).read_bytes()
    (one,) = read_trained(run).values()
    assert len(one.curve_error) == 2
    assert one.error == one.curve_error[-1]
    # Every rate was tried, and the best is kept with its rate.
    assert tuple(rate for rate, _ in one.errors_by_rate) == MOBILENETV3_RATES
    assert one.error == min(error for _, error in one.errors_by_rate if error is not None)
    assert (one.peak_rate, one.error) in one.errors_by_rate
    shown = json.loads(isonas("front", run, "--with", SMALL, "--json").stdout)["baselines"][SMALL]
    assert shown[0]["peak_rate"] == one.peak_rate
    assert first.stdout.splitlines()[-1].split()[1:3] == [f"{one.error:.3f}", f"{one.error_se:.3f}"]
    again = isonas("front", run, "--with", SMALL, "--train")
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert (run / FILE).read_bytes() == kept
    both = isonas("front", run, "--with", SMALL, "--with", "mobilenetv3_w0.1", "--csv").stdout.splitlines()
    assert both[-2].startswith(f"{SMALL},{one.error},{one.error_se},")
    assert both[-1].startswith("mobilenetv3_w0.1,,,")
    # A training that is not there is done, the others are left as they are.
    document = json.loads(kept)
    document["trainings"].append({**document["trainings"][0], "network": "mobilenetv3_w0.1", "error": None})
    (run / FILE).write_text(json.dumps(document), encoding="utf-8")
    third = isonas("front", run, "--with", SMALL, "--with", "mobilenetv3_w0.1", "--train")
    assert [line.split(":")[0] for line in third.stderr.splitlines()] == ["mobilenetv3_w0.1"]
    assert read_trained(run)[SMALL] == one


def test_the_best_rate_counts_and_one_that_fails_does_not_matter(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = dict(zip(MOBILENETV3_RATES, (0.5, 0.25, None), strict=True))
    asked = []

    def other(self: object, build: object, seed: int, rate: float) -> Curve:
        asked.append((seed, rate))
        if (error := errors[rate]) is None:
            raise TrainingError("the loss is no number")
        return (EpochResult(1, error, 0.1, 1.0),)

    monkeypatch.setattr(ProxyEvaluator, "other", other)
    said = isonas("front", run, "--with", SMALL, "--train").stderr
    (one,) = read_trained(run).values()
    assert (one.error, one.peak_rate, one.reason) == (0.25, MOBILENETV3_RATES[1], None)
    assert one.errors_by_rate == tuple(errors.items())
    assert "at peak rate 0.1, the best of 0.03: 0.500, 0.1: 0.250, 0.3: failed, in" in said
    assert [rate for _, rate in asked] == list(MOBILENETV3_RATES)
    assert len({seed for seed, _ in asked}) == 1


def test_baselines_of_another_training_version_are_shown_and_not_added_to(run: Path) -> None:
    assert isonas("front", run, "--with", SMALL, "--train").exit_code == 0
    document = json.loads((run / FILE).read_text(encoding="utf-8"))
    assert document.pop("training_version") == TRAINING_VERSION
    for row in document["trainings"]:
        del row["peak_rate"], row["errors_by_rate"]
    (run / FILE).write_text(json.dumps(document), encoding="utf-8")
    assert isonas("front", run, "--with", SMALL).exit_code == 0
    refused = isonas("front", run, "--with", "mobilenetv3_w0.1", "--train")
    assert refused.exit_code == 2
    assert (
        f"begun with training version 1, this isonas trains by version {TRAINING_VERSION}" in refused.stderr
    )


def test_other_networks_read_whole_images_at_the_deployment_input(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    forward = torch.nn.functional.interpolate

    def noted(x: torch.Tensor, size: tuple[int, int], **options: object) -> torch.Tensor:
        read.append((tuple(x.shape[2:]), size))
        return forward(x, size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(functional, "interpolate", noted)
    assert isonas("front", run, "--with", SMALL, "--train").exit_code == 0
    side = synthetic().train.side
    assert side < 64
    assert set(read) == {((side, side), (64, 64))}


def test_a_failure_has_its_reason_and_is_tried_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object) -> None:
        raise TrainingError("the loss is no number")

    monkeypatch.setattr(ProxyEvaluator, "other", failing)
    failed = isonas("front", run, "--with", SMALL, "--train")
    assert failed.exit_code == 0
    assert f"{SMALL}: the loss is no number" in failed.stderr
    assert read_trained(run)[SMALL].reason == "the loss is no number"
    monkeypatch.undo()
    assert f"{SMALL}: error " in isonas("front", run, "--with", SMALL, "--train").stderr
    assert read_trained(run)[SMALL].reason is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--train"], 2, "name networks by --with"),
        (["--with", "resnet"], 2, "names no network; give mobilenetv3"),
        (["--with", "mobilenetv3_w9"], 2, "give one from 0.05 to 4"),
        (["--with", "mobilenetv3_w"], 2, "names no network"),
        (["--with", "isonet_l1"], 2, "is not a genome"),
        (["--with", "isonet_l1_c32_r7_e1_se0_s2d"], 2, "input"),
        (["--with", SMALL, "--train", "--data", "digits"], 2, "searched on other images"),
    ],
)
def test_what_cannot_be_is_refused(run: Path, arguments: list[str], code: int, said: str) -> None:
    result = isonas("front", run, *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (run / FILE).exists()


def test_a_damaged_file_is_named(run: Path) -> None:
    (run / FILE).write_text('{"trainings": [{"network": 1}]}', encoding="utf-8")
    result = isonas("front", run, "--with", SMALL)
    assert result.exit_code == 1
    assert "baselines.json cannot be read" in result.stderr


def test_names_stand_for_networks() -> None:
    at = Deployment(224, 1000)
    assert chosen("mobilenetv3_w0.5", at) == ([MobileNetV3Large(0.5)], [])
    assert str(MobileNetV3Large(1.0)) == "mobilenetv3_w1"
    with pytest.raises(UsageError):
        chosen("mobilenetv3_w0.0", at)


def test_baselines_are_costed_as_the_plan_and_the_closed_forms_say() -> None:
    at = Deployment(224, 1000)
    budget = Budget(memory_model=MemoryModel.LARGEST)
    networks, left_out = chosen("mobilenetv3", at)
    mobile = costed(networks, at, budget)
    assert left_out == []
    full = mobile[-1]
    plan = plan_mobilenetv3()
    assert (full.params, full.madds) == (5_483_032, 216_589_760)
    assert full.peak_bytes == plan.largest_activation()
    norms = sum(convolution.outputs for convolution in plan.convolutions)
    gates = [(one.squeeze, one.depthwise.outputs) for one in plan.blocks if one.squeeze]
    biases = norms + sum(s + e for s, e in gates) + 1280 + 1000
    assert full.weight_bytes == (plan.params - 2 * norms - (biases - norms)) + 4 * biases
    paper, _ = chosen("paper", at)
    by_name = {one.network: one for one in costed(paper, at, Budget(memory_model=MemoryModel.PAPER))}
    assert len(by_name) == 36
    # A runtime's overheads, by the layers of a network that is built and by the closed forms.
    board = budget_of("stm32f746")
    (large,) = costed([MobileNetV3Large(1.0)], at, board)
    channels = norms + sum(s + e for s, e in gates) + 1280 + 1000
    steps = large.arena_bytes - large.peak_bytes - 8 * channels
    # ReLU is fused; an h-swish and each step of SE (pool, two FCs, gate, scale) is an operator.
    wide = [bool(one.expand) for one in plan.blocks]
    swish = sum((1 + widens) * one.hard_swish for one, widens in zip(plan.blocks, wide, strict=True))
    parts = 2 * len(wide) + sum(wide) + swish + sum(one.residual for one in plan.blocks) + 5 * len(gates)
    assert steps == 200 * (2 + parts + 2 + 1 + 2 + 1)
    assert large.file_bytes - large.weight_bytes == 24 * channels + 620 * steps // 200
    assert by_name["isonet_l32_c64_r7_e6_se4_s2d"].peak_bytes == 153_664


def test_a_front_shows_baselines_and_says_what_does_not_fit() -> None:
    sample = Path(__file__).parent.parent / "runs" / "sample"
    plain = json.loads(isonas("front", sample, "--json").stdout)
    done = isonas("front", sample, "--with", "paper", "--with", "mobilenetv3", "--json")
    document = json.loads(done.stdout)
    assert {key: document[key] for key in plain} == plain
    assert [len(document["baselines"][name]) for name in ("paper", "mobilenetv3")] == [9, 4]
    assert "27 networks of paper do not fit input 32" in done.stderr
    table = isonas("front", sample, "--with", "mobilenetv3").stdout
    assert "not trained" in table
    rows = isonas("front", sample, "--with", "mobilenetv3", "--csv").stdout.splitlines()
    assert len(rows) == 1 + len(plain["front"]) + 4
    assert rows[-1].startswith("mobilenetv3_w1,,,")
