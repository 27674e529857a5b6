"""`lookalike train --leave-out domain` against runs and evaluations made one by one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lookalike.commands import main
from lookalike.data.collection import Collection


def evaluated(model: str, collection: str, tmp_path: Path) -> dict:
    file = tmp_path / "scores.json"
    assert main(["evaluate", model, collection, "--json", str(file)]) == 0
    return json.loads(file.read_text())


def test_every_fold_is_a_run_without_a_domain_measured_on_it(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4"]
    argv = ["train", "pca", *given, "--out", str(tmp_path / "all"), "--leave-out", "domain"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    document = json.loads((tmp_path / "all" / "left-out.json").read_text())
    found, means = {fold["domain"]: fold for fold in document["folds"]}, document["mean"]
    untouched = evaluated(made.model, made.collection, tmp_path)
    for domain in ("tools", "toys"):
        run = tmp_path / domain
        assert main(["train", "pca", *given, "--out", str(run), "--where", f"domain != '{domain}'"]) == 0
        alone = evaluated(str(run / "model"), made.collection, tmp_path)
        mean, half = (found[domain]["trained"][name] for name in ("value", "half_width"))
        assert mean == pytest.approx(alone["per_domain"][domain]["mp@5"], abs=1e-9)
        assert half == alone["half_width_per_domain"][domain]["mp@5"]
        assert found[domain]["n_queries"] == alone["per_domain"][domain]["n_queries"]
        assert (Path(found[domain]["run"]) / "model").is_dir()
        before = found[domain]["untouched"]["value"]
        assert before == pytest.approx(untouched["per_domain"][domain]["mp@5"], abs=1e-9)
        assert f"{mean:.4f}" + (f" \N{PLUS-MINUS SIGN}{half:.4f}" if half is not None else "") in said
    assert found["toys"]["trained"]["half_width"] is None  # one class there, two in the other
    assert found["tools"]["trained"]["half_width"] > 0
    mean = sum(found[domain]["trained"]["value"] for domain in ("tools", "toys")) / 2
    assert means["trained"]["value"] == pytest.approx(mean)
    assert means["untouched"]["value"] == pytest.approx(untouched["metrics"]["mp@5"])
    assert means["difference"]["value"] == pytest.approx(mean - untouched["metrics"]["mp@5"])


def test_the_table_is_a_document_too(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4", "--out", str(tmp_path / "all")]
    argv = ["train", "pca", *given, "--leave-out", "domain", "--json"]
    assert main([*argv, "-"]) == 0
    told = json.loads(capsys.readouterr().out)  # nothing beside it
    assert told == json.loads((tmp_path / "all" / "left-out.json").read_text())
    assert main([*argv, str(tmp_path / "found.json")]) == 0
    assert capsys.readouterr().out.startswith("domain never seen")
    assert json.loads((tmp_path / "found.json").read_text()) == told


def test_without_left_out_domains_the_document_is_the_measurement(made, tmp_path, capsys):
    given = ["--data", made.collection, "--model", made.model, "--dimension", "4", "--out", str(tmp_path / "run")]
    assert main(["train", "pca", *given, "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    alone = evaluated(told["model"], made.collection, tmp_path)
    for name in ("per_domain", "metrics", "half_width", "half_width_per_domain", "n_queries"):
        assert told["test"][name] == alone[name], name
    assert told["verdict"]["trained"] == alone["metrics"]["mp@5"]
    capsys.readouterr()
    assert main(["train", "pca", *given, "--json", str(tmp_path / "again.json")]) == 0  # the run is finished
    assert capsys.readouterr().out == f"{told['model']}\n"
    assert json.loads((tmp_path / "again.json").read_text()) == told


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


def test_a_table_is_of_one_config_and_of_one_collection(made, tmp_path, capsys):
    data = shutil.copytree(made.collection, tmp_path / "coll")
    given = ["--data", str(data), "--model", made.model, "--out", str(tmp_path / "all"), "--leave-out", "domain"]
    assert main(["train", "pca", *given, "--dimension", "4"]) == 0
    capsys.readouterr()
    assert main(["train", "pca", *given, "--dimension", "3"]) == 2
    assert "was started with dimension 4, and this command says 3" in capsys.readouterr().err
    Collection.open(data).mark_gone(np.array([95]))  # one that is measured on
    assert main(["train", "pca", *given, "--dimension", "4"]) == 2
    assert "was measured before the rows of" in capsys.readouterr().err
