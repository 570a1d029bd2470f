"""The command `gpuaug lint`: what it prints, and the exit codes that CI goes by."""

import json

import pytest
from commands import APART
from typer.testing import CliRunner

import gpuaug as ga
from gpuaug.apps.cli import app

DIGITS = ["--domain", "digits"]


def run(*arguments: object, columns: int = 160):
    return CliRunner(env={"COLUMNS": str(columns)}, **APART).invoke(app, ["lint", *map(str, arguments)])


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    ga.Policy([ga.RandomApply([ga.RandomHorizontalFlip()]), ga.RandomRotation(20)]).save(path)
    return path


def test_an_error_fails_and_a_warning_does_not_unless_it_shall(policy):
    assert run(policy).exit_code == 0
    assert run(policy, *DIGITS).exit_code == 1
    mild = (*DIGITS, "--ignore", "mirrored-writing")
    assert run(policy, *mild).exit_code == 0
    assert run(policy, *mild, "--fail-on", "warning").exit_code == 1
    assert run(policy, *mild, "--fail-on", "note").exit_code == 1
    assert run(policy, *DIGITS, "--fail-on", "never").exit_code == 0


@pytest.mark.parametrize("columns", [60, 160])
def test_the_table_shows_level_place_transform_reason_and_source(policy, columns):
    out = run(policy, *DIGITS, columns=columns).stdout
    flat = "".join(out.split())
    for part in ("error", "warning", "mirrored-writing", "tilted-character", "1 error, 1 warning for digits"):
        assert "".join(part.split()) in flat.replace("│", ""), part
    assert "Shorten" in out and max(map(len, out.splitlines())) <= columns


def test_json_is_what_lint_finds(policy):
    done = run(policy, *DIGITS, "--format", "json")
    data = json.loads(done.stdout)
    assert (
        done.exit_code == 1 and data["domain"] == "digits" and data["counts"] == {"error": 1, "warning": 1, "note": 0}
    )
    assert data["findings"] == [vars(f) for f in ga.lint(ga.Policy.load(policy), "digits")]


def test_nothing_found_is_said(policy):
    assert "nothing found for satellite" in run(policy, "--domain", "satellite").stdout


def test_a_preset_is_looked_at_by_its_name(policy):
    assert run("--preset", "weak", *DIGITS).exit_code == 1
    assert run("--preset", "digits", *DIGITS).exit_code == 0
    assert CliRunner().invoke(app, ["describe", "--preset", "weak", "--backend", "cpu"]).stdout.startswith("Policy([")


def test_rules_of_a_file_count(policy, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {name: upright, level: error, transform: rotation, reason: ours stand; leave it out}")
    done = run(policy, "--rules", rules)
    assert done.exit_code == 1 and "upright" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.yaml"], "none.yaml is not there"),
        ([], "pass a file that Policy.save wrote, or --preset NAME"),
        (["--preset", "mild"], "a preset must be one of none, weak"),
        (["--preset", "weak", "--domain", "digit"], "domain must be one of natural, text, digits"),
        (["--preset", "weak", "--fail-on", "bad"], "--fail-on must be one of error, warning, note, never"),
        (["--preset", "weak", "--format", "xml"], "--format must be one of table, json"),
        (["--preset", "weak", "--rules", "none.yaml"], "none.yaml cannot be read"),
        (["--preset", "weak", "--ignore", "none"], "ignore must name rules, got 'none'"),
    ],
)
def test_what_cannot_be_looked_at_is_one_sentence_and_another_code(arguments, says):
    done = run(*arguments)
    assert done.exit_code == 2 and done.stderr.startswith("gpuaug: ") and says in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_a_policy_comes_from_one_place(policy):
    assert run(policy, "--preset", "weak").exit_code == 2
