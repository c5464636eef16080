"""The pretended device itself: it refuses what CUDA refuses, counts right, and computes what the CPU computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from pretended_device import PretendedDevice
from torch import Tensor, nn

CUDA = "cuda:0"


@pytest.fixture
def device() -> Iterator[PretendedDevice]:
    with PretendedDevice() as device:
        yield device


def counted(device: PretendedDevice, work: Callable[[], object]) -> tuple[int, int, int]:
    """(kernels, syncs, uploads) of some work."""
    device.operations.clear()
    work()
    return device.kernels, device.syncs, device.uploads


def x() -> Tensor:
    return torch.arange(6.0, device=CUDA).view(2, 3)


# Bound when the test runs, so that the operands are of the device.
REFUSED = {
    "sum of two devices": lambda: x() + torch.ones(2, 3),
    "in place, into the CPU's": lambda: torch.ones(2, 3).add_(x()),
    "even into a single number of the CPU's": lambda: torch.zeros(()).add_(x().sum()),
    "a number of the CPU's in what isn't elementwise": lambda: torch.stack([x().sum(), torch.tensor(1.0)]),
    "matrix product": lambda: x() @ torch.ones(3, 3),
    "concatenation": lambda: torch.cat([x(), torch.ones(2, 3)]),
    "a mask": lambda: torch.where(torch.ones(2, 3, dtype=torch.bool), x(), 0.0),
    "the CPU's by indices of the device": lambda: torch.ones(6)[x().long()],
    "gathering by indices of the CPU": lambda: x().gather(1, torch.zeros(2, 1, dtype=torch.int64)),
    "a layer that was left on the CPU": lambda: nn.Linear(3, 2)(x()),
    "a generator of the CPU": lambda: x().normal_(generator=torch.Generator()),
    "its generator for the CPU": lambda: torch.ones(3).normal_(generator=torch.Generator(CUDA)),
}


@pytest.mark.parametrize("mixed", REFUSED)
def test_mixing_is_refused(device: PretendedDevice, mixed: str):
    with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
        REFUSED[mixed]()


def test_numpy_can_not_read_it(device: PretendedDevice):
    with pytest.raises(RuntimeError, match="not supported"):
        np.asarray(x())


def test_what_cuda_allows_is_allowed(device: PretendedDevice):
    assert (x() + torch.tensor(1.0)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (torch.tensor(2.0) * x()).device == torch.device(CUDA)
    assert x()[torch.tensor([1])].tolist() == [[3, 4, 5]]
    assert x()[[1, 0], 1].tolist() == [4, 1]
    y = x()
    y[0] = torch.zeros(3)
    y[1, y[1] > 3] = torch.tensor(9.0)
    assert y.tolist() == [[0, 0, 0], [3, 9, 9]]


def test_factories_make_tensors_of_the_device(device: PretendedDevice):
    here = torch.device(CUDA)
    made = [
        torch.zeros(2, device="cuda"),
        torch.full((2,), 1.0, device=here),
        torch.empty(2, device=CUDA),
        torch.tensor([1, 2], device=here),
        torch.as_tensor(np.ones(2), device=here),
        torch.zeros(2).to(here),
        torch.ones_like(x()),
        x().new_zeros(2),
        x().new_tensor([1, 2]),
        torch.zeros(2, device=x().device),
    ]
    assert {tensor.device for tensor in made} == {here}
    assert all(tensor.is_cuda for tensor in made)
    assert torch.zeros(2).device.type == "cpu"
    assert made[3].tolist() == [1, 2]
    assert x().to(here, torch.int64).tolist() == [[0, 1, 2], [3, 4, 5]]


COUNTS = {
    # kernels, syncs, uploads
    "a sum": (lambda t: t + 1, (1, 0, 0)),
    "in place": (lambda t: t.mul_(2), (1, 0, 0)),
    "views": (lambda t: t.view(3, 2)[1:].T.unsqueeze(0).expand(4, 2, 2).detach(), (0, 0, 0)),
    "a copy of a view": (lambda t: t.T.contiguous(), (1, 0, 0)),
    "no copy": (lambda t: t.to(CUDA).contiguous().float(), (0, 0, 0)),
    "memory": (torch.empty_like, (0, 0, 0)),
    "nothing at all": (lambda t: t[:0] + 1, (0, 0, 0)),
    "a number": (lambda t: t[0, 0].item(), (0, 1, 0)),
    "a condition": (lambda t: bool(t.any()), (1, 1, 0)),
    "to the host": (lambda t: t.cpu(), (0, 1, 0)),
    "as a list": (lambda t: t.tolist(), (0, 1, 0)),
    "into the host's": (lambda t: torch.zeros(2, 3).copy_(t), (0, 1, 0)),
    "where": (lambda t: t.nonzero(), (1, 1, 0)),
    "by a mask": (lambda t: t[t > 2], (3, 1, 0)),
    # Of the comparison, the ones, nonzero, and it; a single number may become a masked_fill.
    "into a mask": (lambda t: t.__setitem__(t > 2, t.new_ones(3)), (4, 1, 0)),
    "by indices": (lambda t: t[t.long()[0, :1]], (2, 0, 0)),
    "by indices of the host": (lambda t: t[torch.tensor([0])], (1, 0, 1)),
    "by a list": (lambda t: t[[0, 1]], (1, 0, 1)),
    "from the host": (lambda t: torch.tensor([1.0], device=CUDA), (0, 0, 1)),
    "from the host, without waiting": (lambda t: torch.ones(1).to(CUDA, non_blocking=True), (0, 0, 0)),
    "different values": (lambda t: t.unique(), (1, 1, 0)),
    "repeated": (lambda t: t.repeat_interleave(2, dim=0), (1, 0, 0)),
    "repeated so often": (lambda t: torch.repeat_interleave(t.long()[0]), (2, 1, 0)),
    "on the host alone": (lambda t: torch.ones(3).sum().item(), (0, 0, 0)),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("work", COUNTS)
def test_work_is_counted(device: PretendedDevice, work: str, inference: bool):
    run, expected = COUNTS[work]
    tensor = x()
    with torch.inference_mode(inference):
        assert counted(device, lambda: run(tensor)) == expected


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_training_is_the_same_as_on_the_cpu(device: PretendedDevice, optimizer: type[torch.optim.Optimizer]):
    images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])

    def trained(model: nn.Module, where: str) -> dict[str, Tensor]:
        model = model.to(where)
        steps = optimizer(model.parameters(), lr=0.1)
        for _ in range(3):
            steps.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(where)), labels.to(where))
            loss.backward()
            assert next(model.parameters()).grad.device.type == torch.device(where).type
            steps.step()
        return {name: tensor.cpu() for name, tensor in model.state_dict().items()}

    model = network()
    here, there = trained(copy.deepcopy(model), "cpu"), trained(model, CUDA)
    for name in here:
        torch.testing.assert_close(there[name], here[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_network_computes_the_same_in_every_mode(device: PretendedDevice, context: Callable[[], object]):
    model, images = network().eval(), torch.rand(5, 1, 8, 8)
    with context():
        expected = model(images)
        found = model.to(CUDA)(images.to(CUDA))
        sums = torch.zeros(5, 3, device=CUDA)
        sums[2:4] += found[2:4]
        assert torch.equal(found.cpu(), expected)
        assert torch.equal(sums.cpu()[2:4], expected[2:4])


def test_its_generator_draws_what_the_cpus_draws(device: PretendedDevice):
    drawn = torch.empty(5, device=CUDA).normal_(generator=torch.Generator(CUDA).manual_seed(3))
    assert drawn.tolist() == torch.empty(5).normal_(generator=torch.Generator().manual_seed(3)).tolist()


def test_afterwards_nothing_is_pretended():
    generator, overwrite = torch.Generator, torch.__future__.get_overwrite_module_params_on_conversion()
    with PretendedDevice():
        left = x()
        assert torch.Generator is not generator
    assert torch.Generator is generator
    assert torch.__future__.get_overwrite_module_params_on_conversion() is overwrite
    with pytest.raises(AssertionError, match="pretended any more"):
        left + 1
    assert torch.empty(1, device="meta").is_meta


def test_the_line_of_the_package_is_told():
    from step_counts import demo_classifier

    with PretendedDevice() as device:
        demo_classifier(CUDA).votes(torch.zeros(1, 1, 28, 28, device=CUDA), samples=10)
    assert any(line.startswith("smoothing/") for _, _, line in device.operations)
