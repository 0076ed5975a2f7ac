from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nmutant_cli.cli import main
from nmutant_cli.errors import ArtifactError
from nmutant_cli.files import file_digest
from nmutant_cli.paper import published
from nmutant_cli.paper.checking import check
from nmutant_cli.paper.claims import claims


def as_ours(dataset="MNIST"):
    """The paper's own tables in the form of a run's."""
    first, second = published.table1(), published.table2()
    first = first[first["dataset"] == dataset].assign(n=500).reset_index(drop=True)
    second = second[second["dataset"] == dataset].assign(rule="published", undecided=0)
    second["n"] = second["adversary"].where(second["adversary"] > 0, 500)
    return first, second.reset_index(drop=True)


def test_the_tables_are_whole():
    first, second = published.table1(), published.table2()
    assert len(first) == 2 * 3 * 6
    assert len(second) == 2 * 6 * 4
    # Accuracy is what the counts say: a check on the transcription.
    attacks = second[second["adversary"] > 0]
    accuracy = 100 * attacks["identified"] / attacks["adversary"]
    # CIFAR10's WL rows were divided by 501.
    assert np.abs(accuracy - attacks["accuracy_percent"]).max() < 0.25
    normal = second[second["adversary"] == 0]
    assert np.abs(100 - normal["identified"] / 5 - normal["accuracy_percent"]).max() < 0.1


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_the_paper_reproduces_itself(dataset):
    first, second = as_ours(dataset)
    assert (published.compare_table1(first)["verdict"] == "reproduced").all()
    assert (published.compare_table2(second)["verdict"] == "reproduced").all()


def test_a_kappa_outside_the_joint_interval_keeps_the_conclusion_or_not():
    first, _ = as_ours()
    at = (first["samples"] == "FGSM") & (first["step_size"] == 1)
    joint = np.sqrt(2) * 0.61

    def verdict(kappa):
        changed = first.copy()
        changed.loc[at, "kappa_percent"] = kappa
        return published.compare_table1(changed).loc[at, "verdict"].item()

    assert verdict(4.86 + 0.99 * joint) == "reproduced"
    assert verdict(4.86 + 1.01 * joint) == "same conclusion"
    assert verdict(0.13 + 0.5) == "differs", "not above the normal samples by more than chance"
    assert verdict(np.nan) == "differs"


def test_normal_samples_above_an_attack_differ():
    first, _ = as_ours()
    at = (first["samples"] == "normal") & (first["step_size"] == 1)
    first.loc[at, "kappa_percent"] = 5.0
    verdicts = published.compare_table1(first)
    assert verdicts.loc[at, "verdict"].item() == "differs"


def test_only_the_rule_published_is_compared():
    _, second = as_ours()
    both = pd.concat([second, second.assign(rule="wald")], ignore_index=True)
    compared = published.compare_table2(both)
    wald = compared[compared["rule"] == "wald"]
    assert (wald["verdict"] == "").all()
    assert wald["published_mutations"].isna().all()


def verdict_on(samples, **values):
    _, second = as_ours()
    at = (second["samples"] == samples) & (second["mu"] == 1.2)
    changed = second.astype({"mutations": float}).copy()
    for column, value in values.items():
        changed.loc[at, column] = value
    row = published.compare_table2(changed).loc[at].iloc[0]
    return row["verdict"], row["reason"]


def test_table_2_is_held_to_the_joint_interval_and_to_the_number_of_mutations():
    # 366 of 452 as published. Half the interval is 7.1 points, 32 samples.
    assert verdict_on("FGSM", identified=366 - 32, mutations=56 * 1.19) == ("reproduced", "")
    assert verdict_on("FGSM", identified=366 - 33) == ("same conclusion", "")
    assert verdict_on("FGSM", mutations=56 * 1.25) == ("same conclusion", "")
    assert verdict_on("FGSM", mutations=56 * 2.1) == ("differs", "")
    assert verdict_on("FGSM", identified=200) == ("differs", "")
    assert verdict_on("FGSM", mutations=np.nan) == ("differs", "")


def test_normal_rows_are_held_to_their_false_alarms():
    # 18 of 500 as published.
    assert verdict_on("normal", identified=36) == ("reproduced", "")
    assert verdict_on("normal", identified=38) == ("same conclusion", "")
    assert verdict_on("normal", identified=60) == ("differs", "")
    assert verdict_on("normal", n=50, identified=4) == ("reproduced", ""), "50 samples say little"


def test_a_known_reason_stands_beside_a_row_that_differs():
    verdict, reason = verdict_on("C&W", mutations=41.0)
    assert verdict == "differs"
    assert "network other than" in reason


def test_a_worse_verdict_or_a_lost_row_is_found():
    first, _ = as_ours()
    committed = published.compare_table1(first)
    assert published.worse(committed, committed) == []
    first.loc[3, "kappa_percent"] += 3
    (found,) = published.worse(published.compare_table1(first), committed)
    assert (found.committed, found.found) == ("reproduced", "same conclusion")
    assert "JSMA" in str(found)
    assert len(published.worse(committed.drop(index=5), committed)) == 1
    # Better than committed is no matter.
    assert published.worse(committed, published.compare_table1(first)) == []
    with pytest.raises(ArtifactError, match="verdict"):
        published.worse(committed, committed.drop(columns="verdict"))


def test_the_papers_claims_hold_for_its_own_tables():
    first, second = as_ours()
    found = claims(first, second, training_error=0.004).set_index("claim")
    ratio = found[found.index.str.contains("over that of normal")]
    assert len(ratio) == 4
    assert (ratio["verdict"] == "reproduced").all()
    assert found.loc["their ratio falls with the step (Figure 4)", "verdict"] == "reproduced"
    assert found.loc["a larger mu needs fewer mutations", "verdict"] == "reproduced"
    accuracy = found.loc["average accuracy over all rows of Table 2 (%)"]
    assert accuracy["ours"] == "81.3", "the text says 77.4"
    assert accuracy["verdict"] == "reproduced"
    assert found.loc["average #Mutations over all rows of Table 2", "ours"] == "33.0"
    _, cifar = as_ours("CIFAR10")
    text = claims(as_ours("CIFAR10")[0], cifar, 0.2).set_index("claim")["ours"]
    assert text["average accuracy over all rows of Table 2 (%)"] == "76.6"
    assert text["average #Mutations over all rows of Table 2"] == "46.5"


def test_claims_that_fail_are_said_to_fail():
    first, second = as_ours()
    # The steps in reverse order: kappa falls where the paper says it rises.
    reverse = {1: 10, 5: 5, 10: 1}
    first["step_size"] = first["step_size"].map(reverse)
    second["accuracy_percent"] = 30.0
    found = claims(first, second, training_error=0.3).set_index("claim")["verdict"]
    assert found["both kappas grow with the step (1 / 5 / 10)"] == "differs"
    assert found["average accuracy over all rows of Table 2 (%)"] == "differs"
    comparable = "kappa of normal samples at step 1 is comparable to the training error"
    assert found[comparable] == "differs"


def commit(folder):
    """The paper's own tables as if they were a committed run's."""
    folder.mkdir(exist_ok=True)
    first, second = as_ours()
    published.compare_table1(first).to_csv(folder / "table1.csv", index=False)
    published.compare_table2(second).to_csv(folder / "table2.csv", index=False)
    entries = {
        f"compared/{name}.csv": {"sha256": file_digest(folder / f"{name}.csv")}
        for name in ("table1", "table2")
    }
    (folder / "manifest.json").write_text(json.dumps({"artefacts": entries}))
    return folder


def change(path, column, row, value):
    table = pd.read_csv(path)
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)


def test_committed_results_are_in_order(tmp_path):
    assert check(commit(tmp_path / "results")) == []


@pytest.mark.parametrize(
    ("table", "column", "value", "said"),
    [
        ("table1", "kappa_percent", 30.0, "was reproduced"),
        ("table2", "identified", 100, "was reproduced"),
        ("table2", "accuracy_percent", 94.5, "not the file"),
        ("table1", "published_kappa_percent", 0.5, "not the paper's"),
        ("table2", "published_mutations", 99, "not the paper's"),
    ],
)
def test_a_value_changed_by_hand_is_found(tmp_path, table, column, value, said):
    folder = commit(tmp_path / "results")
    change(folder / f"{table}.csv", column, 1, value)
    assert any(said in line for line in check(folder))


def test_a_run_is_held_against_the_committed_results(tmp_path):
    folder = commit(tmp_path / "results")
    run = tmp_path / "run"
    run.mkdir()
    assert check(folder, run) == [], "a run without tables changes nothing"
    commit(run / "compared")
    assert check(folder, run) == []
    change(run / "compared" / "table1.csv", "kappa_percent", 7, 90.0)
    (line,) = check(folder, run)
    assert "FGSM" in line
    assert "5" in line


def test_a_missing_committed_table_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="manifest"):
        check(tmp_path)
    folder = commit(tmp_path / "results")
    (folder / "table1.csv").unlink()
    with pytest.raises(ArtifactError, match="table1"):
        check(folder)


def test_report_check_makes_nothing_and_exits_with_1_if_a_verdict_is_worse(tmp_path):
    folder = commit(tmp_path / "results")
    run = tmp_path / "run"
    arguments = ["report", "--config", "mnist", "--run-dir", str(run), "--check", str(folder)]
    good = CliRunner().invoke(main, arguments)
    assert good.exit_code == 0, good.output
    change(folder / "table1.csv", "kappa_percent", 2, 55.0)
    bad = CliRunner().invoke(main, arguments)
    assert bad.exit_code == 1
    assert "C&W" in bad.output
    assert not run.exists()
    missing = CliRunner().invoke(main, [*arguments[:-1], str(tmp_path / "nowhere")])
    assert missing.exit_code == 2
