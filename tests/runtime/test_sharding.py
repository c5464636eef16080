"""Which shard a process works on: what --shard says, what torchrun and Slurm say, and what it is refused for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import CHEAP, assert_clean_error, caa, journal_of, parse_strict, read_strict

from caa_cli.errors import UsageError
from caa_cli.runtime.device import resolve_device
from caa_cli.runtime.launchers import variables
from caa_cli.runtime.sharding import Shard
from caa_cli.training.devices import Ranks


def ranks(rank: int, count: int, **others: int) -> dict[str, str]:
    found = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank % 8, **others}
    return {name: str(value) for name, value in found.items()}


def array(task: int, tasks: range | list[int], step: int | None = None) -> dict[str, str]:
    """What Slurm tells a task of an array."""
    step = step or (tasks.step if isinstance(tasks, range) else 1)
    found = {"ID": task, "MIN": min(tasks), "MAX": max(tasks), "COUNT": len(tasks), "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in found.items()}


def tasks(task: int, count: int) -> dict[str, str]:
    return {"SLURM_PROCID": str(task), "SLURM_NTASKS": str(count), "SLURM_LOCALID": str(task), "SLURM_STEP_ID": "0"}


def position(text: str, environment: dict[str, str]) -> tuple[int, int]:
    shard = Shard.parse(text, environment)
    return shard.index, shard.count


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/5", {}, (2, 5)),
        ("2/5", array(1, range(4)), (2, 5)),
        ("2/5", tasks(1, 4), (2, 5)),
        ("1/2", ranks(1, 2), (1, 2)),
        ("auto", {}, (0, 1)),
        ("auto", ranks(0, 1), (0, 1)),
        ("auto", ranks(9, 16), (9, 16)),
        ("auto", array(3, range(8)), (3, 8)),
        ("auto", array(13, range(10, 18)), (3, 8)),
        ("auto", array(6, range(0, 15, 2)), (3, 8)),
        ("auto", array(5, [3, 5], step=2), (1, 2)),
        ("auto", tasks(3, 4), (3, 4)),
        # A step of fewer tasks than the job has, and one that has the batch script's variables from it.
        ("auto", {**tasks(1, 8), "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ("auto", {**tasks(1, 4), "ENVIRONMENT": "BATCH"}, (1, 4)),
        ("auto/8", array(3, [3]), (3, 8)),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "3"}, (3, 8)),
        ("auto/8", array(5, [1, 5, 6]), (5, 8)),
        ("auto/10-17", array(13, [13]), (3, 8)),
        ("auto/0-14:2", array(6, [6]), (3, 8)),
        ("auto", {**array(11, range(10, 14)), **ranks(3, 8)}, (11, 32)),
        ("auto", {**array(11, range(10, 14)), **tasks(3, 8)}, (11, 32)),
        ("auto/4", {**array(1, [1]), **ranks(3, 8)}, (11, 32)),
        # One torchrun over the nodes of an srun counts all processes; one on each node counts its own.
        ("auto", {**tasks(1, 4), **ranks(11, 32, GROUP_WORLD_SIZE=4)}, (11, 32)),
        ("auto", {**tasks(1, 4), **ranks(3, 8, GROUP_WORLD_SIZE=1)}, (11, 32)),
        ("auto", {**tasks(1, 4), **ranks(1, 4)}, (1, 4)),
        # The batch script has srun's variables too, but is none of its tasks.
        ("auto", {**array(3, range(8)), "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"}, (3, 8)),
    ],
)
def test_which_shard_it_is(text, environment, expected):
    assert position(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("auto", {**array(3, range(8)), "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "ENVIRONMENT": "BATCH"}),
        ("auto/8", {**array(3, [3]), **tasks(1, 4), "ENVIRONMENT": "BATCH"}),
        ("auto", {**tasks(1, 4), **ranks(11, 32, GROUP_WORLD_SIZE=4)}),
        ("auto", {**tasks(1, 4), **ranks(3, 8, GROUP_WORLD_SIZE=1)}),
        ("auto", ranks(1, 2)),
    ],
)
def test_the_variables_of_the_command_that_goes_on_alone_give_the_same_shard(text, environment):
    assert position(text, variables(environment)) == position(text, environment)


@pytest.mark.parametrize("submitted", [range(8), range(10, 18), range(0, 15, 2), range(3, 4 + 7 * 5, 5)], ids=str)
@pytest.mark.parametrize("processes", [1, 3])
def test_the_tasks_of_an_array_and_their_processes_part_the_images(submitted, processes):
    found = [
        position("auto", {**array(task, submitted), **ranks(rank, processes)})
        for task in submitted
        for rank in range(processes)
    ]
    assert sorted(found) == [(index, 8 * processes) for index in range(8 * processes)]
    # A part that is sent again takes the shards it had.
    said = f"auto/{submitted[0]}-{submitted[-1]}:{submitted.step}"
    for at, task in enumerate(submitted):
        again = [position(said, {**array(task, [task]), **ranks(rank, processes)}) for rank in range(processes)]
        assert again == found[at * processes : (at + 1) * processes]


REFUSED = [
    ("0/4", ranks(1, 2), "--shard 0/4, but this is process 1 of torchrun's 2", "--shard auto"),
    ("0/1", ranks(1, 2), "torchrun has started 2 processes, and each of them would work on all", "--shard auto"),
    ("4/4", {}, "there is no shard 4 of 4", "0/4 to 3/4"),
    ("0/0", {}, "a run has one shard or more", "--shard 0/4"),
    ("auto/0", array(0, [0]), "such an array has no tasks", "auto/8"),
    ("auto/5-3", array(0, [0]), "such an array has no tasks", "auto/8"),
    ("auto/0-8:0", array(0, [0]), "such an array has no tasks", "auto/8"),
    ("auto/99999999999999999999", {}, "is not of the form k/n", "auto"),
    ("1/99999999999999999999", {}, "is not of the form k/n", "auto"),
    ("auto/x", {}, "is not of the form k/n", "auto"),
    ("auto/8", {}, "there is none here", "--shard auto"),
    ("auto/8", ranks(1, 8), "there is none here", "--shard auto"),
    ("auto/8", array(8, [8]), "task 8 is none of the 8 tasks", "auto/10-17"),
    ("auto/0-14:2", array(5, [5]), "task 5 is none of the 8 tasks", "as it was first submitted"),
    ("auto", array(3, [3]), "task 3 is alone in its Slurm array", "--shard auto/8"),
    ("auto", array(3, [0, 3, 5]), "at uneven distances", "--shard auto/8"),
    ("auto", {"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT is not set", "--shard auto/8"),
    ("auto", {**array(3, range(8)), "SLURM_ARRAY_TASK_ID": "x"}, "SLURM_ARRAY_TASK_ID='x'", "unset"),
    ("auto", {"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2", "torchrun"),
    ("auto", {"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1'", "unset RANK: env -u RANK caa"),
    ("auto", {"SLURM_PROCID": "4", "SLURM_NTASKS": "4"}, "SLURM_PROCID=4 of SLURM_NTASKS=4", "--shard k/n"),
    ("auto", {"SLURM_NTASKS": "4"}, "srun has not started this process", "srun"),
    ("auto", {**tasks(0, 4), "SLURM_STEP_ID": "", "ENVIRONMENT": "BATCH"}, "srun has not started", "srun"),
]


@pytest.mark.parametrize(
    ("text", "environment", "problem", "hint"), REFUSED, ids=[str(n) for n in range(len(REFUSED))]
)
def test_what_is_refused(tmp_path, text, environment, problem, hint):
    words = ["attack", *CHEAP, "--shard", text, "--output", tmp_path / "a.json"]
    assert_clean_error(caa(*words, env=environment), 2, problem, hint)
    assert list(tmp_path.iterdir()) == []


def test_without_shards_torchrun_is_refused():
    assert_clean_error(caa("attack", *CHEAP, env=ranks(0, 2)), 2, "torchrun has started 2 processes", "--shard auto")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/attack.json", "a/attack.shard-1-of-8.json"),
        ("attack.v2.json", "attack.v2.shard-1-of-8.json"),
        ("attack", "attack.shard-1-of-8"),
    ],
)
def test_names_of_its_own(path, expected):
    shard = Shard(1, 8)
    assert shard.path_for(Path(path)) == Path(expected)
    assert Shard().path_for(Path(path)) == Path(path)
    assert shard.sibling(Path(expected), 3) == Path(expected.replace("shard-1", "shard-3"))


def test_every_file_of_a_shard_has_a_name_of_its_own(tmp_path):
    """And the shard is in the result: which, and chosen by what."""
    names = {"output": "a.json", "save-adversarial": "a.safetensors", "figure": "a.png"}
    words = [word for name, file in names.items() for word in (f"--{name}", tmp_path / file)]
    run = ["attack", *CHEAP, "--skip", "1", "--limit", "4", "--shard", "auto", *words]
    result = caa(*run, env=array(13, range(10, 14)))
    assert result.exit_code == 0, result.output
    assert "3 of 4: task 13 of the Slurm array 10-13" in result.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"a.shard-3-of-4{suffix}" for suffix in (".json", ".safetensors", ".png")}
    document = read_strict(tmp_path / "a.shard-3-of-4.json")
    assert document["shard"] == {"index": 3, "count": 4}
    assert document["config"]["shard"]["chosen"] == "task 13 of the Slurm array 10-13"
    assert [example["index"] for example in document["examples"]] == [4]
    assert document["resume"].startswith("SLURM_ARRAY_TASK_ID=13 ")

    # The same array over fewer tasks would leave these behind.
    refused = caa(*run, "--resume", env=array(13, range(12, 14)))
    assert_clean_error(refused, 2, "a.shard-3-of-4.json is one of 4 shards, but this is shard 1 of 2", "auto/4")
    assert {path.name for path in tmp_path.iterdir()} == left
    assert caa(*run, "--overwrite", "--quiet", env=array(13, range(12, 14))).exit_code == 0


def test_a_comparison_has_its_own_files_too(tmp_path):
    words = ["compare", *CHEAP, "--limit", "2", "--attacks", "caa", "--shard", "auto", "--quiet"]
    result = caa(*words, "--output", tmp_path / "c.json", "--figure", tmp_path / "c.png", env=ranks(1, 2))
    assert result.exit_code == 0, result.output
    names = ["c.caa.shard-1-of-2.json", "c.shard-1-of-2.json", "c.shard-1-of-2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_comparison_without_images_ends_well(tmp_path):
    words = ["compare", *CHEAP, "--limit", "1", "--attacks", "caa", "--shard", "auto", "--quiet", "--json"]
    result = caa(*words, "--output", tmp_path / "c.json", env=ranks(1, 2))
    assert result.exit_code == 0, result.output
    said = parse_strict(result.stdout)
    assert (said["command"], said["attacks"]) == ("compare", {})
    assert read_strict(tmp_path / "c.shard-1-of-2.json") == said
    assert read_strict(tmp_path / "c.caa.shard-1-of-2.json")["examples"] == []


def test_alone_it_works_on_all_images_and_says_so(tmp_path):
    result = caa("attack", *CHEAP, "--limit", "1", "--shard", "auto", "--dry-run", "--output", tmp_path / "a.json")
    assert "0 of 1: neither torchrun nor Slurm divides the work" in result.stderr
    config = parse_strict(caa("attack", *CHEAP, "--shard", "auto", "--dry-run", "--json").stdout)["config"]
    assert config["output"] == "attack.json"


def test_more_shards_than_images_is_no_error_where_they_were_not_named(tmp_path):
    cheap = {"attack": CHEAP, "certify": ["--checkpoint", "demo", "--samples", "100"]}
    for command, settings in cheap.items():
        words = [
            command,
            *settings,
            "--limit",
            "1",
            "--quiet",
            "--shard",
            "auto",
            "--output",
            tmp_path / f"{command}.json",
        ]
        figure = ["--figure", tmp_path / f"{command}.png"]
        assert caa(*words, *figure, env=array(2, range(3))).exit_code == 0
        document = read_strict(tmp_path / f"{command}.shard-2-of-3.json")
        assert (document["status"], document["examples"]) == ("complete", [])
        assert_clean_error(caa(*words, "--skip", "100", env=array(2, range(3))), 2, "no image is left")


def test_another_shards_result_is_not_overwritten(tmp_path):
    output = tmp_path / "a.json"
    words = ["attack", *CHEAP, "--limit", "2", "--quiet", "--output", output]
    assert caa(*words, "--shard", "0/2").exit_code == 0
    before = output.read_bytes()
    for more in ([], ["--resume"]):
        refused = caa(*words, "--shard", "1/2", *more)
        assert_clean_error(refused, 2, f"{output} holds shard 0 of 2, and this is shard 1 of 2", "--output")
    journal = tmp_path / "a.json.jsonl"
    journal.write_bytes(b"".join(journal_of(read_strict(output))))
    output.unlink()
    refused = caa(*words, "--shard", "1/2", "--resume")
    assert_clean_error(refused, 2, "shard (0/2 there, 1/2 here)", "--output")
    output.write_bytes(before)
    assert caa(*words, "--shard", "1/2", "--overwrite").exit_code == 0


@pytest.mark.parametrize("option", ["--save-adversarial", "--figure"])
def test_what_another_shard_writes_beside_its_result_is_not_overwritten(tmp_path, option):
    place = tmp_path / ("a.safetensors" if option == "--save-adversarial" else "a.png")
    words = ["attack", *CHEAP, "--limit", "2", "--quiet", option, place]
    first = [*words, "--output", tmp_path / "0.json", "--shard", "0/2"]
    assert caa(*first).exit_code == 0
    before = place.read_bytes()
    second = [*words, "--output", tmp_path / "1.json", "--shard", "1/2"]
    for more in ([], ["--resume"]):
        assert_clean_error(caa(*second, *more), 2, f"{option} {place} is there already, and of another run", option)
    assert place.read_bytes() == before
    assert caa(*first, "--overwrite").exit_code == 0
    assert caa(*second, "--overwrite").exit_code == 0


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("caa_cli.runtime.device.open_device", lambda device: None)
    for name in ("auto", "cuda"):
        assert resolve_device(name, Shard.parse("auto", ranks(1, 4)).local) == torch.device("cuda", 1)
        with pytest.raises(UsageError, match=r"process 2 of this machine \(LOCAL_RANK.*there are 2"):
            resolve_device(name, Shard.parse("auto", ranks(2, 4)).local)
    assert resolve_device("cuda:0", 2) == torch.device("cuda", 0)
    assert resolve_device("cpu", 2) == torch.device("cpu")
    assert resolve_device("auto", Shard.parse("auto", tasks(1, 4)).local) == torch.device("cuda", 1)
    # srun has given each task one GPU, and it sees no other.
    alone = {**tasks(3, 4), "CUDA_VISIBLE_DEVICES": "3"}
    assert resolve_device("auto", Shard.parse("auto", alone).local) == torch.device("cuda")
    assert Ranks(1, 4, 1).device(torch.device("cuda")) == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="no GPU of its own") as caught:
        Ranks(2, 4, 2).device(torch.device("cuda"))
    assert "cuda:0" not in (caught.value.hint or ""), "they can't share one"


def test_a_rank_without_a_gpu_is_one_message(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = [word for word in CHEAP if word not in ("--device", "cpu")]
    result = caa("attack", *words, "--shard", "auto", "--dry-run", env=ranks(1, 2))
    assert_clean_error(result, 2, "process 1 of this machine", "--nproc-per-node")


def test_failed_images_of_a_launched_shard_do_not_end_the_others(tmp_path, monkeypatch):
    """torchrun takes any exit code but 0 for a death, and ends the other processes."""
    from caa_cli.data.decoding import ImageError
    from caa_cli.run import attack_pipeline as work

    def fails(*_):
        raise ImageError("it is damaged")

    monkeypatch.setattr(work, "read_example", fails)
    words = ["attack", *CHEAP, "--limit", "2", "--shard", "auto", "--output"]
    launched = caa(*words, tmp_path / "a.json", env=ranks(1, 2))
    assert launched.exit_code == 0, launched.output
    assert "1 of the images failed" in launched.stderr
    assert read_strict(tmp_path / "a.shard-1-of-2.json")["status"] == "partial"
    assert caa(*words, tmp_path / "b.json", env=array(1, range(2))).exit_code == 3
