from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from nmutant_cli.cli import main
from nmutant_cli.errors import ArtifactError
from nmutant_cli.files import file_digest
from nmutant_cli.paper import published
from nmutant_cli.paper.checking import check, write_sums
from nmutant_cli.paper.claims import claims
from nmutant_cli.report.tables import to_csv


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


KIND = ["reproduced", "same conclusion"]


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_nonsense_gets_no_kind_word(dataset):
    first, second = as_ours(dataset)
    normal = first["samples"] == "normal"
    share = second["identified"] / second["n"]
    alarms = second["samples"] == "normal"
    nonsense = {
        "normal at 49%, attacks at 60 to 100%": first.assign(
            kappa_percent=np.where(normal, 49, np.linspace(60, 100, len(first)))
        )[normal | (dataset == "MNIST")],
        "all the same": first.assign(kappa_percent=50.0 if dataset == "MNIST" else 5.0),
        "a wide interval": first.assign(kappa_percent=first["kappa_percent"] / 3, ci99_percent=99),
        "label changes": second.assign(label_changes=99.0),
        "twice the mutations, 51% found, 9.9% alarms": second.assign(
            identified=(second["n"] * np.where(alarms, 0.099, 0.51)).round(),
            mutations=2 * second["mutations"],
            label_changes=99.0,
        ),
        "a tenth of the mutations": second.assign(mutations=second["mutations"] // 10),
        "half of what was found, five times the alarms": second.assign(
            identified=(second["n"] * np.where(alarms, 5 * share, share / 2)).round()
        ),
    }
    for name, table in nonsense.items():
        compare = published.compare_table1 if "step_size" in table else published.compare_table2
        verdicts = compare(table)["verdict"]
        assert not verdicts.isin(KIND).any(), (name, verdicts.tolist())


def test_the_distance_is_a_sum_of_log_ratios():
    first, second = as_ours()
    assert (published.compare_table1(first)["distance"] == 0).all()
    assert (published.compare_table2(second)["distance"] == 0).all()
    assert verdict_on("FGSM", mutations=112, label_changes=0.75)[1] == pytest.approx(2 * np.log(2))
    share = np.log(301 / 454) - np.log(367 / 454)
    assert verdict_on("FGSM", identified=300)[1] == pytest.approx(-share)
    assert verdict_on("FGSM", mutations=np.nan)[1] == np.inf
    first["kappa_percent"] = np.where(first["samples"] == "FGSM", 100.0, first["kappa_percent"])
    distance = published.compare_table1(first)["distance"]
    assert (distance == np.where(first["samples"] == "FGSM", np.inf, 0)).all()


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


def test_the_ends_of_the_better_interval_are_used_where_a_table_has_them():
    first, _ = as_ours()
    at = (first["samples"] == "FGSM") & (first["step_size"] == 1)  # 4.86 +- 0.61
    first.loc[at, "kappa_percent"] = 3.9

    def verdict(low, high):
        ends = first.assign(kappa_low=first["kappa_percent"], kappa_high=first["kappa_percent"])
        ends.loc[at, ["kappa_low", "kappa_high"]] = low, high
        return published.compare_table1(ends).loc[at, "verdict"].item()

    assert published.compare_table1(first).loc[at, "verdict"].item() == "same conclusion"
    assert verdict(3.8, 4.0) == "same conclusion"
    assert verdict(3.8, 4.7) == "reproduced"
    assert verdict(2.9, 4.0) == "same conclusion", "the end on the other side says nothing"
    assert verdict(0.1, 4.0) == "differs", "it may be no higher than the normal samples"
    assert verdict(np.nan, np.nan) == "same conclusion", "without ends, ci99_percent"


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
    return row["verdict"], row["distance"]


def test_table_2_is_held_to_the_joint_interval_to_mutations_and_to_label_changes():
    def verdict(**values):
        return verdict_on("FGSM", **values)[0]

    # 366 of 452 as published. Half the interval is 7.1 points, 32 samples.
    assert verdict(identified=366 - 32, mutations=56 * 1.19) == "reproduced"
    assert verdict(identified=366 - 33) == "same conclusion"
    assert verdict(mutations=67.9) == "reproduced", "67, rounded down as published, is 20% more"
    assert verdict(mutations=68) == "same conclusion"
    assert verdict(mutations=56 * 1.25) == "same conclusion"
    assert verdict(mutations=56 * 2.1) == "differs"
    assert verdict(mutations=56 / 2.1) == "differs"
    assert verdict(label_changes=1.5 * 1.19) == "reproduced"
    assert verdict(label_changes=1.5 / 1.25) == "same conclusion"
    assert verdict(label_changes=1.5 * 2.1) == "differs"
    assert verdict(identified=308) == "same conclusion"
    assert verdict(identified=302) == "differs"
    assert verdict(mutations=np.nan) == "differs"


def test_normal_rows_are_held_to_their_false_alarms():
    # 18 of 500 as published.
    assert verdict_on("normal", identified=36)[0] == "reproduced"
    assert verdict_on("normal", identified=38)[0] == "differs"
    assert verdict_on("normal", identified=36, mutations=132 * 1.5)[0] == "same conclusion"
    assert verdict_on("normal", identified=3)[0] == "differs", "far fewer is not the same either"
    assert verdict_on("normal", n=50, identified=4)[0] == "reproduced", "50 samples say little"


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


def test_a_row_that_differs_may_not_come_to_differ_more():
    first, second = as_ours()
    row = 4  # C&W, mu 1.2
    second["mutations"] = second["mutations"].astype(float)

    def at(mutations):
        second.loc[row, "mutations"] = mutations
        return published.compare_table2(second)

    committed = at(13 * 3.0)
    assert committed.loc[row, "verdict"] == "differs"
    assert published.worse(at(13 * 3.2), committed) == []
    (found,) = published.worse(at(13 * 3.4), committed)
    assert str(found) == "MNIST C&W mu 1.2 published: differs by 1.22, was 1.10"
    first["kappa_percent"] *= 3
    committed = published.compare_table1(first)
    first["kappa_percent"] *= 1.2
    assert len(published.worse(published.compare_table1(first), committed)) == len(first)


@pytest.mark.parametrize(
    ("values", "worse"),
    [
        ({"identified": 366 - 20, "mutations": 60.0, "label_changes": 1.6}, False),
        ({"identified": 366 - 40}, True),
        ({"mutations": 56 * 1.3}, True),
        ({"label_changes": 1.5 * 1.3}, True),
        ({"mutations": np.nan}, True),
    ],
)
def test_rows_of_other_rules_are_held_to_the_committed_values(values, worse):
    _, second = as_ours()
    second = second.assign(rule="wald").astype({"mutations": float, "label_changes": float})
    nobody = second["samples"] == "BB"
    second.loc[nobody, ["mutations", "label_changes"]] = np.nan
    committed = published.compare_table2(second)
    assert (committed["verdict"] == "").all()
    assert published.worse(committed, committed) == []
    second.loc[8, list(values)] = list(values.values())
    found = published.worse(published.compare_table2(second), committed)
    assert [f.row for f in found] == ["MNIST FGSM mu 1.2 wald"] * worse


def two_protocols():
    """The paper's rows, those of C&W asked of another network, beside worse ones of the own."""
    _, second = as_ours()
    cw = second["samples"] == "C&W"
    second = second.assign(protocol=["labels of other" if other else "own label" for other in cw])
    own = second[cw].assign(protocol="own label", label_changes=9.0)
    return pd.concat([second, own], ignore_index=True)


def test_a_verdict_is_given_to_the_protocol_of_the_paper():
    second = two_protocols()
    compared = published.compare_table2(second)
    judged = compared["verdict"] != ""
    assert (compared.loc[judged, "verdict"] == "reproduced").all()
    assert judged.sum() == 24
    assert not judged.tail(4).any()
    assert compared["published_identified"].tail(4).isna().all()
    _, once = as_ours()
    assert claims(as_ours()[0], second, 0.004).equals(claims(as_ours()[0], once, 0.004))


def test_rows_of_two_protocols_are_guarded_one_by_one():
    committed = published.compare_table2(two_protocols())
    assert published.worse(committed, committed) == []
    changed = two_protocols().assign(identified=lambda t: t["identified"] - 100 * (t.index == 26))
    (worse,) = published.worse(published.compare_table2(changed), committed)
    assert worse.row.endswith("published own label")
    gone = published.worse(published.compare_table2(as_ours()[1]), committed)
    assert {found.found for found in gone} == {"missing"}
    assert len(gone) == 28


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
    folder.mkdir(exist_ok=True, parents=True)
    first, second = as_ours()
    tables = {
        "table1": (first, published.compare_table1(first)),
        "table2": (second, published.compare_table2(second)),
    }
    entries = {}
    for name, (made, beside) in tables.items():
        entries[f"{name}.csv"] = {"sha256": hashlib.sha256(to_csv(made).encode()).hexdigest()}
        (folder / f"{name}.csv").write_text(to_csv(beside))
    (folder / "roc.csv").write_text("samples,auc_percent\nFGSM,95.0\n")
    entries["roc.csv"] = {"sha256": file_digest(folder / "roc.csv")}
    (folder / "manifest.json").write_text(json.dumps({"artefacts": entries}))
    write_sums(folder)
    return folder


def change(path, column, row, value):
    table = pd.read_csv(path)
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    table.to_csv(path, index=False)


def test_committed_results_are_in_order(tmp_path):
    assert check(commit(tmp_path / "results")) == []


@pytest.mark.parametrize(
    ("file", "column", "value", "said"),
    [
        ("table1", "kappa_percent", 30.0, "was reproduced"),
        ("table2", "identified", 100, "was reproduced"),
        ("table2", "accuracy_percent", 94.5, "manifest"),
        ("table1", "published_kappa_percent", 0.5, "not the paper's"),
        ("table2", "published_mutations", 99, "not the paper's"),
        ("roc", "auc_percent", 99, "manifest"),
    ],
)
def test_a_value_changed_by_hand_is_found(tmp_path, file, column, value, said):
    folder = commit(tmp_path / "results")
    change(folder / f"{file}.csv", column, 0, value)
    assert any("SHA256SUMS" in line for line in check(folder))
    write_sums(folder)
    complaints = check(folder)
    assert any(said in line for line in complaints)
    assert not any("SHA256SUMS" in line for line in complaints)


def test_a_file_too_many_or_too_few_is_found(tmp_path):
    folder = commit(tmp_path / "results")
    (folder / "study.csv").write_text("a\n1\n")
    (line,) = check(folder)
    assert "study.csv" in line
    assert "make renew" in line
    write_sums(folder)
    assert check(folder) == []
    (folder / "study.csv").unlink()
    (line,) = check(folder)
    assert "study.csv: missing" in line


def test_a_run_is_held_against_the_committed_results(tmp_path):
    folder = commit(tmp_path / "results")
    run = tmp_path / "run"
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
    folder = commit(tmp_path / "results")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ArtifactError, match="SHA256SUMS"):
        check(folder)


def test_report_check_makes_nothing_and_exits_with_1_if_a_row_is_worse(tmp_path):
    folder, run = commit(tmp_path / "results"), tmp_path / "run"
    arguments = ["report", "--config", "mnist", "--run-dir", str(run), "--check", str(folder)]
    nothing = CliRunner().invoke(main, arguments)
    assert nothing.exit_code == 2, "a run without tables cannot be checked"
    assert "nmutant report" in nothing.output
    assert not run.exists()
    commit(run / "compared")
    before = sorted(run.rglob("*"))
    good = CliRunner().invoke(main, arguments)
    assert good.exit_code == 0, good.output
    change(run / "compared" / "table1.csv", "kappa_percent", 2, 55.0)
    bad = CliRunner().invoke(main, arguments)
    assert bad.exit_code == 1
    assert "C&W" in bad.output
    assert sorted(run.rglob("*")) == before
    missing = CliRunner().invoke(main, [*arguments[:-1], str(tmp_path / "nowhere")])
    assert missing.exit_code == 2
    assert missing.stderr == (
        f"Error: {tmp_path / 'nowhere'}: no folder of kept results; name one with --check FOLDER\n"
    )
    (folder / "SHA256SUMS").unlink()
    unreadable = CliRunner().invoke(main, arguments)
    assert unreadable.exit_code == 2
    assert "SHA256SUMS: cannot be read (No such file or directory)" in unreadable.stderr
