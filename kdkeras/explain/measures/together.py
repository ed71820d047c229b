"""All measures of an explanation against its model, in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kdkeras.explain.explanation import Explanation
from kdkeras.explain.measures.attributions import is_constant, is_zero, question
from kdkeras.explain.measures.concentration import complexity, sparseness
from kdkeras.explain.measures.curves import PerturbationCurve, deletion_curve, insertion_curve
from kdkeras.explain.measures.explainers import Explains, explainer_of
from kdkeras.explain.measures.fidelity import correlate, squared_error, subset_drops, subset_sums
from kdkeras.explain.measures.pointing import pointing_game
from kdkeras.explain.measures.randomisation import Randomisation, model_randomisation
from kdkeras.explain.measures.stability import changes
from kdkeras.explain.measures.subsets import Subsets
from kdkeras.explain.method import Method
from kdkeras.explain.subject import Subject
from kdkeras.explain.summary import Summary, plain, shown, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name in words, and what is better.
_MEASURES = {
    "deletion": ("deletion area", "lower"),
    "insertion": ("insertion area", "higher"),
    "mu_fidelity": ("mu-fidelity", "higher"),
    "infidelity": ("infidelity, rescaled", "lower"),
    "max_sensitivity": ("max-sensitivity", "lower"),
    "average_stability": ("average stability", "lower"),
    "sparseness": ("sparseness", "–"),
    "complexity": ("complexity", "–"),
    "pointing_game": ("pointing game", "higher"),
}


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How true an explanation is of its model, measure by measure.

    Attributes:
        model: Name of the model.
        method: Name of the method, `""` where the attributions came without one.
        target: Index of the unit that was explained, shape `(n,)`.
        measures: Value of each sample, shape `(n,)`, by name: `"deletion"` and `"insertion"` (areas), `"mu_fidelity"`,
            `"infidelity"` (rescaled), `"max_sensitivity"` and `"average_stability"` where the samples could be
            explained again, `"sparseness"`, `"complexity"`, and `"pointing_game"` where regions were given. NaN where
            a measure is not defined.
        deletion: The deletion curves.
        insertion: The insertion curves.
        randomisation: The `Randomisation`, or `None` where it was not asked for.
        control: The same of random maps, uniform in [0, 1], for the first four measures: what they are worth where
            nothing is explained. `None` where it was not asked for.
        zeros: Number of attributions that are zero everywhere: NaN in every measure.
        constants: Number of attributions that are constant but not zero: NaN in what needs an order.
    """

    model: str
    method: str
    target: np.ndarray = field(repr=False)
    measures: dict[str, np.ndarray] = field(repr=False)
    deletion: PerturbationCurve = field(repr=False)
    insertion: PerturbationCurve = field(repr=False)
    randomisation: Randomisation | None = field(repr=False)
    control: Faithfulness | None = field(repr=False)
    zeros: int
    constants: int

    @property
    def summary(self) -> dict[str, Summary]:
        """The `Summary` of each measure, by name: mean, standard deviation, number, and `interval`."""
        return {name: summarise(values) for name, values in self.measures.items()}

    def table(self) -> list[tuple[str, ...]]:
        """Return the means as text: a header, then one line per measure."""
        header = ("measure", "mean", "95 % interval", "better", "random maps", "samples")
        controls = {} if self.control is None else self.control.summary
        lines = []
        for name, summary in self.summary.items():
            words, better = _MEASURES[name]
            low, high = summary.interval
            interval = "–" if np.isnan(low) else f"{low:.3f} … {high:.3f}"
            chance = shown(controls[name].mean) if name in controls else ""
            lines.append((words, shown(summary.mean), interval, better, chance, f"{summary.n}"))
        return [header, *lines]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain Python values, ready for JSON: NaN becomes `None`."""
        return {
            "model": self.model,
            "method": self.method,
            "n": len(self.target),
            "zeros": self.zeros,
            "constants": self.constants,
            "target": self.target.tolist(),
            "summary": {
                name: {
                    "mean": plain(each.mean),
                    "sd": plain(each.sd),
                    "interval": [plain(end) for end in each.interval],
                    "n": each.n,
                }
                for name, each in self.summary.items()
            },
            "measures": {name: [plain(value) for value in values] for name, values in self.measures.items()},
            "randomisation": None if self.randomisation is None else self.randomisation.to_dict(),
            "control": None if self.control is None else self.control.to_dict(),
        }

    def __str__(self) -> str:
        from tabulate import tabulate

        header, *lines = self.table()
        aligned = ("left", "right", "right", "left", "right", "right")
        table = tabulate(lines, header, disable_numparse=True, colalign=aligned)
        said = f"attributions: {self.zeros} zero everywhere, {self.constants} constant; left out where undefined"
        more = "" if self.randomisation is None else f"\n\n{self.randomisation}"
        return f"{self.method or 'attributions'} of {len(self.target)} samples by '{self.model}'\n{table}\n{said}{more}"

    def plot(self) -> Figure:
        """Draw the mean deletion and insertion curves with the 95 % confidence intervals of the means.

        Dashed are those of random maps, where they were measured.

        Returns:
            A matplotlib `Figure`, not registered with pyplot.

        Raises:
            ValueError: All attributions are constant.
        """
        from kdkeras.explain.measures.curve_pictures import curve_panels

        controls = () if self.control is None else (self.control.deletion, self.control.insertion)
        return curve_panels([self.deletion, self.insertion], controls)


def faithfulness(
    model: keras.Model,
    x: Any,
    explanation: Explanation | Any,
    target: Any = None,
    *,
    explainer: str | Method | Explanation | Explains | None = None,
    boxes: Sequence[Any] | None = None,
    masks: Any = None,
    randomise: bool = False,
    control: bool = True,
    baseline: Any = 0.0,
    reveal: Any = None,
    steps: int = 50,
    samples: int = 200,
    share: float = 0.2,
    grid: int = 9,
    radius: float = 0.02,
    neighbours: int = 10,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 0,
) -> Faithfulness:
    """Measure whether an explanation is true of the model that it explains.

    Deletion and insertion act on the probability of the target, mu-fidelity and infidelity on its logit, both from the
    same subsets. Infidelity is rescaled, because maps have no scale of their own.

    Args:
        model: A Keras model with one input, that returns `(batch, units)`.
        x: The samples explained: images `(n, height, width, channels)`, tables `(n, features)`, or other arrays.
        explanation: An `Explanation`, or attributions of x's shape, with or without the last axis.
        target: Index of the unit that was explained, as for `deletion`.
        explainer: How samples are explained again, for the stability and the randomisation, as for `max_sensitivity`.
            By default the method and layer of an `Explanation`; attributions alone are not explained again.
        boxes: Regions for the pointing game, as `pointing_game` takes them.
        masks: Regions for the pointing game, in place of boxes.
        randomise: Whether to add `model_randomisation`, which explains all samples once per layer. Default `False`.
        control: Whether to measure random maps too, so that there is something to compare with. Default `True`; costs
            the two curves once more.
        baseline: What replaces a place in deletion and in the subsets, as for `deletion`. 0.
        reveal: What a place is before insertion reveals it, as `baseline` for `insertion`. A blur for images.
        steps: Steps of the curves. 50, as for `deletion`.
        samples: Subsets per sample. 200, as for `mu_fidelity`.
        share: Share of the places in a subset. 0.2, as for `mu_fidelity`.
        grid: Cells of the subsets along height and width. 9, as for `mu_fidelity`.
        radius: Of the neighbourhood for the stability, in units of x. 0.02, as for `max_sensitivity`.
        neighbours: Number of neighbours for the stability. 10, as for `max_sensitivity`.
        batch_size: Samples per pass. 32, as in Keras' `predict`.
        seed: Seed of all that is random.
        verbose: 1 shows a progress bar over the measures. 0.

    Returns:
        The `Faithfulness`; print it to see the table.

    Raises:
        TypeError: `model` is not a Keras model, or `explainer` nothing that explains.
        ValueError: The model has several inputs, samples are to be explained again and nothing says how, or x,
            attributions, target or options do not fit the model.

    Example:
        >>> import keras, numpy as np
        >>> from kdkeras import explain
        >>> layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, activation="softmax")])
        >>> images = np.random.default_rng(0).random((4, 8, 8, 1))
        >>> report = explain.faithfulness(model, images, explain.attribute(model, images), steps=8, samples=20)
        >>> report.table()[0]
        ('measure', 'mean', '95 % interval', 'better', 'random maps', 'samples')
        >>> list(report.measures)[:4]
        ['deletion', 'insertion', 'mu_fidelity', 'infidelity']
    """
    again = explanation if explainer is None and isinstance(explanation, Explanation) else explainer
    if randomise and again is None:
        raise ValueError("`randomise=True` needs an `Explanation` or an `explainer`, to explain again. Pass one.")
    if again is not None:
        explainer_of(again, batch_size)  # what cannot explain is refused before the long part
    asked, attributions = question(model, x, explanation, target, batch_size)
    others = {"sparseness": sparseness(attributions), "complexity": complexity(attributions)}
    if boxes is not None or masks is not None:
        others["pointing_game"] = pointing_game(attributions, boxes=boxes, masks=masks)
    subsets = Subsets(attributions.shape[1:], share=share, grid=grid, seed=seed)
    progress = keras.utils.Progbar(2 + control + (again is not None) + randomise, verbose=verbose)
    drops = subset_drops(asked, subsets, samples=samples, baseline=baseline, score="logit")
    progress.add(1)
    curve = {"steps": steps, "score": "probability", "seed": seed}

    def scored(method: str, attributions: np.ndarray) -> Faithfulness:
        deleted = deletion_curve(asked, attributions, baseline=baseline, **curve)
        inserted = insertion_curve(asked, attributions, baseline=reveal, **curve)
        progress.add(1)
        sums = subset_sums(attributions, subsets, samples)
        return _of_scores(method, asked, attributions, (deleted, inserted), sums, drops)

    result = scored(explanation.title if isinstance(explanation, Explanation) else "", attributions)
    random = scored("random maps", np.random.default_rng(seed).random(attributions.shape)) if control else None
    measures = dict(result.measures)
    if again is not None:
        moved = changes(model, asked.array, again, asked.target, radius, neighbours, batch_size, seed)
        measures |= {"max_sensitivity": moved.max(axis=1), "average_stability": moved.mean(axis=1)}
        progress.add(1)
    randomised = None
    if randomise:
        randomised = model_randomisation(model, asked.array, again, asked.target, batch_size=batch_size, seed=seed)
        progress.add(1)
    return dataclasses.replace(result, measures=measures | others, randomisation=randomised, control=random)


def _of_scores(
    method: str,
    asked: Subject,
    attributions: np.ndarray,
    curves: tuple[PerturbationCurve, PerturbationCurve],
    sums: np.ndarray,
    drops: np.ndarray,
) -> Faithfulness:
    """Return what follows from the scores of perturbed samples."""
    zero, constant = is_zero(attributions), is_constant(attributions)
    measures = {
        "deletion": curves[0].area,
        "insertion": curves[1].area,
        "mu_fidelity": np.where(constant, np.nan, correlate(sums, drops, "spearman")),
        "infidelity": np.where(zero, np.nan, squared_error(sums, drops, rescale=True)),
    }
    return Faithfulness(
        asked.model.name,
        method,
        asked.target,
        measures,
        *curves,
        randomisation=None,
        control=None,
        zeros=int(zero.sum()),
        constants=int((constant & ~zero).sum()),
    )
