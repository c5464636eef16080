"""Every attack by name on the command line, and the settings that belong to one of them."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
from support import assert_clean_error, caa, parse_strict, read_strict

import caa_cli
from caa_cli.attacks.common.attack import Attack
from caa_cli.cli.attack import attack as command
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import declared, flat
from caa_cli.config.attacks import ATTACKS, SAMPLES
from caa_cli.config.compared_settings import default_of
from caa_cli.config.differences import differences
from caa_cli.config.targets import Classes
from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import UsageError
from caa_cli.run.describe import attack_rows
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.stein import SteinEstimator

# Large steps and few samples: about a second an image. What they find is of no account here.
_TINY = "--checkpoint demo --limit 2 --samples 60 --verify-samples 600 --chunk-size 256 --device cpu --iterations 6"
TINY = _TINY.split()
OWN = {
    "caa": "--step-min 0.4 --step-max 0.8",
    "caa-newton": "--newton-rivals 2 --newton-memory 0.5",
    "pgd": "--pgd-epsilon 0.6",
    "cw": "--cw-constant 1 --cw-learning-rate 1",
    "deepfool": "--deepfool-candidates 4",
    "autoattack": "--autoattack-radius 4",
    "ddn": "--ddn-initial-norm 3",
    "fmn": "--fmn-gamma-init 0.2",
    "alma": "--alma-init-lr-distance 0.5 --alma-alpha 0.5",
    "pdgd": "--pdgd-primal-lr 0.2",
    "sdf": "--sdf-candidates 3 --sdf-bisections 4",
    "apgd-min": "--apgd-min-targets 2 --apgd-min-searches 3 --apgd-min-radius 4",
}


@pytest.fixture(scope="module", params=ATTACKS)
def document(request, tmp_path_factory):
    output = tmp_path_factory.mktemp(request.param) / "attack.json"
    result = caa("attack", *TINY, "--attack", request.param, *OWN[request.param].split(), "--output", output)
    assert result.exit_code == 0, result.output
    return read_strict(output)


def test_every_attack_runs_and_says_with_what_settings(document):
    config = document["config"]
    assert document["status"] == "complete"
    assert all(example["outcome"] in ("attacked", "not_found", "not_verified") for example in document["examples"])
    for name in ATTACKS:
        for setting, about in declared(name).items():
            if name != config["attack"]:
                assert setting not in config
            elif about.default is not None:
                assert config[setting] is not None
    for word, value in zip(OWN[config["attack"]].split()[::2], OWN[config["attack"]].split()[1::2], strict=True):
        assert config[word[2:].replace("-", "_")] == pytest.approx(float(value))


def test_no_image_takes_more_evaluations_than_were_announced(document):
    config = document["config"]
    words = ["--attack", config["attack"], *OWN[config["attack"]].split()]
    result = caa("attack", *TINY, *words, "--dry-run", "--json")
    announced = parse_strict(result.stdout)
    summary = document["summary"]
    assert summary["forward_evaluations"] <= announced["forward_evaluations_at_most"]
    assert 0 < summary["backward_evaluations"] <= announced["backward_evaluations_at_most"]


def defaults(attack: Attack) -> dict[str, object]:
    return {f.name: getattr(attack, f.name) for f in fields(attack)}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ATTACKS)
def test_the_plans_defaults_are_the_attacks_own(name: str):
    built = build_attack(AttackPlan(checkpoint="demo", attack=name, samples=SAMPLES))
    assert defaults(built) == defaults(type(built)())


def test_every_setting_has_an_option_a_help_text_and_a_range():
    options = inspect.signature(command).parameters
    for attack in ATTACKS:
        for name, setting in declared(attack).items():
            assert name in options
            assert setting.help.endswith(".")
            assert setting.checks or setting.kind is bool


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--attack ddn --step-min 0.2", "--step-min is a setting of the attack caa, not of ddn"),
        ("--attack ddn --surrogate gumbel", "--surrogate is a setting of the attack caa"),
        ("--pgd-epsilon 0.2", "--pgd-epsilon is a setting of the attack pgd, not of caa"),
        ("--attack pgd --autoattack-minimise", "--autoattack-minimise is a setting of the attack autoattack"),
        ("--attack pgd --pgd-epsilon 0", "--pgd-epsilon"),
        ("--attack pgd --pgd-epsilon nan", "--pgd-epsilon"),
        ("--attack cw --cw-confidence -1", "--cw-confidence"),
        ("--attack cw --cw-binary-search-steps 0", "--cw-binary-search-steps"),
        ("--attack ddn --ddn-gamma 1", "--ddn-gamma"),
        ("--attack alma --alma-alpha nan", "--alma-alpha"),
        ("--attack deepfool --deepfool-candidates 1", "--deepfool-candidates"),
        ("--refine foo", "--refine 'foo'"),
        ("--rivals 0", "--rivals must be at least 1 and at most 1,000, not 0"),
        ("--rivals 2 --surrogate gumbel", "--rivals 2 goes with --surrogate log-ratio only"),
        ("--attack pgd --refine tangential", "--refine is a setting of the attack caa, not of pgd"),
        ("--attack caa-newton --rivals 2", "--rivals is a setting of the attack caa, not of caa-newton"),
        ("--attack nonsense", "--attack 'nonsense'"),
    ],
)
def test_what_makes_no_sense_is_refused(words, problem):
    assert_clean_error(caa("attack", "--checkpoint", "demo", *words.split()), 2, problem)


def test_a_setting_of_another_attack_comes_with_how_to_choose_that_one():
    refused = caa("attack", "--checkpoint", "demo", "--pgd-epsilon", "0.2")
    assert_clean_error(refused, 2, "--pgd-epsilon is a setting", "or use --attack pgd; caa has --overshoot, ")


def test_a_setting_decides_the_result_and_so_the_fingerprint():
    one, other = (AttackPlan.of(checkpoint="demo", attack="ddn", ddn_gamma=gamma) for gamma in (0.05, 0.1))
    assert "ddn_gamma" in one.compared_keys()
    assert one.fingerprint("x") != other.fingerprint("x")
    assert one.fingerprint("x") == AttackPlan(checkpoint="demo", attack="ddn").fingerprint("x")


def test_the_certificate_decides_a_result_and_runs_of_before_it_had_cohens():
    def fingerprint(**settings: object) -> str:
        return AttackPlan.of(checkpoint="demo", **settings).fingerprint("x")

    found = [
        fingerprint(),
        fingerprint(certificate="li"),
        fingerprint(certificate="lecuyer"),
        fingerprint(step_certificate="li"),
    ]
    assert len(set(found)) == 4
    assert fingerprint(certificate="cohen") == found[0]
    config = AttackPlan(checkpoint="demo").config()
    old = {name: value for name, value in config.items() if "certificate" not in name}
    compared = AttackPlan(checkpoint="demo").compared_keys()
    assert differences(old, config, compared) == []
    assert differences(old, {**config, "certificate": "li"}, compared) == ["certificate (cohen there, li here)"]


def test_a_run_of_another_attack_is_not_continued(tmp_path):
    output = tmp_path / "attack.json"
    words = [*TINY, "--limit", "1", "--attack", "pgd", "--output", output]
    assert caa("attack", *words).exit_code == 0
    result = caa("attack", *words, "--resume", "--pgd-epsilon", "0.5")
    assert_clean_error(result, 2, "pgd_epsilon")


def test_settings_come_from_toml_and_the_environment_too(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('[attack]\nattack = "autoattack"\nautoattack-minimise = true\n')
    result = caa(
        *("attack", *TINY, "--config", config, "--dry-run", "--json"), env={"CAA_ATTACK_AUTOATTACK_SEARCHES": "3"}
    )
    assert result.exit_code == 0, result.output
    found = parse_strict(result.stdout)
    assert found["config"]["autoattack_minimise"] is True
    assert found["backward_evaluations_at_most"] == 2 * 3 * (2 * 6 * 60)


def test_the_most_evaluations_count_rounds_searches_and_candidates():
    def most(classes: int = 10, **settings: object) -> tuple[int, int]:
        return build_attack(AttackPlan.of(checkpoint="demo", samples=100, iterations=10, **settings)).budget(classes)

    assert most(attack="ddn") == (1000, 1000)
    assert most(attack="cw") == (9000, 9000)
    assert most(attack="cw", cw_constant=1.0) == (1000, 1000)
    assert most(attack="deepfool") == (1000, 9000)
    assert most(100, attack="deepfool") == (1100, 9100)
    assert most(attack="autoattack") == (2000, 2000)
    assert most(attack="caa") == (2000, 1000)
    assert most(attack="caa", refine="tangential") == (1000, 1000)
    assert most(attack="caa", rivals=3) == (6100, 3000)
    assert most(attack="caa", refine="tangential", rivals=3) == (3100, 3000)
    # Of few classes there are fewer rivals, and without a choice of them no evaluation for it.
    assert most(3, attack="deepfool") == (1000, 2000)
    assert most(10, attack="apgd-min", apgd_min_searches=1) == (10 * 1000, 10 * 1000)
    assert most(3, attack="apgd-min", apgd_min_searches=1) == (3 * 1000, 3 * 1000)
    assert most(2, attack="apgd-min", apgd_min_searches=1) == (1000, 1000)
    assert most(2, attack="autoattack") == (1000, 1000)
    assert most(3, attack="caa", rivals=3) == (4100, 2000)
    one_step = {"attack": "caa-newton", "newton_steps": 1}
    assert most(3, **one_step) == most(10, newton_rivals=2, **one_step) == (100 + 2 * 33, 2 * 33)


@pytest.mark.parametrize(
    ("settings", "surrogate"),
    [
        ({"attack": "pgd"}, (2000, 1000)),
        # A sample with nine gradients is shown to either model once.
        ({"attack": "deepfool"}, (2000, 9000)),
        ({"attack": "caa"}, (3000, 1000)),
        ({"attack": "caa", "rivals": 3}, (9100, 3000)),
        # Its share of 100 samples would be 9, so it takes that of its default.
        ({"attack": "caa-newton", "newton_steps": 1, "newton_rivals": 2}, (2 * 2 * 33 + 100, 2 * 33)),
    ],
)
def test_a_surrogate_costs_one_more_forward_evaluation_a_sample_with_gradients(settings, surrogate):
    attack = build_attack(AttackPlan.of(checkpoint="demo", samples=100, iterations=10, **settings))
    assert attack.budget(10, SurrogateModel.cost) == surrogate
    forward, backward = attack.budget(10)
    assert backward == surrogate[1]
    assert forward < surrogate[0]


def test_votes_cost_no_backward_evaluation_and_the_crossings_besides():
    crossings = 9 * 64 * 8
    names = ("caa", "caa-newton")
    caa, newton = (AttackPlan(checkpoint="demo", samples=100, attack=name, gradient="votes") for name in names)
    assert build_attack(caa).budget(10, SteinEstimator.cost) == (crossings + 100 * 200, 0)
    walk = build_attack(newton)
    assert walk.budget(10, SteinEstimator.cost) == (crossings + walk.most_draws(9), 0)


def test_a_plan_says_which_algorithm_runs_by_votes():
    def rows(gradient: str) -> dict[str, str]:
        plan = AttackPlan(checkpoint="demo", attack="caa-newton", gradient=gradient)
        return dict(attack_rows(plan, build_attack(plan), Classes(10)))

    assert "walk along the boundary" in rows("votes")["algorithm"]
    assert "algorithm" not in rows("model")


def test_the_state_of_an_image_grows_with_what_the_attack_keeps():
    def vectors(**settings: object) -> float:
        return build_attack(AttackPlan.of(checkpoint="demo", **settings)).state_bytes((1, 28, 28)) / (4 * 784)

    assert vectors(attack="ddn", iterations=1000) == vectors(attack="ddn")
    assert vectors(iterations=100) - vectors(iterations=50) == 4 * 64
    assert vectors(iterations=100, rivals=3) == vectors(iterations=100), "each run clears the balls of the last"
    assert vectors(attack="caa-newton", newton_rivals=5) - vectors(attack="caa-newton") == 12
    walk = build_attack(AttackPlan(checkpoint="demo", attack="caa-newton", gradient="votes"))
    more = walk.state_bytes((1, 28, 28), SteinEstimator.cost) - walk.state_bytes((1, 28, 28))
    assert more == 4 * 784 * 4 * SteinEstimator.cost.vectors > 0


def test_one_attacks_resolved_settings_are_not_anothers():
    plan = AttackPlan(checkpoint="demo", attack="fmn")
    with pytest.raises(UsageError, match="of the attack fmn, not of ddn"):
        AttackPlan.of(checkpoint="demo", attack="ddn", **flat("fmn", plan.settings))


def test_autoattack_says_what_it_leaves_out_of_two_classes():
    plan = AttackPlan(checkpoint="demo", attack="autoattack")
    assert "two classes" in dict(attack_rows(plan, build_attack(plan), Classes(2)))
    assert "two classes" not in dict(attack_rows(plan, build_attack(plan), Classes(3)))


def test_the_name_of_a_setting_stands_in_its_declaration_and_its_attack_alone():
    """Names of one word, or of a training too, mean other things; flags and names in results are made. Presets name
    settings to give them values."""
    training = {setting.name for setting in fields(TrainPlan)}
    paths = [path for path in Path(caa_cli.__file__).parent.rglob("*.py") if path.name != "presets.py"]
    words = {path: set(re.findall(r"\w+", path.read_text(encoding="utf-8"))) for path in paths}
    for attack in ATTACKS:
        for name, setting in declared(attack).items():
            for word in {setting.field, setting.name, name} - training:
                if "_" in word:
                    found = [str(path) for path in paths if word in words[path]]
                    assert len(found) <= 2, (word, found)


# Of version 0.1.0's first results: a journal of those days is only continued where the digest is still the same.
FINGERPRINTS = {
    "caa": "b15809e7959fccb1",
    "caa-newton": "f19517020b96d763",
    "pgd": "f2b443639650b78a",
    "cw": "553ee2eefaa27bee",
    "deepfool": "5bb2eedbc0a58394",
    "autoattack": "80206df10744e927",
    "ddn": "5bb93a87fba71768",
    "fmn": "a0d0b5fe93255d97",
    "alma": "be04352acae608fb",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_runs_of_earlier_versions_can_be_continued(name: str):
    plan = AttackPlan(checkpoint="demo", attack=name, samples=1500, verification="intervals")
    assert plan.fingerprint("x") == FINGERPRINTS[name]


def samples_of(**given: object) -> dict[str, int]:
    """The settings that end in `samples`, by name."""
    config = AttackPlan.of(checkpoint="demo", **given).config()
    return {name: value for name, value in config.items() if name.endswith("samples")}


def test_an_attack_may_have_a_default_of_samples_a_step_and_what_is_verified_is_the_same():
    common = {"selection_samples": 1500, "certify_samples": 15_000, "verify_samples": 15_000}
    own = ATTACKS["caa-newton"].samples
    assert 0 < own < 1500
    for name in ATTACKS:
        assert samples_of(attack=name) == {"samples": own if name == "caa-newton" else 1500, **common}
    assert samples_of(attack="caa-newton", gradient="votes") == {"samples": 1500, **common}
    assert samples_of(attack="caa-newton", samples=600)["samples"] == 600
    assert samples_of(attack="caa-newton", samples=1200)["verify_samples"] == 12_000
    assert [default_of(name, "samples") for name in ("pgd", "caa-newton", "one of later")] == [1500, own, 1500]


def test_the_help_and_a_comparison_have_the_defaults():
    own = ATTACKS["caa-newton"].samples
    shown = " ".join(caa("attack", "--help").stdout.replace("│", "").split())
    assert f"1500; caa-newton by gradients: {own}" in shown
    words = ("--attacks", "caa,caa-newton", "--chunk-size", "64", "--dry-run", "--json")
    planned = parse_strict(caa("compare", "--checkpoint", "demo", *words).stdout)["attacks"]
    assert [attack["config"]["samples"] for attack in planned.values()] == [1500, own]
    assert [attack["config"]["selection_samples"] for attack in planned.values()] == [1500, 1500]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("--attack pgd --samples 11", "--samples"),
        ("--attack caa --samples 45", None),  # of which a step counts 15
        ("--attack pgd --samples 16", None),
        ("--attack caa-newton --samples 8", None),  # proposes points that its own votes do not confirm
        ("--certify-samples 11 --verify-samples 1000", "--certify-samples"),
        ("--verify-samples 5 --certify-samples 1000", "--verify-samples"),
    ],
)
def test_too_few_samples_for_any_point_to_count_are_warned_of(words: str, option: str | None):
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--limit", "1", *words.split())
    assert result.exit_code == 0, result.output
    warned = [line for line in result.stderr.splitlines() if "not even a unanimous vote" in line]
    assert [line.split()[1] for line in warned] == ([option] if option else [])
