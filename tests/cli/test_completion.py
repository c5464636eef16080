"""What the shell offers when Tab is pressed, asked for as the script of `caa --install-completion` does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import COMMAND, ENVIRONMENT

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

# Every module that is loaded is written to stderr, so that a heavy one shows.
_WITH_MODULES = f"""
import sys
try:
    {COMMAND}
finally:
    print(*sys.modules, file=sys.stderr)
"""


def offered(typed: str, script: str = COMMAND) -> list[str]:
    """The completions of the last word, with bash's variables; nothing is typed of it yet after a space."""
    words = typed.split(" ")
    variables = {"_CAA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**ENVIRONMENT, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "numpy", "scipy", "matplotlib", "rich"} & set(done.stderr.split())
    assert not heavy
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("caa attack --attack ", ATTACKS),
        ("caa attack --bound ", BOUNDS),
        ("caa attack --verification ", VERIFICATIONS),
        ("caa certify --bound ", BOUNDS),
        ("caa attack --dataset ", DATASETS),
        ("caa inspect --dataset ", DATASETS),
        ("caa train --dataset ", DATASETS),
        ("caa attack --arch ", ARCHITECTURES),
        ("caa train --arch ", [*ARCHITECTURES, *DENOISER_ARCHITECTURES]),
        ("caa attack --dtype ", DTYPES),
        ("caa train --dtype ", TRAINING_DTYPES),
        ("caa attack --gradient ", ["model", "surrogate-model=", "votes"]),
        ("caa attack --normalisation ", NORMALISATIONS),
        ("caa train --normalisation ", NORMALISATIONS),
        ("caa train --recipe ", RECIPES),
        ("caa train --method ", METHODS),
        ("caa train --optimizer ", OPTIMIZERS),
        ("caa train --schedule ", SCHEDULES),
        ("caa train --augment ", AUGMENTATIONS),
        ("caa train --inner-attack ", INNER_ATTACKS),
        ("caa attack --finish ", FINISHES),
        ("caa attack --split ", SPLITS),
        ("caa attack --surrogate ", SURROGATES),
        ("caa attack --preset ", PRESETS),
        ("caa attack --device ", ["auto", "cpu", "cuda"]),
        ("caa attack --chunk-size ", ["auto", "measure"]),
        ("caa compare --attacks ", ATTACKS),
        ("caa compare --format ", TABLE_FORMATS),
        ("caa compare --bound ", BOUNDS),  # an option that it has from caa attack
    ],
)
def test_every_name_is_offered(typed: str, names):
    assert offered(typed, _WITH_MODULES) == list(names)


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


def test_bash_itself_fills_in_a_name(tmp_path: Path):
    """Through the script that is installed, in a bash of its own."""
    caa = tmp_path / "caa"
    caa.write_text(f"#!{sys.executable}\n{COMMAND}\n")
    caa.chmod(0o755)
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}:{ENVIRONMENT['PATH']}"}
    asked = {**environment, "_CAA_COMPLETE": "source_bash"}
    source = subprocess.run([caa], env=asked, capture_output=True, text=True, check=True).stdout
    script = f"""{source}
        COMP_WORDS=(caa attack --bound good); COMP_CWORD=3
        _caa_completion caa
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["goodman"], done.stderr
