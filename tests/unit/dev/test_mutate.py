"""`make mutate`: its rules exist, its results are those of the tests, and its page has a row for each rule."""

import sys
from pathlib import Path

import pytest

from dev import mutate
from dev.mutate import Mutant, Rule, Score, rules

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_each_rule_names_existing_lines_and_tests_and_has_a_row_on_the_page(rule: Rule) -> None:
    source = (ROOT / rule.file).read_text()
    lines = {line.strip() for line in source.splitlines()}
    assert [change for change in rule.equivalent if change.partition(" => ")[0] not in lines] == []
    assert [path for path in rule.tests if path.startswith("tests/") and not (ROOT / path).is_file()] == []
    rows = [line for line in mutate.PAGE.read_text().splitlines() if line.startswith(f"| {rule.name} |")]
    assert len(rows) == 1
    assert f"`{rule.file}`" in rows[0]


def test_mutants_are_killed_survive_or_fail_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a rule with its test, a project of its own
    package = tmp_path / "shared" / "doubling"
    package.mkdir(parents=True)
    (package / "rule.py").write_text("def double(n):\n    return 2 * n\n")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["shared"]\n')
    test = tmp_path / "test_rule.py"
    test.write_text("from doubling.rule import double\n\ndef test_it():\n    assert double(2) == 4\n")
    monkeypatch.setattr(mutate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    rule = Rule("double", "shared/doubling/rule.py", ("--noconftest", f"--rootdir={tmp_path}", str(test)))

    # When its tests run on mutants
    sources = (
        "def double(n):\n    return 3 * n\n",
        "def double(n):\n    return 2 ** n\n",
        "def double(n: int - None):\n    return 2 * n\n",
        "import os, signal\ndef double(n):\n    os.kill(os.getpid(), signal.SIGXCPU)\n",  # as one that never ends
    )
    found = dict(mutate.attempts(rule, sources, jobs=2))

    # Then each has its result, and the file is as it was
    assert found == {0: "killed", 1: "survived", 2: "not imported", 3: "killed"}
    assert "2 * n" in (package / "rule.py").read_text()


def test_survivors_and_obsolete_equivalents_are_reported() -> None:
    rule = Rule("cron", "shared/nexus/cron.py", ())
    mutant = Mutant(7, "return a + b", "return a - b", "")
    scores = [Score(rule, killed=8, equivalent=3, survivors=(mutant, mutant), wrong=("x => y",))]
    first, _, wrong = mutate.report(scores)
    assert first == "shared/nexus/cron.py:7: survived\n    return a + b\n    return a - b"
    assert "x => y" in wrong
    assert scores[0].row == ("cron", "`shared/nexus/cron.py`", "13", "8", "3", "2", "80%")


def test_running_one_rule_keeps_the_rows_of_the_others() -> None:
    page = "| scores | `c` | 1 | 1 | 0 | 0 | 100% |\n| ranking | `r` | 2 | 1 | 0 | 1 | 50% |"
    ran = Score(Rule("ranking", "r", ()), killed=2, equivalent=0, survivors=(), wrong=())
    *_, ranking, scores = sorted(mutate.table([ran], page).splitlines(), key=lambda line: "scores" in line)
    assert scores == "| scores | `c` | 1 | 1 | 0 | 0 | 100% |"
    assert ranking == "| ranking | `r` | 2 | 2 | 0 | 0 | 100% |"
