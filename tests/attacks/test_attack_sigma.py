"""--attack-sigma: the search takes σ to be another; certificate and proof don't."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import make_linear
from support import assert_clean_error, attack, caa, parse_strict, timeless

from caa_cli.attacks.baselines.deepfool import DeepFool
from caa_cli.attacks.baselines.fmn import Fmn
from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Candidate, Example, Finding, Search
from caa_cli.config.choices import FIXED
from caa_cli.verification.verifier import Verifier

CLEAN = ("index", "label", "prediction", "expectation", "certified_radius", "abstentions")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """At the checkpoint's σ, 0.5."""
    return attack(tmp_path_factory.mktemp("plain") / "a.json", "--limit", "3")


def test_the_true_sigma_changes_nothing(plain, tmp_path):
    said = attack(tmp_path / "a.json", "--limit", "3", "--attack-sigma", "0.5")
    assert timeless(said) == timeless(plain)
    assert said["fingerprint"] == plain["fingerprint"]
    assert plain["config"]["attack_sigma"] == plain["config"]["sigma"] == 0.5


@pytest.mark.parametrize("sigma", ["0.25", "0.75"])
def test_another_sigma_changes_the_search_alone(plain, tmp_path, sigma):
    other = attack(tmp_path / "a.json", "--limit", "3", "--attack-sigma", sigma)
    assert other["fingerprint"] != plain["fingerprint"]
    assert [e["radius_search"] for e in other["examples"]] != [e["radius_search"] for e in plain["examples"]]
    for mine, theirs in zip(other["examples"], plain["examples"], strict=True):
        assert [mine[name] for name in CLEAN] == [theirs[name] for name in CLEAN]


def test_a_wrong_sigma_is_not_mixed_with_the_right_one(tmp_path):
    attack(tmp_path / "a.json", "--limit", "1")
    words = ("attack", "--checkpoint", "demo", "--limit", "1", "--output", tmp_path / "a.json", "--resume")
    assert_clean_error(caa(*words, "--attack-sigma", "0.4"), 2, "attack_sigma (0.5 there, 0.4 here)")
    assert_clean_error(caa(*words, "--attack-sigma", "0"), 2, "--attack-sigma must be at least 1e-09")


def test_it_comes_from_a_file_and_is_shown(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("[attack]\nattack-sigma = 0.4\n")
    result = caa("attack", "--checkpoint", "demo", "--config", config, "--chunk-size", "64", "--dry-run", "--json")
    assert parse_strict(result.stdout)["config"]["attack_sigma"] == 0.4
    assert "takes σ to be 0.4" in result.stderr


@pytest.mark.parametrize("share", [0.5, 2.0])
@pytest.mark.parametrize(
    "method",
    [CertificationAware(sample_schedule=FIXED), Pgd(), DeepFool(), Fmn(steps=40)],
    ids=lambda method: type(method).__name__,
)
def test_on_a_linear_model_the_boundary_is_the_same_for_every_sigma(method, share):
    """So the verified radius stays what it is: the distance, and the margin that a proof at the true σ takes."""
    linear, distances = make_linear(gradient_chunk=2048, votes_chunk=2048), (0.9, 1.5)
    examples = [Example(index, linear.at(distance), 1) for index, distance in enumerate(distances)]
    sigma = share * linear.classifier.sigma
    search = Search(replace(method, samples=1000), linear.classifier.with_sigma(sigma), 2)
    for finding in search.run(examples):
        distance = distances[finding.example.index]
        # Without the finish the search's last step is in it too.
        for finish, most in (("ray", 1.05), ("none", 1.25)):
            verifier = Verifier(samples=40_000, probe_samples=4000, finish=finish, search_sigma=sigma)
            proved = verifier.verify(finding, linear.classifier)
            assert proved.radius is not None
            assert 0.995 * distance <= proved.radius <= most * distance


def test_the_proof_is_at_the_true_sigma():
    """A slab of the other class that is too thin for it: whatever a search at a small σ makes of that is no proof."""

    class Slab(torch.nn.Module):
        def forward(self, x):
            inside = (x.flatten(1)[:, 0] - 0.5).abs() < 0.1
            return torch.stack([inside.float(), 1 - inside.float()], dim=1)

    classifier = make_linear(sigma=0.5).classifier
    classifier.model = Slab()
    clean, found = torch.full((1, 20, 20), 0.5), torch.full((1, 20, 20), 0.5)
    clean[0, 0, 0] = 1.0
    small = Finding(Example(0, clean, 1), [Candidate(found, 0.5, torch.tensor([1000, 0]))], 1, 0, 0, 0, 0.0)
    for finish in ("ray", "none"):
        proved = Verifier(samples=2000, finish=finish, search_sigma=0.02).verify(small, classifier)
        assert proved.image is None
    assert Verifier(samples=2000, finish="none").verify(small, classifier.with_sigma(0.02)).radius == 0.5


def test_another_sigma_shares_the_model():
    classifier = make_linear(sigma=0.5).classifier
    other = classifier.with_sigma(0.25)
    assert (other.sigma, classifier.sigma) == (0.25, 0.5)
    assert other.model is classifier.model
    assert classifier.with_sigma(0.5) is classifier
