"""Figures of agreement against those of scikit-learn, statsmodels and krippendorff, on tables drawn at random."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from enrich.measure import agreement, intervals
from enrich.measure.scores import label_figures
from tests.test_integrations import fresh_environment

if TYPE_CHECKING:
    from pathlib import Path

TABLES = 60
# Reads what two or more judges said, one JSON object a line, and writes what the libraries make of it.
SCRIPT = """
import json, sys, warnings
import krippendorff
import numpy as np
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint
warnings.filterwarnings("ignore")
for line in sys.stdin:
    said = json.loads(line)
    gold, answers = said["gold"], said["answers"]
    names = sorted({*gold, *answers})
    table = [[sum(g == a and x == b for g, x in zip(gold, answers)) for b in names] for a in names]
    precision, recall, _, _ = precision_recall_fscore_support(gold, answers, labels=names, zero_division=np.nan)
    judged = np.array([[np.nan if v is None else v for v in one] for one in said["judged"]], dtype=float)
    right = sum(g == a for g, a in zip(gold, answers))
    print(json.dumps({
        "accuracy": accuracy_score(gold, answers),
        "kappa": cohen_kappa_score(gold, answers),
        "kappa_of_statsmodels": cohens_kappa(np.array(table)).kappa,
        "precision": dict(zip(names, precision.tolist())),
        "recall": dict(zip(names, recall.tolist())),
        "nominal": krippendorff.alpha(judged, level_of_measurement="nominal"),
        "interval": krippendorff.alpha(judged, level_of_measurement="interval"),
        "wilson": proportion_confint(right, len(gold), method="wilson"),
    }))
"""


def drawn(chance: np.random.Generator) -> dict[str, Any]:
    """Draw labels by hand and answers, and what some judges say of rows that each may leave out."""
    labels, rows, judges = (
        int(chance.integers(2, 7)),
        int(chance.integers(8, 300)),
        int(chance.integers(2, 6)),
    )
    gold = chance.integers(0, labels, rows)
    answers = np.where(chance.random(rows) < chance.random(), gold, chance.integers(0, labels, rows))
    judged = np.where(
        chance.random((judges, rows)) < 0.7, gold, chance.integers(0, labels, (judges, rows))
    ).astype(object)
    judged[chance.random((judges, rows)) < 0.2] = None
    texts = [[f"label {value}" for value in one] for one in (gold, answers)]
    return {"gold": texts[0], "answers": texts[1], "judged": judged.tolist()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_figures_are_those_of_the_libraries(tmp_path: Path) -> None:
    """Accuracy, precision, recall, both kappas, both alphas with rows left out, and Wilson's interval: to the tenth digit."""
    chance = np.random.default_rng(2026)
    cases = [drawn(chance) for _ in range(TABLES)]
    python = fresh_environment(
        tmp_path / "env", "scikit-learn>=1.7", "statsmodels>=0.14", "krippendorff>=0.8"
    )
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    done = subprocess.run([python, "-c", SCRIPT], input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == TABLES
    for case, theirs in zip(cases, told, strict=True):
        figures, labels = label_figures(Counter(zip(case["gold"], case["answers"], strict=True)))
        assert figures["accuracy"].value == pytest.approx(theirs["accuracy"], abs=1e-10)
        assert figures["kappa"].value == pytest.approx(theirs["kappa"], abs=1e-10)
        assert figures["kappa"].value == pytest.approx(theirs["kappa_of_statsmodels"], abs=1e-10)
        for label in labels:
            for ours, name in ((label.precision, "precision"), (label.recall, "recall")):
                wanted = theirs[name][label.label]
                assert (np.nan if ours.value is None else ours.value) == pytest.approx(
                    wanted, abs=1e-10, nan_ok=True
                )
        judged = np.array([[np.nan if value is None else value for value in one] for one in case["judged"]])
        assert agreement.alpha(judged) == pytest.approx(theirs["nominal"], abs=1e-10)
        assert agreement.alpha(judged, "interval") == pytest.approx(theirs["interval"], abs=1e-10)
        right = sum(gold == answer for gold, answer in zip(case["gold"], case["answers"], strict=True))
        assert intervals.of_share(right, len(case["gold"])) == pytest.approx(
            tuple(theirs["wilson"]), abs=1e-10
        )
