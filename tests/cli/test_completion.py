"""What the shell offers when Tab is pressed, asked for as the script of `caa --install-completion` does."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from support import COMMAND, ENVIRONMENT, caa

from caa_cli.config.attacks import ATTACKS
from caa_cli.config.bounds import BOUNDS
from caa_cli.config.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DENOISER_ARCHITECTURES,
    DTYPES,
    FINISHES,
    INNER_ATTACKS,
    NORMALISATIONS,
    OPTIMIZERS,
    SCHEDULES,
    SPLITS,
    SURROGATES,
    TABLE_FORMATS,
    TRAINING_DTYPES,
    VERIFICATIONS,
)
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS
from caa_cli.config.presets import PRESETS
from caa_cli.config.recipes import RECIPES

# What is typed, and the names that the last word may be.
NAMES = {
    "caa attack --attack ": ATTACKS,
    "caa attack --bound ": BOUNDS,
    "caa attack --verification ": VERIFICATIONS,
    "caa certify --bound ": BOUNDS,
    "caa attack --dataset ": DATASETS,
    "caa inspect --dataset ": DATASETS,
    "caa train --dataset ": DATASETS,
    "caa attack --arch ": ARCHITECTURES,
    "caa train --arch ": [*ARCHITECTURES, *DENOISER_ARCHITECTURES],
    "caa attack --dtype ": DTYPES,
    "caa train --dtype ": TRAINING_DTYPES,
    "caa attack --gradient ": ["model", "surrogate-model=", "votes"],
    "caa attack --normalisation ": NORMALISATIONS,
    "caa train --normalisation ": NORMALISATIONS,
    "caa train --recipe ": RECIPES,
    "caa train --method ": METHODS,
    "caa train --optimizer ": OPTIMIZERS,
    "caa train --schedule ": SCHEDULES,
    "caa train --augment ": AUGMENTATIONS,
    "caa train --inner-attack ": INNER_ATTACKS,
    "caa attack --finish ": FINISHES,
    "caa attack --split ": SPLITS,
    "caa attack --surrogate ": SURROGATES,
    "caa attack --preset ": PRESETS,
    "caa attack --device ": ["auto", "cpu", "cuda"],
    "caa attack --chunk-size ": ["auto", "measure"],
    "caa compare --attacks ": ATTACKS,
    "caa compare --format ": TABLE_FORMATS,
    "caa compare --bound ": BOUNDS,  # an option that it has from caa attack
}


def typed_in_bash(typed: str) -> dict[str, str]:
    """The variables that say what is typed; nothing of the last word yet after a space."""
    words = typed.split(" ")
    return {"_CAA_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}


def offered(typed: str) -> list[str]:
    """The completions of the last word."""
    result = caa(env=typed_in_bash(typed))
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.split()


@pytest.mark.parametrize("typed", NAMES)
def test_every_name_is_offered(typed: str):
    assert offered(typed) == list(NAMES[typed])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("caa attack --attack ca", ["caa", "caa-newton"]),
        ("caa attack --shard a", ["auto", "auto/2", "auto/4", "auto/8", "auto/16", "auto/32"]),
        ("caa attack --shard 3", ["3/4", "3/8", "3/16", "3/32"]),
        ("caa attack --shard 3/8", ["3/8"]),
        ("caa attack --shard x", []),
        ("caa compare --attacks caa,dd", ["caa,ddn"]),
        ("caa compare --attacks caa,ddn:init", ["caa,ddn:initial-norm="]),
        ("caa compare --attacks caa,nonsense:i", []),
        ("caa compare --attacks caa,x=fm", ["caa,x=fmn"]),
        ("caa compare --attacks x=ddn:init", ["x=ddn:initial-norm="]),
        ("caa attack --checkpoint de", ["demo"]),
        ("caa attack --checkpoint ", []),  # the shell offers files
        ("caa inspect de", ["demo"]),
        ("caa inspect --checkpoint de", ["demo"]),
        ("caa att", ["attack"]),
        ("caa attack --verify", ["--verify-samples"]),
    ],
)
def test_what_is_typed_already_is_heeded(typed: str, expected: list[str]):
    assert offered(typed) == expected


def test_nothing_heavy_is_imported_for_it():
    """Of all the names above, by one new interpreter."""
    script = f"""
import os, sys
from caa_cli.cli.app import main
for variables in {[typed_in_bash(typed) for typed in NAMES]}:
    os.environ |= variables
    try: main()
    except SystemExit as end: assert not end.code
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= {*ATTACKS, *RECIPES}
    assert not {"torch", "numpy", "scipy", "matplotlib", "rich"} & set(done.stderr.split())


class Bash:
    """An interactive bash in a terminal, with the script that `caa --install-completion` installs."""

    def __init__(self, folder: Path, settings: str) -> None:
        caa = folder / "caa"
        caa.write_text(f"#!{sys.executable}\n{COMMAND}\n")
        caa.chmod(0o755)
        environment = {**ENVIRONMENT, "PATH": f"{folder}:{ENVIRONMENT['PATH']}", "TERM": "dumb"}
        asked = {**environment, "_CAA_COMPLETE": "source_bash"}
        source = subprocess.run([caa], env=asked, capture_output=True, text=True, check=True).stdout
        (folder / "rc").write_text(f"{source}\n{settings}\nPS1='ready '\n")
        self._terminal, bash = pty.openpty()
        command = ["bash", "--noprofile", "--rcfile", folder / "rc", "-i"]
        streams = {"stdin": bash, "stdout": bash, "stderr": bash}
        self._process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        os.close(bash)
        self._shown("ready ")

    def fill_in(self, line: str, end: str) -> str:
        """What Tab adds to the line, which should be `end`; the line is then deleted."""
        os.write(self._terminal, f"{line}\t".encode())
        shown = self._shown(line + end)
        os.write(self._terminal, b"\x15")
        return shown.rpartition(line)[2].strip("\a ")

    def _shown(self, expected: str) -> str:
        """What the terminal shows, until that is expected, or for a minute."""
        shown, until = "", time.monotonic() + 60
        while expected not in shown and (left := until - time.monotonic()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                shown += os.read(self._terminal, 4096).decode()
        return shown

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        (
            "",
            {
                "caa attack --bound=good": "man",
                "caa compare --attacks x=ddn:initial-norm=1,caa:unders": "hoot=",
                "caa compare --attacks=caa:unders": "hoot=",
                "caa compare --attacks caa:step-min=0.1 --bound good": "man",
            },
        ),
        ("COMP_WORDBREAKS=' '", {"caa attack --bound=good": "man", "caa compare --attacks=caa:unders": "hoot="}),
    ],
    ids=["words parted at = and :", "words parted at blanks"],
)
def test_bash_itself_fills_in_what_is_begun(tmp_path: Path, settings: str, ends: dict[str, str]):
    with closing(Bash(tmp_path, settings)) as bash:
        for line, end in ends.items():
            assert bash.fill_in(line, end) == end
