"""Several images verified in one pass: with the results of one at a time, and in fewer passes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from networks import SmallNet
from prescribed import SHAPE, Recording
from torch import Tensor

from caa_cli.attacks.common.state import Candidate, Example, Finding
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.lockstep import Draw, Drawing, draw_together
from caa_cli.verification.verifier import Verified, Verifier

GREY = torch.full(SHAPE, 0.5)


class Passes(Recording):
    """Notes how many images each pass holds, too."""

    def __init__(self, chunk: int) -> None:
        super().__init__(SmallNet(), sigma=0.5, num_classes=3, input_shape=SHAPE, votes_chunk=chunk)
        self.images: list[int] = []
        self.draws = []

    def keyed_votes(self, x: Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> Tensor:
        self.images.append(len(x))
        return super().keyed_votes(x, keys, samples, start)


def findings() -> list[Finding]:
    """Of random rays: two that lead to another class, two that don't, and one without candidates."""
    classifier, generator = Passes(500), torch.Generator().manual_seed(3)
    found = []
    for index in range(5):
        image = (GREY + 0.4 * torch.randn(SHAPE, generator=generator)).clamp(0, 1)
        votes = classifier.keyed_votes(image[None], Key.direct(1), 500)[0]
        label = int(votes.argsort()[0 if index < 2 else 2])
        candidate = Candidate(image, float((image - GREY).norm()), votes)
        found.append(Finding(Example(index, GREY, label), [candidate] * (index < 4), 1, 0, 0, 0, 0.0))
    return found


def drawing(key: Key, *starts: int) -> Drawing[list[list[int]]]:
    votes = []
    for start in starts:
        votes.append((yield Draw(GREY, key, 100, start)).tolist())
    return votes


def contents(verified: Verified) -> list[object]:
    image = None if verified.image is None else verified.image.tolist()
    return [image, *list(vars(verified).values())[1:]]


@pytest.mark.parametrize("finish", ["ray", "none"])
@pytest.mark.parametrize("rule", ["exact", "intervals"])
def test_together_or_not_the_result_is_the_same(rule: str, finish: str):
    verifier = Verifier(rule=rule, samples=1500, probe_samples=300, finish=finish)
    alone, together = Passes(500), Passes(10_000)
    one_by_one = [contents(verifier.verify(finding, alone)) for finding in findings()]
    all_at_once = {number: contents(found) for number, found, _ in verifier.verify_all(findings(), together)}
    assert [all_at_once[number] for number in range(5)] == one_by_one
    assert [image is None for image, *_ in one_by_one] == [False, False, True, True, True]
    noise = [sorted(draw.noise for draw in classifier.draws) for classifier in (alone, together)]
    assert noise[0] == noise[1]


@pytest.mark.parametrize(("chunk", "images"), [(100, 1), (250, 2), (10_000, 4)])
def test_a_pass_holds_as_many_images_as_a_chunk(chunk: int, images: int):
    """Probes and stages take 100 samples each."""
    classifier = Passes(chunk)
    list(Verifier(samples=1500).verify_all(findings(), classifier))
    assert max(classifier.images) == images
    assert len(classifier.images) <= len(classifier.draws) / images**0.5, "they hardly ever go together"


def test_as_many_samples_from_elsewhere_in_the_noise_are_another_pass():
    classifier, key = Passes(10_000), Key(0, 1, Purpose.VERIFICATION)

    found = {
        number: votes for number, votes, _ in draw_together([drawing(key, 0, 100), drawing(key, 100)], classifier)
    }
    expected = [classifier.keyed_votes(GREY[None], [key], 100, start)[0].tolist() for start in (0, 100)]
    assert expected[0] != expected[1]
    assert found == {0: expected, 1: expected[1:]}


def test_those_behind_go_first_so_that_the_others_can_go_on_with_them():
    classifier = Passes(10_000)
    ahead, behind = (Key(0, index, Purpose.VERIFICATION) for index in range(2))
    list(draw_together([drawing(ahead, 100, 200), drawing(behind, 0, 100, 200)], classifier))
    assert classifier.images == [1, 2, 2]


def test_each_image_has_its_share_of_the_time_of_a_pass(monkeypatch: pytest.MonkeyPatch):
    classifier, took = Passes(10_000), iter([8.0, 2.0])
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow(*_: object) -> None:
        clock[0] += next(took)

    classifier.model.register_forward_hook(slow)
    together, longer = (Key(0, index, Purpose.VERIFICATION) for index in range(2))
    found = draw_together([drawing(together, 0), drawing(longer, 0, 100)], classifier)
    assert {number: seconds for number, _, seconds in found} == {0: 4.0, 1: 6.0}


def test_what_a_chunk_does_not_hold_together_is_finished_one_after_another():
    classifier, order = Passes(100), []
    for number, _, seconds in Verifier(samples=1500).verify_all(findings(), classifier):
        order.append(number)
        assert seconds > 0
        assert {draw.key.index for draw in classifier.draws} <= {*order}, "a later one has begun"
    assert order == [4, 0, 1, 2, 3], "the one without candidates needs no draw"
