"""`caa` with denoisers and ensembles: what a user types, what results say, and what is refused."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from published import CASES
from published_denoisers import dncnn, idle_dncnn, save_dncnn
from support import CHEAP, assert_clean_error, attack, caa, parse_strict, read_strict, timeless

from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes

LIMIT = ["--limit", "2"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def idle() -> Path:
    """A denoiser that changes nothing, so that a model behind it answers as it does alone."""
    return save_dncnn(idle_dncnn(), Path("idle.pth"))


def untrained(name: str, seed: int = 0, **said: object) -> Path:
    settings = {"arch": "small-cnn", "num_classes": 10, "input_shape": (1, 28, 28), "sigma": 0.5, "dataset": "mnist"}
    card = ModelCard(**{**settings, **said})  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Path(name).write_bytes(checkpoint_bytes(build(card), card))
    return Path(name)


def test_behind_a_denoiser_that_changes_nothing_an_attack_finds_the_same(idle):
    plain = attack(Path("plain.json"), *LIMIT)
    denoised = attack(Path("denoised.json"), *LIMIT, "--denoiser", idle)
    assert timeless(denoised) == timeless(plain)
    assert denoised["summary"]["attacked"] > 0
    assert denoised["fingerprint"] != plain["fingerprint"]
    assert "denoiser" not in plain["checkpoint"]
    assert denoised["checkpoint"]["sha256"] == plain["checkpoint"]["sha256"]
    front = denoised["checkpoint"]["denoiser"]
    assert (front["path"], front["family"], front["arch"]) == ("idle.pth", "dncnn", "DnCNN, 3 layers of 4 channels")
    assert len(front["sha256"]) == 64


def test_two_denoisers_are_two_models(idle):
    """Neither a resumed run nor a comparison mixes them; a comparison of models names both."""
    attack(Path("a.json"), *LIMIT, "--denoiser", idle)
    other = save_dncnn(idle_dncnn().requires_grad_(False), Path("other.pth"))
    network = idle_dncnn()
    network.dncnn[0].bias.data += 1.0  # still finds no noise
    save_dncnn(network, other)
    again = caa("attack", *CHEAP, *LIMIT, "--denoiser", other, "--output", "a.json", "--resume")
    assert_clean_error(again, 2, "checkpoint content")
    attack(Path("b.json"), *LIMIT, "--denoiser", other)
    compared = caa("compare", "a.json", "b.json", "--output", "both.json")
    assert compared.exit_code == 0, compared.output
    assert list(read_strict(Path("both.json"))["models"]) == ["idle+demo", "other+demo"]
    shown = caa("compare", "both.json")
    assert shown.exit_code == 0, shown.output
    assert "other+demo" in shown.stdout


def test_a_run_begun_before_there_were_denoisers_goes_on(idle):
    """Its record lacks the settings."""
    import json

    document = attack(Path("a.json"), *LIMIT)
    for name in ("members", "ensemble", "denoiser", "denoiser_arch", "classifier_size"):
        del document["config"][name]
    Path("a.json").write_text(json.dumps(document))
    again = caa("attack", *CHEAP, *LIMIT, "--output", "a.json", "--resume")
    assert again.exit_code == 0, again.output
    assert "finished already" in again.stderr
    refused = caa("attack", *CHEAP, *LIMIT, "--output", "a.json", "--resume", "--denoiser", idle)
    assert_clean_error(refused, 2, "checkpoint content")


def test_the_header_names_every_part(idle):
    found = caa(
        "attack", *CHEAP, *LIMIT, "--denoiser", idle, "--checkpoint", "demo", "--ensemble", "votes", "--dry-run"
    )
    assert found.exit_code == 0, found.output
    lines = {line[: line.index("  ")]: line for line in found.stderr.splitlines() if "  " in line}
    assert "DnCNN, 3 layers of 4 channels from idle.pth (sha256 " in lines["denoiser"]
    assert "small-cnn from demo (sha256 " in lines["model 1"]
    assert "small-cnn from demo (sha256 " in lines["model 2"]
    assert "majority" in lines["ensemble"]


def test_an_ensemble_is_attacked_certified_and_recorded():
    untrained("other.safetensors")
    words = [*LIMIT, "--checkpoint", "demo", "--checkpoint", "other.safetensors", "--ensemble", "softmax"]
    document = attack(Path("a.json"), *words)
    (member,) = document["checkpoint"]["members"]
    assert (member["path"], member["arch"], member["sigma"]) == ("other.safetensors", "small-cnn", 0.5)
    assert document["checkpoint"]["ensemble"] == document["config"]["ensemble"] == "softmax"
    assert document["config"]["members"] == ["other.safetensors"]
    changed = caa("attack", *CHEAP[2:], *words[:-1], "votes", "--output", "a.json", "--resume")
    assert_clean_error(changed, 2, "softmax there, votes here")
    untrained("other.safetensors", seed=1)
    assert_clean_error(caa("attack", *CHEAP[2:], *words, "--output", "a.json", "--resume"), 2, "checkpoint content")
    certified = caa("certify", "--samples", "500", "--output", "c.json", "--chunk-size", "256", *words)
    assert certified.exit_code == 0, certified.output
    assert read_strict(Path("c.json"))["checkpoint"]["ensemble"] == "softmax"


def test_compare_runs_attacks_on_an_ensemble_behind_a_denoiser(idle):
    words = ["--denoiser", idle, "--checkpoint", "demo", *LIMIT, "--attacks", "caa,pgd", "--output", "c.json"]
    result = caa("compare", *CHEAP, *words)
    assert result.exit_code == 0, result.output
    document = read_strict(Path("c.json"))
    assert document["checkpoint"]["ensemble"] == "logits"
    assert document["checkpoint"]["denoiser"]["path"] == "idle.pth"
    assert list(document["attacks"]) == ["caa", "pgd"]


def test_checkpoints_from_the_environment_are_separated_as_in_path():
    names = [untrained("a b.safetensors"), untrained("c.safetensors", 1)]
    words = [*CHEAP, *LIMIT, "--dry-run", "--json"]
    words = [word for word in words if word not in ("--checkpoint", "demo")] + ["--dataset", "demo"]
    result = caa("attack", *words, env={"CAA_ATTACK_CHECKPOINT": ":".join(map(str, names))})
    assert result.exit_code == 0, result.output
    config = parse_strict(result.stdout)["config"]
    assert (config["checkpoint"], config["members"]) == ("a b.safetensors", ["c.safetensors"])


def test_a_toml_file_names_one_checkpoint_or_several():
    for text, members in (('checkpoint = "demo"', []), ('checkpoint = ["demo", "demo"]', ["demo"])):
        Path("run.toml").write_text(f'{text}\nchunk-size = "256"\n')
        result = caa("attack", "--config", "run.toml", *LIMIT, "--dry-run", "--json")
        assert result.exit_code == 0, result.output
        assert parse_strict(result.stdout)["config"]["members"] == members


def test_inspect_shows_a_denoiser_alone_in_front_and_an_ensemble(idle):
    alone = parse_strict(caa("inspect", idle, "--json").stdout)
    assert alone["denoiser"]["family"] == "dncnn"
    assert "--denoiser idle.pth" in alone["attack"]
    shown = caa("inspect", idle)
    assert (shown.exit_code, "DnCNN (Zhang et al., 2017" in shown.stdout) == (0, True)
    untrained("other.safetensors")
    words = ["demo", "other.safetensors", "--ensemble", "votes", "--denoiser", idle]
    together = parse_strict(caa("inspect", *words, "--json").stdout)
    assert together["denoiser"]["channels"] == 1
    assert (together["ensemble"], [m["arch"] for m in together["members"]]) == ("votes", ["small-cnn"])
    assert together["problem"] is None
    typed = shlex.split(together["attack"])
    assert typed[:6] == ["caa", "attack", "--checkpoint", "demo", "--checkpoint", "other.safetensors"]
    assert [*typed[6:]] == ["--ensemble", "votes", "--denoiser", "idle.pth"]
    shown = caa("inspect", *words)
    assert "the majority of the decisions of 2 checkpoints" in shown.stdout
    assert shown.stdout.count("caa attack --checkpoint demo") == 1


def test_inspect_says_why_parts_do_not_belong_together():
    untrained("other.safetensors", num_classes=12)
    save_dncnn(dncnn(3, 3, 4), Path("colour.pth"))
    result = caa("inspect", "demo", "other.safetensors", "--denoiser", "colour.pth")
    assert "know 10 and 12 classes" in result.stdout
    assert "the denoiser takes 3 channels, the classifier 1" in result.stdout
    assert "caa attack" not in result.stdout
    assert result.exit_code == 1


def test_inspect_says_what_a_run_would_say_of_parts_in_the_wrong_place(idle):
    for words in ([idle, "--denoiser", idle], ["demo", idle]):
        assert_clean_error(caa("inspect", *words), 2, "holds a denoiser (DnCNN", "--denoiser idle.pth")
    Path("mine.py").write_text("from torch import nn\ndef two(): return nn.Flatten()\ndef bad(): return 1 / 0\n")
    for name, problem in (("two", "gives a tensor of shape (2, 784)"), ("bad", "failed (ZeroDivisionError")):
        result = caa("inspect", "demo", "--denoiser-arch", f"mine.py:{name}")
        assert (result.exit_code, problem in result.stdout, "caa attack" in result.stdout) == (1, True, False)
    torch.save({"weight": torch.zeros(3, 4)}, "unknown.pt")
    assert "None" not in caa("inspect", "demo", "unknown.pt").stdout


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_bad_input(command, idle):
    save_dncnn(dncnn(3, 3, 4), Path("colour.pth"))
    CASES["MACER, MNIST"].write(Path("classifier.pth"))
    Path("empty").mkdir()

    def run(*words: str | Path):
        words = ["--checkpoint", "demo", *words] if "--checkpoint" not in words else list(words)
        return caa(command, *words, "--limit", "1", "--output", "x.json")

    assert_clean_error(run("--denoiser", "colour.pth"), 2, "takes images of 3 channels, demo has 1×28×28", "name a")
    assert_clean_error(run("--denoiser", "classifier.pth"), 2, "holds lenet with 10 classes", "--checkpoint")
    assert_clean_error(run("--denoiser", "nothing.pth"), 2, "denoiser nothing.pth does not exist", "--denoiser")
    assert_clean_error(run("--denoiser", "empty"), 2, "is a folder without weights", "config.json")
    assert_clean_error(run("--ensemble", "logits"), 2, "needs several checkpoints", "--checkpoint demo --checkpoint")
    assert_clean_error(run("--ensemble", "mode", "--checkpoint", "demo"), 2, "is not known", "logits, softmax, votes")
    assert_clean_error(run("--denoiser-arch", "mine"), 2, "package.module:factory", "mynet")
    assert_clean_error(run("--denoiser-arch", "nowhere:Net"), 2, "there is no module nowhere", "PYTHONPATH")
    assert_clean_error(
        run("--checkpoint", str(idle), "--sigma", "0.5"), 2, "holds a denoiser (DnCNN", "--denoiser idle.pth"
    )
    assert_clean_error(
        run("--checkpoint", "demo", "--denoiser", idle, "--classifier-size", "0"), 2, "--classifier-size must be"
    )
    assert not Path("x.json").exists()


def test_a_result_is_not_written_over_what_is_read(idle):
    assert_clean_error(
        caa("attack", *CHEAP, "--denoiser", idle, "--output", idle), 2, "is the same file as --denoiser idle.pth"
    )
    untrained("other.safetensors")
    both = caa("attack", *CHEAP, "--checkpoint", "other.safetensors", "--output", "other.safetensors")
    assert_clean_error(both, 2, "is the same file as --checkpoint other.safetensors")


def test_ensembles_of_the_same_members_in_two_ways_are_two_models():
    untrained("other.safetensors")
    both = ["--checkpoint", "demo", "--checkpoint", "other.safetensors"]
    for kind in ("softmax", "votes"):
        words = [
            *both,
            *LIMIT,
            "--ensemble",
            kind,
            "--samples",
            "200",
            "--chunk-size",
            "256",
            "--output",
            f"{kind}.json",
        ]
        assert caa("certify", *words).exit_code == 0
    compared = caa("compare", "softmax.json", "votes.json", "--json")
    assert compared.exit_code == 0, compared.output
    models = parse_strict(compared.stdout)["models"]
    assert [model["ensemble"] for model in models.values()] == ["softmax", "votes"]
