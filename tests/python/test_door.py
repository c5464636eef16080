"""`import caa_cli as caa`: what the functions give is what the commands give, and what they refuse is named."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
import pytest
import torch
from pretended_device import PretendedDevice
from support import CHEAP_SETTINGS, attack, caa, parse_strict, read_strict

import caa_cli
from caa_cli.python.errors import plain
from caa_cli.results.records import ATTACKED, MISCLASSIFIED

NEWTON = {"newton_steps": 6, "samples": 100, "verify_samples": 1000, "chunk_size": 256}


@pytest.fixture(scope="module")
def model():
    return caa_cli.load("demo", device="cpu")


@pytest.fixture(scope="module")
def data():
    return caa_cli.load_images("demo")


def columns_are_the_commands(results, examples):
    """Every column of the results against the JSON of a command, but for the time."""
    assert len(results) == len(examples)
    for name, column in results.to_dict().items():
        if name == "seconds":
            continue
        for value, example in zip(column, examples, strict=True):
            expected = example[name]
            if expected is None:
                assert value in (-1, "") or np.isnan(value), name
            else:
                assert value == expected, name


def test_a_loaded_model_says_what_it_is(model):
    assert repr(model) == "<SmoothedClassifier: small-cnn, σ = 0.5, 10 classes of 1×28×28 images, float32 on cpu>"


def test_an_attack_is_the_commands_to_the_bit(model, data, tmp_path):
    images, labels = data
    document = attack(tmp_path / "a.json", "--limit", "3", "--save-adversarial", tmp_path / "a.safetensors")
    results = caa_cli.attack(model, images[:3], labels[:3], "caa", **CHEAP_SETTINGS)
    columns_are_the_commands(results, document["examples"])
    told = {k: v for k, v in document["summary"].items() if "seconds" not in k}
    assert {k: v for k, v in results.summary.to_json().items() if "seconds" not in k} == told
    lengths = np.linalg.norm((results.adversarial - images[:3].numpy()).reshape(3, -1).astype(float), axis=1)
    assert lengths == pytest.approx(results.radius, abs=1e-9, nan_ok=True)
    alone = caa_cli.attack(model, images[2:3].numpy(), [int(labels[2])], "caa", indices=[2], **CHEAP_SETTINGS)
    assert alone.radius[0] == results.radius[2]


def test_the_default_attack_is_caa_newton(model, data, tmp_path):
    words = ["--checkpoint", "demo", "--attack", "caa-newton", "--newton-steps", "6", "--samples", "100"]
    words += ["--verify-samples", "1000", "--chunk-size", "256", "--device", "cpu", "--limit", "2", "--seed", "7"]
    assert caa("attack", *words, "--output", tmp_path / "a.json").exit_code == 0
    images, labels = data
    results = caa_cli.attack(model, images[:2], labels[:2], seed=7, **NEWTON)
    columns_are_the_commands(results, read_strict(tmp_path / "a.json")["examples"])
    short = {"steps" if name == "newton_steps" else name: value for name, value in NEWTON.items()}
    again = caa_cli.attack(model, images[:2], labels[:2], seed=7, **short)
    assert np.array_equal(again.radius, results.radius, equal_nan=True)


@pytest.mark.parametrize("radius", [None, 0.4])
def test_certificates_are_the_commands(model, data, radius, tmp_path):
    words = [] if radius is None else ["--radius", str(radius)]
    common = ["--checkpoint", "demo", "--limit", "5", "--samples", "500", "--chunk-size", "256", "--device", "cpu"]
    result = caa("certify", *common, *words, "--output", tmp_path / "c.json", "--json")
    document = parse_strict(result.stdout)
    images, labels = data
    results = caa_cli.certify(model, images[:5], labels[:5], samples=500, radius=radius, chunk_size=256)
    columns_are_the_commands(results, document["examples"])
    assert results.summary.certified_accuracy == document["summary"]["certified_accuracy"]
    unlabelled = caa_cli.certify(model, images[:5], samples=500, radius=radius, chunk_size=256)
    assert unlabelled.prediction.tolist() == results.prediction.tolist()
    assert unlabelled.summary is None
    assert not unlabelled.correct.any()


def test_a_misclassified_image_has_no_adversarial_one(model, data):
    images, labels = data
    wrong = (int(labels[1]) + 1) % 10
    results = caa_cli.attack(model, images[1:3], [wrong, int(labels[2])], "caa", **CHEAP_SETTINGS)
    assert results.outcome.tolist() == [MISCLASSIFIED, ATTACKED]
    assert results.success.tolist() == [False, True]
    assert np.isnan(results.adversarial[0]).all()
    assert np.isnan(results.radius[0])
    assert results.adversarial_class[0] == -1
    assert repr(results).startswith("<AttackResults: 1 of 1 eligible images attacked, median radius ")
    assert repr(results).endswith(", 1 misclassified>")


def test_an_attack_of_ones_own_is_judged_too(model, data):
    def jump(classifier, images, labels, generator, reach=6.0):
        gradient = classifier.gradient(images, labels)
        return (images - reach * gradient / gradient.norm()).clamp(0, 1)

    images, labels = data
    settings = {name: CHEAP_SETTINGS[name] for name in ("samples", "verify_samples", "chunk_size")}
    results = caa_cli.attack(model, images[:1], labels[:1], jump, reach=8.0, **settings)
    assert results.outcome.tolist() == [ATTACKED]
    assert results.backward_evaluations[0] == settings["samples"]
    with pytest.raises(caa_cli.UsageError, match="did you mean reach"):
        caa_cli.attack(model, images[:1], labels[:1], jump, reech=8.0)
    asked: list[int] = []

    def counted(classifier, images, labels, generator, restarts=1):
        asked.append(restarts)
        return 1.0 - images

    caa_cli.attack(model, images[:1], labels[:1], counted, restarts=5, **settings)
    assert asked == [5], "its own argument, not the option of that name"
    broken = caa_cli.attack(model, images[:1], labels[:1], lambda c, x, y, g: x.sum(), **settings)
    assert repr(broken).startswith("<AttackResults: 0 of 0 eligible images attacked, 1 failed: ")
    assert broken.error[0] in repr(broken)


def test_gradients_of_votes_and_of_another_model(model, data):
    images, labels = data
    settings = {**CHEAP_SETTINGS, "iterations": 12}
    votes = caa_cli.attack(model, images[:6], labels[:6], "caa", gradient="votes", **settings)
    assert votes.backward_evaluations.sum() == 0
    other = caa_cli.attack(model, images[:1], labels[:1], "caa", gradient=model, **settings)
    itself = caa_cli.attack(model, images[:1], labels[:1], "caa", **settings)
    assert other.radius[0] == pytest.approx(itself.radius[0], rel=1e-3)
    assert other.forward_evaluations[0] == itself.forward_evaluations[0] + itself.backward_evaluations[0]


@pytest.mark.parametrize("kind", ["backwards", "read-only", "big-endian"])
def test_arrays_that_pytorch_does_not_take_as_they_are_are_copied(model, data, kind):
    images, labels = (tensor[:2].numpy() for tensor in data)
    given = {
        "backwards": lambda array: array[::-1].copy()[::-1],
        "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
        "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    }[kind]
    settings = {"samples": 200, "chunk_size": 256}
    wanted = caa_cli.certify(model, images, labels, **settings)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            results = caa_cli.certify(model, given(images), given(labels), **settings)
    finally:
        torch.set_warn_always(False)
    assert results.radius.tolist() == wanted.radius.tolist()
    assert results.correct.tolist() == wanted.correct.tolist()


def test_loading_takes_none_of_the_callers_random_numbers():
    before = torch.get_rng_state()
    caa_cli.load("demo", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_may_share_a_classifier(model, data):
    images, labels = 0.3 * data[0][:2], data[1][:2]

    def everything(_):
        radii = caa_cli.certify(model, images, labels, samples=500, chunk_size=256).radius
        gradient = model.gradient(images, labels, samples=300)
        return [*radii, *model.votes(images, samples=500).flatten().tolist(), *gradient.flatten().tolist()]

    wanted = everything(0)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(everything, range(8))) == [wanted] * 8


def test_a_call_that_waits_for_the_attack_which_waits_for_it_says_so(model, data):
    images, labels = data[0][:1], data[1][:1]
    within = Thread(target=caa_cli.certify, args=(model, images, labels), kwargs={"samples": 100})

    def attack(classifier, images, labels, generator):
        within.start()
        within.join(8)  # for ever, in an attack that knows no better
        return images

    with pytest.warns(UserWarning, match="calls of caa take turns, and another thread's has not ended"):
        caa_cli.attack(model, images, labels, attack, samples=100, verify_samples=1000)
    within.join()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_classifier_can_be_copied_and_pickled(model, data, copied):
    images, labels = data[0][:2], data[1][:2]
    for original in (model, model.searched_in(torch.bfloat16)):
        other = copied(original)
        assert torch.equal(other.votes(images, 300), original.votes(images, 300))
        expected = original.search.gradient(images, labels, 300)
        assert torch.equal(other.search.gradient(images, labels, 300), expected)
        other.model.requires_grad_(True).train()
        assert not any(weight.requires_grad for weight in original.model.parameters())


def test_a_network_of_ones_own():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    classifier = caa_cli.SmoothedClassifier(network, sigma=0.25, num_classes=3, input_shape=(3, 2, 2))
    images = torch.rand(2, 3, 2, 2)
    votes = classifier.votes(images, samples=1000)
    assert votes.sum(dim=1).tolist() == [1000, 1000]
    assert torch.equal(votes, classifier.votes(images, samples=1000))
    assert not torch.equal(votes, classifier.votes(images, samples=1000, seed=1))
    labels = votes.argmax(dim=1)
    gradient = classifier.gradient(images, labels, samples=500)
    assert gradient.shape == images.shape
    closer = classifier.votes(images - 0.3 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None])
    assert bool((closer.gather(1, labels[:, None]) < votes.gather(1, labels[:, None])).all())
    results = caa_cli.certify(classifier, images, labels, samples=1000)
    assert results.correct.tolist() == [True, True]


class Reshaping(torch.nn.Linear):
    """A network that is written for images of their own memory, as a run's are."""

    def forward(self, x):
        x.sub_(0.5)
        return super().forward(x.view(-1, 2, 2).view(-1, 12))


def test_a_network_may_work_in_the_memory_of_its_images():
    classifier = caa_cli.SmoothedClassifier(Reshaping(12, 3), sigma=0.25, num_classes=3, input_shape=(3, 2, 2))
    images = torch.rand(2, 3, 2, 2)
    before = images.clone()
    votes = caa_cli.certify(classifier, images, samples=500).votes_top
    assert votes.tolist() == caa_cli.certify(classifier, before, samples=500).votes_top.tolist()
    assert torch.equal(images, before)


WRONG = {
    "uint8": ({"images": np.zeros((1, 1, 28, 28), np.uint8)}, "images has the dtype torch.uint8"),
    "range": ({"images": torch.full((1, 1, 28, 28), 2.0)}, r"not in \[0, 1\].*leave normalisation to the model"),
    "nan": ({"images": torch.full((1, 1, 28, 28), torch.nan)}, r"not in \[0, 1\], or NaN"),
    "shape": ({"images": torch.zeros(28, 28)}, r"images has the shape \(28, 28\)"),
    "text": ({"images": [["a"]]}, "images is no array of numbers"),
    "class": ({"labels": [10]}, "labels holds 10"),
    "floats": ({"labels": [0.5]}, r"labels has the dtype.*labels\.long\(\)"),
    "many labels": ({"labels": [1, 2]}, r"labels has the shape \(2,\)"),
    "indices": ({"indices": [1, 2]}, "indices must hold one number for each image"),
    "negative": ({"indices": [-1]}, "indices must hold"),
    "half an index": ({"indices": [0.5]}, r"indices must be a list of whole numbers, not \[0\.5\]"),
    "one index": ({"indices": 0}, "indices must be a list of whole numbers, not 0"),
    "no labels": ({"labels": None}, "labels is None, .* the predictions"),
    "number": ({"method": 5}, "method must be the name of an attack, or a function, not 5"),
    "samples": ({"samples": 0}, "^samples must be at least 1"),
    "half": ({"samples": 1.5}, "^samples must be a whole number, not 1.5"),
    "word": ({"alpha": "small"}, "^alpha must be a number, not 'small'"),
    "bound": ({"bound": "gut"}, "bound 'gut' is not known"),
    "method": ({"method": "ddm"}, "^method 'ddm' is not known.*did you mean ddn"),
    "unknown": ({"sample": 5}, "has no setting 'sample'.*did you mean samples"),
    "attack": ({"attack": "ddn"}, "has no setting 'attack'.*the argument `method`"),
    "of the model": ({"sigma": 0.25}, r"has no setting 'sigma'.*caa\.load\(…, sigma=…\)"),
    "of another": ({"method": "pgd", "ddn_initial_norm": 1.0}, "pgd has no setting 'ddn_initial_norm'"),
    "gradient": ({"gradient": "none"}, "gradient 'none' is not known"),
    "no network": ({"gradient": 5}, "gradient 5 is not known .use 'model', 'votes' or another model"),
    "targets": ({"target": [[3], [1, 2]]}, "target is no array of numbers"),
    "half a target": ({"target": [0.5]}, "target has the dtype"),
    "many targets": ({"target": [1, 2]}, r"target has the shape \(2,\)"),
    "far index": ({"indices": [2**63]}, "indices must hold one number for each image"),
    "model": ({"model": torch.nn.Flatten()}, "model is a Flatten, not a SmoothedClassifier"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused_is_named(model, wrong):
    given, message = WRONG[wrong]
    with pytest.raises(caa_cli.UsageError, match=message):
        caa_cli.attack(**{"model": model, "images": torch.zeros(1, 1, 28, 28), "labels": [0], **given})


def linear(inputs, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, classes))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (linear(784, 9), "^gradient gives 9 logits for an image, not one for each of 10 classes"),
        (linear(783, 10), "^gradient can't take 1×28×28 images .*783"),
        (torch.nn.Identity(), r"^gradient gives a tensor of shape \(2, 1, 28, 28\) for two images"),
    ],
)
def test_a_surrogate_of_other_images_or_classes_is_refused(model, data, network, message):
    images, labels = data
    with pytest.raises(caa_cli.UsageError, match=message):
        caa_cli.attack(model, images[:1], labels[:1], gradient=network, **NEWTON)


def test_a_surrogate_stays_as_it_is(data):
    images, labels = data
    model, surrogate = (caa_cli.load("demo", device="cpu", dtype=dtype) for dtype in ("bfloat16", "float32"))
    before = surrogate.votes(images[:2], samples=50)
    network = linear(784, 10).train()
    for other in (surrogate, network):
        caa_cli.attack(model, images[:1], labels[:1], gradient=other, **{**NEWTON, "newton_steps": 1})
    assert torch.equal(surrogate.votes(images[:2], samples=50), before)
    assert network.training
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in network.parameters())


def test_a_network_of_other_images_or_classes_than_it_is_said_to_have_is_refused():
    images = torch.rand(1, 3, 2, 2)
    for network, message in (
        (linear(12, 4), "^model gives 4 logits for an image"),
        (linear(4, 3), "^model can't take"),
        (
            torch.nn.Sequential(linear(12, 3), torch.nn.BatchNorm1d(3, track_running_stats=False)),
            "^model gives an image other logits beside other images",
        ),
    ):
        classifier = caa_cli.SmoothedClassifier(network, sigma=0.25, num_classes=3, input_shape=(3, 2, 2))
        with pytest.raises(caa_cli.UsageError, match=message):
            caa_cli.certify(classifier, images, [0])


def test_votes_and_gradients_take_arrays_and_refuse_other_shapes(model, data):
    images, labels = data
    for call in (model.votes, lambda x, samples: model.gradient(x, labels[: len(x)], samples)):
        assert torch.equal(call(images[:2].numpy(), samples=20), call(images[:2], samples=20))
        for wrong in (images[0], images[:2, :, 1:], images[:2].expand(2, 3, 28, 28)):
            with pytest.raises(caa_cli.UsageError, match=r"images has the shape \("):
                call(wrong, samples=20)
        with pytest.raises(caa_cli.UsageError, match=r"images has the dtype torch\.uint8"):
            call((255 * images[:2]).byte(), samples=20)


@pytest.mark.parametrize("function", ["attack", "certify"])
def test_an_interruption_keeps_what_is_done(model, data, function, monkeypatch):
    images, labels = data
    network, calls = model.model.forward, []

    def forward(x):
        calls.append(len(x))
        if len(calls) > enough:
            raise KeyboardInterrupt
        return network(x)

    monkeypatch.setattr(model.model, "forward", forward)
    call = getattr(caa_cli, function)
    settings = {"samples": 300, "chunk_size": 100}
    if function == "attack":
        settings = {**CHEAP_SETTINGS, "method": "caa", "batch_size": 1}
    enough = 10**9
    call(model, images[:1], labels[:1], **settings)
    enough, wanted = len(calls) + 1, call(model, images[:1], labels[:1], **settings)
    calls.clear()
    with pytest.raises(KeyboardInterrupt) as stopped:
        call(model, images[:3], labels[:3], **settings)
    assert isinstance(stopped.value, caa_cli.Interrupted)
    assert stopped.value.results.radius.tolist() == wanted.radius.tolist()


def test_progress_is_shown_where_it_is_asked_for(model, data, capsys):
    images, labels = data
    caa_cli.certify(model, images[:2], labels[:2], samples=200, chunk_size=256)
    assert capsys.readouterr() == ("", "")
    caa_cli.certify(model, images[:2], labels[:2], samples=200, chunk_size=256, progress=True)
    assert "images 2/2 · 100% right and certified" in capsys.readouterr().err


def test_a_table_for_pandas(model, data):
    pandas = pytest.importorskip("pandas")
    images, labels = data
    table = caa_cli.certify(model, images[:2], labels[:2], samples=200, chunk_size=256).to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert table["label"].tolist() == labels[:2].tolist()


def test_without_pandas_a_message_says_what_to_install(model, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    images, labels = data
    results = caa_cli.certify(model, images[:1], labels[:1], samples=200, chunk_size=256)
    with pytest.raises(caa_cli.CaaError) as refused:
        results.to_dataframe()
    assert refused.value.hint == "pip install pandas"


def test_images_by_index(data):
    images, labels = caa_cli.load_images("demo", indices=[3, 17])
    assert torch.equal(images, data[0][[3, 17]])
    assert torch.equal(labels, data[1][[3, 17]])
    assert images.dtype == torch.float32
    with pytest.raises(caa_cli.UsageError, match="has 100 images: 100 is none of them"):
        caa_cli.load_images("demo", indices=[100])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "tst"}, r"^split 'tst' is not known.*test, train"),
        ({"dataset": "mnst"}, "^dataset 'mnst' is not known"),
        ({"indices": [0.5]}, "indices must be a list of whole numbers"),
        ({"indices": 3}, "indices must be a list of whole numbers, not 3"),
        ({"data_dir": 5}, "^data_dir must be a path, not 5"),
        ({"image_size": "x"}, "^image_size must be a whole number, not 'x'"),
    ],
)
def test_images_that_there_are_not(wrong, message):
    with pytest.raises(caa_cli.UsageError, match=message):
        caa_cli.load_images(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": "0.5"}, "^sigma must be a number, not '0.5'"),
        ({"classifier_size": 28.0}, "^classifier_size must be a whole number"),
        ({"mean": 0.5}, "^mean must be a list with a number a channel, not 0.5"),
        ({"mean": [0.5], "std": ["a"]}, r"^std must be a list with a number a channel, not \['a'\]"),
        ({"std": [0.0]}, "^std must be above 0"),
        ({"checkpoint": 5}, "^checkpoint must be a path, not 5"),
        ({"checkpoint": ["demo", None]}, "^checkpoint must be a path, not None"),
        ({"checkpoint": torch.nn.Flatten()}, "^checkpoint must be a path, not a Flatten .*SmoothedClassifier"),
        ({"checkpoint": {"weight": torch.zeros(1)}}, "^checkpoint must be a path, not a dict"),
        ({"checkpoint": []}, "^checkpoint names no file"),
        ({"denoiser": 5}, "^denoiser must be a path, not 5"),
        ({"arch": 5}, "^arch must be a text, not 5"),
        ({"num_classes": 0}, "^num_classes must be at least 1"),
        ({"input_shape": (28, 28)}, r"^input_shape must be channels, height and width, not \(28, 28\)"),
        ({"input_shape": 28}, "^input_shape must be channels, height and width, not 28"),
        ({"input_shape": (3, 32, 32)}, r"^input_shape=\(3, 32, 32\), and .*demo.safetensors has \(1, 28, 28\)"),
        ({"num_classes": 5}, "^num_classes=5, and .*demo.safetensors has 10"),
        ({"dtype": torch.int8}, "^dtype 'int8' is not known"),
    ],
)
def test_loading_refuses_values_of_another_type(wrong, message):
    with pytest.raises(caa_cli.UsageError, match=message):
        caa_cli.load(**{"checkpoint": "demo", **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": -0.5}, r"^sigma must be above 0, not -0\.5 \(for instance sigma=0\.5\)"),
        ({"sigma": float("nan")}, "^sigma must be above 0, not nan"),
        ({"sigma": "0.5"}, "^sigma must be above 0, not '0.5'"),
        ({"dtype": "float32"}, "^dtype is 'float32'"),
        ({"dtype": torch.int64}, r"^dtype is torch\.int64"),
        ({"model": torch.nn.Flatten}, r"^model is the class Flatten, not a network"),
        ({"model": torch.relu}, r"^model is a builtin_function_or_method, not a network"),
        ({"input_shape": 28}, "^input_shape must be channels, height and width, not 28"),
        ({"input_shape": (3, 4)}, r"^input_shape must be channels, height and width, not \(3, 4\)"),
        ({"input_shape": (1.0, 3, 4)}, r"^input_shape must be channels, height and width"),
        ({"input_shape": (0, 3, 4)}, r"^input_shape must be channels, height and width"),
        ({"num_classes": 3.0}, "^num_classes must be a whole number, at least 2, not 3.0"),
        ({"device": "gpu"}, "^device 'gpu' is not known"),
    ],
)
def test_a_classifier_of_ones_own_refuses_values_that_can_not_be_used(wrong, message):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    with pytest.raises(caa_cli.UsageError, match=message):
        caa_cli.SmoothedClassifier(
            **{"model": network, "sigma": 0.5, "num_classes": 3, "input_shape": (1, 3, 4), **wrong}
        )


def test_a_classifier_of_ones_own_takes_numbers_of_any_library():
    settings = {"sigma": np.float32(0.5), "num_classes": np.int64(3), "input_shape": np.array([1, 3, 4])}
    classifier = caa_cli.SmoothedClassifier(linear(12, 3), **settings)
    assert classifier.input_shape == (1, 3, 4)
    assert type(classifier.num_classes) is int
    labels, sigma = torch.tensor([0, 2]), torch.tensor(0.5)
    caa_cli.SmoothedClassifier(linear(12, 3), sigma=sigma, num_classes=labels.max() + 1, input_shape=(1, 3, 4))


def test_a_network_is_smoothed_where_it_is():
    settings = {"sigma": 0.5, "num_classes": 3, "input_shape": (1, 3, 4)}
    with PretendedDevice():
        network = linear(12, 3).to("cuda:0")
        assert str(caa_cli.SmoothedClassifier(network, **settings).device) == "cuda:0"
        assert str(caa_cli.SmoothedClassifier(network, device="cpu", **settings).device) == "cpu"
    assert str(caa_cli.SmoothedClassifier(torch.nn.Flatten(), **settings).device) == "cpu"
    assert str(caa_cli.SmoothedClassifier(torch.nn.Flatten(), device="auto", **settings).device) in ("cpu", "cuda")


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="has such a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_words():
    network, settings = linear(12, 3), {"sigma": 0.5, "num_classes": 3, "input_shape": (1, 3, 4)}
    for number in ("cuda:7", torch.device("cuda", 7)):
        with pytest.raises(caa_cli.CaaError, match=r"^device=cuda:7 is not there: .*device=cpu"):
            caa_cli.SmoothedClassifier(network, device=number, **settings)
    with pytest.raises(caa_cli.CaaError, match=r"^device cuda:7 is not there: .*device='cpu'"):
        caa_cli.load("demo", device="cuda:7")


def test_too_few_samples_are_warned_of():
    model = caa_cli.load("demo", device="cpu")
    images, labels = caa_cli.load_images("demo", indices=[0])
    with pytest.warns(UserWarning, match=r"^with 5 samples .* raise samples or alpha$") as warned:
        caa_cli.certify(model, images, samples=5, chunk_size=8)
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match=r"^verify_samples=5 can verify nothing") as warned:
        caa_cli.attack(model, images, labels, samples=100, certify_samples=1000, verify_samples=5, chunk_size=8)
    assert warned[0].filename == __file__


def test_loading_says_what_it_overrides():
    with pytest.warns(UserWarning, match=r"^sigma=0\.25 overrides the 0\.5") as warned:
        assert caa_cli.load("demo", sigma=0.25, device="cpu").sigma == 0.25
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match="^dataset cifar10 overrides the mnist"):
        caa_cli.load("demo", dataset="cifar10", device="cpu")
    with pytest.raises(caa_cli.UsageError, match=r"^sigma must be"):
        caa_cli.load("demo", sigma=-1.0)
    with pytest.raises(caa_cli.CaaError, match="absent"):
        caa_cli.load("absent.safetensors")


def test_the_import_loads_nothing_heavy():
    script = (
        "import sys, caa_cli as caa; caa.CaaError, dir(caa), caa.__version__; "
        "print([m for m in ('torch', 'numpy', 'scipy', 'rich', 'typer', 'matplotlib') if m in sys.modules]); "
        "assert dir(caa) == caa.__all__; caa.attack; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'atack'"):
        _ = caa_cli.atack


def test_the_package_runs_as_the_command():
    found = subprocess.run([sys.executable, "-m", "caa_cli", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: caa " in found.stdout


def test_a_type_checker_sees_the_types(tmp_path):
    api = pytest.importorskip("mypy.api")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import caa_cli as caa\n"
        "classifier = caa.load('demo', sigma=0.5)\n"
        "images, labels = caa.load_images('demo')\n"
        "reveal_type(caa.attack(classifier, images, labels).radius)\n"
        "caa.certify(classifier, images, labels, samples='many')\n"
        "caa.SmoothedClassifier(classifier.model, sigma='wide', num_classes=10, input_shape=(1, 28, 28))\n"
    )
    settings = tmp_path / "mypy.ini"
    # PyTorch's own types take most of a minute, and nothing asked here depends on them.
    settings.write_text("[mypy]\nfollow_imports=silent\n[mypy-torch.*,torchvision.*,scipy.*]\nfollow_imports=skip\n")
    cache = str(tmp_path / "cache")
    text, _, code = api.run([str(snippet), "--config-file", str(settings), "--cache-dir", cache])
    assert code == 1
    assert 'Revealed type is "numpy.ndarray[' in text
    assert 'Argument "samples" to "certify" has incompatible type "str"; expected "int"' in text
    assert 'Argument "sigma" to "SmoothedClassifier" has incompatible type "str"; expected "float"' in text
    assert text.count("error:") == 2


def test_messages_name_arguments_and_leave_commands_as_they_are():
    for said, meant in (
        ("try --seed 3, or caa inspect --checkpoint a.pt", "try seed=3, or caa inspect --checkpoint a.pt"),
        ("use --device cpu, or --attack caa-newton", "use device='cpu', or method='caa-newton'"),
        ("leave --rivals out; or add --trust-checkpoint", "leave rivals out; or add trust_checkpoint=True"),
        ("--normalisation mnist is assumed", "normalisation mnist is assumed"),
    ):
        assert plain(said) == meant
    with pytest.raises(caa_cli.UsageError, match="add data_dir=DIR, "):
        caa_cli.load_images("mnist")
    with pytest.raises(caa_cli.UsageError, match=r"for instance seed=0"):
        caa_cli.certify(caa_cli.load("demo", device="cpu"), *caa_cli.load_images("demo", indices=[0]), seed=-1)


@pytest.mark.parametrize("gradient", [None, "itself"])
def test_a_network_that_was_trained_on_meanwhile_is_evaluated_as_it_is(gradient):
    """In training mode a batch norm would judge each sample by its chunk, and change with every one."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 3))
    model = caa_cli.SmoothedClassifier(network, sigma=0.5, num_classes=3, input_shape=(1, 4, 4))
    images = torch.rand(3, 1, 4, 4)
    labels = model.votes(images, samples=200).argmax(dim=1)
    settings = {"samples": 100, "verify_samples": 1000, "chunk_size": 64}

    def everything():
        certified = caa_cli.certify(model, images, labels, samples=500, chunk_size=64)
        source = None if gradient is None else network
        attacked = caa_cli.attack(model, images, labels, "pgd", gradient=source, **settings)
        return certified.radius.tolist(), attacked.certified_radius.tolist(), attacked.outcome.tolist()

    def counted():
        return [model.votes(images, samples=200).tolist(), model.gradient(images, labels, samples=200).tolist()]

    expected, seen = everything(), network[0].running_mean.clone()
    votes = counted()
    network.train()
    assert counted() == votes
    network.train()
    assert everything() == expected
    assert torch.equal(network[0].running_mean, seen)


def test_the_name_of_an_attack_in_a_sentence_is_no_command_to_type(model, data):
    images, labels = data
    with pytest.raises(caa_cli.UsageError) as error:
        caa_cli.attack(model, images[:1], labels[:1], "pgd", gradient="votes")
    assert "caa or caa-newton, or gradient surrogate-model" in str(error.value)
