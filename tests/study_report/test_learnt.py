"""What the report says and shows of the parameters: sentences the trials bear out, pictures that change with them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_study import LITE, METRIC, MOBILE, drawn_study, result
from PIL import Image

from cabruca.config.study import Study
from cabruca.distributed.importance import importances
from cabruca.study_report import plots_space, write_report
from cabruca.study_report.evaluator import Importances
from cabruca.study_report.learnt import learnt
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal, read
from cabruca.tracking.study_state import StudyState


def long_study(folder: Path) -> tuple[Study, StudyDir, StudyState]:
    """Twenty further trials: the value is a function of the learning rate, and hardly of the backbone."""
    study, study_dir = drawn_study(folder)
    study_dir.results.unlink()
    journal = Journal(study_dir.results)
    for n in range(20):
        rate = 5e-5 * 40 ** (n / 19)
        journal.append({"event": "asked", "trial": n, "params": {"optimizer.lr": rate, "model.backbone": _name(n)}})
        journal.append({"event": "started", "trial": n})
        journal.append(result(n, 1, {METRIC: n / 20 + 0.002 * (_name(n) == LITE)}))
        stopped = n % 5 == 0
        if stopped:
            journal.append({"event": "decided", "trial": n, "epoch": 1, "decision": "stop", "rung": 1, "by": "asha"})
        else:
            journal.append(result(n, 9, {METRIC: n / 20}))
        ended = {"state": "stopped" if stopped else "finished", "epoch": 1 if stopped else 9}
        journal.append({"event": "ended", "trial": n, "values": None, "reason": "", **ended})
    journal.close()
    return study, study_dir, read(study_dir.results)


def _name(n: int) -> str:
    return (LITE, MOBILE)[(n // 2) % 2]


def size(data: bytes | None) -> tuple[int, int]:
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
        return image.size


def test_importance_finds_the_parameter_that_matters(tmp_path: Path) -> None:
    study, _, state = long_study(tmp_path)
    judged = importances(study, state)
    found = judged.shares
    assert judged.by == "fANOVA"
    assert list(found) == ["optimizer.lr", "model.backbone"]
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["optimizer.lr"] > 0.9


def test_the_report_names_who_judged_the_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, study_dir, state = long_study(tmp_path)
    for by, other in (("fANOVA", "PED-ANOVA"), ("PED-ANOVA", "fANOVA")):
        if by == "PED-ANOVA":
            _without_scikit_learn(monkeypatch)
        judged = importances(study, state)
        text = write_report(study, study_dir, state, judged).read_text(encoding="utf-8")
        assert (judged.by, text.count(by), text.count(other)) == (by, 2, 0)
        assert next(iter(judged.shares)) == "optimizer.lr"


def _without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise ImportError("Tried to import 'sklearn'")

    monkeypatch.setattr("optuna.importance.FanovaImportanceEvaluator", missing)


def test_few_or_equal_trials_have_no_importance(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    assert importances(study, read(study_dir.results)) == Importances()
    study, study_dir, state = long_study(tmp_path / "more")
    for trial in state.trials.values():
        trial.results = [trial.results[0].__class__(1, 1, {METRIC: 0.5})]
        trial._best = None
    assert importances(study, state) == Importances()


def test_importance_leaves_optuna_s_voice_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    study, _, state = long_study(tmp_path)
    importances(study, state)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


def test_sentences_of_a_study(tmp_path: Path) -> None:
    study, _, state = long_study(tmp_path)
    again = [
        {"trial": 19, "values": [0.9, 0.94], "mean": 0.92, "deviation": 0.03, "study_value": 0.95},
        {"trial": 18, "values": [0.9, 0.9], "mean": 0.9, "deviation": 0.01, "study_value": 0.9},
    ]
    text = "\n".join(learnt(study, state, again, Importances({"optimizer.lr": 0.93, "model.backbone": 0.07}, "fANOVA")))
    assert "between 20 trials the parameters explain: optimizer.lr 93%, model.backbone 7%" in text
    best = re.search(r"optimizer\.lr: the best third of the trials lies between (\S+) and (\S+); tried", text)
    assert best is not None
    assert (float(best[1]), float(best[2])) == (pytest.approx(5e-5 * 40 ** (13 / 19), rel=1e-3), pytest.approx(2e-3))
    assert f"{LITE} 0." in text
    # a trial that ran all 9 epochs is best at 9 or at 1, one in five was stopped after 1
    assert "asha stopped 4 of 20 trials early: 32 of 180 epochs were not run" in text
    assert "differ by less than 0.06 are not told apart" in text


def test_medians_are_of_the_best_values(tmp_path: Path) -> None:
    study, _, state = long_study(tmp_path)
    groups: dict[str, list[float]] = {LITE: [], MOBILE: []}
    for n, trial in state.trials.items():
        best = trial.best(study)
        assert best is not None
        groups[_name(n)].append(best.value)
    (line,) = [line for line in learnt(study, state, [], Importances()) if line.startswith("model.backbone")]
    for name, values in groups.items():
        assert f"{name} {float(np.median(values)):.4g} ({len(values)} trials)" in line


def test_few_trials_say_so_and_none_say_nothing(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    state = read(study_dir.results)
    text = "\n".join(learnt(study, state, [], Importances()))
    assert "4 trials with a value are too few to say which parameters mattered." in text
    assert learnt(study, StudyState(), [], Importances()) == []


def test_pictures_of_the_space(tmp_path: Path) -> None:
    study, _, state = long_study(tmp_path)
    shares = {"optimizer.lr": 0.9, "model.backbone": 0.1}
    for picture in (
        plots_space.importance(shares),
        plots_space.together(study, state, shares),
        plots_space.parallel(study, state),
        plots_space.rungs(study, state),
        plots_space.timeline(state),
    ):
        assert min(size(picture)) > 100


def test_pictures_of_nothing_are_none(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    nothing = StudyState()
    made: list[Any] = [plots_space.importance({}), plots_space.together(study, nothing, {})]
    made += [plots_space.parallel(study, nothing), plots_space.rungs(study, nothing), plots_space.timeline(nothing)]
    assert made == [None] * 5
    state = read(study_dir.results)
    for trial in state.trials.values():
        trial.params.pop("model.backbone")  # as of a space that has changed
    assert plots_space.together(study, state, {}) is None
    assert plots_space.parallel(study, state) is not None


def test_the_page_has_them_and_a_dark_face(tmp_path: Path) -> None:
    study, study_dir, state = long_study(tmp_path)
    text = write_report(study, study_dir, state, importances(study, state)).read_text(encoding="utf-8")
    for title in ("What was learnt", "What mattered", "Two parameters together", "All parameters together",
                  "When trials ran"):  # fmt: skip
        assert f"<h2>{title}</h2>" in text, title
    assert "prefers-color-scheme: dark" in text
    assert "http" not in re.sub(r'src="data:[^"]*"', "", text), "nothing is fetched"
