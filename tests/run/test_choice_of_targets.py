"""Which class each image's attack is after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_sectors, make_small
from prescribed import prescribed

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.targets import Classes
from caa_cli.data.images import ImageArrays
from caa_cli.errors import UsageError
from caa_cli.run.targets import Targets
from caa_cli.smoothing.certify import Certificate, Certifier

CLASSES = Classes(3, ("a", "b", "c"))


def targets(**settings: object) -> Targets:
    plan = AttackPlan(checkpoint="demo", **settings).with_classes(CLASSES)  # type: ignore[arg-type]
    return Targets.of(plan, 100, CLASSES)


def test_one_class_for_all(tmp_path):
    assert [targets(target="b").before(index, 0, 3) for index in (0, 9)] == [1, 1]
    (tmp_path / "t.csv").write_text("4,c\n9,0\n")
    listed = targets(target_file=tmp_path / "t.csv")
    assert [listed.before(index, 0, 3) for index in (4, 9)] == [2, 0]
    assert targets().before(4, 0, 3) is None
    assert not targets().ranks


def test_random_ones_are_never_the_label():
    drawn = targets(target="random", seed=3)
    found = [drawn.before(index, index % 3, 3) for index in range(60)]
    assert all(target != index % 3 for index, target in enumerate(found))
    assert found == [targets(target="random", seed=3).before(index, index % 3, 3) for index in range(60)]
    assert found != [targets(target="random", seed=4).before(index, index % 3, 3) for index in range(60)]


def certificate(*votes: int) -> Certificate:
    return Certificate(0, True, 0.1, votes[0], 0, 10, np.array(votes))


def test_votes_go_before_the_softmax_and_the_softmax_orders_classes_without_votes():
    model = make_sectors()
    image = model.at(2.0, 20.0)  # class 1 is nearer than class 2
    for votes, second, least in (((90, 0, 0), 1, 2), ((90, 2, 8), 2, 1), ((90, 4, 4), 1, 2), ((50, 0, 1), 2, 1)):
        for rule, expected in (("second", second), ("least-likely", least)):
            chosen = targets(target=rule).among(certificate(*votes), image, 0, 0, model.classifier)
            assert chosen == expected, (votes, rule)


def test_the_label_is_never_chosen_even_where_it_has_the_fewest_votes():
    model = make_sectors()
    for label in range(3):
        for rule in ("second", "least-likely"):
            chosen = targets(target=rule).among(certificate(5, 5, 5), model.at(0.1, 60.0), 0, label, model.classifier)
            assert chosen != label


def test_the_choice_depends_on_the_seed_and_the_image_alone():
    small = make_small()
    image, of = torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(1)), certificate(9, 0, 0)
    first = targets(target="second").among(of, image, 4, 0, small)
    small.votes_chunk = 7
    assert targets(target="second").among(of, image, 4, 0, small) == first


def test_a_certificate_has_the_votes_that_decided():
    classifier = prescribed([30, 10, 8, 2], [60, 25, 10, 5], shape=(1, 8, 8))
    (clean,) = Certifier(50, 100).certify(classifier, torch.zeros(1, 1, 8, 8), [0], wanted=[0])
    assert clean.votes.tolist() == [60, 25, 10]


def of_labels(*labels: int) -> ImageArrays:
    images = torch.zeros(len(labels), 1, 2, 2)
    return ImageArrays("arrays", "test", images, torch.tensor(labels), 3, numbers=range(len(labels)))


def test_a_target_that_every_image_has_as_its_label_is_refused():
    plan = AttackPlan(checkpoint="demo", target="1")
    chosen = Targets(fixed=1)
    chosen.check(plan, of_labels(1, 1, 0), [0, 1, 2])
    chosen.check(plan, of_labels(1, 1, 0), [])
    with pytest.raises(UsageError, match="every image"):
        chosen.check(plan, of_labels(1, 1, 0), [0, 1])
    with pytest.raises(UsageError, match="every image"):
        Targets(listed={0: 1, 1: 0}).check(plan, of_labels(1, 0), [0, 1])
    Targets(rule="random").check(plan, of_labels(1, 1), [0, 1])
    with pytest.raises(UsageError, match="no class for image 1"):
        Targets(listed={0: 1}).check(AttackPlan(checkpoint="demo", target_file=Path("t")), of_labels(1, 0), [0, 1])
