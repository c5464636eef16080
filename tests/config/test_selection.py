"""Which images a run works on: --skip, --every, --limit, --indices and --shard against plain Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_clean_error, attack, caa

from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.selection import read_indices
from caa_cli.errors import UsageError
from caa_cli.runtime.sharding import Shard

SIZES = st.integers(1, 60)


def plan(**settings: object) -> CertifyPlan:
    return CertifyPlan(checkpoint="demo", dataset="mnist", **settings)  # type: ignore[arg-type]


@given(SIZES, st.integers(0, 70), st.integers(1, 70), st.none() | st.integers(1, 70), st.integers(1, 6))
def test_shards_part_the_selection(size, skip, every, limit, shards):
    expected = [i for i in range(size) if i >= skip and (i - skip) % every == 0]
    if limit is not None:
        expected = expected[:limit]
    settings = {"skip": skip, "every": every, "limit": limit}
    assert list(plan(**settings).indices(size)) == expected
    parts = [list(plan(**settings, shard=Shard(k, shards)).indices(size)) for k in range(shards)]
    assert sorted(index for part in parts for index in part) == expected
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.data(), SIZES, st.none() | st.integers(1, 70), st.integers(1, 6), st.booleans())
def test_a_file_of_indices(tmp_path_factory, data, size, limit, shards, as_json):
    wanted = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
    file = tmp_path_factory.mktemp("indices") / "indices.txt"
    file.write_text(json.dumps(wanted) if as_json else "# chosen\n\n" + "".join(f" {i} # {i}\n" for i in wanted))
    expected = wanted if limit is None else wanted[:limit]
    assert list(plan(indices_file=file, limit=limit).indices(size)) == expected
    parts = [list(plan(indices_file=file, limit=limit, shard=Shard(k, shards)).indices(size)) for k in range(shards)]
    assert sorted(index for part in parts for index in part) == sorted(expected)


@given(st.data(), SIZES, st.none() | st.integers(1, 70), st.integers(1, 6))
def test_a_list_of_indices(data, size, limit, shards):
    """Ranges and single indices, in any order, with or without spaces."""
    ends = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=8)))
    ranges = data.draw(st.permutations(list(zip(ends[::2], ends[1::2], strict=False)) or [(ends[0], ends[0])]))
    comma = data.draw(st.sampled_from([",", ", "]))
    text = comma.join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    expected = [index for low, high in ranges for index in range(low, high + 1)][:limit]
    assert list(plan(indices_list=text, limit=limit).indices(size)) == expected
    parts = [list(plan(indices_list=text, limit=limit, shard=Shard(k, shards)).indices(size)) for k in range(shards)]
    assert sorted(index for part in parts for index in part) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3,100", "entry 2: there is no image 100"),
        ("3,90-100", "entry 2: there is no image 100"),
        ("3,3", "entry 2: 3 is in entry 1 already"),
        ("3-7,5", "entry 2: 5 is in entry 1 already"),
        ("7-3", "entry 1: 7-3 runs backwards"),
        ("3,,4", "entry 2: '' is no whole number"),
        ("3-4-5", "entry 1: '3-4-5' is no whole number"),
        ("3-", "entry 1: '3-' is no whole number"),
        ("1 2", "entry 1: '1 2' is no whole number"),
        pytest.param("9" * 5000, "is no whole number", id="long"),
    ],
)
@pytest.mark.parametrize("command", ["attack", "certify", "compare"])
def test_what_is_no_list_on_the_command_line_is_refused(tmp_path, command, text, problem):
    attacks = ["--attacks", "caa"] if command == "compare" else []
    result = caa(command, "--checkpoint", "demo", *attacks, "--indices", text, "--output", tmp_path / "o.json")
    assert_clean_error(result, 2, problem, hint=" ")
    assert list(tmp_path.iterdir()) == []


def test_a_list_too_long_to_hold_is_refused():
    with pytest.raises(UsageError, match="more than 1,000,000 images"):
        plan(indices_list="0-999999999999").indices(10**12)


def test_images_named_on_the_command_line(tmp_path, monkeypatch):
    """Flag and TOML; a file of that name goes first, and the result says what was typed."""
    monkeypatch.chdir(tmp_path)
    document = attack(Path("a.json"), "--indices", "3,7")
    assert [example["index"] for example in document["examples"]] == [3, 7]
    assert (document["config"]["indices_list"], document["config"]["indices_file"]) == ("3,7", None)
    Path("c.toml").write_text("[certify]\nindices = [3, 17]\n")
    certified = ["certify", "--checkpoint", "demo", "--samples", "100", "--chunk-size", "64", "--json"]
    result = caa(*certified, "--config", "c.toml", "--output", "c.json")
    assert [example["index"] for example in json.loads(result.stdout)["examples"]] == [3, 17]
    Path("5").write_text("9\n")
    result = caa(*certified, "--indices", "5", "--output", "d.json")
    assert [example["index"] for example in json.loads(result.stdout)["examples"]] == [9]


def test_shards_of_images_named_on_the_command_line_are_merged(tmp_path):
    """Unlike with a file, what is missing is known from the result."""
    for shard in range(2):
        attack(tmp_path / f"{shard}.json", "--indices", "3,7,11-12", "--shard", f"{shard}/2")
    both = [tmp_path / "0.json", tmp_path / "1.json"]
    merged = caa("merge", *both, "--output", tmp_path / "all.json", "--json")
    assert [example["index"] for example in json.loads(merged.stdout)["examples"]] == [3, 7, 11, 12]
    alone = caa("merge", both[0], "--output", tmp_path / "x.json", "--partial", "--json")
    assert json.loads(alone.stdout)["gaps"] == ["shard 1 of 2 is missing"]


def test_a_range_needs_no_memory():
    """A split of a billion images is no list of them."""
    assert plan(every=3, shard=Shard(1, 4)).indices(10**9) == range(3, 10**9, 12)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "lists no image"),
        ("# nothing\n\n", "lists no image"),
        ("[]", "lists no image"),
        ("1\n2\n1\n", "line 3: 1 is in line 1 already"),
        ("1\n\n100\n", "line 3: there is no image 100"),
        ("0\n-1\n", "line 2: there is no image -1"),
        ("0\n1.5", "line 2: '1.5' is no whole number"),
        ("0\n1 2\n", "line 2: '1 2' is no whole number"),
        ("1_0\n", "line 1: '1_0' is no whole number"),
        ("²\n", "line 1: '²' is no whole number"),
        pytest.param("9" * 5000, "is no whole number", id="long"),
        ("[0, 1, 1]", "entry 3: 1 is in entry 2 already"),
        ("[0, 1.0]", "entry 2: 1.0 is no whole number"),
        ("[true]", "entry 1: True is no whole number"),
        ('["0"]', "entry 1: '0' is no whole number"),
        ("[0, 1", "is no JSON list"),
        pytest.param("[" * 100_000, "is no JSON list", id="deep"),
    ],
)
def test_what_is_no_list_of_indices_is_refused_with_its_line(tmp_path, content, problem):
    (tmp_path / "indices.txt").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_indices(tmp_path / "indices.txt", 100)
    assert problem in caught.value.problem
    assert "indices.txt" in caught.value.problem
    assert caught.value.hint


@pytest.mark.parametrize("what", ["missing", "folder", "binary"])
def test_a_file_of_indices_that_cannot_be_read(tmp_path, what):
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    if what == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    result = caa("certify", "--checkpoint", "demo", "--indices", path, "--output", tmp_path / "c.json")
    assert_clean_error(result, 2, f"--indices {path} can't be read", "index a line")
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--every 0", "--every"),
        ("--every -3", "--every"),
        ("--indices i.txt --skip 1", "--skip"),
        ("--indices i.txt --every 2", "--every"),
        ("--image-size 0", "--image-size"),
        ("--image-size 32", "--image-size"),  # the demo's images are all of one size
        ("--dataset folder --download --data-dir .", "can't be downloaded"),
        ("--dataset imagenet --download --data-dir .", "can't be downloaded"),
    ],
)
@pytest.mark.parametrize("command", ["attack", "certify"])
def test_wrong_usage(tmp_path, monkeypatch, command, words, problem):
    monkeypatch.chdir(tmp_path)
    Path("i.txt").write_text("1\n")
    result = caa(command, "--checkpoint", "demo", *words.split())
    assert_clean_error(result, 2, "", hint=" ")
    assert problem in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["i.txt"]


def test_the_command_line_takes_them(tmp_path, monkeypatch):
    """Flag, environment and TOML: the file's order does not matter to the result, which is by index."""
    (tmp_path / "i.txt").write_text("7\n3\n")
    by_flag = attack(tmp_path / "a.json", "--indices", tmp_path / "i.txt")
    assert [example["index"] for example in by_flag["examples"]] == [3, 7]
    every = attack(tmp_path / "b.json", "--every", "4", "--skip", "3", "--limit", "2")
    assert [example["index"] for example in every["examples"]] == [3, 7]
    timeless = [{k: v for k, v in e.items() if k != "seconds"} for e in by_flag["examples"]]
    assert timeless == [{k: v for k, v in e.items() if k != "seconds"} for e in every["examples"]]

    monkeypatch.setenv("CAA_ATTACK_INDICES", str(tmp_path / "i.txt"))
    dry = ("attack", "--checkpoint", "demo", "--chunk-size", "64", "--dry-run", "--json")
    result = caa(*dry)
    assert json.loads(result.stdout)["images"] == 2
    monkeypatch.delenv("CAA_ATTACK_INDICES")
    (tmp_path / "c.toml").write_text(f'[attack]\nindices = "{tmp_path / "i.txt"}"\n')
    result = caa(*dry, "--config", tmp_path / "c.toml")
    assert json.loads(result.stdout)["images"] == 2


def test_another_selection_extends_a_run(tmp_path):
    """Which images are worked on is no part of what a result depends on."""
    attack(tmp_path / "a.json", "--limit", "1")
    (tmp_path / "i.txt").write_text("0\n2\n")
    document = attack(tmp_path / "a.json", "--indices", tmp_path / "i.txt", "--resume")
    assert [example["index"] for example in document["examples"]] == [0, 2]


def test_a_byte_order_mark_in_front_is_passed_over(tmp_path):
    for text in ("3\n1\n", "[3, 1]"):
        path = tmp_path / "indices"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_indices(path, 10) == (3, 1)
