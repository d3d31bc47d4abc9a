"""Does the server answer only its own page, from this machine, with the token?  Asked by real requests."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tierform

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

TOKEN = "a-token-of-forty-three-letters-in-base-64-xy"
TASK = tierform.Inference(batch=1, sequence=16)
JOB = {
    "schema": "tierform.job/1",
    "model": "bert-base",
    "chip": "atleus",
    "task": {"kind": "inference", "batch": 1, "sequence": 16},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from tierform.studio.content import open_paths
    from tierform.studio.serve import listening, make_app

    folder = tmp_path_factory.mktemp("runs")
    tierform.simulate("bert-base", TASK, "atleus").save(folder / "run.json")
    tierform.simulate("bert-base", TASK, "atleus", timeline=True).save(folder / "timed.json")
    (folder / "other.json").write_text("{}")
    taken = listening(0)
    number: int = taken.getsockname()[1]
    app = make_app(open_paths([folder]), [folder], port=number, token=TOKEN, limit_s=60)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    for _ in range(200):
        if server.started:
            break
        time.sleep(0.05)
    yield number
    server.should_exit = True
    thread.join(10)


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, token: str | None = TOKEN, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        given["x-tierform-token"] = token
    connection.putrequest(method, path, skip_host="host" in given, skip_accept_encoding=True)
    if body is not None:
        given.setdefault("content-type", "application/json")
        given.setdefault("content-length", str(len(body)))
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        if body is not None:
            connection.send(body)
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before all of it was read
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def run(port: int, task: dict[str, Any]) -> list[dict[str, Any]]:
    status, _, content = ask(port, "/api/jobs", "POST", json.dumps(task).encode())
    assert status == 202, content
    _, headers, told = ask(port, f"/api/jobs/{json.loads(content)['id']}/events")
    assert headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in told.decode().splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:{port}", ""])
def test_is_another_name_of_this_machine_refused(port: int, name: str) -> None:
    assert ask(port, "/", host=name.format(port=port))[0] in (400, 421)
    assert ask(port, "/api/content", host=name.format(port=port))[0] in (400, 421)


def test_do_all_names_of_our_own_work(port: int) -> None:
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert ask(port, "/api/content", host=name)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:{port}"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_is_a_foreign_page_refused(port: int, headers: dict[str, str]) -> None:
    given = {name: value.format(port=port) for name, value in headers.items()}
    assert ask(port, "/api/content", **given)[0] == 403
    assert ask(port, "/pages.js", **given)[0] == 403
    own = {"origin": f"http://127.0.0.1:{port}", "sec_fetch_site": "same-origin"}
    assert ask(port, "/api/content", **own)[0] == 200


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "x"])
def test_is_a_missing_or_wrong_token_refused(port: int, token: str | None) -> None:
    for method, path in (
        ("GET", "/api/content"),
        ("GET", "/api/library"),
        ("GET", "/api/runs/1/timeline"),
        ("POST", "/api/jobs"),
        ("DELETE", "/api/jobs/x"),
    ):
        assert ask(port, path, method, b"{}" if method == "POST" else None, token=token)[0] == 401
    assert ask(port, f"/api/content?token={TOKEN}", token=token)[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../serve.py",
        "/serve.py",
        "/NOTICES.txt/../../serve.py",
        "//etc/passwd",
        "/run.json",
        "/api/../api/content/..",
        "/C:\\windows\\win.ini",
    ],
)
def test_does_no_path_lead_to_another_file(port: int, path: str) -> None:
    status, _, content = ask(port, path)
    assert status == 404 and b"root:" not in content and b"import" not in content


def test_is_a_large_body_refused_whatever_its_header_says(port: int) -> None:
    assert ask(port, "/api/jobs", "POST", b" " * 2_000_000)[0] == 413
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nx-tierform-token: {TOKEN}\r\n"
    connection.sendall((head + "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").encode())
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    try:
        for _ in range(32):
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert b" 413 " in connection.recv(200)
    connection.close()


def test_are_other_bodies_and_methods_refused(port: int) -> None:
    assert ask(port, "/api/jobs", "POST", b"{}", content_type="text/plain")[0] == 415
    assert ask(port, "/api/jobs", "POST", b"{}", content_type="application/x-www-form-urlencoded")[0] == 415
    assert ask(port, "/api/jobs", "POST", b"{")[0] == 400
    assert ask(port, "/api/jobs", "POST", b"[" * 100_000)[0] == 400
    assert ask(port, "/api/jobs", "POST", b'{"kind": "shell"}')[0] == 400
    assert ask(port, "/api/content", "PUT", b"{}")[0] == 405
    assert ask(port, "/api/content", "OPTIONS")[0] == 405


def test_does_every_answer_carry_its_seals(port: int) -> None:
    for path in ("/", "/pages.js", "/api/content", "/api/nothing", "/nothing"):
        _, headers, _ = ask(port, path)
        assert headers["content-security-policy"].startswith("default-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control-")]


def test_do_many_requests_at_once_all_get_an_answer(port: int) -> None:
    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda _: ask(port, "/api/library")[0], range(200)))
    assert found == [200] * 200


def test_does_the_content_say_what_was_read(port: int) -> None:
    content = json.loads(ask(port, "/api/content")[2])
    assert [one["name"] for one in content["runs"]] == [
        "bert-base on atleus (run.json)",
        "bert-base on atleus (timed.json)",
    ]
    assert content["others"] == ["other.json"] and content["problems"] == []


# -- jobs ----------------------------------------------------------------------------------------------------------
FIGURES = ("chip", "latency_s", "energy_J", "average_power_W", "area_m2")


def test_is_a_job_answered_as_simulate_answers(port: int) -> None:
    told = run(port, {"kind": "simulate", "job": JOB})
    assert [one["event"] for one in told] == ["queued", "figures", "end"]
    mine = tierform.simulate("bert-base", TASK, "atleus")
    figures = told[1]["figures"]
    assert {name: figures[name] for name in FIGURES} == {name: getattr(mine, name) for name in FIGURES}
    assert figures["dies"] == json.loads(json.dumps(mine.view()["dies"])) and figures["notes"] == list(mine.notes)
    assert mine.thermal is not None and figures["thermal"] == {"peak_K": mine.thermal["peak_K"]}
    assert len(json.dumps(figures)) < 10_000, "a move sends only what it changes"
    limits = run(port, {"kind": "limits", "job": JOB})
    assert limits[1]["limits"] == mine.view()["limits"] and limits[-1]["event"] == "end"


def test_does_a_changed_constant_act_as_in_python(port: int) -> None:
    changes = {"network.width": "64 bit"}
    told = run(port, {"kind": "simulate", "job": JOB, "vary": changes})
    mine = tierform.simulate("bert-base", TASK, tierform.load_chip("atleus").vary(changes))
    assert told[1]["figures"]["latency_s"] == mine.latency_s
    assert mine.latency_s > tierform.simulate("bert-base", TASK, "atleus").latency_s
    limits = run(port, {"kind": "limits", "job": JOB, "vary": changes})
    assert limits[1]["limits"] == mine.view()["limits"]


def test_is_a_file_opened_as_it_was_written_and_a_broken_one_told(port: int, tmp_path: Path) -> None:
    tierform.simulate("bert-base", TASK, "atleus").save(tmp_path / "run.json")
    content = json.loads((tmp_path / "run.json").read_text())
    opened = run(port, {"kind": "open", "name": "run.json", "content": content})[1]["run"]
    made = run(port, {"kind": "run", "job": JOB})[1]["run"]
    assert opened["file"] == "run.json" and opened["id"].startswith("file-") and made["id"].startswith("live-")
    for one in (opened, made):
        assert one["result"]["latency_s"] == content["latency_s"] and one["result"]["view"]["dies"]
    for broken in ({"schema": "tierform.result/1", "model": 3}, {"x": 1}, [], None, "text"):
        told = run(port, {"kind": "open", "name": "broken.json", "content": broken})[-1]
        assert told["event"] == "problem" and told["problems"][0]["file"] == "broken.json"


def test_does_one_request_ask_and_follow(port: int) -> None:
    body = json.dumps({"kind": "constants", "job": JOB}).encode()
    status, headers, told = ask(port, "/api/jobs", "POST", body, accept="text/event-stream")
    assert status == 202 and headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in told.decode().splitlines() if line.startswith("data: ")]
    assert [one["event"] for one in events] == ["queued", "constants", "end"] and len(events[0]["id"]) == 16


def test_are_mistakes_told_with_the_nearest_name(port: int) -> None:
    told = run(port, {"kind": "simulate", "job": {**JOB, "chip": "atleuss"}})
    assert told[-1]["event"] == "problem" and told[-1]["problems"][0]["near"] == "atleus"
    told = run(port, {"kind": "simulate", "job": JOB, "vary": {"network.width": "-3 bit"}})
    assert told[-1]["event"] == "problem" and told[-1]["problems"][0]["message"]
    assert run(port, {"kind": "simulate"})[-1]["event"] == "problem"


def test_is_a_file_outside_refused_before_it_is_read(port: int, tmp_path: Path) -> None:
    for key, value in (
        ("chip", "/etc/passwd.yaml"),
        ("chip", str(tmp_path / "a.yaml")),
        ("model", "../../etc"),
        ("mapping", "/x.yaml"),
    ):
        told = run(port, {"kind": "simulate", "job": {**JOB, key: value}})
        assert told[-1]["event"] == "problem" and "outside" in told[-1]["problems"][0]["message"]


def test_does_the_influence_come_bit_by_bit_and_stop(port: int) -> None:
    _, _, content = ask(port, "/api/jobs", "POST", json.dumps({"kind": "influence", "job": JOB}).encode())
    name = json.loads(content)["id"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/api/jobs/{name}/events", headers={"x-tierform-token": TOKEN})
    answer = connection.getresponse()
    text = b""
    while text.count(b"event: influence") < 2:
        text += answer.read1()
    assert ask(port, f"/api/jobs/{name}", "DELETE")[0] == 204
    text += answer.read()
    assert b"event: stopped" in text and b"event: end" not in text
    assert run(port, {"kind": "simulate", "job": JOB})[-1]["event"] == "end"


def test_are_constants_listed_and_a_varied_chip_written(port: int, tmp_path: Path) -> None:
    listed = run(port, {"kind": "constants", "job": JOB})[1]["constants"]
    assert {"network.width", "components.reram.adc_bits"} <= {one["constant"] for one in listed}
    text = run(port, {"kind": "chip", "job": JOB, "vary": {"network.width": "64 bit"}})[1]["text"]
    (tmp_path / "mine.yaml").write_text(text)
    written = tierform.load_chip(tmp_path / "mine.yaml")
    assert written.network is not None and written.network.width.value == 64


def test_is_the_trace_that_of_the_command_line(port: int, tmp_path: Path) -> None:
    told = next(one for one in run(port, {"kind": "trace", "job": JOB}) if one["event"] == "packed")
    text = zlib.decompress(base64.b64decode(told["deflated"])).decode()
    assert told["name"] == f"{JOB['model']}-{JOB['chip']}-trace.json"
    from tierform.simulation.job_file import load_job

    (tmp_path / "job.yaml").write_text(json.dumps(JOB))
    load_job(tmp_path / "job.yaml").simulate(timeline=True).trace(tmp_path / "trace.json")
    assert text == (tmp_path / "trace.json").read_text()
    told = run(port, {"kind": "trace", "job": {**JOB, "chip": "atleuss"}})[-1]
    assert told["event"] == "problem" and told["problems"][0]["near"] == "atleus"


def test_comes_a_timeline_when_it_is_asked_for(port: int) -> None:
    """That of a file is kept out of what the first page reads; one that no file has is recorded."""
    plain, timed = [run["result"]["view"] for run in json.loads(ask(port, "/api/content")[2])["runs"]]
    assert plain["timeline"] is None and timed["timeline"] == "later"
    status, _, content = ask(port, "/api/runs/1/timeline")
    kept = json.loads(content)
    assert status == 200 and kept["rows"] and kept["end_s"] == pytest.approx(timed["latency_s"], rel=1e-9)
    assert [ask(port, f"/api/runs/{name}/timeline")[0] for name in ("0", "2", "..", "%2e%2e")] == [404] * 4
    told = run(port, {"kind": "timeline", "job": JOB})
    assert [one["event"] for one in told] == ["queued", "timeline", "end"] and told[1]["timeline"] == kept
    assert run(port, {"kind": "timeline", "job": {**JOB, "chip": "atleuss"}})[-1]["problems"][0]["near"] == "atleus"


def test_are_more_jobs_than_the_queue_holds_refused(port: int) -> None:
    body = json.dumps({"kind": "influence", "job": JOB}).encode()
    answers = [ask(port, "/api/jobs", "POST", body) for _ in range(12)]
    assert {status for status, _, _ in answers} == {202, 429}
    for status, _, content in answers:
        if status == 202:
            ask(port, f"/api/jobs/{json.loads(content)['id']}", "DELETE")


@pytest.mark.parametrize(
    ("task", "status"),
    [
        ({"kind": "design", "study": "0", "point": 1}, 400),
        ({"kind": "design", "study": "../../etc/passwd", "point": 1}, 400),
        ({"kind": "design_chip", "study": 0, "point": True}, 400),
    ],
)
def test_is_a_design_of_no_open_study_refused(port: int, task: dict[str, Any], status: int) -> None:
    assert ask(port, "/api/jobs", "POST", json.dumps(task).encode())[0] == status


@pytest.mark.parametrize("name", ["0", "..", "%2e%2e%2fetc", "run.json"])
def test_is_no_other_study_read(port: int, name: str) -> None:
    assert ask(port, f"/api/studies/{name}")[0] == 404


def test_are_mistakes_of_serving_told_all_at_once(port: int) -> None:
    asked = {"model": "llama-3.2-1b", "chip": "h100", "rate": -1, "requests": 1e9, "replicaz": 2}
    told = run(port, {"kind": "serve", "serve": asked})[-1]
    assert told["event"] == "problem"
    assert {one["key"] for one in told["problems"]} == {"rate", "requests", "replicaz"}
    assert next(one for one in told["problems"] if one["key"] == "replicaz")["near"] == "replicas"
    outside = run(port, {"kind": "serve", "serve": {"model": "/etc/passwd.json", "chip": "h100"}})[-1]
    assert "outside" in outside["problems"][0]["message"]


def test_do_ranges_of_laws_stand_beside_what_they_scale(port: int) -> None:
    found = next(one for one in run(port, {"kind": "constants", "job": JOB}) if one["event"] == "constants")
    bits = next(one for one in found["constants"] if one["constant"] == "components.reram.adc_bits")
    assert (bits["low"], bits["high"]) == (4, 10) and "fitted" in bits["law"]
