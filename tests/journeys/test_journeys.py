"""Five users, each with a script of her own from beginning to end, as a shell or an interpreter runs it.

Numbers are small; nothing else is. Where a script needs a workaround, the tool is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support import COMMAND

# Cheap settings of every search and verification, as of support.CHEAP.
STEPS = "--step-min 0.5 --step-max 0.9"
FEW = "--samples 64 --iterations 8 --verify-samples 1000 --chunk-size 256 --device cpu"


def run(folder: Path, script: str, *shell: str, code: int = 0) -> str:
    """The script's output, from a process in this folder; `caa` in it is this checkout's."""
    program = folder / "caa"
    program.write_text(f"#!{sys.executable}\n{COMMAND}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
    command = shell or ("bash", "-euo", "pipefail", "-c", script)
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout + ended.stderr


def python(folder: Path, script: str) -> str:
    (folder / "script.py").write_text(script)
    return run(folder, "", sys.executable, "script.py")


def test_a_student_with_a_network_of_her_own(tmp_path: Path):
    """She trains nothing with caa: her network and her images are in memory, and she wants radii and a picture."""
    shown = python(
        tmp_path,
        """
import torch
import caa_cli as caa

images, labels = caa.load_images("demo", indices=range(8))
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
train_images, train_labels = caa.load_images("demo", split="train")
optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(60):
    noisy = train_images + 0.25 * torch.randn_like(train_images)
    loss = torch.nn.functional.cross_entropy(network(noisy), train_labels)
    optimiser.zero_grad(); loss.backward(); optimiser.step()

classifier = caa.SmoothedClassifier(network, sigma=0.25, num_classes=10, input_shape=(1, 28, 28))
certified = caa.certify(classifier, images, labels, samples=1000, chunk_size=256)
few = {"samples": 100, "iterations": 10, "verify_samples": 1000, "chunk_size": 256}
results = caa.attack(classifier, images, labels, "ddn", **few)
assert (results.radius[results.success] > results.certified_radius[results.success]).all()
assert results.adversarial[results.success].min() >= 0 and results.adversarial.shape == (8, 1, 28, 28)
votes = classifier.votes(torch.from_numpy(results.adversarial[results.success]), samples=2000)
assert (votes.argmax(1) == torch.from_numpy(results.adversarial_class[results.success])).float().mean() > 0.9
print(results, int(results.success.sum()))
""",
    )
    assert "eligible images attacked" in shown


def test_a_job_in_ci(tmp_path: Path):
    """It fails where the model got worse, says why, and keeps the result for whoever looks."""
    limits = f"{STEPS} --require 'eligible>=2' --require 'below_certified==0'"
    run(tmp_path, f"caa attack --checkpoint demo --limit 2 {FEW} --output attack.json {limits}")
    shown = run(tmp_path, "caa check attack.json --require 'median_radius>=100'", code=4)
    assert "requirement not met: attack.json: median_radius>=100" in shown
    assert "\x1b[" not in shown
    assert json.loads((tmp_path / "attack.json").read_text())["status"] == "complete"


def test_a_slurm_array(tmp_path: Path):
    """Two tasks of one command line, one of which is sent again; then how far they are, and one file of both."""
    job = f"caa attack --checkpoint demo --limit 4 {FEW} {STEPS} --shard auto --output attack.json --resume"
    task = "export SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=1 SLURM_ARRAY_TASK_STEP=1"
    task += " SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID"
    run(tmp_path, f"{task}=0; {job}")
    assert "not begun: 1" in run(tmp_path, "caa status attack.json", code=3)
    run(tmp_path, f"{task}=1; {job}; {job}")
    run(tmp_path, "caa status attack.json; caa merge attack.shard-*.json --output attack.json")
    run(tmp_path, f"caa attack --checkpoint demo --limit 4 {FEW} {STEPS} --output alone.json")
    merged, alone = (json.loads((tmp_path / name).read_text())["examples"] for name in ("attack.json", "alone.json"))
    assert [(e["index"], e["radius"]) for e in merged] == [(e["index"], e["radius"]) for e in alone]


def test_a_researcher_with_a_denoised_ensemble(tmp_path: Path):
    """The defence is a module of hers; from Python it is one network, for the command a factory in her file."""
    (tmp_path / "defence.py").write_text(
        """
import torch
import caa_cli as caa


class Denoiser(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)


class Ensemble(torch.nn.Module):
    def __init__(self, members):
        super().__init__()
        self.denoiser, self.members = Denoiser(), torch.nn.ModuleList(members)

    def forward(self, x):
        x = self.denoiser(x)
        return torch.stack([member(x).log_softmax(1) for member in self.members]).mean(0)


def ensemble():
    return Ensemble([caa.load("demo", device="cpu").model for _ in range(2)])


def my_attack(classifier, images, labels, generator, steps=8):
    x = images.clone()
    for _ in range(steps):
        gradient = classifier.gradient(x, labels)
        x = (x - 0.4 * gradient / gradient.norm()).clamp(0, 1)
        if classifier.is_adversarial(x, labels):
            break
    return x
"""
    )
    python(
        tmp_path,
        """
import caa_cli as caa, torch
from defence import ensemble, my_attack

defence = caa.SmoothedClassifier(ensemble(), sigma=0.5, num_classes=10, input_shape=(1, 28, 28))
images, labels = caa.load_images("demo", indices=range(2))
cheap = dict(samples=100, verify_samples=1000, chunk_size=256)
mine = caa.attack(defence, images, labels, my_attack, **cheap)
theirs = caa.attack(defence, images, labels, "caa", iterations=8, **cheap)
assert len(mine) == len(theirs) == 2
torch.save(defence.model.state_dict(), "defence.pt")
""",
    )
    here = f"PYTHONPATH=.:{os.environ.get('PYTHONPATH', '')}"
    model = "--checkpoint defence.pt --arch defence:ensemble --dataset demo --sigma 0.5 --normalisation none"
    run(
        tmp_path,
        f"{here} caa compare {model} --limit 2 {FEW} --attacks caa,defence.py:my_attack --output compare.json",
    )
    labels = json.loads((tmp_path / "compare.json").read_text())["attacks"]
    assert set(labels) == {"caa", "defence.py:my_attack"}


def test_a_reader_of_the_paper(tmp_path: Path):
    """The paper's attack under its name beside today's, with failures that count, in LaTeX, and once more later."""
    attacks = "paper=caa:surrogate=gumbel:sample-schedule=fixed:patience=0,caa,pgd"
    run(
        tmp_path,
        f"caa compare --checkpoint demo --limit 3 {FEW} --verification intervals --attacks '{attacks}' "
        "--bootstrap 50 --output compare.json",
    )
    document = json.loads((tmp_path / "compare.json").read_text())
    assert set(document["attacks"]) == {"paper", "caa", "pgd"}
    latex = run(tmp_path, "caa compare compare.json --format latex")
    assert r"\label{tab:" in latex
    assert "paper" in latex
    run(tmp_path, "caa compare compare.json --html report.html --figure proportion.svg")
    assert "paper" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "proportion.svg").stat().st_size > 1000
