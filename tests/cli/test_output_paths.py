"""Outputs and inputs are compared as files, before anything is loaded; and what is no file is no output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import CHEAP, COMMAND, ENVIRONMENT, assert_clean_error, assert_clean_text, caa

from caa_cli.config.paths import check_distinct
from caa_cli.errors import UsageError
from caa_cli.models.checkpoint import DEMO_CHECKPOINT

MODEL = ["--checkpoint", "m.safetensors", "--dataset", "demo", "--limit", "1"]
ATTACK = ["attack", *CHEAP[2:], *MODEL]
CERTIFY = ["certify", *MODEL, "--samples", "100", "--device", "cpu"]
COMPARE = ["compare", *CHEAP[2:], *MODEL, "--attacks", "caa"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Inputs, each also under a second name of another kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.safetensors").write_bytes(DEMO_CHECKPOINT.read_bytes())
    (tmp_path / "i.txt").write_text("0\n")
    (tmp_path / "c.toml").write_text("samples = 100\n")
    (tmp_path / "sub").mkdir()
    for name in ("m.safetensors", "i.txt", "c.toml"):
        os.link(name, f"hard-{name}")
        Path(f"soft-{name}").symlink_to(name)
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spelt", ["{}", "./sub/../{}", "soft-{}", "hard-{}", "absolute"])
@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_no_output_is_an_input(folder, spelt, more):
    """However it is spelt, by the name of a link, or of the same file."""
    before = listing(folder)
    for named, file, words in [
        ("--checkpoint", "m.safetensors", [*ATTACK, "--output"]),
        ("--checkpoint", "m.safetensors", [*ATTACK, "--save-adversarial"]),
        ("--checkpoint", "m.safetensors", [*CERTIFY, "--tsv"]),
        ("--checkpoint", "m.safetensors", [*COMPARE, "--html"]),
        ("--indices", "i.txt", [*ATTACK[:-2], "--indices", "i.txt", "--output"]),
        ("--config", "c.toml", [*ATTACK, "--config", "c.toml", "--output"]),
        ("--config", "c.toml", [*COMPARE, "--config", "c.toml", "--output"]),
        (
            "--gradient",
            "m.safetensors",
            ["attack", *CHEAP, "--gradient", "surrogate-model=m.safetensors", "--output"],
        ),
    ]:
        output = str(folder / file) if spelt == "absolute" else spelt.format(file)
        assert_clean_error(caa(*words, output, *more), 2, f"is the same file as {named} {file}", "another name")
    assert listing(folder) == before


@pytest.mark.parametrize(
    "other", ["q.json", "./q.json", "sub/../q.json", "q.json.jsonl", "absolute", "through/q.json"]
)
def test_no_two_outputs_are_one_file(folder, other):
    Path("through").symlink_to(".")
    other = str(folder / "q.json") if other == "absolute" else other
    before = listing(folder)
    for words in ([*ATTACK, "--save-adversarial"], [*CERTIFY, "--tsv"], [*CERTIFY, "--figure"]):
        assert_clean_error(caa(*words, other, "--output", "q.json"), 2, "is the same file as", "another name")
    assert listing(folder) == before


def test_a_training_does_not_write_where_it_reads(folder):
    words = ["train", "--dataset", "demo", "--epochs", "1", "--config", "c.toml", "--output", "soft-c.toml"]
    (folder / "c.toml").write_text("epochs = 1\n")
    assert_clean_error(caa(*words), 2, "--output soft-c.toml is the same file as --config c.toml")


def test_files_that_are_not_there_yet_are_compared_by_their_place(folder):
    Path("link.json").symlink_to("sub/new.json")
    with pytest.raises(UsageError, match=r"--tsv sub/new\.json is the same file as --output link\.json"):
        check_distinct([], [("--output", Path("link.json")), ("--tsv", Path("sub/new.json"))])
    check_distinct([], [("--output", Path("new.json")), ("--tsv", Path("sub/new.json"))])


@pytest.mark.parametrize("name", [".", "/", "-"])
def test_a_name_without_a_file_is_wrong_usage(folder, name):
    for words in (
        [*ATTACK, "--output", name],
        [*ATTACK, "--save-adversarial", name],
        [*CERTIFY, "--output", name],
        [*COMPARE, "--output", name],
        [*COMPARE, "--html", name],
        ["merge", "a.json", "--output", name],
        ["train", "--dataset", "demo", "--epochs", "1", "--output", name],
    ):
        assert_clean_error(caa(*words), 2, "names no file", "for instance")
    for name in ("..", "sub"):
        assert_clean_error(caa(*ATTACK, "--output", name), 1, "is a folder", "name a file in it")


def test_a_folder_that_does_not_exist_is_not_taken_for_the_name_of_a_file(folder):
    """Without its slash, `results/` would be a file in the current folder."""
    before = listing(folder)
    for words in (ATTACK, CERTIFY, COMPARE, ["merge", "a.json"]):
        refused = caa(*words, "--output", "results/")
        assert_clean_error(refused, 2, "--output results/ names no file but a folder", "--output results/output.json")
    refused = caa(*ATTACK, "--figure=results/")
    assert_clean_error(refused, 2, "--figure results/ names no file but a folder", "--figure results/figure.png")
    assert listing(folder) == before


def test_no_file_is_named_as_another_format(folder):
    """It would be written in its own, and no reader of the other could read it."""
    before = listing(folder)
    for words in (ATTACK, COMPARE, ["merge", "a.json", "--output", "b.json"]):
        result = caa(*words, "--save-adversarial", "sub/x.NPZ")
        assert_clean_error(result, 2, "what it writes is .safetensors", "--save-adversarial sub/x.safetensors")
    for words in (COMPARE, ["compare", "a.json"]):
        assert_clean_error(caa(*words, "--html", "x.pdf"), 2, "what it writes is .html", "--html x.html")
    assert listing(folder) == before


@pytest.mark.parametrize(
    "words",
    [ATTACK, CERTIFY, COMPARE, ["compare", "a.json"], ["merge", "a.json"], ["train", "--dataset", "demo"]],
    ids=["attack", "certify", "compare", "compare files", "merge", "train"],
)
def test_a_dash_is_no_stdout_but_json_is(folder, words):
    """A file of the name - would be written, and nobody would find it."""
    hint = "--json prints the result on stdout"
    assert_clean_error(caa(*words, "--output", "-"), 2, "--output - names no file", hint)
    assert not Path("-").exists()


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "/dev/null", "fifo"])
def test_streams_and_devices_are_no_files(folder, place):
    """Renaming a result over them would replace the link or the device for everyone."""
    Path("link").symlink_to("/dev/stdout")
    os.mkfifo("fifo")
    before = os.lstat(place)
    stream = place not in ("/dev/null", "fifo")
    for option, hint in (("--output", "--json writes the document to stdout"), ("--save-adversarial", "name a file")):
        result = caa(*ATTACK, option, place)
        assert_clean_error(result, 1, "is a stream" if stream else "is no regular file", hint if stream else option)
    after = os.lstat(place)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def test_a_stdout_that_is_a_file_is_a_stream_too(folder):
    """Following /dev/stdout to the file behind it would replace the file that the shell has open."""
    with (folder / "captured").open("w") as captured:
        words = [sys.executable, "-c", COMMAND, *ATTACK, "--output", "/dev/stdout"]
        done = subprocess.run(words, stdout=captured, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert_clean_text(done.stderr, "--output /dev/stdout is a stream", "--json")
    assert list(folder.glob("captured*")) == [folder / "captured"]
    assert Path("captured").read_text() == ""
