"""`lookalike train --leave-out domain` against runs and evaluations made one by one."""

import json
from pathlib import Path

import pytest

from lookalike.commands import main


def evaluated(model: str, collection: str, tmp_path: Path) -> dict:
    file = tmp_path / "scores.json"
    assert main(["evaluate", model, collection, "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_every_fold_is_a_run_without_a_domain_measured_on_it(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4"]
    argv = ["train", "pca", *given, "--out", str(tmp_path / "all"), "--leave-out", "domain"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "all" / "left-out.json").read_text())["domains"]
    untouched = evaluated(made.model, made.collection, tmp_path)
    for domain in ("tools", "toys"):
        run = tmp_path / domain
        assert main(["train", "pca", *given, "--out", str(run), "--where", f"domain != '{domain}'"]) == 0
        alone = evaluated(str(run / "model"), made.collection, tmp_path)
        mean, half = found[domain]["trained"]
        assert mean == pytest.approx(alone["per_domain"][domain]["mp@5"], abs=1e-9)
        assert half == alone["half_width_per_domain"][domain]["mp@5"]
        assert found[domain]["untouched"][0] == pytest.approx(untouched["per_domain"][domain]["mp@5"], abs=1e-9)
        assert f"{mean:.4f}" + (f" \N{PLUS-MINUS SIGN}{half:.4f}" if half is not None else "") in said
    assert found["toys"]["trained"][1] is None  # one class there, two in the other
    assert found["tools"]["trained"][1] > 0
    means = [found[domain]["trained"][0] for domain in ("tools", "toys")]
    assert found["mean over domains"]["trained"][0] == pytest.approx(sum(means) / 2)
    assert found["mean over domains"]["untouched"][0] == pytest.approx(untouched["metrics"]["mp@5"])
    difference = found["mean over domains"]["difference"][0]
    assert difference == pytest.approx(sum(means) / 2 - untouched["metrics"]["mp@5"])


def test_the_same_command_goes_on_behind_the_folds_that_are_done(made, tmp_path, capsys, monkeypatch):
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4", "--out", str(tmp_path / "all")]
    assert main(["train", "pca", *given, "--leave-out", "domain"]) == 0
    table = capsys.readouterr().out
    (tmp_path / "all" / "02-toys" / "left-out.json").unlink()
    from lookalike.training import loop

    begun, real = [], loop.train
    monkeypatch.setattr(loop, "train", lambda config, *a, **k: begun.append(config.out) or real(config, *a, **k))
    assert main(["train", "pca", *given, "--leave-out", "domain"]) == 0
    assert capsys.readouterr().out == table
    assert begun == [str(tmp_path / "all" / "02-toys")]


def test_one_domain_leaves_nothing_to_learn_from(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", made.model, "--out", str(tmp_path / "run")]
    assert main(["train", "pca", *given, "--where", "domain = 'toys'", "--leave-out", "domain"]) == 2
    assert "`--leave-out domain` needs two domains" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
