"""`--attack FILE.py:NAME`: the user's attack as a run, resumed, sharded, merged, compared, and when it is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Result, assert_clean_error, caa, read_strict, timeless

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
_TINY = "--checkpoint demo --limit 4 --samples 60 --verify-samples 600 --chunk-size 256 --device cpu --iterations 6"
TINY = _TINY.split()

# One long step of the gradient; what else it does is told by the image's index, which only the test knows.
CODE = """
import torch

def attack(classifier, images, labels, generator, stride=2.5):
    print("on stdout")
    gradient = classifier.gradient(images, labels)
    return (images - stride * gradient / gradient.norm()).clamp(0, 1)

def factory(stride: float = 2.5):
    return lambda *arguments: attack(*arguments, stride=stride)

def picky(classifier, images, labels, generator):
    if int(labels) == FAILS:
        return images + 1
    return attack(classifier, images, labels, generator)

def interrupted(classifier, images, labels, generator):
    raise KeyboardInterrupt

constant = 3

def two(a, b):
    return a
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE.replace("FAILS", "1"), encoding="utf-8")
    return tmp_path


def run(*words: str | Path, code: int = 0, **settings: Any) -> Result:
    result = caa(*words, **settings)
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == code, result.output
    return result


def attack(name: str, output: str, *words: str | Path, code: int = 0) -> dict[str, Any]:
    run("attack", *TINY, "--attack", name, "--output", output, *words, code=code)
    return read_strict(Path(output))


def test_it_is_a_run_like_any_other(here):
    result = run("attack", *TINY, "--attack", "mine.py:attack", "--output", "a.json", "--json")
    document = read_strict(Path("a.json"))
    assert "on stdout" not in result.stdout
    assert document["config"]["attack"] == "mine.py:attack"
    assert document["config"]["argument_stride"] == 2.5
    assert re.fullmatch("[0-9a-f]{16}", document["config"]["attack_code"])
    assert document["summary"]["attacked"] > 0
    eligible = [example for example in document["examples"] if example["certified_radius"] is not None]
    assert all(example["backward_evaluations"] == 60 for example in eligible)
    assert timeless(attack("mine.py:factory", "b.json")) == timeless(document)
    assert timeless(attack("mine:attack", "c.json")) == timeless(document)


def test_few_samples_of_its_own_are_no_reason_to_warn(here):
    """Its points are verified unless the label is confidently ahead, which 5 samples can't show either."""
    result = run("attack", *TINY, "--samples", "5", "--attack", "mine.py:attack", "--output", "a.json")
    assert read_strict(Path("a.json"))["summary"]["attacked"] > 0
    assert "find nothing" not in result.stderr


def test_shards_and_a_resumed_run_give_the_same(here):
    whole = attack("mine.py:attack:stride=2", "whole.json")
    for shard in "01":
        attack("mine.py:attack:stride=2", f"{shard}.json", "--shard", f"{shard}/2")
    attack("mine.py:attack:stride=2", "part.json", "--limit", "2")
    assert timeless(attack("mine.py:attack:stride=2", "part.json", "--resume")) == timeless(whole)
    (here / "mine.py").unlink()  # results are read without the code
    run("merge", "0.json", "1.json", "--output", "merged.json")
    assert timeless(read_strict(Path("merged.json"))) == timeless(whole)
    run("compare", "merged.json", "--output", "c.json")
    assert list(read_strict(Path("c.json"))["attacks"]) == ["mine.py:attack"]


def test_other_code_or_other_arguments_are_not_mixed_with_it(here):
    attack("mine.py:attack", "a.json", "--shard", "0/2")
    resume = ["attack", *TINY, "--output", "a.json", "--shard", "0/2", "--resume"]
    assert_clean_error(
        caa(*resume, "--attack", "mine.py:attack:stride=1"), 2, "argument_stride (2.5 there, 1.0 here)"
    )
    (here / "mine.py").write_text(CODE.replace("FAILS", "2"), encoding="utf-8")
    assert_clean_error(caa(*resume, "--attack", "mine.py:attack"), 2, "the code of the attack has changed (")
    attack("mine.py:attack", "b.json", "--shard", "1/2")
    assert_clean_error(caa("merge", "a.json", "b.json", "--output", "m.json"), 2, "attack_code")


def test_an_image_that_it_fails_on_fails_alone(here):
    words = ["--attacks", "mine.py:picky,caa", "--step-min", "0.4", "--step-max", "0.8", "--limit", "6"]
    result = run("compare", *TINY, *words, "--output", "c.json", code=3)
    assert "mine.py:picky returned an image with pixels outside of [0, 1]: from 1 to 2" in result.stderr
    examples = read_strict(Path("c.mine.py-picky.json"))["examples"]
    failed = [example for example in examples if example["outcome"] == "failed"]
    assert {example["label"] for example in failed} == {1}
    assert 0 < len(failed) < len(examples)
    assert all(example["forward_evaluations"] > 0 for example in failed)
    assert read_strict(Path("c.caa.json"))["status"] == "complete"
    assert len(read_strict(Path("c.json"))["attacks"]["caa"]["examples"]) > 0


def test_labels_tell_files_of_one_name_apart(here):
    (here / "sub").mkdir()
    (here / "sub" / "mine.py").write_text(CODE.replace("FAILS", "3"), encoding="utf-8")
    for name, output in (("mine.py:attack", "a.json"), ("sub/mine.py:attack", "b.json")):
        attack(name, output)
    run("compare", "b.json", "--output", "c.json")
    assert list(read_strict(Path("c.json"))["attacks"]) == ["mine.py:attack"]
    run("compare", "a.json", "b.json", "--output", "d.json")
    assert list(read_strict(Path("d.json"))["attacks"]) == ["mine.py:attack", "sub/mine.py:attack"]


def test_its_arguments_are_named_as_they_are_written(here):
    refused = caa("attack", *TINY, "--attack", "mine.py:attack", "--step-min", "0.4")
    problem = "--step-min is a setting of the attack caa, not of mine.py:attack"
    assert_clean_error(
        refused, 2, problem, "leave it out, or use --attack caa; mine.py:attack has mine.py:attack:stride"
    )


def test_its_arguments_can_be_swept(here):
    run("compare", *TINY, "--attacks", "./mine.py:attack", "--sweep", "stride=1,2.5", "--output", "c.json")
    labels = ["mine.py:attack:stride=1", "mine.py:attack:stride=2.5"]
    assert list(read_strict(Path("c.json"))["attacks"]) == labels
    run("compare", "c.json", "--html", "c.html")  # a table of its settings, and a picture of the sweep
    page = Path("c.html").read_text(encoding="utf-8")
    assert '<th scope="row">stride</th>' in page
    assert '<th scope="row">code (sha256)</th>' in page
    assert "argument" not in page


def test_its_argument_may_have_the_name_of_an_option(here):
    code = (
        "def attack(classifier, images, labels, generator, restarts=1):\n    return 1.0 - images * (restarts == 5)\n"
    )
    (here / "named.py").write_text(code, encoding="utf-8")
    run("compare", *TINY, "--limit", "1", "--attacks", "named.py:attack:restarts=5", "--output", "c.json")
    (found,) = (read_strict(path) for path in here.glob("c.*.json"))
    assert (found["config"]["argument_restarts"], found["config"]["restarts"]) == (5, 1)
    assert found["summary"]["eligible"] == 1


def test_a_dry_run_says_that_its_cost_is_unknown(here):
    result = run("attack", *TINY, "--attack", "mine.py:attack", "--dry-run")
    assert "unknown: the attack's code decides" in result.output
    assert not Path("attack.json").exists()


def test_ctrl_c_in_it_is_an_interruption(here):
    result = run("attack", *TINY, "--attack", "mine.py:interrupted", "--output", "a.json", code=130)
    assert "Traceback" not in result.output
    assert read_strict(Path("a.json"))["status"] == "interrupted"


@pytest.mark.parametrize(
    ("name", "code", "problem", "hint"),
    [
        (
            "nowhere.py:attack",
            2,
            "nowhere.py can't be read (No such file or directory)",
            "there is broken.py, mine.py",
        ),
        ("nomodule:attack", 2, "there is no module nomodule", "PYTHONPATH"),
        ("mine.py:atack", 2, "mine.py has no atack", "it has: attack"),
        ("mine.py:constant", 2, "constant is a int and can't be called", "(classifier, images, labels, generator)"),
        ("mine.py:two", 2, "two(a, b) is not called as an attack is", "(classifier, images, labels, generator)"),
        ("mine.py:attack:size=3", 2, "has no argument 'size'", "it has: stride"),
        ("mine.py:attack:stride=far", 2, "stride=far is not a number", "its default is 2.5"),
        ("mine.py:attack:stride", 2, "'stride' is not of the form KEY=VALUE", None),
        ("mine.py:", 2, "not of the form", "(classifier, images, labels, generator)"),
        ("broken.py:attack", 1, "importing broken.py failed (ZeroDivisionError", "python broken.py"),
        ("cca", 2, "'cca' is not known", "did you mean caa? "),
        ("mine", 2, "'mine' is not known", "file.py:function"),
    ],
)
def test_what_can_not_be_found_or_called_is_refused_with_a_way_out(here, name, code, problem, hint):
    (here / "broken.py").write_text("1 / 0", encoding="utf-8")
    assert_clean_error(caa("attack", *TINY, "--attack", name), code, problem, hint)
    assert_clean_error(
        caa("compare", *TINY, "--attacks", name), code, problem.replace("has no argument", "has no setting")
    )


@pytest.mark.parametrize(("command", "option"), [("attack", "attack"), ("compare", "attacks")])
def test_only_the_command_line_runs_code(here, command, option):
    (here / "mine.py").write_text(CODE + "\nfrom pathlib import Path\nPath('ran').touch()\n", encoding="utf-8")
    (here / "c.toml").write_text(f"[{command}]\n{option} = 'mine.py:attack'\ntrust-attack = true\n", encoding="utf-8")
    words = [command, *TINY, "--dry-run", "--output", "a.json"]
    problem, hint = f"--{option} 'mine.py:attack' would run code", "--trust-attack"
    assert_clean_error(caa(*words, "--config", "c.toml"), 2, problem, hint)
    variables = {f"CAA_{command.upper()}_{option.upper()}": "mine.py:attack"}
    assert_clean_error(caa(*words, env={**variables, f"CAA_{command.upper()}_TRUST_ATTACK": "1"}), 2, problem, hint)
    assert not Path("ran").exists()
    run(*words, "--config", "c.toml", "--trust-attack")
    assert Path("ran").exists()
    run(*words, f"--{option}", "mine.py:attack", "--config", "c.toml")


def blocks(page: str) -> dict[str, str]:
    """The Python files that a page shows, by the name in their first line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, flags=re.DOTALL))


# What the page's adapter uses of the Adversarial Robustness Toolbox, where that is not installed: the same calls with
# NumPy arrays, and gradients through the network that it is given.
_ART = """
import numpy as np
import torch


class PyTorchClassifier:
    def __init__(self, model, loss, input_shape, nb_classes, clip_values=None, device_type="gpu"):
        self.model, self.clip_values = model, clip_values


class DeepFool:
    def __init__(self, classifier, max_iter=100, nb_grads=10, verbose=True):
        self.classifier, self.max_iter, self.classes = classifier, max_iter, nb_grads

    def generate(self, x, y=None):
        assert isinstance(x, np.ndarray)
        point = torch.from_numpy(x)
        for _ in range(self.max_iter):
            point = point.clone().requires_grad_(True)
            logits = self.classifier.model(point)[0]
            first, second = logits.topk(2).indices.tolist()
            start = start if _ else first
            if first != start:
                break
            (slope,) = torch.autograd.grad(logits[second] - logits[first], point)
            step = (logits[first] - logits[second]).detach() / slope.square().sum() * slope
            point = (point + 1.02 * step).detach().clamp(*self.classifier.clip_values)
        return point.detach().numpy()
"""


@pytest.fixture
def page(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = blocks("docs/guides/own-attack.md")
    assert list(found) == ["steps.py", "foolbox_attacks.py", "art_attacks.py", "descent.py"]
    for name, text in found.items():
        (here / name).write_text(text, encoding="utf-8")
    try:
        import art  # noqa: F401
    except ImportError:
        for module in ("attacks/evasion", "estimators/classification"):
            (here / "art" / module).mkdir(parents=True)
            (here / "art" / module / "__init__.py").write_text(_ART, encoding="utf-8")
        monkeypatch.syspath_prepend(str(here))
    yield here
    for name in [name for name in sys.modules if name.partition(".")[0] == "art"]:
        del sys.modules[name]


def test_the_attacks_of_the_guide_find_what_is_verified(page):
    pytest.importorskip("foolbox")
    names = [
        "steps.py:attack",
        "foolbox_attacks.py:ddn",
        "art_attacks.py:deepfool",
        "descent.py:Descent:stride=0.3",
    ]
    words = ["--attacks", ",".join(names), "--limit", "2", "--iterations", "30"]
    run("compare", *TINY, *words, "--output", "c.json")
    attacks = read_strict(Path("c.json"))["attacks"]
    assert list(attacks) == names
    for name, found in attacks.items():
        assert found["success_rate"] > 0, name
        assert found["backward_evaluations"] > 0, name
        assert found["below_certified"] == 0, name
    assert attacks[names[3]]["settings"]["argument_stride"] == 0.3


def test_the_attack_of_the_guide_runs_in_python(page, monkeypatch):
    text = (ROOT / "docs/guides/own-attack.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import caa_cli as caa.*?)```", text, flags=re.DOTALL)
    monkeypatch.syspath_prepend(str(page))
    found: dict[str, Any] = {}
    exec(code.replace("stride=0.1", "stride=2, steps=2, samples=60, verify_samples=600, chunk_size=256"), found)
    del sys.modules["steps"]
    assert (found["results"].radius > 0).any()


def test_the_ranges_of_a_declared_setting_are_kept(page):
    result = caa("attack", *TINY, "--attack", "descent.py:Descent:stride=2")
    assert_clean_error(result, 2, "descent.py:Descent:stride must be above 0 and below 2, not 2")


@pytest.mark.parametrize(
    ("attack_of_foolbox", "epsilons"),
    [("L2ProjectedGradientDescentAttack(steps=steps, rel_stepsize=0.1)", 4.0), ("L2DeepFoolAttack(steps=5)", None)],
)
def test_other_attacks_of_foolbox_run_too(page, attack_of_foolbox, epsilons):
    """One within a ball of a given radius, and one that looks for the nearest image."""
    pytest.importorskip("foolbox")
    text = (page / "foolbox_attacks.py").read_text(encoding="utf-8")
    text = text.replace("DDNAttack(steps=steps)", attack_of_foolbox)
    (page / "other.py").write_text(text.replace("epsilons=None", f"epsilons={epsilons}"), encoding="utf-8")
    document = attack("other.py:ddn:steps=20", "other.json", "--limit", "2")
    assert document["status"] == "complete"
    assert document["summary"]["attacked"] > 0
