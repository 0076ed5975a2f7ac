"""Detectors over several networks: every column by a literal count, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from conftest import nmutant
from scipy.stats import t
from sklearn.metrics import roc_auc_score

TITLES = {"kappa": "kappa, as configured", "softmax": "maximum softmax", "margin": "logit margin"}
SETS = {"fgsm": "FGSM", "cw": "C&W", "wl": "WL"}
SIZES = {"clean": 120, "normal": 90, "fgsm": 70, "cw": 50, "wl": 60}


def in_first_half(index):
    return int(index) * 2654435761 % 2**32 < 2**31


def written(folder, network, detectors=tuple(TITLES), shift=1.0):
    """A run folder as `nmutant compare` leaves it, of random scores; what was written, by name."""
    rng = np.random.default_rng([network, 5])
    rows = [(slug, i, 100 * k + i) for k, slug in enumerate(SIZES) for i in range(SIZES[slug])]
    frame = pd.DataFrame(rows, columns=["samples", "index", "source_index"])
    above = frame["samples"].isin(SETS) * shift
    tables = {}
    for name in detectors:
        # Few values, as label changes have.
        scores = (rng.normal(size=len(frame)) + above).round(1 if name == "kappa" else 3)
        tables[name] = frame.assign(score=scores)
    # 20 mutations; the scores are whatever they are, for they are what is read.
    changes = rng.random((len(frame), 20)) < 0.1 + 0.3 * above.to_numpy()[:, None]
    tables["kappa"]["changes"] = [" ".join("01"[int(c)] for c in row) for row in changes]
    if "margin" in tables:
        tables["margin"] = tables["kappa"].copy()
    (folder / "compare").mkdir(parents=True)
    entries = {}
    for name, table in tables.items():
        table.to_csv(folder / "compare" / f"{name}-base.csv", index=False)
        entries[f"compare/{name}-base.csv"] = {"ingredients": {"network": f"digest {network}"}}
    (folder / "manifest.json").write_text(json.dumps({"artefacts": entries}))
    asked = {"passes": 10 + network, "sequential_percent": 50 + 10 * network}
    asked |= {"sequential_alarms_percent": network, "sequential_passes": 5.0}
    rows = [
        {"detector": TITLES[name], "samples": printed, "half": half}
        | {column: value * (half == "report") for column, value in asked.items()}
        for name in detectors
        for printed in SETS.values()
        for half in ("choose", "report")
    ]
    pd.DataFrame(rows).to_csv(folder / "comparison.csv", index=False)
    return tables


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    runs = [folder / f"run{k}" for k in range(3)]
    tables = [written(run, k, shift=1 + k / 4) for k, run in enumerate(runs)]
    outcome = nmutant("study", "detectors", *map(str, runs), "--out", str(folder / "out"))
    assert outcome.code == 0, outcome
    detectors, differences = (
        pd.read_csv(folder / "out" / f"{name}.csv").set_index(["detector", "samples"])
        for name in ("detectors", "differences")
    )
    assert (folder / "out" / "figures" / "detectors.png").stat().st_size > 10_000
    return tables, detectors, differences


def parts(table, slug):
    """Clean scores, and those of the second half of the normal images and of a set."""
    second = table[[not in_first_half(i) for i in table["source_index"]]]
    of = {name: second.loc[second["samples"] == name, "score"].tolist() for name in SIZES}
    return table.loc[table["samples"] == "clean", "score"].tolist(), of["normal"], of[slug]


def mean_called(scores, clean, rate=0.05):
    limit = min(v for v in clean if sum(c > v for c in clean) <= rate * len(clean))
    share = (rate * len(clean) - sum(c > limit for c in clean)) / sum(c == limit for c in clean)
    return np.mean([1 if s > limit else share if s == limit else 0 for s in scores])


def literal(table, slug):
    clean, normal, adversarial = parts(table, slug)
    truth = [0] * len(normal) + [1] * len(adversarial)
    return 100 * roc_auc_score(truth, normal + adversarial), 100 * mean_called(adversarial, clean)


def test_every_figure_is_the_mean_over_the_networks_of_the_second_half(found):
    tables, detectors, _ = found
    assert len(detectors) == len(TITLES) * len(SETS)
    for name, title in TITLES.items():
        for slug, printed in SETS.items():
            row = detectors.loc[(title, printed)]
            values = np.array([literal(of_run[name], slug) for of_run in tables])
            for k, key in enumerate(("auc", "tpr_at_5")):
                mean, s = values[:, k].mean(), values[:, k].std(ddof=1)
                reach = t.ppf(0.975, 2) * s / np.sqrt(3)
                said = [row[f"{key}_{end}"] for end in ("percent", "lowest", "highest")]
                assert said == pytest.approx(
                    [mean, values[:, k].min(), values[:, k].max()], abs=0.006
                )
                ends = [row[f"{key}_networks_low"], row[f"{key}_networks_high"]]
                assert ends == pytest.approx([mean - reach, mean + reach], abs=0.006)
            alarms = [mean_called(p[1], p[0]) for p in (parts(one[name], slug) for one in tables)]
            assert row["alarms_at_5_percent"] == pytest.approx(100 * np.mean(alarms), abs=0.006)
            assert row["n"] == sum(len(parts(one[name], slug)[2]) for one in tables)
            assert row["networks"] == 3
            said = row[["passes", "sequential_percent", "sequential_alarms_percent"]]
            assert said.tolist() == [11, 60, 1]


def test_the_interval_over_images_is_that_of_a_literal_bootstrap(found):
    tables, detectors, differences = found
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        of_networks = []
        for of_run in tables:
            both = [parts(of_run[name], "cw") for name in ("kappa", "softmax")]
            again = [rng.integers(len(p), size=len(p)) for p in both[0]]
            kappa, softmax = (
                [[p[i] for i in which] for p, which in zip(one, again, strict=True)] for one in both
            )
            auc = []
            for _clean, normal, adversarial in (kappa, softmax):
                truth = [0] * len(normal) + [1] * len(adversarial)
                auc.append(100 * roc_auc_score(truth, normal + adversarial))
            rates = [100 * mean_called(one[2], one[0]) for one in (kappa, softmax)]
            of_networks.append((auc[1], auc[1] - auc[0], rates[1], rates[1] - rates[0]))
        drawn.append(np.mean(of_networks, axis=0))
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    row, gain = (table.loc[("maximum softmax", "C&W")] for table in (detectors, differences))
    for k, (of, key) in enumerate(
        ((row, "auc"), (gain, "auc"), (row, "tpr_at_5"), (gain, "tpr_at_5"))
    ):
        width = ends[1, k] - ends[0, k]
        said = [of[f"{key}_low"], of[f"{key}_high"]]
        assert said == pytest.approx(ends[:, k].tolist(), abs=width / 6), key


def test_a_detector_is_held_against_another_in_pairs(found):
    _, detectors, differences = found
    assert set(differences.index.get_level_values(0)) == {"maximum softmax", "logit margin"}
    same = differences.loc["logit margin"].filter(regex="^(auc|tpr)")
    assert (same == 0).all(axis=None), "it has the scores of kappa, image by image"
    for printed in SETS.values():
        gain = differences.loc[("maximum softmax", printed), "auc_gain"]
        one, other = (
            detectors.loc[(TITLES[n], printed), "auc_percent"] for n in ("softmax", "kappa")
        )
        assert gain == pytest.approx(one - other, abs=0.011)


def test_of_fewer_mutations_and_the_other_half(tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    tables = [written(run, k) for k, run in enumerate(runs)]
    more = ["--mutations", "7", "--half", "choose", "--out", str(tmp_path)]
    assert nmutant("study", "detectors", *map(str, runs), *more).code == 0
    found = pd.read_csv(tmp_path / "detectors-choose-7.csv").set_index(["detector", "samples"])
    assert (tmp_path / "differences-choose-7.csv").is_file()
    aucs = []
    for table in (one["kappa"] for one in tables):
        first = table[[in_first_half(i) for i in table["source_index"]]]
        of = [first[first["samples"] == slug]["changes"] for slug in ("normal", "wl")]
        scores = [[row.split()[:7].count("1") for row in rows] for rows in of]
        truth = [0] * len(scores[0]) + [1] * len(scores[1])
        aucs.append(100 * roc_auc_score(truth, scores[0] + scores[1]))
    row = found.loc[("kappa, as configured", "WL")]
    assert row["auc_percent"] == pytest.approx(np.mean(aucs), abs=0.006)
    assert "has 20 mutations, not 21" in refused(*runs, mutations="21")
    assert "--mutations -1: has to be positive" in refused(*runs, mutations="-1")
    assert "--half both: known are choose, report" in refused(*runs, half="both")


def test_two_networks_have_no_interval_over_networks(tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for k, run in enumerate(runs):
        written(run, k)
    assert nmutant("study", "detectors", *map(str, runs), "--out", str(tmp_path)).code == 0
    table = pd.read_csv(tmp_path / "detectors.csv")
    assert table["auc_networks_low"].isna().all()
    assert (table["auc_low"] < table["auc_high"]).all()


def refused(*runs, **options):
    more = [part for name, value in options.items() for part in (f"--{name}", value)]
    return nmutant("study", "detectors", *map(str, runs), *more).error


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    first, again, fewer, empty, damaged = (tmp_path / n for n in "abcde")
    written(first, 0)
    written(again, 0)
    written(fewer, 1, ("kappa", "softmax"))
    written(damaged, 2)
    empty.mkdir()
    (path := damaged / "compare" / "margin-base.csv").write_text(
        path.read_text().replace("wl,3,", "wl,4,", 1)
    )
    assert "two of them hold the same network" in refused(first, again)
    assert f"{fewer}: compares other detectors than {first}" in refused(first, fewer)
    assert "no scores of detectors; run nmutant compare first" in refused(empty)
    assert "margin-base.csv: holds other samples than the rest" in refused(damaged)
    assert "did you mean 'kappa'?" in refused(first, against="kapa")
    for path in (again / "compare").glob("*.csv"):
        path.write_text(path.read_text().replace("fgsm", "x").replace("cw", "y").replace("wl", "z"))
    assert "no scores of the sets of this config" in refused(again)
