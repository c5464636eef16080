"""A mutation run: each of the small changes of meaning listed here has to fail a test of the module it is made in.

    python tests/mutants/run.py                              all of them, about twenty minutes on one core
    python tests/mutants/run.py --file bounds --file noise   those of two modules
    python tests/mutants/run.py --check                      only whether each still applies to the code as it is

A list (NAME.toml) has `original`, a piece of text that its module holds exactly once, what it is `replaced` by, and
`why` that is a change of meaning; or, where no test can see the change, in `equivalent` the reason. Each is applied
alone, in a copy of the package, and the module's tests are run on it. The score is JSON on stdout: how many mutants
were killed, which survived, which are equivalent. The exit status is 0 if no others survived than those.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def _tests(room: str, *names: str) -> list[str]:
    return [f"tests/{room}/test_{name}.py" for name in names]


# Of tests that take long those alone that are about projections.
_PROJECTIONS = [
    "tests/attacks/test_newton.py::test_the_shortest_step_to_a_half_space_within_the_box",
    "tests/attacks/test_newton.py::test_a_step_is_no_longer_than_its_limit_and_ends_at_the_nearest_point_within_it",
    "tests/attacks/test_caa_refine.py::test_a_slide_stays_in_the_box_and_comes_nearer_in_its_half_space",
]
# The module that each list is about, and the tests that have to notice, quickest first.
TARGETS = {
    "bounds": ("caa_cli/smoothing/bounds.py", _tests("smoothing", "bounds")),
    "bound_registry": ("caa_cli/config/bounds.py", _tests("smoothing", "bounds")),
    "radius": ("caa_cli/smoothing/radius.py", _tests("smoothing", "radius")),
    "certify": ("caa_cli/smoothing/certify.py", _tests("smoothing", "certifier", "certify")),
    "sequential": ("caa_cli/smoothing/sequential.py", _tests("smoothing", "certifier", "certify")),
    "noise": ("caa_cli/smoothing/noise.py", _tests("smoothing", "noise")),
    "verifier": ("caa_cli/verification/verifier.py", _tests("verification", "verify", "exact_rule")),
    "claim": ("caa_cli/verification/claim.py", _tests("verification", "target_rule", "line_search")),
    "rules": ("caa_cli/verification/rules.py", _tests("verification", "verify", "exact_rule", "target_rule")),
    "sequential_test": ("caa_cli/verification/sequential_test.py", _tests("verification", "exact_rule")),
    "margin": ("caa_cli/smoothing/margin.py", _tests("verification", "line_search")),
    "line_search": ("caa_cli/verification/line_search.py", _tests("verification", "line_search")),
    "criterion": ("caa_cli/attacks/common/criterion.py", _tests("attacks", "criterion", "targeted_attacks")),
    "balls": ("caa_cli/attacks/caa/balls.py", _tests("attacks", "geometry")),
    "vectors": ("caa_cli/attacks/common/vectors.py", _tests("attacks", "geometry")),
    "stein": ("caa_cli/smoothing/stein.py", _tests("attacks", "access")),
    "wiener": ("caa_cli/smoothing/wiener.py", _tests("attacks", "access")),
    **{
        name: (f"caa_cli/attacks/baselines/{name}.py", _tests("attacks", "written_out"))
        for name in ("alma", "cw", "ddn", "fmn")
    },
    "sdf": ("caa_cli/attacks/baselines/sdf.py", _tests("attacks", "sdf")),
    "apgd": ("caa_cli/attacks/baselines/apgd.py", _tests("attacks", "apgd")),
    "projection": ("caa_cli/attacks/common/projection.py", [*_tests("attacks", "geometry"), *_PROJECTIONS]),
    "caa": ("caa_cli/attacks/caa/attack.py", _tests("attacks", "caa_step", "caa_runs", "caa", "caa_refine")),
    "elimination": ("caa_cli/attacks/common/elimination.py", _tests("attacks", "elimination")),
    "newton": ("caa_cli/attacks/newton/attack.py", _tests("attacks", "newton_steps", "newton")),
    "runs": ("caa_cli/attacks/common/runs.py", _tests("attacks", "runs")),
    "boundary_walk": ("caa_cli/attacks/newton/boundary_walk.py", _tests("attacks", "walk_steps")),
    "input_gradients": ("caa_cli/smoothing/input_gradients.py", _tests("smoothing", "input_gradients")),
    "depthwise": ("caa_cli/smoothing/depthwise.py", _tests("smoothing", "input_gradients")),
    "few_channels": ("caa_cli/smoothing/few_channels.py", _tests("smoothing", "input_gradients")),
    "small_maps": ("caa_cli/smoothing/small_maps.py", _tests("smoothing", "small_maps")),
    "caa_state": ("caa_cli/attacks/caa/state.py", _tests("attacks", "caa_step", "caa_runs", "caa_refine")),
    "metrics": ("caa_cli/results/metrics.py", _tests("results", "comparison", "failures_at_infinity")),
    "pairwise": ("caa_cli/results/pairwise.py", _tests("results", "failures_at_infinity", "comparison")),
    "optimality": ("caa_cli/results/optimality.py", _tests("results", "failures_at_infinity", "comparison")),
    "proportions": ("caa_cli/results/proportions.py", _tests("results", "intervals")),
    "bootstrap": ("caa_cli/results/bootstrap.py", _tests("results", "intervals")),
}
# A mutant may loop for ever; the slowest of the tests above take a minute on a busy machine.
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Mutant:
    target: str
    original: str
    replaced: str
    why: str = ""
    equivalent: str | None = None

    def apply(self, text: str) -> str:
        times = text.count(self.original)
        if times != 1:
            raise SystemExit(f"{self.target}.toml: {TARGETS[self.target][0]} holds {times} times {self.original!r}")
        return text.replace(self.original, self.replaced)

    def describe(self) -> dict[str, str]:
        entry = {"file": TARGETS[self.target][0], "original": self.original, "replaced": self.replaced}
        return {**entry, "why": self.equivalent or self.why}


def mutants_of(target: str) -> list[Mutant]:
    listed = tomllib.loads((HERE / f"{target}.toml").read_text(encoding="utf-8"))["mutant"]
    mutants = [Mutant(target, **entry) for entry in listed]
    text = (ROOT / TARGETS[target][0]).read_text(encoding="utf-8")
    for mutant in mutants:
        assert bool(mutant.why) != bool(mutant.equivalent), mutant
        compile(mutant.apply(text), TARGETS[target][0], "exec")
    return mutants


class Copy:
    """The package and its tests in a folder of their own, to be changed and run."""

    def __init__(self, folder: Path) -> None:
        # Imported once, for all the processes that are forked from this one.
        import hypothesis  # noqa: F401
        import scipy.stats  # noqa: F401
        import torch  # noqa: F401

        self.folder = folder
        for name in ("caa_cli", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def fails(self, tests: list[str]) -> str | None:
        """The test that fails, None if all pass. They run in a process of their own that has its imports already."""
        log = self.folder / "log"
        process = multiprocessing.get_context("fork").Process(target=self._run, args=(tests, log))
        process.start()
        process.join(LONGEST_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            return "no end"
        if process.exitcode == 0:
            return None
        report = log.read_text(encoding="utf-8")
        failed = [line.split()[1] for line in report.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        if process.exitcode != 1 or not failed:  # the tests did not run
            raise SystemExit(report)
        return failed[0]

    def _run(self, tests: list[str], log: Path) -> None:
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        # Bytecode is told apart by the second in which its source was written: too coarse here.
        sys.dont_write_bytecode = True
        with log.open("w", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        import pytest

        import caa_cli

        assert Path(caa_cli.__file__).is_relative_to(self.folder), "the tests would import another copy"
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        status = pytest.main([*options, *tests])
        sys.stdout.flush()
        os._exit(int(status))

    def kills(self, mutant: Mutant) -> str | None:
        """The test that fails with this mutant."""
        module, tests = TARGETS[mutant.target]
        path = self.folder / module
        text = path.read_text(encoding="utf-8")
        path.write_text(mutant.apply(text), encoding="utf-8")
        try:
            return self.fails(tests)
        finally:
            path.write_text(text, encoding="utf-8")


def score(targets: list[str]) -> dict[str, Any]:
    """survived: of those not said to be equivalent. not_equivalent: said to be, but a test fails with them."""
    result: dict[str, Any] = {"mutants": 0, "killed": 0, "survived": [], "equivalent": [], "not_equivalent": []}
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder).resolve())
        for target in targets:
            failed = copy.fails(TARGETS[target][1])
            if failed:
                raise SystemExit(f"{failed} fails without any mutant")
            for mutant in mutants_of(target):
                killer = copy.kills(mutant)
                report = f"{target}: {mutant.replaced!r} {'killed by ' + killer if killer else 'survives'}"
                print(report, file=sys.stderr, flush=True)
                result["mutants"] += 1
                result["killed"] += killer is not None and mutant.equivalent is None
                if mutant.equivalent is not None:
                    result["not_equivalent" if killer else "equivalent"].append(mutant.describe())
                elif killer is None:
                    result["survived"].append(mutant.describe())
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests on small changes of the code; see the docstring.")
    parser.add_argument("--file", action="append", choices=list(TARGETS), help="a module's list; all by default")
    parser.add_argument("--check", action="store_true", help="only see that each applies")
    options = parser.parse_args()
    targets = options.file or list(TARGETS)
    if options.check:
        print(json.dumps({target: len(mutants_of(target)) for target in targets}))
        return 0
    result = score(targets)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return 1 if result["survived"] or result["not_equivalent"] else 0


if __name__ == "__main__":
    sys.exit(main())
