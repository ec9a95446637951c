"""A step's gradients, as they come and from a recording; a recording's twin on the CPU runs it again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from isonas.data.augment import normalise
from isonas.errors import TrainingError
from isonas.genome import Genome, Stem
from isonas.networks.build import build_network
from isonas.training import loop
from isonas.training.examples import Examples
from isonas.training.loop import prepare, train
from isonas.training.machine import Machine
from isonas.training.recipe import Recipe
from isonas.training.step import Gradients, Record, Run, cuda_graph

CPU = Machine("cpu", "fp32", 1)
SMALL = Genome(2, 8, 4, 2, Fraction(1, 4), Stem.S2D, head_multiple=2, head_features=0)


def network() -> nn.Module:
    torch.manual_seed(0)
    made = build_network(SMALL, 8, 5)
    prepare(made, CPU)
    return made.train()


def batches(count: int, size: int = 12) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8),
            torch.randint(5, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def again_and_again(run: Run) -> Run:
    """A `Record` that runs the work thrice first, as a CUDA graph's does."""
    for _ in range(3):
        run()
    return run


def failing(run: Run) -> Run:
    run()
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def state_after(record: Record | None, pieces: int) -> list[Tensor]:
    net = network()
    gradients = Gradients(net, CPU, label_smoothing=0.1, pieces=pieces, record=record)
    found = []
    for batch, labels in batches(3):
        gradients(batch, labels)
        found += [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
        found += [buffer.clone() for buffer in net.buffers()]
    assert len(found) == 3 * (len(list(net.parameters())) + len(list(net.buffers())))
    return [*found, gradients.total]


def by_hand(pieces: int) -> list[Tensor]:
    """The definition: each piece's mean loss, weighed by its images, and the sum of its gradients."""
    net = network()
    found, total = [], torch.zeros(())
    for batch, labels in batches(3):
        sums = [torch.zeros_like(parameter) for parameter in net.parameters()]
        for images, truth in zip(batch.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
            loss = functional.cross_entropy(net(normalise(images)), truth, label_smoothing=0.1)
            share = loss * len(images) / len(batch)
            slopes = torch.autograd.grad(share, list(net.parameters()))
            sums = [so_far + slope for so_far, slope in zip(sums, slopes, strict=True)]
            total += share.detach()
        found += [*sums, *(buffer.clone() for buffer in net.buffers())]
    return [*found, total]


@pytest.mark.parametrize("pieces", [1, 3])
def test_gradients_are_those_of_the_mean_loss(pieces: int) -> None:
    for found, expected in zip(state_after(None, pieces), by_hand(pieces), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pieces", [1, 3])
def test_recorded_gradients_are_bit_for_bit_those_as_they_come(pieces: int) -> None:
    """And what the runs before a recording did to running statistics and the loss is put back."""
    for found, expected in zip(state_after(again_and_again, pieces), state_after(None, pieces), strict=True):
        assert torch.equal(found, expected)


def test_where_recording_fails_gradients_are_computed_as_they_come() -> None:
    with pytest.warns(UserWarning, match=r"no CUDA graph .*\(operation not permitted when stream"):
        found = state_after(failing, 1)
    assert all(torch.equal(a, b) for a, b in zip(found, state_after(None, 1), strict=True))


def test_memory_that_runs_out_in_a_recording_is_raised() -> None:
    def exhausted(run: Run) -> Run:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        state_after(exhausted, 1)


def trained(pieces: int = 1) -> tuple[list[float], dict[str, Tensor]]:
    pixels, labels = batches(1, 96)[0]
    examples, recipe = Examples(pixels, labels), Recipe(epochs=2, epoch_images=64, batch_size=16)
    ends = list(
        train(network(), examples, examples, recipe, CPU, classes=5, mirror=True, seed=3, pieces=pieces)
    )
    return [result.loss for result, _ in ends], ends[-1][1].network


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_training_by_recordings_is_a_training(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One recording serves all epochs, with validations and steps of the optimizer in between."""
    plainly = trained(pieces)
    recorded: list[Run] = []

    def recording(run: Run) -> Run:
        recorded.append(run)
        return again_and_again(run)

    def make(*arguments: object, **options: object) -> Gradients:
        whole: Callable[..., Gradients] = Gradients
        return whole(*arguments, **{**options, "record": recording})

    monkeypatch.setattr(loop, "Gradients", make)
    losses, weights = trained(pieces)
    assert len(recorded) == 1
    assert losses == plainly[0]
    assert all(torch.equal(weights[name], plainly[1][name]) for name in weights)


def test_chance_is_smoothed_over_the_networks_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which two have images: the best constant is .47 for each of them, .02 for each of the others."""
    monkeypatch.setattr(loop, "DIVERGED", 0)
    examples = Examples(batches(1, 16)[0][0], torch.arange(16) % 2)
    recipe = Recipe(epochs=1, epoch_images=16, batch_size=16, label_smoothing=0.1)
    smoothed = torch.tensor([0.47, 0.47, 0.02, 0.02, 0.02])
    with pytest.raises(TrainingError, match=f"that of chance is {-float(smoothed @ smoothed.log()):.3g}$"):
        next(train(network(), examples, examples, recipe, CPU, classes=5, mirror=True, seed=3))


def test_a_state_is_left_as_it_was_by_training_on_from_it() -> None:
    pixels, labels = batches(1, 96)[0]
    examples, recipe = Examples(pixels, labels), Recipe(epochs=2, epoch_images=64, batch_size=16)
    net = network()
    _, state = next(train(net, examples, examples, recipe, CPU, classes=5, mirror=True, seed=3))
    before = copy.deepcopy(state.optimizer)
    on = train(
        net,
        examples,
        examples,
        recipe,
        CPU,
        classes=5,
        mirror=True,
        seed=3,
        from_epoch=1,
        optimizer_state=state.optimizer,
    )
    list(on)
    for number, kept in before["state"].items():
        assert torch.equal(kept["momentum_buffer"], state.optimizer["state"][number]["momentum_buffer"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_on_a_gpu_gives_what_comes_without(precision: str) -> None:
    machine = replace(CPU, device="cuda", precision=precision)
    found = []
    for record in (None, cuda_graph):
        net = network()
        prepare(net, machine)
        gradients = Gradients(net, machine, label_smoothing=0.1, pieces=1, record=record)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, foreach=True)
        for batch, labels in batches(5):
            gradients(batch.cuda(), labels.cuda())
            optimizer.step()
        found.append([*net.state_dict().values(), gradients.total])
    for plain, graphed in zip(*found, strict=True):
        torch.testing.assert_close(graphed, plain)
