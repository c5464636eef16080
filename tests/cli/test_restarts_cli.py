"""`--restarts` from the command line: what is said before, what is recorded, and what it costs."""

from __future__ import annotations

import json

from support import CHEAP, caa, parse_strict


def test_restarts_are_announced_counted_and_recorded(tmp_path):
    words = ("--limit", "2", "--attack", "pgd", "--pgd-epsilon", "0.5")
    documents, plans = {}, {}
    for restarts in ("1", "3"):
        output = tmp_path / f"{restarts}.json"
        result = caa("attack", *CHEAP[:4], *words, "--restarts", restarts, "--output", output)
        assert result.exit_code == 0, result.output
        assert ("the nearest of 3 searches" in result.stderr) == (restarts == "3")
        documents[restarts] = parse_strict(output.read_text(encoding="utf-8"))
        dry = caa("attack", *CHEAP[:4], *words, "--restarts", restarts, "--dry-run", "--json")
        plans[restarts] = parse_strict(dry.stdout)
    one, three = documents["1"], documents["3"]
    assert three["config"]["restarts"] == 3
    most = {restarts: plan["backward_evaluations_at_most"] for restarts, plan in plans.items()}
    assert most["3"] == 3 * most["1"]
    for before, after in zip(one["examples"], three["examples"], strict=True):
        assert before["backward_evaluations"] < after["backward_evaluations"] <= most["3"] / 2
        assert before["forward_evaluations"] < after["forward_evaluations"]
        assert after["radius_search"] <= before["radius_search"]


def test_each_attack_of_a_comparison_has_its_own_restarts_and_older_results_had_one(tmp_path):
    output, words = tmp_path / "c.json", (*CHEAP[:4], "--limit", "1", "--pgd-epsilon", "0.5")
    result = caa("compare", *words, "--attacks", "pgd,pgd:restarts=2", "--output", output)
    assert result.exit_code == 0, result.output
    once, twice = (
        parse_strict(path.read_text(encoding="utf-8")) for path in sorted(tmp_path.glob("c.pgd*.json"), reverse=True)
    )
    assert [document["config"]["restarts"] for document in (once, twice)] == [1, 2]
    assert once["fingerprint"] != twice["fingerprint"]
    del once["config"]["restarts"]
    older = tmp_path / "older.json"
    older.write_text(json.dumps(once), encoding="utf-8")
    again = caa("attack", *words, "--attack", "pgd", "--output", older, "--resume")
    assert again.exit_code == 0, again.output
    changed = caa("attack", *words, "--attack", "pgd", "--restarts", "2", "--output", older, "--resume")
    assert changed.exit_code == 2
    assert "restarts (1 there, 2 here)" in changed.stderr
