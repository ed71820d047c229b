"""Asks the page's application without a server, and also what stands behind its guard. Run by `test_second_wall.py`."""

import keras

ADDRESS = "http://127.0.0.1:7860"


def table(**place):
    from kdkeras.app import Workbench, load_samples
    from kdkeras.app.serve import application

    models = [keras.Sequential([keras.Input((13,)), keras.layers.Dense(3)]) for _ in range(2)]
    return application(Workbench(*models, load_samples("wine")), **place)


def answer(client, body):
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    said = client.get(f"/gradio_api/queue/data?session_hash={body['session_hash']}").text
    assert "process_completed" in said
    return said


def gradio_alone_refuses_paths(client):
    config = client.get("/config").json()
    kinds = {part["id"]: part["type"] for part in config["components"]}
    assert set(kinds.values()).isdisjoint({"file", "image", "uploadbutton", "gallery"})
    assert config["analytics_enabled"] is False
    taking = [each["id"] for each in config["dependencies"] if [kinds[part] for part in each["inputs"]] == ["textbox"]]
    assert len(taking) == 1
    for path in ("/etc/passwd", "/proc/self/environ"):
        for function in taking:
            named = {"path": path, "meta": {"_type": "gradio.FileData"}}
            body = {"data": [named], "fn_index": function, "session_hash": f"{path}{function}", "trigger_id": None}
            said = answer(client, body)
            assert '"success":false' in said and "root:" not in said, said
        for place in (f"file={path}", "file=pyproject.toml", "file=kdkeras/app/page.py"):
            assert client.get(f"/gradio_api/{place}").status_code in (403, 404)
    page = client.get("/").text
    assert "fonts.googleapis" not in page and "cdn" not in page.lower() and "wine" in page


def the_guard_stands_before_it(client):
    assert client.get("/config").status_code == 200
    assert client.get("/gradio_api/file=/etc/passwd").text == "There is nothing here."
    assert client.post("/gradio_api/queue/join", content=b"no json").text == "What is posted must be JSON."
    assert client.put("/config").status_code == 403
    deep = b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert client.post("/gradio_api/queue/join", content=deep).status_code == 403
    assert client.get("/config", headers={"host": "another:7860"}).status_code == 403


def an_open_page_has_any_name(client):
    assert client.get("/config").status_code == 200
    assert client.get("/config", headers={"origin": "http://b-name"}).status_code == 403


def main():
    from starlette.testclient import TestClient  # late: pytest looks into every file for examples

    guard = table()
    for test, app, address in (
        (gradio_alone_refuses_paths, guard.app, ADDRESS),
        (the_guard_stands_before_it, guard, ADDRESS),
        (an_open_page_has_any_name, table(host="0.0.0.0"), "http://a-name:7860"),
    ):
        with TestClient(app, base_url=address) as client:
            test(client)
        print(test.__name__)  # noqa: T201


if __name__ == "__main__":
    main()
