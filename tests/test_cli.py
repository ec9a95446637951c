"""The command line as a user meets it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import pytest

from isonas.cli import COMMANDS, main
from isonas.cli.resolve import claim_run
from isonas.data.synthetic import synthetic
from isonas.errors import LogError, TrainingError
from isonas.search.log import RUNNING, read_trials, write_trial
from tests.commands import document, isonas
from tests.test_data import encoded, write_parquet

# The precision is not left to a probe, whose answer a busy machine may change from one run to the next.
SHORT = ["--data", "synthetic", "--epochs", "1", "--epoch-images", "64", "--threads", "1"]
SHORT += ["--precision", "fp32"]
TINY = """
input: 16
classes: 4
genes:
  depth: [1, 2]
  channels: [32]
  internal_resolution: [4, 8]
  expansion: [1, 2]
  se_ratio: [0, 1/4]
  head_multiple: [1, 2]
  head_features: [0]
"""
SAMPLE = Path(__file__).parent.parent / "runs" / "sample"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a tiny space and no cache elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return tmp_path


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def every_command() -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name in COMMANDS:
        found.append([name])
        command = main.get_command(click.Context(main), name)
        if isinstance(command, click.Group):
            found += [[name, sub] for sub in command.commands]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    result = isonas(*command, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert "isonas " in result.stdout.split("Example:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["cost", "isonet_l2_c32_r4_e2_se4_s2d"],
        ["space", "mcu"],
        ["front", str(SAMPLE)],
        ["search", "--help"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_needs_no_torch_does_not_import_it(arguments: list[str]) -> None:
    heavy = ["torch", "timm", "sklearn"] + (["optuna", "pyarrow", "numpy"] if arguments == ["--help"] else [])
    code = (
        "import sys\nfrom isonas.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"print('LOADED', [name for name in {heavy!r} if name in sys.modules])"
    )
    assert python(code).splitlines()[-1] == "LOADED []"


def test_cost_document() -> None:
    found = document("cost", "isonet_l16_c64_r14_e6_se4_s2d", "--input", "224", "--classes", "1000")
    assert list(found) == [
        "genome", "input", "classes", "dtype", "params", "params_folded", "madds", "weight_bytes",
        "activations", "streamed_bytes",
    ]  # fmt: skip
    assert found["streamed_bytes"] == 28_672
    assert (found["params"], found["madds"]) == (4_420_968, 187_688_960)
    assert found["params_folded"] == 4_420_968 - (64 + 16 * (384 + 384 + 64) + 768)
    assert {"paper", "largest", "fused", "inplace", "tflm", "litert", "executorch"} < set(
        found["activations"]
    )
    for entry in found["activations"].values():
        assert set(entry) == {"with_input", "without_input"}
    assert document("cost", "isonet_l32_c64_r7_e6_se4_s2d")["activations"]["paper"] == {
        "with_input": 153_664,
        "without_input": 40_768,
    }


def test_the_cost_table_ends_with_its_sums() -> None:
    result = isonas("cost", "isonet_l16_c64_r14_e6_se4_s2d")
    assert "4,420,968" in result.stdout
    assert "187,688,960" in result.stdout
    assert "block2 … block16" in result.stdout


def test_space_document() -> None:
    found = document("space", "tiny.yaml")
    assert (found["genomes"], found["feasible"], found["excluded"]) == (32, 32, 0)
    assert found["marginals"]["depth"] == {"1": 16, "2": 16}
    limited = document("space", "tiny.yaml", "--max-madds", "300k")
    assert 0 < limited["feasible"] < 32
    for counts in limited["marginals"].values():
        assert sum(counts.values()) == limited["feasible"]
    madds = [row["madds"] for row in limited["cheapest"]]
    assert madds == sorted(madds)
    assert "none of the 32 genomes" in document("space", "tiny.yaml", "--max-madds", "1")["why_none"]


def test_a_board_says_that_its_promise_is_predicted() -> None:
    assert "predicted, not measured" in isonas("space", "mcu", "--board", "stm32f746").stderr


def test_search_resume_front_and_export_in_one_go(here: Path) -> None:
    found = document("search", "tiny.yaml", *SHORT, "--trials", "3", "--sampler", "random")
    run = here / "runs" / "tiny-synthetic-1"
    assert set(found) >= {"objectives", "reference", "hypervolume", "front"}
    assert found["objectives"] == ["error", "arena_bytes", "madds"]
    columns = (
        "genome", "error", "error_se", "trainings", "balanced_error", "balanced_error_se", "arena_bytes",
        "peak_bytes", "madds", "params", "file_bytes", "weight_bytes", "trial",
    )  # fmt: skip
    assert tuple(found["front"][0]) == (*columns, "learned")
    again = document("resume", str(run), "--trials", "5")
    assert [trial.number for trial in read_trials(run)[0]] == [0, 1, 2, 3, 4]
    assert document("front", str(run)) == again
    table = isonas("front", str(run), "--csv").stdout
    assert table == (run / "front.csv").read_text(encoding="utf-8")
    assert table.splitlines()[0] == ",".join(columns)
    assert len(table.splitlines()) == len(again["front"]) + 1
    manifest = document("export", str(run), "--select", "best")
    assert manifest["genome"] == again["front"][0]["genome"]
    assert (run / "export" / manifest["genome"] / "model.pt2").is_file()
    # The same search in another folder gives the same trials, and a second default folder a new number.
    other = document("search", "tiny.yaml", *SHORT, "--trials", "5", "--sampler", "random")
    assert other == again
    assert (here / "runs" / "tiny-synthetic-2").is_dir()


def test_a_trial_that_takes_too_long_is_a_failure_that_a_resume_keeps(here: Path) -> None:
    typed = ["--data", "synthetic", "--epochs", "1", "--threads", "1", "--precision", "fp32", "--run", "run"]
    started = isonas("search", *typed, "--trials", "2", "--trial-timeout", "0.000001s")
    assert "Traceback" not in started.output
    slow = read_trials(here / "run")[0]
    assert [trial.state for trial in slow] == ["failed", "failed"]
    assert all("took longer than 1e-06 s" in str(trial.reason) for trial in slow)
    document("resume", "run", "--trials", "4", "--trial-timeout", "10m")
    trials = read_trials(here / "run")[0]
    assert trials[:2] == slow
    assert [trial.state for trial in trials[2:]] == ["complete", "complete"]
    assert all(trial.micro_batch == 32 for trial in trials[2:])
    fails("--trial-timeout 'soon' is not a time", 2, "search", *typed[:-2], "--trial-timeout", "soon")


def test_the_resume_flag_is_the_resume_command(here: Path) -> None:
    arguments = ["search", "tiny.yaml", *SHORT, "--sampler", "nsga2", "--run", "run"]
    document(*arguments, "--trials", "2")
    found = document(*arguments, "--trials", "4", "--resume")
    assert len(read_trials(here / "run")[0]) == 4
    assert document("front", "run") == found


def test_a_search_ends_with_what_to_type_next(here: Path) -> None:
    result = isonas("search", "tiny.yaml", *SHORT, "--trials", "2", "--run", "run")
    assert result.exit_code == 0
    assert "on the front; hypervolume" in result.stdout
    typed = [line.split()[1:4] for line in result.stderr.splitlines() if line.startswith("  isonas ")]
    assert [words[0] for words in typed] == ["export", "retrain", "front", "resume"]
    assert isonas("front", "run").stdout in result.stdout


def test_common_fronts_of_several_runs(here: Path) -> None:
    for seed in ("1", "2"):
        document("search", "tiny.yaml", *SHORT, "--trials", "3", "--seed", seed, "--run", f"run{seed}")
    alone = [document("front", f"run{seed}") for seed in (1, 2)]
    fails("run2 and run1 differ in seed, so their errors", 2, "front", "run1", "run2")
    both = document("front", "run1", "run2", "--mixed")
    assert both["mixed"] == ["seed"]
    assert "The runs differ in seed" in isonas("front", "run1", "run2", "--mixed").stdout
    assert both["hypervolume"] >= max(front["hypervolume"] for front in alone)
    single = [(row["genome"], row["error"]) for front in alone for row in front["front"]]
    assert {(row["genome"], row["error"]) for row in both["front"]} <= set(single)
    assert {row["run"] for row in both["front"]} <= {"run1", "run2"}
    assert isonas("front", "run1", "run2", "--mixed", "--csv").stdout.splitlines()[0].endswith(",trial,run")
    assert document("front", "run1", "./run1") == alone[0]
    document("search", "tiny.yaml", *SHORT, "--trials", "1", "--objectives", "error,params", "--run", "run3")
    result = isonas("front", "run1", "run3", "--mixed")
    assert (result.exit_code, "differ in objectives" in result.stderr) == (2, True)


def fails(says: str, code: int, *arguments: str) -> None:
    """A command ends with that exit code and one sentence, and changes no file."""
    before = times()
    result = isonas(*arguments)
    assert says in result.stderr, result.output
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert times() == before


def times() -> dict[Path, int]:
    """When each file changed, but for locks, which a look at a run takes."""
    locks = ("lock", "lock.holder")
    return {
        path: path.stat().st_mtime_ns
        for path in sorted(Path.cwd().rglob("*"))
        if path.name not in locks and path.name != "run"
    }


@pytest.mark.parametrize(
    ("says", "code", "arguments"),
    [
        ("'resnet50' is not a genome", 2, "cost resnet50"),
        ("does not divide input 100", 2, "cost isonet_l16_c64_r14_e6_se4_s2d --input 100"),
        ("no search space 'nosuch'", 2, "search nosuch"),
        ("did you mean quick?", 2, "search quik"),
        ("'depth' is unknown; genes belong under the key genes", 2, "space misplaced.yaml"),
        ("broken.yaml is not YAML in line 2 (", 2, "space broken.yaml"),
        ("--cpus-per-trial is for a cluster (--engine ray)", 2, "search --data synthetic --cpus-per-trial 2"),
        ("--gpus-per-trial is for a cluster (--engine ray)", 2, "search --data synthetic --gpus-per-trial 1"),
        ("give --gpus-per-trial", 2, "search --data synthetic --engine ray --device cuda --gpus-per-trial 0"),
        ("give one of them", 2, "front nowhere --csv --json"),
        ("nowhere is not there; give the folder", 2, "evaluate nowhere --data synthetic"),
        ("'chanels' is unknown; did you mean channels?", 2, "search typo.yaml"),
        ("40 channels is not a multiple of 32", 2, "space odd.yaml"),
        ("breaks --max-memory by", 2, "search --data synthetic --max-memory 1KiB"),
        ("board 'stm32' is unknown", 2, "search --board stm32"),
        ("'12 GiB' is not a size", 2, "search --max-memory '12 GiB'"),
        ("is not a time; give one like", 2, "search --time-limit soon"),
        ("give error or balanced_error, and at least one of", 2, "search --objectives madds"),
        ("--data 'cifar10' is unknown", 2, "search --data cifar10"),
        ("parquet:nowhere does not exist", 2, "search --data parquet:nowhere"),
        ("imagenet32:nowhere has no file train_data_batch_1", 2, "search --data imagenet32:nowhere"),
        ("folder:nowhere is no folder", 2, "search --data folder:nowhere"),
        ("cannot be read as Parquet", 1, "search --data parquet:text.parquet"),
        ("has no image column", 1, "search --data parquet:numbers.parquet"),
        ("full exists; go on with it by --resume", 2, "search --data synthetic --run full"),
        ("typo.yaml exists; go on with it", 2, "search --data synthetic --run typo.yaml"),
        ("full is no run", 2, "resume full"),
        ("nowhere is no run", 2, "search --resume --run nowhere"),
        ("no run runs/quick-clutter-… to resume", 2, "search --resume"),
        ("full is no run", 2, "front full"),
        ("is neither a run, nor a genome (isonet_…), nor retrained", 2, "export nowhere"),
        ("a GENOME has no weights yet", 2, "export isonet_l2_c32_r4_e2_se4_s2d"),
        ("No such option", 2, "search --nosuch"),
        ("No such command", 2, "serach"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_get_one_sentence(here: Path, says: str, code: int, arguments: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (here / "typo.yaml").write_text("input: 32\nclasses: 10\ngenes: {chanels: [32]}", encoding="utf-8")
    (here / "odd.yaml").write_text("input: 32\nclasses: 10\ngenes: {channels: [40]}", encoding="utf-8")
    (here / "misplaced.yaml").write_text("input: 32\ndepth: [2]", encoding="utf-8")
    (here / "broken.yaml").write_text("input: 32\ndepth: [2", encoding="utf-8")
    (here / "text.parquet").write_text("no parquet", encoding="utf-8")
    pq.write_table(pa.table({"x": [1]}), here / "numbers.parquet")
    (here / "full").mkdir()
    (here / "full" / "thesis.tex").write_text("mine", encoding="utf-8")
    fails(says, code, *shlex.split(arguments))


@pytest.fixture
def run(here: Path) -> Path:
    document("search", "tiny.yaml", *SHORT, "--trials", "2", "--run", "run")
    return here / "run"


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("other inputs: seed (0 there);", "--seed 5"),
        ("other inputs: sampler (ehvi there), epochs (1 there);", "--epochs 3 --sampler random"),
        ("other inputs: max_params;", "--max-params 1M"),
        ("other inputs: board;", "--board stm32f746"),
        ("other inputs: precision (", "--precision {other}"),
        ("other inputs: objectives;", "--objectives error,params"),
        ("other inputs: data;", "--data digits"),
        ("other inputs: input (", "--input 32"),
        ("other inputs: space (", "quick"),
    ],
)
def test_a_resume_with_other_inputs_names_them(run: Path, says: str, arguments: str) -> None:
    recorded = (run / "study.yaml").read_text(encoding="utf-8")
    other = "fp32" if "precision: bf16" in recorded else "bf16"
    typed = arguments.format(other=other).split()
    fails(says, 2, "search", *typed, "--run", "run", "--resume", "--trials", "3")


def test_a_resume_may_repeat_any_part_of_its_budget(here: Path) -> None:
    limits = ["--max-params", "1M", "--max-memory", "1MiB", "--board", "stm32f746"]
    document("search", "tiny.yaml", *SHORT, *limits, "--trials", "1", "--run", "run")
    for part in (limits[:2], limits[2:4], limits[4:], limits):
        document("search", *part, "--run", "run", "--resume")
    fails(
        "other inputs: max_params (1000000 there);",
        2,
        "search",
        "--max-params",
        "2M",
        "--run",
        "run",
        "--resume",
    )


def test_images_are_found_again_from_another_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [encoded(image.transpose(1, 2, 0)) for image in synthetic(60).train.pixels]
    write_parquet(here / "train.parquet", images, synthetic(60).train.labels.tolist())
    arguments = ["--data", "parquet:train.parquet", *SHORT[2:]]
    document("search", "tiny.yaml", *arguments, "--trials", "1", "--run", "run")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    (here / "train.parquet").rename(here / "moved.parquet")
    fails("cannot be read where they were", 2, "resume", str(here / "run"), "--trials", "1")
    (here / "moved.parquet").rename(here / "train.parquet")
    document("resume", "../run", "--trials", "2")
    assert len(read_trials(here / "run")[0]) == 2


def test_a_front_says_what_it_is_worth(here: Path) -> None:
    document("search", "tiny.yaml", *SHORT, "--trials", "2", "--run", "run")
    assert "trials have ended" not in isonas("front", "run").stdout
    trial = read_trials(here / "run")[0][0]
    for number, error in ((0, 0.76), (1, 0.75)):
        write_trial(here / "run", replace(trial, number=number, error=error, curve_error=(error,)))
    assert "None is better than chance (error 0.750" in isonas("front", "run").stdout
    write_trial(here / "run", replace(trial, number=1, error=0.5, curve_error=(0.5,)))
    assert "better than chance" not in isonas("front", "run").stdout
    write_trial(here / "run", replace(trial, number=1, state=RUNNING))
    assert "1 of 2 trials have ended." in isonas("front", "run").stdout


def test_too_few_images_are_found_before_there_is_a_run(here: Path) -> None:
    images = [encoded(image.transpose(1, 2, 0)) for image in synthetic(8).train.pixels]
    write_parquet(here / "few.parquet", images, [0] * 7 + [1])
    result = isonas("search", "tiny.yaml", "--data", "parquet:few.parquet", "--run", "run")
    assert (result.exit_code, "cannot be split by class" in result.stderr) == (1, True)
    assert not (here / "run").exists()


def test_brackets_are_text(here: Path) -> None:
    (here / "odd.yaml").write_text("name: x [/y] [bold]z" + TINY, encoding="utf-8")
    assert "x [/y] [bold]z: 32 genomes" in isonas("space", "odd.yaml").stdout


def test_a_batch_of_one_is_a_reason(here: Path) -> None:
    fails("is not between 2 and", 2, "search", "tiny.yaml", "--epoch-images", "1")


def test_a_held_run_is_refused_before_its_images_are_opened(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isonas.search.log import hold

    def opened(*_: object) -> None:
        raise AssertionError("a held run was not refused at once")

    monkeypatch.setattr("isonas.data.sources.open_dataset", opened)
    with hold(run):
        result = isonas("resume", "run", "--trials", "3")
    assert result.exit_code == 1
    assert f"is being written by process {os.getpid()}" in result.stderr


def test_a_torn_part_is_named_and_done_again(run: Path) -> None:
    whole = read_trials(run)[0]
    (run / "trials" / "1.parquet").write_bytes(b"PAR1torn")
    assert "is no readable part of the log" in isonas("front", "run").stderr
    result = isonas("resume", "run")
    assert result.exit_code == 0
    assert "is now 1.parquet.torn" in result.stderr
    assert [trial.genome for trial in read_trials(run)[0]] == [trial.genome for trial in whole]


def test_an_interrupt_tells_how_to_go_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isonas.training.proxy.ProxyEvaluator.__call__", interrupt)
    result = isonas("resume", "run", "--trials", "4")
    assert result.exit_code == 130
    assert "Go on with: isonas resume run\n" in result.stderr
    assert [trial.state for trial in read_trials(run)[0]] == ["complete", "complete", "running"]
    # What was asked for last is what a resume without options goes on to.
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    assert "2 of 4 trials have ended" in isonas("front", "run").stdout
    document("resume", "run")
    assert len(read_trials(run)[0]) == 4


def test_a_time_limit_ends_the_search_with_its_front(run: Path) -> None:
    result = isonas("resume", "run", "--trials", "99", "--time-limit", "0.000001s")
    assert result.exit_code == 0
    assert "Ended after 2 of 99 trials: the time limit." in result.stderr
    assert "on the front" in result.stdout


def test_a_space_that_is_used_up_ends_the_search(run: Path) -> None:
    result = isonas("resume", "run", "--trials", "99")
    assert "Ended after 32 of 99 trials: every feasible genome was trained." in result.stderr
    assert len({trial.genome for trial in read_trials(run)[0]}) == 32


def test_resolutions_beyond_half_the_source_are_warned_of_once(here: Path) -> None:
    (here / "sharp.yaml").write_text(
        TINY.replace("input: 16", "input: 64").replace("[4, 8]", "[4, 16]"), encoding="utf-8"
    )
    result = isonas("search", "sharp.yaml", *SHORT, "--trials", "1", "--run", "sharp")
    assert result.stderr.count("the gain of resolution is hidden") == 1
    result = isonas("search", "tiny.yaml", *SHORT, "--trials", "1", "--run", "blunt")
    assert "the gain of resolution is hidden" not in result.stderr


def test_the_sample_run_is_read() -> None:
    """Fixture, README's example and golden of the format: of its first version, which is read for ever."""
    run = SAMPLE
    found = document("front", str(run))
    assert isonas("front", str(run), "--csv").stdout == (run / "front.csv").read_text(encoding="utf-8")
    trials, unreadable = read_trials(run)
    assert unreadable == []
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {row["trial"] for row in found["front"]} <= {trial.number for trial in trials}
    from isonas.search.inputs import read_run
    from isonas.search.study import study_of

    # Its objectives and its box, without a margin, stay as they are; it had no board.
    inputs, reference, _ = read_run(run)
    costs = study_of(inputs, reference).costs
    assert reference.objectives == ("error", "peak_bytes", "madds")
    assert reference.point == (0.9, costs.peak_bytes.max(), costs.madds.max())
    assert all(row["arena_bytes"] == row["peak_bytes"] for row in found["front"])
    assert all(row["file_bytes"] == row["weight_bytes"] for row in found["front"])


def test_a_run_without_its_empty_folders_is_resumed(here: Path) -> None:
    # Git keeps no empty folders.
    found = document("search", "tiny.yaml", *SHORT, "--trials", "1", "--run", "whole")
    shutil.copytree("whole", "copy", ignore=shutil.ignore_patterns("weights"))
    assert document("resume", "copy") == found


def test_killed_and_resumed_trainings_are_bit_identical(here: Path) -> None:
    """The whole command, really killed in the middle of a training."""
    import signal
    import time

    command = [
        sys.executable,
        "-m",
        "isonas",
        "search",
        "tiny.yaml",
        *SHORT,
        "--trials",
        "4",
        "--epochs",
        "2",
    ]
    subprocess.run([*command, "--run", "whole"], check=True, capture_output=True)
    killed = subprocess.Popen(
        [*command, "--run", "cut"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    second = here / "cut" / "trials" / "1.parquet"
    while not second.exists() and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    resumed = document("resume", "cut")
    assert resumed == document("front", "whole")
    curves = [
        [(t.genome, t.curve_error, t.loss, t.seed) for t in read_trials(here / name)[0]]
        for name in ("whole", "cut")
    ]
    assert curves[0] == curves[1]
    for path in (here / "whole" / "weights").iterdir():
        assert path.read_bytes() == (here / "cut" / "weights" / path.name).read_bytes()


def test_bench_cost_counts_a_space() -> None:
    found = document("bench", "cost", "quick", "--max-params", "100k")
    assert (found["genomes"], found["space"]) == (864, "quick")
    assert found["feasible"] == document("space", "quick", "--max-params", "100k")["feasible"]
    assert found["genomes_per_second"] == pytest.approx(found["genomes"] / found["seconds"])


def test_searches_that_start_at_once_take_different_folders(here: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim_run("quick", "clutter"), range(40)))
    assert sorted(claimed) == sorted(Path("runs") / f"quick-clutter-{n}" for n in range(1, 41))
    shutil.rmtree("runs")
    Path("runs").touch()
    with pytest.raises(LogError, match="--run DIR"):
        claim_run("quick", "clutter")


def test_a_run_cannot_lie_in_a_file(here: Path) -> None:
    blocked = here / "file"
    blocked.write_text("", encoding="utf-8")
    fails("cannot be written", 1, "search", "tiny.yaml", *SHORT, "--run", "file/run")


def test_runs_may_be_moved(run: Path, here: Path) -> None:
    before = document("front", "run")
    shutil.move(run, here / "moved")
    assert document("front", "moved") == before
    document("resume", "moved", "--trials", "3")


def test_what_may_change_is_recorded_and_nothing_else(run: Path) -> None:
    from isonas.search.inputs import read_run

    before, reference, versions = read_run(run)
    asked = ["--trials", "3", "--repeats", "2", "--trial-timeout", "10m", "--workers", "2"]
    assert isonas("resume", "run", *asked).exit_code == 0
    after = read_run(run)
    assert after[0] == replace(before, trials=3, repeats=2, trial_timeout=600.0, workers=2)
    assert after[1:] == (reference, versions)
    assert {"scipy", "moocore"} <= set(versions)
    workers = {trial.worker for trial in read_trials(run)[0]}
    assert all(worker.rpartition("/")[2].isdecimal() for worker in workers)
    assert read_trials(run)[0][2].worker != f"{platform.node()}/{os.getpid()}"


def test_repeats_that_end_early_say_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = isonas("resume", "run", "--repeats", "3", "--time-limit", "0.000001s")
    members = len(document("front", "run")["front"])
    assert (
        f"{members} of {members} front members were not trained 3 times in all: the time limit"
        in result.stderr
    )
    assert f"{members} of {members} errors average fewer trainings than --repeats asked for." in result.stdout
    found = document("resume", "run")
    assert {row["trainings"] for row in found["front"]} == {3}
    assert "average fewer" not in isonas("front", "run").stdout

    def failing(*_: object) -> None:
        raise TrainingError("as told")

    monkeypatch.setattr("isonas.training.proxy.ProxyEvaluator.__call__", failing)
    result = isonas("resume", "run", "--repeats", "4")
    assert "were not trained 4 times in all: a training failed (as told)" in result.stderr


def test_a_tilde_that_no_shell_expands_is_the_home_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = here / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    images = [encoded(image.transpose(1, 2, 0)) for image in synthetic(60).train.pixels]
    write_parquet(home / "train.parquet", images, synthetic(60).train.labels.tolist())
    shutil.copy(here / "tiny.yaml", home / "tilde.yaml")
    typed = ["~/tilde.yaml", "--data", "parquet:~/train.parquet", *SHORT[2:], "--trials", "1"]
    found = document("search", *typed, "--run=~/x", "--cache=~/c")
    assert (home / "x" / "study.yaml").is_file()
    assert (home / "c").is_dir()
    assert document("front", "~/x") == found
    document("resume", "~/x", "--trials", "2", "--cache=~/c")
    document("export", "~/x", "--output=~/o")
    assert (home / "o" / "manifest.json").is_file()
    recipe = shipped_text("adamw").replace("epochs: 100", "epochs: 1")
    (home / "recipe.yaml").write_text(recipe, encoding="utf-8")
    document("retrain", "~/x", "--recipe", "~/recipe.yaml", "--epochs", "1", "--run=~/r", "--cache=~/c")
    evaluated = document("evaluate", "~/r", "--data", "parquet:~/train.parquet", "--cache=~/c")
    assert evaluated["checkpoint"] == str(home / "r")
    assert not list(here.rglob("~*"))


def shipped_text(name: str) -> str:
    """A shipped recipe as a YAML file of its own."""
    from dataclasses import asdict

    import yaml

    from isonas.training.recipes import shipped_recipes

    return yaml.safe_dump(asdict(shipped_recipes()[name]))


def test_yaml_in_utf_16_is_read(here: Path) -> None:
    (here / "wide.yaml").write_text(TINY, encoding="utf-16")
    assert document("space", "wide.yaml")["genomes"] == 32
    (here / "binary.yaml").write_bytes(bytes(range(128, 256)))
    fails("binary.yaml is not YAML", 2, "space", "binary.yaml")


def test_commands_to_type_next_are_quoted_for_the_shell(here: Path) -> None:
    result = isonas("search", "tiny.yaml", *SHORT, "--trials", "1", "--run", "my run; ls")
    lines = [shlex.split(line) for line in result.stderr.splitlines() if line.startswith("  isonas ")]
    assert len(lines) == 4
    assert all(words[2] == "my run; ls" for words in lines)


def test_spaces_whose_names_are_patterns_get_folders(here: Path) -> None:
    assert [claim_run("a[1].yaml", "clutter").name for _ in range(2)] == ["a[1]-clutter-1", "a[1]-clutter-2"]


def test_a_search_on_few_images_goes_on_to_its_retraining(here: Path) -> None:
    """The recipe's batch of 256 is a default: it adapts to the 48 training images and says so."""
    images = [encoded(image.transpose(1, 2, 0)) for image in synthetic(60).train.pixels]
    write_parquet(here / "train.parquet", images, synthetic(60).train.labels.tolist())
    typed = ["--data", "parquet:train.parquet", *SHORT[2:], "--trials", "1", "--run", "run"]
    result = isonas("search", "tiny.yaml", *typed)
    assert result.exit_code == 0
    result = isonas("retrain", "run", "--epochs", "1", "--threads", "1", "--precision", "fp32")
    assert result.exit_code == 0, result.output
    assert "a batch is 32 images, not the recipe's 256" in result.stderr
    result = isonas("retrain", "run", "--batch-size", "256", "--run", "other")
    assert result.exit_code == 2
    assert "a batch of 256 images is more than the" in result.stderr
