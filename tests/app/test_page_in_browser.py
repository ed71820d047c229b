"""The page in a real browser, served by the real command: pick, slide, upload, judge, and find it in the database."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
from files import write
from PIL import Image
from playwright.sync_api import expect, sync_playwright

import kdkeras
from kdkeras import app, cli
from kdkeras.feedback import FeedbackStore, sample_id

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ("background-networking", "component-update", "sync", "gpu", "quic")
ARGUMENTS = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET)]
WAIT = 60_000  # milliseconds that the page may take on a busy machine

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@contextlib.contextmanager
def explored(folder, *more):
    """Serve the page, as the command does, and yield its address and the process."""
    files = {name: folder / f"{name}.keras" for name in ("teacher", "student", "tree")}
    command = [sys.executable, "-m", "kdkeras.cli", "explore", "--data", "digits", "--feedback", folder / "feedback.db"]
    command += [f"--{name}={path}" for name, path in files.items()] + [f"--tflite={folder / 'student.tflite'}", *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder
    ) as process:
        try:
            said = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address, process.communicate(timeout=60)
            yield address.group(), process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with explored(folder) as both:
        yield both


@pytest.fixture(scope="module")
def address(served):
    return served[0]


@pytest.fixture(scope="module")
def server(served):
    return served[1]


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def port_of(address):
    return int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """The page in a new window, and afterwards: nothing went wrong in it, and nothing came from elsewhere."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(WAIT)
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#kd-agreement")
    yield page
    context.close()
    assert wrong == []
    elsewhere = [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))]
    assert len(asked) > 10 and elsewhere == []


def slide(page, name, value):
    page.locator(f"#{name} input[type=range]").fill(str(value))


def picture(page, name):
    return page.locator(f"#{name} img").get_attribute("src")


def choose(page, name, option):
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


@in_browser
def test_pick_slide_judge_and_find_it(page, folder):
    data = kdkeras.datasets.digits()
    before = picture(page, "kd-student")
    slide(page, "kd-index", 7)
    expect(page.locator("#kd-sample")).to_contain_text(f"sample 7, label {data.y_test[7]}", timeout=WAIT)
    assert picture(page, "kd-student") != before
    assert page.locator("#kd-predictions thead th").all_inner_texts() == [
        *("Probability of", "Teacher", "Student", "TFLite", "Tree")
    ]

    faint = picture(page, "kd-student")
    slide(page, "kd-overlay", 0)  # without a map, the three pictures are one
    page.wait_for_function(
        "document.querySelector('#kd-student img').src == document.querySelector('#kd-sample img').src"
    )
    assert picture(page, "kd-student") != faint
    slide(page, "kd-overlay", 0.9)
    expect(page.locator("#kd-student img")).to_have_attribute("src", faint, timeout=WAIT)

    slide(page, "kd-layer-student", 1)
    expect(page.locator("#kd-student")).to_contain_text("at early", timeout=WAIT)
    expect(page.locator("#kd-teacher")).to_contain_text("at late")
    choose(page, "kd-class", "3")
    expect(page.locator(".kd-caption", has_text="Grad-CAM of 3")).to_be_visible(timeout=WAIT)
    choose(page, "kd-method", "Integrated gradients")
    expect(page.locator("#kd-student")).to_contain_text("of the input", timeout=WAIT)
    expect(page.locator("#kd-layer-student")).to_be_hidden()
    page.get_by_role("button", name="The way through the tree").click()
    expect(page.locator(".kd-tree")).to_be_visible(timeout=WAIT)

    page.locator("#kd-submit").click()
    expect(page.locator("#kd-stored")).to_contain_text("Choose right, wrong or unclear first.", timeout=WAIT)
    page.get_by_label("wrong").check()
    page.locator("#kd-note textarea, #kd-note input").fill("It looks at the <b>empty</b> corner.")
    page.locator("#kd-who textarea, #kd-who input").fill("Ada")
    page.locator("#kd-submit").click()
    expect(page.locator("#kd-stored")).to_contain_text("Stored as number", timeout=WAIT)
    mark = FeedbackStore(folder / "feedback.db").marks()[-1]
    assert (mark.sample, mark.index, mark.data) == (sample_id(data.x_test[7]), 7, "digits/test")
    assert (mark.model, mark.method, mark.layer, mark.target) == ("student", "integrated_gradients", None, 3)
    assert (mark.verdict, mark.note, mark.who) == ("wrong", "It looks at the <b>empty</b> corner.", "Ada")
    assert mark.student_file != mark.teacher_file and len(mark.student_file) == 64


@pytest.mark.slow
@in_browser
def test_what_is_stored_is_what_is_shown(page, folder):
    for _ in range(4):  # faster than the maps come
        page.locator("#kd-forth").click()
    page.get_by_label("right").check()
    page.locator("#kd-submit").click()
    expect(page.locator("#kd-stored")).to_contain_text("Stored as number", timeout=WAIT)
    mark = FeedbackStore(folder / "feedback.db").marks()[-1]
    assert f"sample {mark.index}, is right" in page.locator("#kd-stored").inner_text()
    page.wait_for_timeout(500)
    number = page.locator("#kd-index input[type=range]").input_value()
    expect(page.locator("#kd-sample")).to_contain_text(f"sample {number},", timeout=WAIT)  # it comes to rest there


@pytest.mark.slow
@in_browser
def test_upload_of_a_picture(page, folder, tmp_path):
    path = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")).save(path)
    with page.expect_file_chooser() as chooser:
        page.locator("#kd-upload").click()
    chooser.value.set_files(path)
    expect(page.locator("#kd-sample")).to_contain_text("uploaded picture", timeout=WAIT)
    page.get_by_label("the teacher's map").check()
    page.get_by_label("unclear").check()
    page.locator("#kd-submit").click()
    expect(page.locator("#kd-stored")).to_contain_text("Stored as number", timeout=WAIT)
    mark = FeedbackStore(folder / "feedback.db").marks()[-1]
    assert (mark.index, mark.data, mark.model, mark.verdict) == (None, "upload", "teacher", "unclear")
    page.locator("#kd-forth").click()
    expect(page.locator("#kd-sample")).to_contain_text("sample 1", timeout=WAIT)


@in_browser
def test_upload_of_something_else(page, tmp_path):
    path = tmp_path / "mine.png"
    for content, message in (("no picture", "That is no PNG or JPEG picture"), ("x" * (2**23 + 1), "at most 8 MiB")):
        path.write_text(content)
        with page.expect_file_chooser() as chooser:
            page.locator("#kd-upload").click()
        chooser.value.set_files(path)
        expect(page.get_by_role("alert")).to_contain_text(message, timeout=WAIT)
    expect(page.locator("#kd-sample")).to_contain_text("sample 0")


def dependency(client, name):
    """Return the number of the first of Gradio's functions that takes an input of one kind."""
    config = client.get("/config").json()
    kinds = {part["id"]: part["type"] for part in config["components"]}
    return next(each for each in config["dependencies"] if each["inputs"] and kinds[each["inputs"][0]] == name), config


FILES = ("/etc/passwd", "/proc/self/environ", "../../etc/passwd", "http://127.0.0.1:9/x", "file:///etc/passwd")


@pytest.mark.parametrize("path", FILES)
def test_no_path_of_a_client_is_opened(client, path):
    function, _ = dependency(client, "textbox")
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in ([named], [[named]], [{"value": named}], [{"url": path, "meta": {"_type": "gradio.FileData"}}]):
        body = {"data": data, "fn_index": function["id"], "session_hash": "mine", "trigger_id": None}
        for place in ("queue/join", "run/predict", "api/predict", "call/predict"):
            answer = client.post(f"/gradio_api/{place}", json=body)
            assert answer.status_code == 403, (place, answer.text)
            assert "root:" not in answer.text
    for place in (f"file={path}", f"file/{path}", f"proxy={path}", f"stream/{path}"):
        assert client.get(f"/gradio_api/{place}").status_code in (403, 404)
        assert client.get(f"/{place}").status_code in (403, 404)


def test_a_path_as_text_is_only_text(client):
    """The one thing that takes a picture takes its bytes: a path there is no picture."""
    function, config = dependency(client, "textbox")
    functions = [
        each for each in config["dependencies"] if each["inputs"] == function["inputs"] and len(each["outputs"]) == 2
    ]
    body = {"data": ["/etc/passwd"], "fn_index": functions[0]["id"], "session_hash": "text", "trigger_id": None}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", "/gradio_api/queue/data?session_hash=text") as events:
        said = next(line for line in events.iter_lines() if "process_completed" in line)
    assert "That is no PNG or JPEG picture" in said and "root:" not in said


def test_nothing_can_be_laid_down_or_fetched(client, folder):
    upload = client.post("/gradio_api/upload", files={"files": ("x.png", b"x")})
    assert upload.status_code == 403
    for path in ("/gradio_api/file=teacher.keras", f"/gradio_api/file={folder}/feedback.db", "/monitoring", "/docs"):
        assert client.get(path).status_code == 403


def test_other_sites_and_names_are_refused(client):
    host = client.base_url.netloc.decode()
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    assert client.get("/config", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/config", headers={"origin": f"http://{host}"}).status_code == 200
    join = {"url": "/gradio_api/queue/join", "json": {"data": []}}
    assert (
        client.post(**join, headers={"origin": "http://evil.example"}).text
        == "Another site may not speak to this page."
    )
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_too_much_is_refused(client):
    answer = client.post("/gradio_api/queue/join", content=b" " * (12 * 2**20))
    assert answer.status_code == 403 and "at most 8 MiB" in answer.text


def test_it_listens_on_this_machine_alone(address):
    own = [found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    for other in {"127.0.0.2", *own} - {"127.0.0.1"}:
        with socket.socket() as caller, pytest.raises(OSError):
            caller.connect((other, port_of(address)))


def test_the_next_port_is_taken(address):
    with app.listen() as listener:
        assert listener.getsockname()[:2] > ("127.0.0.1", port_of(address))


def test_a_port_that_is_taken(address, capsys):
    words = ["explore", "--teacher=t", "--student=s", "--data=digits", f"--port={port_of(address)}"]
    assert cli.main(words) == 2  # before the models are looked for
    taken = f"Port {port_of(address)} is taken by another program. Choose another with --port, or leave --port out."
    assert capsys.readouterr().err == f"kdkeras: {taken}\n"


@pytest.mark.parametrize(
    ("host", "message"), [("192.0.2.1", "The page cannot be served at 192.0.2.1"), ("no.such.host", "cannot be served")]
)
def test_a_host_that_is_not_this_machine(host, message):
    with pytest.raises(OSError, match=message):
        app.listen(host, 0)


def test_an_interrupt_ends_it_also_with_open_pages(address, server):
    """The last test: the server is gone then."""
    with httpx.stream("GET", f"{address}/gradio_api/heartbeat/x"):
        server.send_signal(signal.SIGINT)
        out, errors = server.communicate(timeout=30)
    assert (server.returncode, out, errors) == (0, "", "")
