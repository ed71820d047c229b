"""The benchmark: what it plans, that it goes on where it was stopped, and what it says of the figures."""

import csv
import io
import json

import pytest

from kdkeras import benchmark, datasets
from kdkeras.benchmark import plan
from kdkeras.benchmark.networks import PAIRS
from kdkeras.benchmark.training import compiled

TINY = benchmark.Settings("digits", images=128, epochs=1, teacher_epochs=1, explained=8)


def test_plan_has_both_baselines_and_the_losses_that_suit_each_pair():
    cells = plan.cells(["hints"], 2)
    assert [cell.loss for cell in cells if cell.pair == "same family" and cell.seed == 1] == [
        "student_alone",
        "soft_targets",
        "hints",
    ]
    assert not [cell for cell in cells if cell.pair == "transformer"]
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((["hint"], 1), "no loss 'hint'"), ((["hints"], 0), "at least one seed")],
)
def test_plan_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan.cells(*arguments)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 8, 1)], ids=str)
def test_teacher_and_student_have_layers_of_the_same_names(pair, shape):
    teacher, student = pair.teacher(shape, 10), pair.student(shape, 10)
    assert student.count_params() < teacher.count_params() / 5
    names = {layer.name for layer in student.layers} & {layer.name for layer in teacher.layers}
    wanted = {"stage1", "norm3", "stage3"} if pair.kind == "convolution" else {"attention2", "hidden2", "embedding"}
    assert wanted | {"pool", "logits"} <= names


def test_factors_on_the_weights_are_runs_of_their_own():
    cells = plan.cells(["hints"], 1, ["same family"], [1, 0.1])
    assert [cell.label for cell in cells] == ["student_alone", "soft_targets", "hints", "hints × 0.1"]
    assert cells[-1].key == "same-family--hints-x0.1--0"
    with pytest.raises(ValueError, match="factors above 0"):
        plan.cells(["hints"], 1, factors=[0])


def test_a_factor_multiplies_the_weight_of_the_recipe():
    data = datasets.load("digits")
    pair = PAIRS[0]
    weights = []
    for factor in (1.0, 0.1):
        student, teacher = (make(data.input_shape, data.num_classes) for make in (pair.student, pair.teacher))
        model = compiled(plan.Cell(pair.name, "hints", 0, factor), student, teacher, data, TINY)
        weights.append(model.distillation_losses[-1].weight)
    assert weights[1] == pytest.approx(0.1 * weights[0])


def test_pairs_can_be_chosen():
    assert {cell.pair for cell in plan.cells(["hard_targets"], 1, ["transformer"])} == {"transformer"}
    with pytest.raises(ValueError, match=r"knows the pairs same family, .* Received: mine"):
        plan.cells(["hard_targets"], 1, ["mine"])


def test_a_benchmark_goes_on_where_it_was_stopped(tmp_path):
    def go(settings=TINY):
        lines = []
        arguments = {"seeds": 1, "pairs": ["same family"], "settings": settings, "progress": lines.append}
        return benchmark.run("digits", ["hints"], tmp_path, **arguments), lines

    first, lines = go()
    assert [run["loss"] for run in first.runs] == ["student_alone", "soft_targets", "hints"]
    assert lines[0].startswith("3 runs, 0 of them finished before")
    assert lines[1] == "[teacher 1/1] convolution · seed 0"
    assert lines[-1].startswith("[3/3] same family · hints · seed 0: accuracy ")
    for run in first.runs:
        assert 0 <= run["last"]["accuracy"] <= 1
        assert run["last"]["explanation"] is not None
    table = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert [float(line["accuracy"]) for line in table] == [run["last"]["accuracy"] for run in first.runs]
    assert "Same family" in (tmp_path / "report.html").read_text()
    assert benchmark.load(tmp_path).table("same family") == first.table("same family")

    (tmp_path / "runs" / "same-family--hints--0.json").write_text("{")  # as a full disk leaves it
    second, lines = go()
    assert lines[0].startswith("3 runs, 2 of them finished before")
    assert second.runs[:2] == first.runs[:2]
    assert second.runs[2]["last"] == pytest.approx(first.runs[2]["last"], abs=1e-4)
    with pytest.raises(ValueError, match="runs of other settings"):
        go(benchmark.Settings("digits", images=64))


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "record.json").write_text('{"runs": []}')
    with pytest.raises(ValueError, match="not the record of a benchmark"):
        benchmark.load(tmp_path)


def made_up(loss, seed, accuracy, step_ms=2.0):
    last = {"accuracy": accuracy, "agreement": 0.9, "kl_to_teacher": 0.1, "valid_accuracy": 0.8}
    best = {**last, "epoch": 1}
    sizes = {"student": 1, "teacher": 10}
    run = {"pair": "same family", "loss": loss, "seed": seed, "last": last, "best": best}
    return {**run, "step_ms": step_ms, "seconds": 1.0, "teacher_accuracy": 0.9, "parameters": sizes}


def test_rows_are_means_over_seeds_with_a_verdict(tmp_path):
    runs = [made_up("student_alone", seed, 0.8, step_ms=1.0) for seed in range(3)]
    runs += [made_up("soft_targets", seed, accuracy) for seed, accuracy in enumerate([0.80, 0.82, 0.84])]
    runs += [made_up("dist", seed, accuracy) for seed, accuracy in enumerate([0.831, 0.852, 0.869])]
    runs += [made_up("hints", seed, accuracy) for seed, accuracy in enumerate([0.85, 0.82, 0.83])]
    found = benchmark.BenchmarkResult(TINY, tuple(runs), len(runs), tmp_path)
    rows = {row.loss: row for row in found.rows}
    figure = rows["soft_targets"].figures["accuracy"]
    assert (figure.mean, figure.sd, figure.n) == (pytest.approx(0.82), pytest.approx(0.02), 3)
    assert rows["dist"].figures["cost"].mean == pytest.approx(2.0)
    assert rows["dist"].figures["explanation"] is None
    # Differences .031, .032, .029: t = 35 at two degrees of freedom; .05, 0, -.01: t = .7.
    assert {loss: row.verdict for loss, row in rows.items() if loss != "student_alone"} == {
        "soft_targets": "",
        "dist": "better",
        "hints": "even",
    }
    assert found.teacher("same family").shown(100, 1) == "90.0 ± 0.0"
    header, *lines = found.table("same family")
    assert header[:2] == ("loss", "accuracy, %")
    assert lines[0][:2] == ("dist", "85.07 ± 1.90")


def test_one_seed_has_no_verdict_and_the_page_says_so(tmp_path):
    runs = tuple(made_up(loss, 0, 0.8) for loss in ("student_alone", "soft_targets", "hints"))
    found = benchmark.BenchmarkResult(TINY, runs, 3, tmp_path)
    assert {row.verdict for row in found.rows} == {""}
    benchmark.write(found)
    assert "One seed tells nothing about differences" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "record.json").read_text())["runs"] == list(runs)


def test_runs_of_other_settings_are_told_by_their_hash():
    assert TINY.fingerprint() != benchmark.Settings("digits", images=64).fingerprint()
    assert TINY.fingerprint() == benchmark.Settings("digits", 128, 1, 1, explained=8).fingerprint()
