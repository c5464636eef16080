"""Sets of options with plausible, extreme and absurd values, as flags, variables and TOML: each is run or refused.

`pytest tests/fuzz/test_options.py -s` prints the counts; `-m slow` tries many more.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
import typer
from support import caa

from caa_cli.cli.app import app
from caa_cli.config.attack_settings import declared
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.ranges import Range, flag

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
# They end the command, name a device that is not here, run code, or take files for what they are not.
LEFT_OUT = {"help", "trust_checkpoint", "config", "download", "device"}
NUMBERS = [
    "0",
    "1",
    "2",
    "7",
    "100",
    "-1",
    "1e308",
    "-1e308",
    "1e-308",
    "inf",
    "nan",
    "0.5",
    "0.999999",
    "1.0",
    "1_000",
]
NUMBERS += [
    "10" * 12,
    "9" * 5000,
    "٣",
    "１００",
    "",
    " ",
    "1e",
    "0x10",
    "1,2",
    "--",
    "4294967296",
    "9223372036854775808",
]
WORDS = [
    "",
    " ",
    ".",
    "..",
    "demo",
    "auto",
    "0/1",
    "1/1",
    "nonsense",
    "é\u202e",
    "a" * 5000,
    "$HOME",
    "x:y",
    "%s",
    "{}",
]
WORDS += ["4GiB", "1e308GiB", "caa", "caa:", "caa:x=1", "caa:step-max=1e308", "ddn,ddn", "step-max=1,2", "votes"]
TOML = [
    "true",
    "false",
    "2020-01-01",
    "12:00:00",
    "[]",
    "[1, 'x']",
    "{}",
    "{a = 1}",
    "''",
    "1e308",
    "nan",
    "-inf",
    "100.5",
]
TOML += [
    "0x10",
    "1_000",
    "'1_000'",
    "9" * 5000,
    "[" * 5000,
    "'\\u0000'",
    '"\\u0000"',
    "['a', 'b']",
    "5",
    "0.5",
    "'demo'",
]
EXIT_CODES = {0, 1, 2, 3, 4}


def sensible(name: str, choose: random.Random) -> str:
    """A value that most options of this name take."""
    known = {
        "attack": [*ATTACKS],
        "attacks": ["caa", "pgd,ddn:gamma=0.1"],
        "checkpoint": ["demo"],
        "dataset": ["demo"],
    }
    return choose.choice(known.get(name, ["1", "2", "0.5", "16", "0.1"]))


def option_set(choose: random.Random, folder: Path) -> tuple[list[str], dict[str, str]]:
    """(words, variables) of one command: what it needs to go on, and up to five values more in any of the layers."""
    name = choose.choice([*COMMANDS, "attack", "train", "certify"])
    options = {p.name: p for p in COMMANDS[name].params if p.param_type_name == "option" and p.name not in LEFT_OUT}
    words, env, toml = [name], {}, []
    if name == "inspect":
        words += ["demo"]
    elif name == "merge":
        words += [str(folder / "none.json"), "--output", str(folder / "all.json")]
    else:
        words += ["--dataset", "demo"] if name == "train" else ["--checkpoint", "demo", "--limit", "1"]
        words += ["--device", "cpu", "--output", str(folder / "out.json")]
        words += ["--attacks", "caa,ddn"] if name == "compare" else []
    attack = choose.choice([*ATTACKS])
    own = [option for option in options if option.startswith(f"{attack}_")]
    if name == "attack" and own and choose.random() < 0.5:
        words += ["--attack", attack]
    for option in choose.sample([*options], min(len(options), choose.randint(0, 4))) + choose.sample(
        own, min(len(own), choose.randint(0, 2))
    ):
        parameter, layer = options[option], choose.choice(["flag", "flag", "variable", "toml"])
        absurd = choose.random() < 0.4
        value = choose.choice(NUMBERS + WORDS) if absurd else sensible(option, choose)
        if layer == "variable":
            env[f"CAA_{name}_{option}".upper()] = value
        elif layer == "toml":
            quoted = repr(value) if value.isascii() else "'é'"
            toml.append(
                f"{option.replace('_', '-')} = {choose.choice([*TOML, quoted] if absurd else [value, quoted])}"
            )
        else:
            words += [parameter.opts[0]] if parameter.is_flag else [parameter.opts[0], value]
    if "chunk_size" in options and not any("chunk" in given for given in [*words, *env, *toml]):
        env[f"CAA_{name}_CHUNK_SIZE".upper()] = "64"  # a dry run times eight chunks
    if toml:
        file = folder / "c.toml"
        file.write_text(choose.choice(["", f"[{name}]\n"]) + "\n".join(toml), encoding="utf-8")
        words += ["--config", str(file)]
    if "dry_run" in options and name != "merge":
        words += ["--dry-run"]
    return words, env


def try_sets(count: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Runs them; returns how many ended how. Fails on the first that is neither run nor refused with one message."""
    choose, found = random.Random(seed), Counter[str]()
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        monkeypatch.chdir(place)  # what a relative path names
        words, env = option_set(choose, place)
        before = sorted(place.rglob("*"))
        result = caa(*words, env=env)
        said = f"{words} {env}\n{(place / 'c.toml').read_text()[:400] if (place / 'c.toml').exists() else ''}\n"
        said = said[:3000] + result.output[-2000:]
        assert not isinstance(result.exception, Exception), f"{result.exception!r}\n{said}"
        assert result.exit_code in EXIT_CODES, said
        assert "Traceback" not in result.output, said
        assert len(result.output) < 30_000, said
        if result.exit_code and words[0] != "inspect":  # which says in its report what a checkpoint leaves open
            errors = re.findall(r"^error: |─ Error ─|^Error: ", result.stderr, flags=re.MULTILINE)
            assert len(errors) == 1, said
            assert sorted(place.rglob("*")) == before, said
        found[f"{words[0]}: {result.exit_code}"] += 1
    return found


def test_a_few_option_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = try_sets(80, 1, tmp_path, monkeypatch)
    print(f"\n{found.total()} option sets, by command and exit code: {dict(sorted(found.items()))}")
    assert len({name.partition(":")[0] for name in found}) == len(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 105))
def test_many_option_sets(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = try_sets(300, seed, tmp_path, monkeypatch)
    print(f"\n{found.total()} option sets, by command and exit code: {dict(sorted(found.items()))}")


TINY = "--checkpoint demo --limit 1 --samples 40 --verify-samples 300 --chunk-size 64 --device cpu --iterations 4"


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_setting_runs_at_either_end_of_its_range(attack: str, tmp_path: Path):
    for name, setting in declared(attack).items():
        for check in setting.checks:
            if not isinstance(check, Range):
                continue
            for end in (1e-12 if check.above else check.low, 0.999999 if check.below else check.high):
                value = min(int(end), 30) if setting.kind is int else end  # not the hours that a million steps take
                other = {"step_min": ["--step-max", "1e9"], "step_max": ["--step-min", "1e-12"]}.get(name, [])
                output = tmp_path / f"{name}-{value}.json"
                words = [*TINY.split(), "--attack", attack, flag(name), str(value), *other, "--output", output]
                result = caa("attack", *words)
                assert result.exit_code == 0, f"{words}\n{result.output}"
