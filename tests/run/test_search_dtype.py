"""`--search-dtype`: the search alone is coarser; what is certified and verified is not."""

from __future__ import annotations

import json

import pytest
import torch
from networks import make_linear, make_small
from support import CHEAP, assert_clean_error, attack, caa, parse_strict, read_strict, timeless

import caa_cli
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.differences import differences
from caa_cli.display import Display
from caa_cli.runtime.device import in_mode, weights_dtype
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.cache import kept, model_key
from caa_cli.tuning.choose import choose_chunks
from caa_cli.tuning.precision import advise_precision, measured_gain

COARSE = ("--search-dtype", "bfloat16")


@pytest.fixture(scope="module")
def fine(tmp_path_factory) -> dict:
    return attack(tmp_path_factory.mktemp("fine") / "a.json", "--limit", "3")


def test_only_the_search_is_coarser(fine, tmp_path):
    coarse = attack(tmp_path / "a.json", "--limit", "3", *COARSE)
    assert coarse["config"]["search_dtype"] == "bfloat16"
    assert coarse["config"]["dtype"] == fine["config"]["dtype"] == fine["config"]["search_dtype"] == "float32"
    pairs = [(a, b) for a, b in zip(fine["examples"], coarse["examples"], strict=True) if a["outcome"] == "attacked"]
    assert pairs
    for one, other in pairs:
        assert one["certified_radius"] == other["certified_radius"], "the certificate is of float32"
        assert one["radius_search"] != other["radius_search"], "the search is not"
        assert other["radius"] == pytest.approx(one["radius"], rel=0.1)
    engine = coarse["environment"]["engine"]
    assert set(engine["search"]) == set(engine) - {"search"}
    assert "search" not in fine["environment"]["engine"]


def test_a_search_in_the_precision_of_all_is_as_without_the_setting(fine, tmp_path):
    same = attack(tmp_path / "a.json", "--limit", "3", "--search-dtype", "float32")
    assert (same["fingerprint"], timeless(same)) == (fine["fingerprint"], timeless(fine))


def test_results_of_before_there_was_the_setting_are_of_one_precision():
    fresh = AttackPlan.of(checkpoint="demo", dtype="bfloat16")
    older = {name: value for name, value in fresh.config().items() if name != "search_dtype"}
    assert differences(older, fresh.config(), fresh.compared_keys()) == []
    coarser = AttackPlan.of(checkpoint="demo", dtype="bfloat16", search_dtype="float16")
    (said,) = differences(older, coarser.config(), coarser.compared_keys())
    assert said == "search_dtype (bfloat16 there, float16 here)"
    assert coarser.fingerprint("x") != fresh.fingerprint("x")
    # As version 0.2.0 wrote it.
    assert AttackPlan.of(checkpoint="demo").fingerprint("x") == "14a991adf02e310c"


def test_a_run_cut_short_is_not_gone_on_with_in_another_precision(tmp_path):
    output = tmp_path / "a.json"
    attack(output, "--limit", "1")
    words = ("attack", *CHEAP, "--limit", "2", *COARSE, "--output", output, "--resume")
    assert_clean_error(caa(*words), 2, "search_dtype (float32 there, bfloat16 here)")


def test_precisions_are_compared_and_named(tmp_path):
    words = ["compare", *CHEAP, "--attacks", "caa", "--sweep", "search-dtype=float32,bfloat16", "--limit", "2"]
    result = caa(*words, "--output", tmp_path / "c.json", "--json")
    assert result.exit_code == 0, result.output
    found = parse_strict(result.stdout)["attacks"]
    assert list(found) == ["caa:search-dtype=float32", "caa:search-dtype=bfloat16"]
    assert [entry["settings"]["search_dtype"] for entry in found.values()] == ["float32", "bfloat16"]
    radii = [[example["certified_radius"] for example in entry["examples"]] for entry in found.values()]
    assert radii[0] == radii[1]


def test_what_is_shown_before_a_run(tmp_path):
    result = caa("attack", *CHEAP, *COARSE, "--limit", "1", "--dry-run", "--output", tmp_path / "a.json")
    assert "in bfloat16; certificate and verification in float32" in result.stderr
    assert "search in bfloat16: chunks of 256 samples for votes, 256 for gradients" in result.stderr


def test_what_a_device_has_not_is_named_by_its_option(tmp_path):
    words = ("attack", *CHEAP, "--search-dtype", "tf32", "--dry-run", "--output", tmp_path / "a.json")
    assert_clean_error(caa(*words), 2, "--search-dtype tf32 needs", "use --search-dtype float32")
    assert_clean_error(caa("attack", *CHEAP, "--search-dtype", "int8"), 2, "--search-dtype 'int8' is not known")


@pytest.mark.parametrize("before", [True, False])
def test_products_are_rounded_as_before_after_a_search(before: bool):
    def rounded() -> set[bool]:
        return {
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision() == "high",  # which PyTorch refuses to say where switches disagree
        }

    torch.set_float32_matmul_precision("medium")  # by the user's code
    try:
        with in_mode("tf32" if before else "float32"):
            with in_mode("tf32"):
                assert rounded() == {True}
            assert rounded() == {before}
    finally:
        torch.set_float32_matmul_precision("highest")
    assert weights_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_from_python_the_model_stays_as_it_is():
    model = caa_cli.load("demo", device="cpu")
    surrogate = caa_cli.load("demo", device="cpu").model
    images, labels = caa_cli.load_images("demo", indices=[0])
    few = {"samples": 100, "steps": 6, "verify_samples": 1000, "chunk_size": 256}
    found = [
        caa_cli.attack(model, images, labels, gradient=surrogate, search_dtype=dtype, **few)
        for dtype in (None, "float32", "bfloat16")
    ]
    assert found[0].radius == found[1].radius
    assert found[0].radius != found[2].radius
    assert found[0].certified_radius == found[2].certified_radius
    kinds = {parameter.dtype for network in (model.model, surrogate) for parameter in network.parameters()}
    assert kinds == {torch.float32}
    assert model.search is model


def test_the_searchs_copy_shares_noise_and_memory_but_no_weights():
    classifier = make_small()
    other = classifier.searched_in(torch.float64)
    x, keys = torch.full((1, *classifier.input_shape), 0.5), [Key(0, 0, Purpose.SEARCH)]
    votes, searched = other.keyed_votes(x, keys, 500), other.search.keyed_votes(x, keys, 500)
    assert torch.equal(votes, classifier.keyed_votes(x, keys, 500))
    assert torch.equal(votes, searched), "the same noise: only ties may differ"
    assert other.search.search is other.search
    assert {p.dtype for p in other.search.model.parameters()} == {torch.float64}
    assert {p.dtype for p in other.model.parameters()} == {torch.float32}
    noise = [c._scratch.take("noise", (2, 2), torch.float32) for c in (other, other.search)]
    assert noise[0].data_ptr() == noise[1].data_ptr()


def test_another_sigma_is_that_of_the_search_too():
    classifier = make_small().searched_in(torch.bfloat16)
    other = classifier.with_sigma(0.125)
    assert (other.search.sigma, other.search.dtype) == (0.125, torch.bfloat16)
    assert other.search.model is classifier.search.model
    assert classifier.search.sigma == classifier.sigma


def test_a_surrogate_goes_with_the_search():
    classifier = make_small()
    classifier.gradients = SurrogateModel(make_small().model)
    other = classifier.searched_in(torch.bfloat16)
    network = other.search.gradients.differentiated(other.search)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert other.gradients is other.search.gradients, "held once"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CAA_TUNING_CACHE", "on")
    monkeypatch.setenv("CAA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tuning"


def test_both_are_measured_each_in_its_precision(folder):
    plan = AttackPlan.of(checkpoint="demo", search_dtype="bfloat16")
    classifier = make_small().searched_in(torch.bfloat16)
    choose_chunks(classifier, plan, "small", True, 0, Display(quiet=True))
    keys = [json.loads(path.read_text())["key"] for path in folder.iterdir()]
    assert {(key["dtype"], *key["passes"]) for key in keys} == {
        ("float32", "votes"),
        ("bfloat16", "votes", "gradient"),
    }


class Told(Display):
    """Keeps what it would show."""

    def __init__(self, **how: bool) -> None:
        super().__init__(**how)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def advice(classifier: SmoothedClassifier, display: Told | None = None, **plan: object) -> list[str]:
    told = display or Told()
    advise_precision(classifier, AttackPlan.of(checkpoint="demo", **plan), "small", told)
    return told.notes


def test_a_faster_precision_is_named_once_it_is_measured(folder, monkeypatch):
    monkeypatch.setattr("caa_cli.tuning.precision.has_bfloat16_units", lambda: True)
    classifier = make_small()
    key = {**model_key(classifier, "small"), "compared": "bfloat16"}
    assert kept(key, False, lambda: 2.04) == kept(key, False, lambda: 9.0) == 2.04
    assert advice(classifier) == ["bfloat16 is about 2.0 times faster here: --search-dtype bfloat16"]
    assert advice(classifier, search_dtype="bfloat16") == advice(classifier, dtype="bfloat16") == []
    assert advice(classifier, Told(quiet=True)) == advice(classifier, Told(json_only=True)) == []
    assert kept(key, True, lambda: 1.2) == 1.2
    assert advice(classifier) == []
    monkeypatch.setattr("caa_cli.tuning.precision.has_bfloat16_units", lambda: False)
    kept(key, True, lambda: 2.0)
    assert advice(classifier) == []


@pytest.mark.parametrize("damage", ["", "[]", '{"key": 1}', '{"value": "fast"}'])
def test_a_damaged_measurement_is_made_again(folder, damage: str):
    key = {"compared": "bfloat16"}
    kept(key, False, lambda: 2.0)
    (path,) = folder.iterdir()
    path.write_text(damage)
    assert kept(key, False, lambda: 3.0) == 3.0
    assert kept(key, False, lambda: 4.0) == 3.0


def test_a_cheap_model_is_not_timed_in_another_precision():
    assert measured_gain(make_linear().classifier) == 1.0


def test_a_costly_model_is_timed_and_left_as_it_is():
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(1 if depth == 0 else 64, 64, 3, padding=1) for depth in range(3)),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 28 * 28, 3),
    )
    classifier = SmoothedClassifier(network, sigma=0.5, num_classes=3, input_shape=(1, 28, 28), gradient_chunk=16)
    assert 0.0 < measured_gain(classifier) != 1.0
    assert (classifier.gradient_chunk, next(network.parameters()).dtype) == (16, torch.float32)


def test_the_record_of_a_run_reads_back(tmp_path):
    document = attack(tmp_path / "a.json", "--limit", "1", *COARSE)
    assert read_strict(tmp_path / "a.json") == document
    again = caa("compare", tmp_path / "a.json", "--json", "--output", tmp_path / "c.json")
    assert parse_strict(again.stdout)["attacks"]["caa"]["settings"]["search_dtype"] == "bfloat16"
