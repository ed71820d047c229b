"""The layout of the page and its wires. What it shows comes from `Workbench`, how it looks from `rendering`."""

from __future__ import annotations

import html
import importlib.util
import os
from importlib import resources
from typing import TYPE_CHECKING, Any

from kdkeras import explain
from kdkeras.app import rendering
from kdkeras.app.samples import Sample
from kdkeras.app.upload import MAX_BYTES, decoded
from kdkeras.app.workbench import Workbench
from kdkeras.feedback import VERDICTS

if TYPE_CHECKING:
    import gradio

_OPACITY = 0.9
_AUTO = "the teacher's answer"
_SHOWN = {"all": "all", "differing": "student differs from teacher", "wrong": "student is wrong"}
_NOTHING = -1  # stands for "the teacher's answer" among the classes

_TOO_LARGE = "too large"

# The browser reads the file; what is sent is its content, never a name or a path.
_READ_FILE = """
async () => {
  const input = document.createElement("input");
  input.type = "file";
  input.accept = "image/png,image/jpeg";
  const file = await new Promise((resolve) => {
    input.addEventListener("change", () => resolve(input.files[0] || null));
    input.addEventListener("cancel", () => resolve(null));
    input.click();
  });
  if (!file) return "";
  if (file.size > MAX_BYTES) return "TOO_LARGE";
  return await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => resolve("-");
    reader.readAsDataURL(file);
  });
}
""".replace("MAX_BYTES", str(MAX_BYTES)).replace("TOO_LARGE", _TOO_LARGE)


Choice = tuple[Any, ...]  # id of an uploaded sample, number, method, class, layer of the teacher, of the student


class MissingGradioError(RuntimeError):
    """Gradio is not installed; the message says how it is."""


def check_gradio() -> None:
    """Raise if Gradio is not installed; importing it takes seconds, asking does not.

    Raises:
        MissingGradioError: It is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MissingGradioError(
            "The interactive page needs Gradio, which is not installed. Run: pip install 'kdkeras[app]'"
        )


def import_gradio() -> Any:
    """Return Gradio, which then sends nothing anywhere.

    Returns:
        The module.

    Raises:
        MissingGradioError: It is not installed.
    """
    check_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    import gradio

    return gradio


def page(bench: Workbench) -> gradio.Blocks:
    """Return the page as Gradio blocks.

    Args:
        bench: What it shows.

    Returns:
        Blocks, to be served by `kdkeras.app.serve`.

    Raises:
        MissingGradioError: Gradio is not installed.
    """
    return _Page(import_gradio(), bench).blocks


class _Page:
    """Builds the blocks; its methods are what they call."""

    def __init__(self, gr: Any, bench: Workbench) -> None:
        self.gr, self.bench = gr, bench
        with gr.Blocks(title="kdkeras explore", analytics_enabled=False) as self.blocks:
            gr.HTML(_heading(bench))
            with gr.Row():
                with gr.Column(scale=3, min_width=280):
                    self._choose_sample()
                    self._choose_map()
                with gr.Column(scale=7, min_width=480):
                    self._show()
                    self._ask_for_feedback()
            self._wire()

    def _choose_sample(self) -> None:
        gr, last = self.gr, len(self.bench.samples.x) - 1
        found = self.bench.overview
        shown = [("all", "all")]
        shown += [(f"{_SHOWN['differing']} ({len(found.differing)})", "differing")] if found.differing else []
        shown += [(f"{_SHOWN['wrong']} ({len(found.wrong)})", "wrong")] if found.wrong else []
        self.seen = gr.State(None)  # of what the maps are that are shown
        self.uploaded = gr.State("")  # id of the uploaded sample that is shown, if one is
        self.among = gr.Dropdown(shown, value="all", label="Samples", elem_id="kd-among")
        self.index = gr.Slider(0, max(last, 1), value=0, step=1, label="Sample number", elem_id="kd-index")
        with gr.Row():
            self.back = gr.Button("Previous", size="sm", elem_id="kd-back")
            self.forth = gr.Button("Next", size="sm", elem_id="kd-forth")
        images = self.bench.samples.of_images
        self.choose_file = gr.Button("Upload a picture …", size="sm", visible=images, elem_id="kd-upload")
        self.content = gr.Textbox(elem_classes="kd-hidden", show_label=False, container=False)
        self.upload_says = gr.HTML(padding=False)

    def _choose_map(self) -> None:
        gr, bench = self.gr, self.bench
        methods = [(explain.METHODS[name].title, name) for name in bench.methods]
        classes = [(_AUTO, _NOTHING), *((name, place) for place, name in enumerate(bench.class_names))]
        self.method = gr.Dropdown(methods, value=bench.methods[0], label="Method", elem_id="kd-method")
        self.target = gr.Dropdown(classes, value=_NOTHING, label="Class that is explained", elem_id="kd-class")
        of_layer = explain.METHODS[bench.methods[0]].of_layer
        self.layers = {}
        for name, paths in bench.layers.items():
            self.layers[name] = gr.Slider(
                1,
                max(len(paths), 2),
                value=max(len(paths), 1),
                step=1,
                label=f"The {name}'s layer",
                visible=of_layer and len(paths) > 1,
                elem_id=f"kd-layer-{name}",
            )
        self.opacity = gr.Slider(
            0, 1, value=_OPACITY, step=0.05, label="Overlay", visible=bench.samples.of_images, elem_id="kd-overlay"
        )

    def _show(self) -> None:
        gr, bench = self.gr, self.bench
        self.maps = gr.HTML(padding=False)
        self.agreement = gr.HTML(padding=False)
        self.predictions = gr.HTML(padding=False)
        gr.HTML(rendering.overview(bench.overview), padding=False)
        with gr.Accordion("The way through the tree", open=False, visible=bench.tree is not None) as self.tree_opener:
            self.tree = gr.HTML(padding=False)

    def _ask_for_feedback(self) -> None:
        gr, there = self.gr, self.bench.store is not None
        with gr.Group(visible=there):
            gr.HTML('<h3 class="kd-h kd-inset">Is the explanation right?</h3>', padding=False)
            with gr.Row():
                self.judged = gr.Radio(
                    [("the student's map", "student"), ("the teacher's map", "teacher")],
                    value="student",
                    label="Judged is",
                    elem_id="kd-judged",
                )
                self.verdict = gr.Radio(list(VERDICTS), label="It is", elem_id="kd-verdict")
            with gr.Row():
                self.note = gr.Textbox(label="Note", max_length=2000, scale=3, elem_id="kd-note")
                self.who = gr.Textbox(label="Your name, if you like", max_length=100, scale=1, elem_id="kd-who")
            self.submit = gr.Button("Store", variant="primary", size="sm", elem_id="kd-submit")
            self.stored = gr.HTML(elem_id="kd-stored", padding=True)

    def _wire(self) -> None:
        gr = self.gr
        # Of several changes that come while one is shown, the last is shown too.
        quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
        choice = [self.uploaded, self.index, self.method, self.target, *self.layers.values()]
        shown = [self.maps, self.agreement, self.predictions, self.seen]
        looks = {"fn": self._look, "inputs": [self.opacity, *choice], "outputs": shown, **quiet}
        walks = {"fn": self._walk, "inputs": [self.uploaded, self.index], "outputs": [self.tree], **quiet}
        self.blocks.load(**looks).then(**walks)
        gr.on([each.input for each in (self.target, *self.layers.values(), self.opacity)], **looks)
        self.method.input(self._fit_sliders, [self.method], [*self.layers.values()], **quiet).then(**looks)
        # A number that is chosen takes the place of an uploaded picture.
        cleared = [self.uploaded, self.upload_says]
        self.index.input(lambda: ("", ""), None, cleared, **quiet).then(**looks).then(**walks)
        for trigger, step in ((self.back.click, -1), (self.forth.click, 1), (self.among.input, 0)):
            trigger(
                lambda among, index, step=step: (self._moved(among, int(index or 0), step), "", ""),
                [self.among, self.index],
                [self.index, *cleared],
                **quiet,
            ).then(**looks).then(**walks)
        # What the browser's part returns takes the place of the hidden text, as the argument.
        self.choose_file.click(
            self._upload, [self.content], [self.uploaded, self.upload_says], js=_READ_FILE, **quiet
        ).then(**looks).then(**walks)
        self.submit.click(
            self._mark,
            [self.seen, self.judged, self.verdict, self.note, self.who],
            [self.stored, self.verdict, self.note],
            **{**quiet, "trigger_mode": "once"},
        )

    def _sample(self, uploaded: str, index: float) -> Sample:
        return self.bench.uploaded(uploaded) if uploaded else self.bench.sample(int(index or 0))

    def _compare(self, choice: Choice) -> tuple[Sample, explain.ExplanationComparison]:
        uploaded, index, method, target, *places = choice
        layers = (
            paths[min(max(int(place), 1), len(paths)) - 1] if paths else None
            for place, paths in zip(places, self.bench.layers.values(), strict=True)
        )
        names = ("teacher_layer", "student_layer")
        wanted = None if target == _NOTHING else int(target)
        sample = self._sample(uploaded, index)
        return sample, self.bench.compare(sample, method, target=wanted, **dict(zip(names, layers, strict=True)))

    def _look(self, opacity: float, *choice: Any) -> tuple[str, str, str, Choice | None]:
        """Return the maps, their agreement, the predictions, and what they are of."""
        try:
            sample = self._sample(*choice[:2])
            predictions = rendering.predictions_table(self.bench, sample, self.bench.predictions(sample))
        except ValueError as error:
            return _told(error), "", "", None
        try:
            _, found = self._compare(choice)
        except ValueError as error:
            return _told(error), "", predictions, None
        return rendering.maps(self.bench, sample, found, opacity), rendering.agreement(found), predictions, choice

    def _walk(self, uploaded: str, index: float) -> str:
        if self.bench.tree is None:
            return ""
        try:
            sample = self._sample(uploaded, index)
            return rendering.tree(self.bench.tree_picture(sample), self.bench.tree_path(sample))
        except ValueError as error:
            return _told(error)

    def _fit_sliders(self, method: str) -> list[Any]:
        of_layer = method in explain.METHODS and explain.METHODS[method].of_layer
        return [self.gr.update(visible=of_layer and len(paths) > 1) for paths in self.bench.layers.values()]

    def _moved(self, among: str, index: int, step: int) -> int:
        """Return the number of the next sample of a kind, or of the one before, around the ends."""
        found = self.bench.overview
        numbers = {"differing": found.differing, "wrong": found.wrong}.get(among) or range(len(self.bench.samples.x))
        if step >= 0:
            return next((number for number in numbers if number >= index + step), numbers[0])
        return next((number for number in reversed(numbers) if number < index), numbers[-1])

    def _upload(self, content: str) -> tuple[Any, Any]:
        if not content:  # no file was chosen
            return self.gr.skip(), self.gr.skip()
        if content == _TOO_LARGE:
            return "", _told(f"A picture must have at most {MAX_BYTES // 2**20} MiB. Shrink it.")
        try:
            sample = self.bench.upload(decoded(content))
        except ValueError as error:
            return "", _told(error)
        return sample.id, '<p class="kd-caption">Shown is your picture, cut to its middle and resized.</p>'

    def _mark(self, seen: Choice | None, judged: str, verdict: str | None, note: str, who: str) -> tuple[str, Any, Any]:
        """Store what is said of the maps that are shown, whatever was chosen since."""
        if seen is None:
            return _told("There is no map to judge."), self.gr.skip(), self.gr.skip()
        if verdict is None:
            return _told("Choose right, wrong or unclear first."), self.gr.skip(), self.gr.skip()
        try:
            sample, found = self._compare(seen)
            number = self.bench.mark(sample, found, model=judged, verdict=verdict, note=note, who=who)
        except (ValueError, OSError) as error:
            return _told(error), self.gr.skip(), self.gr.skip()
        name = html.escape(self.bench.class_names[int(found.teacher.target[0])])
        where = "your picture" if sample.index is None else f"sample {sample.index}"
        what = f"the {judged}'s {html.escape(found.teacher.title)} of {name}, {where},"
        return f'<p class="kd-caption">Stored as number {number}: {what} is <b>{verdict}</b>.</p>', None, ""


def _heading(bench: Workbench) -> str:
    teacher, student = bench.models.values()
    names = (
        f"{title} <b>{html.escape(model.name)}</b> ({model.count_params():,} parameters)"
        for title, model in (("Teacher", teacher), ("Student", student))
    )
    data = f"{len(bench.samples.x):,} samples of <b>{html.escape(bench.samples.name)}</b>"
    title = '<h2 class="kd-title">Teacher and student, side by side</h2>'
    return f'{title}<p class="kd-caption">{" · ".join([*names, data])}</p>'


def _told(error: object) -> str:
    return f'<p class="kd-error" role="alert">{html.escape(str(error))}</p>'


def style() -> str:
    """Return the page's style sheet."""
    return resources.files("kdkeras.app").joinpath("page.css").read_text(encoding="utf-8")
