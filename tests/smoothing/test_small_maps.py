"""Convolutions of maps smaller than their kernel: the same outputs and gradients from one matrix."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caa_cli.models.architectures import torchvision_resnet
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.recompute import graph_bytes
from caa_cli.smoothing.small_maps import use_matrices

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def convolution(**shape):
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, **{"kernel_size": 3, "padding": 1, **shape}).double().requires_grad_(False)


def changed(layer):
    layer = copy.deepcopy(layer)
    use_matrices(layer)
    return layer


def has_matrix(layer):
    return "matrix" in dict(layer.named_buffers())


def outputs_and_gradient(layer, x):
    x = x.clone().requires_grad_()
    y = layer(x)
    return y.detach(), torch.autograd.grad(y, x, torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))[0]


@settings(max_examples=200)
@given(
    kernel=PAIRS,
    stride=PAIRS,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=PAIRS,
    size=PAIRS,
    bias=st.booleans(),
    last=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_the_convolution(kernel, stride, padding, dilation, size, bias, last):
    layer = convolution(kernel_size=kernel, stride=stride, padding=padding, dilation=dilation, bias=bias)
    x = torch.randn(5, 4, *size, dtype=torch.double)
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    try:
        expected = outputs_and_gradient(layer, x)
    except RuntimeError:  # a kernel larger than the padded map
        return
    found = outputs_and_gradient(changed(layer), x)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_outputs_have_the_layout_of_the_inputs(layout):
    x = torch.randn(5, 4, 2, 2, dtype=torch.double).contiguous(memory_format=layout)
    assert changed(convolution())(x).stride() == convolution()(x).stride()


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        ((2, 2), {}, True),
        ((1, 1), {}, True),
        ((2, 2), {"stride": 2}, True),
        ((1, 2), {}, True),
        ((2, 2), {"kernel_size": 5, "padding": 2}, True),
        ((3, 3), {}, False),  # as many multiplications
        ((4, 4), {"kernel_size": 5, "padding": 2}, False),  # a matrix ten times as large as the kernel
        ((1, 1), {"kernel_size": 1, "padding": 0}, False),
        ((2, 2), {"groups": 2}, False),
        ((2, 2), {"padding": "same"}, False),
        ((2, 2), {"padding_mode": "reflect"}, False),
    ],
)
def test_only_where_that_is_less_work(size, shape, expected):
    layer, x = convolution(**shape), torch.randn(2, 4, *size, dtype=torch.double)
    matrices = changed(layer)
    torch.testing.assert_close(matrices(x), layer(x))
    assert has_matrix(matrices) is expected


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_layers_of_other_kinds_are_left_as_they_are():
    class Reversed(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x.flip(2, 3), self.weight, self.bias, padding=1)

    torch.manual_seed(0)
    normed = torch.nn.utils.weight_norm(nn.Conv2d(4, 6, 3, padding=1)).requires_grad_(False)
    for layer in (Reversed(4, 6, 3).requires_grad_(False), normed):
        x = torch.randn(2, 4, 2, 2)
        expected = layer(x)
        use_matrices(layer)
        assert torch.equal(layer(x), expected)
        assert not has_matrix(layer)


def test_weights_that_learn_are_left_to_pytorch():
    layer, x = changed(convolution()).requires_grad_(True), torch.randn(2, 4, 2, 2, dtype=torch.double)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert not has_matrix(layer)


def test_the_matrix_is_made_anew_for_other_weights_types_and_sizes():
    layer = convolution()
    matrices = changed(layer)
    x = torch.randn(2, 4, 2, 2, dtype=torch.double)
    with torch.inference_mode():  # as votes are counted; gradients come after
        torch.testing.assert_close(matrices(x), layer(x))
    for mine, theirs in zip(outputs_and_gradient(matrices, x), outputs_and_gradient(layer, x), strict=True):
        torch.testing.assert_close(mine, theirs)
    other = {name: torch.randn_like(value) for name, value in layer.state_dict().items()}
    for each in (layer, matrices):
        each.load_state_dict(other)
    torch.testing.assert_close(matrices(x), layer(x))
    torch.testing.assert_close(matrices(x[:, :, :1]), layer(x[:, :, :1]))
    torch.testing.assert_close(matrices.float()(x.float()), layer.float()(x.float()))


def test_images_without_a_batch_and_empty_batches():
    layer = convolution()
    for x in (torch.randn(4, 2, 2, dtype=torch.double), torch.randn(0, 4, 2, 2, dtype=torch.double)):
        torch.testing.assert_close(changed(layer)(x), layer(x))


def test_a_model_can_be_saved_whole_and_copied():
    layer, x = convolution(), torch.randn(2, 4, 2, 2, dtype=torch.double)
    matrices = changed(layer)
    matrices(x)
    use_matrices(matrices)  # as it is where a model becomes a second classifier
    for other in (copy.deepcopy(matrices), pickle.loads(pickle.dumps(matrices))):
        assert type(other) is nn.Conv2d
        assert other.state_dict().keys() == layer.state_dict().keys()
        assert not has_matrix(other)
        assert torch.equal(other(x), layer(x))


def test_a_smoothed_classifier_of_the_papers_network_takes_them():
    torch.manual_seed(0)
    network = torchvision_resnet(18, 10).eval()
    x, labels = torch.rand(1, 3, 28, 28), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        expected = network(x)
    classifier = SmoothedClassifier(network, sigma=0.5, num_classes=10, input_shape=(3, 28, 28))
    classifier.gradient(x, labels, samples=4)
    matrices = [name for name, _ in classifier.model.named_buffers() if name.endswith(".matrix")]
    assert len(matrices) == 7  # all 3×3 convolutions of the last two stages but the first, whose inputs have 4×4
    torch.testing.assert_close(classifier.model(x), expected, rtol=1e-5, atol=1e-5)
    bytes_with_matrices = graph_bytes(classifier.model, x)
    assert bytes_with_matrices < 4 * classifier.model.layer4[0].conv1.matrix.numel()
