"""``browser-wasm`` in headless Chromium, from a destination's folder over HTTP."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from browser_scene import PATIENCE, Site, launched, report_of, served
from onnx import TensorProto, helper
from playwright.sync_api import Browser, BrowserContext, Error, Page

from shipway.registry.config.load import load_text
from shipway.registry.nouns import File, ModelRef, TensorSpec, Variant
from shipway.registry.verbs.promote import promote
from shipway.registry.verbs.report import write_report
from shipway.registry.verbs.rollback import rollback
from shipway.registry.verify import slice as golden

pytestmark = pytest.mark.real

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}

FOLLOW = """async ([release, x]) => {
  const { loadCurrent, offline } = await import(`/releases/${release}/model.js`);
  const model = await loadCurrent("/current.json");
  const { y } = await model.run({ x: { data: Float32Array.from(x), dims: [1, 4] } });
  const { verified, stale, pointer } = model;
  const patience = new Promise((done) => setTimeout(() => done("it hangs"), PATIENCE));
  return { version: model.bundle.model.version, y: [...y.data], verified, stale: stale ?? "", pointer,
           offline: await Promise.race([offline("/sw.js"), patience]) };
}""".replace("PATIENCE", str(PATIENCE))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with served(tmp_path / "site") as site:
        yield site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 900, "height": 1100})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.mark.parametrize("isolated", [True, False])
def test_the_page_shows_a_passed_check(tiny: Any, site: Site, page: Page, isolated: bool) -> None:
    site.headers = ISOLATED if isolated else {}
    manifest = site.release(tiny, threads=2)
    page.goto(site.page(manifest))
    report = report_of(page)
    assert page.evaluate("crossOriginIsolated") is isolated
    assert report["passed"] is True
    assert report["max_abs"] <= 1e-6
    assert (report["provider"], report["threads"]) == ("wasm", 2 if isolated else 1)
    assert page.inner_text("#verdict").startswith("Passed")
    assert page.inner_text("#outputs tr").startswith("y")


def test_one_thread_steps_in_where_threads_do_not_start(tiny: Any, site: Site, page: Page) -> None:
    site.headers = ISOLATED
    page.add_init_script("window.Worker = class { constructor() { throw new Error('no workers today'); } };")
    page.goto(site.page(site.release(tiny, threads=2)))
    report = report_of(page)
    assert report["passed"] is True
    assert report["threads"] == 1
    assert "(more did not start)" in page.inner_text("#figures")


@pytest.mark.parametrize("path", ["model.onnx", "ort/ort-wasm-simd-threaded.wasm"])
def test_damaged_files_are_refused_with_a_message(tiny: Any, site: Site, page: Page, path: str) -> None:
    manifest = site.release(tiny)
    damaged = site.root / "releases" / manifest.release_id / path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    page.goto(site.page(manifest))
    assert report_of(page)["passed"] is False
    assert page.inner_text("#verdict").startswith(f"{path} is damaged: its SHA-256 is ")


def test_the_second_visit_needs_no_network(
    tiny: Any, site: Site, page: Page, context: BrowserContext
) -> None:
    site.headers = ISOLATED
    manifest = site.release(tiny)
    page.goto(site.page(manifest))
    page.wait_for_function("document.getElementById('offline').textContent.startsWith('Works without')")
    page.close()
    site.stop()

    page = context.new_page()
    page.goto(site.page(manifest))
    report = report_of(page)
    assert report["passed"] is True
    assert page.evaluate("crossOriginIsolated") is True
    assert page.inner_text("#verdict").startswith("Passed")
    page.fill("#fields textarea", "[[1, 2, 3, 4]]")
    page.click("#fields button")
    page.wait_for_selector("#answer h3")


CONFIG = """
project: web
store: made/store
targets:
  browser: {kind: browser-wasm}
environments:
  prod:
    browser: {to: site}
"""


def test_a_page_follows_promotions_and_rollbacks_and_works_without_a_network(
    make_in: Callable[..., Any],
    tmp_path: Path,
    site: Site,
    page: Page,
    context: BrowserContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The site is the destination itself, as promote and rollback leave it."""
    monkeypatch.setenv("SHIPWAY_MIRROR", "off")
    x, expected = [1, 2, 3, 4], {}
    for number in (1, 2):
        weights = np.abs(np.random.default_rng(number).normal(size=(4, 3))).astype(np.float32)
        make_in(tmp_path / "made", version=number, weights=weights, golden_weights=weights)
        expected[number] = np.array(x, np.float32) @ weights
    project = load_text(CONFIG, tmp_path)
    pointer = site.root / "current.json"
    acts: list[tuple[Callable[[], object], int]] = [
        (lambda: promote(project, ModelRef.parse("tiny/1"), "prod"), 1),
        (lambda: promote(project, ModelRef.parse("tiny/2"), "prod"), 2),
        (lambda: rollback(project, "prod"), 1),
    ]
    stale, first = b"", ""

    def visit(page: Page) -> Any:
        page.goto(f"{site.url}/app.html")
        site.asked.clear()
        return page.evaluate(FOLLOW, [first, x])

    for serial, (act, number) in enumerate(acts, 1):
        act()
        if serial == 1:
            first = json.loads(pointer.read_bytes())["release"]
            shutil.copy(site.root / "releases" / first / "sw.js", site.root / "sw.js")
            (site.root / "app.html").write_text("<!doctype html><title>An app</title>")
        seen = visit(page)
        assert (seen["version"], seen["pointer"]["serial"], seen["stale"]) == (number, serial, "")
        assert (seen["verified"], seen["offline"]) == (True, True)
        np.testing.assert_allclose(seen["y"], expected[number], rtol=1e-6)
        wasm = [path for path in site.asked if path.endswith(".wasm")]
        # The runtime is kept by its digest, whatever the release.
        assert len(wasm) == (1 if serial == 1 else 0)
        assert any(path.endswith("model.onnx") for path in site.asked) is (serial < 3)
        stale = pointer.read_bytes() if serial == 2 else stale

    pointer.write_bytes(stale)  # a cache on the way gives an old answer
    seen = visit(page)
    assert (seen["version"], seen["pointer"]["serial"]) == (1, 3)
    assert "names serial 2, older than 3" in seen["stale"]

    site.stop()
    page.close()
    seen = visit(context.new_page())
    assert (seen["version"], seen["pointer"]["serial"]) == (1, 3)
    assert seen["stale"] == "Failed to fetch"
    np.testing.assert_allclose(seen["y"], expected[1], rtol=1e-6)


def test_a_release_that_cannot_be_loaded_leaves_the_one_before(
    tiny: Any, make_version: Callable[..., Any], site: Site, page: Page
) -> None:
    (site.root / "app.html").write_text("<!doctype html><title>An app</title>")
    first, second = site.release(tiny), site.release(make_version(version=2))
    shutil.copy(site.root / "releases" / first.release_id / "sw.js", site.root / "sw.js")

    def visit() -> Any:
        page.goto(f"{site.url}/app.html")
        return page.evaluate(FOLLOW, [first.release_id, [1, 2, 3, 4]])

    site.point(first, 1)
    before = visit()
    site.point(second, 2)
    folder = site.root / "releases" / second.release_id
    manifest = (folder / "bundle.json").read_bytes()
    (folder / "bundle.json").write_bytes(b"<!doctype html>")  # what many hosts answer for what is not there
    seen = visit()
    assert (seen["version"], seen["pointer"]["serial"], seen["y"]) == (1, 1, before["y"])
    assert seen["stale"].startswith("serial 2 can't be loaded: Unexpected token '<'")
    (folder / "bundle.json").write_bytes(manifest)
    seen = visit()
    assert (seen["version"], seen["pointer"]["serial"], seen["stale"]) == (2, 2, "")


def test_a_cache_that_cannot_be_read_keeps_no_page_from_its_model(
    make_version: Callable[..., Any], site: Site, page: Page
) -> None:
    """Nor does a service worker without one, or an asset of any name."""
    manifest = site.release(make_version(assets=[("names #1?%41 文.txt", b"cat\ndog\n")]))
    site.point(manifest, 1)
    (site.root / "app.html").write_text("<!doctype html><title>An app</title>")
    worker = (site.root / "releases" / manifest.release_id / "sw.js").read_text()
    closed = "CacheStorage.prototype.open = () => Promise.reject(new Error('closed'));"
    (site.root / "sw.js").write_text(f"{closed}\n{worker}")
    page.goto(f"{site.url}/app.html")
    page.evaluate(
        """async () => (await caches.open("shipway-pointers")).put("/current.json", new Response("{"))"""
    )
    seen = page.evaluate(FOLLOW, [manifest.release_id, [1, 2, 3, 4]])
    assert (seen["version"], seen["stale"], seen["offline"]) == (1, "", False)
    page.add_init_script("Cache.prototype.keys = () => Promise.reject(new Error('unreadable'));")
    page.goto(site.page(manifest))
    assert report_of(page)["passed"] is True


def test_halves_are_bits_whatever_the_browser_has(tiny: Any, site: Site, page: Page, tmp_path: Path) -> None:
    """The runtime gives a Float16Array where there is one."""
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", sides[:1], sides[1:])
    path = tmp_path / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    x = np.array([0.1, -2.5, 1000], np.float16)

    def put(name: str, source: Path) -> File:
        return File(name, tiny.store.add_file(source), source.stat().st_size)

    slices = golden.write(tmp_path / "golden", {"x": x}, ["y"], [x])
    tiny.version = dataclasses.replace(
        tiny.version,
        inputs=(TensorSpec("x", "float16", ("n",)),),
        outputs=(TensorSpec("y", "float16", ("n",)),),
        variants=(Variant("fp32", (put("model.onnx", path),)),),
        golden=tuple(put(f"golden/{one.name}", one) for one in slices),
    )
    page.goto(site.page(site.release(tiny)))
    report = report_of(page)
    assert (report["passed"], report["max_abs"]) == (True, 0)
    program = """async () => {
      const model = await (await import("./model.js")).load();
      const { y } = await model.run({ x: { data: new Uint16Array([0x3c00, 0xc000]), dims: [2] } });
      return [y.data.constructor.name, ...y.data];
    }"""
    assert page.evaluate(program) == ["Uint16Array", 0x3C00, 0xC000]


def test_an_input_of_one_s_own_as_json(tiny: Any, site: Site, page: Page) -> None:
    page.goto(site.page(site.release(tiny)))
    report_of(page)
    weights = onnx.numpy_helper.to_array(
        onnx.load(tiny.store.open(tiny.version.variants[0].files[0])).graph.initializer[0]
    )
    page.fill("#fields textarea", "[[1, 2, 3, 4], [4, 3, 2, 1]]")
    page.click("#fields button")
    page.wait_for_selector("#answer pre")
    shown = [float(number) for number in page.inner_text("#answer pre").split(", ")]
    x = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], np.float32)
    np.testing.assert_allclose(shown, np.maximum(x @ weights, 0).ravel(), rtol=1e-4)
    for text, said in (
        ("[[1, 2", "x is not JSON"),
        ("[[1, 2], [3]]", "the lists differ in length"),
        ("[[1]]", "4"),
    ):
        page.fill("#fields textarea", text)
        page.click("#fields button")
        page.wait_for_selector("#answer .bad")
        assert said in page.inner_text("#answer .bad")


def classifier(made: Any, folder: Path) -> Any:
    """``made`` with a model that averages each colour of a picture: three classes."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["y"]),
    ]
    sides = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3]),
    ]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:])
    path = folder / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    x = (np.arange(3 * 8 * 12, dtype=np.float32).reshape(1, 3, 8, 12) % 100) / 128
    outputs = onnxruntime.InferenceSession(path).run(None, {"x": x})

    def put(name: str, source: Path) -> File:
        return File(name, made.store.add_file(source), source.stat().st_size)

    (folder / "labels").write_text("red\ngreen\nblue\n")
    slices = golden.write(folder / "golden", {"x": x}, ["y"], outputs)
    made.version = dataclasses.replace(
        made.version,
        inputs=(TensorSpec("x", "float32", (1, 3, "h", "w")),),
        outputs=(TensorSpec("y", "float32", (1, 3)),),
        variants=(Variant("fp32", (put("model.onnx", path),)),),
        golden=tuple(put(f"golden/{one.name}", one) for one in slices),
        assets=(put("assets/labels.txt", folder / "labels"),),
    )
    return made


def test_a_picture_of_one_s_own(tiny: Any, site: Site, page: Page, tmp_path: Path) -> None:
    page.goto(site.page(site.release(classifier(tiny, tmp_path))))
    assert report_of(page)["passed"] is True
    page.click("#fields button")
    page.wait_for_selector("#answer .bad")
    assert page.inner_text("#answer .bad") == "Choose a picture for x."
    picture = page.evaluate(
        """() => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 30, height: 20 });
          const context = canvas.getContext("2d");
          context.fillStyle = "rgb(51, 102, 204)";
          context.fillRect(0, 0, 30, 20);
          return canvas.toDataURL("image/png").split(",")[1];
        }"""
    )
    (tmp_path / "p.png").write_bytes(base64.b64decode(picture))
    page.set_input_files("#fields input[type=file]", tmp_path / "p.png")
    page.click("#fields button")
    page.wait_for_selector("#answer td")
    cells = page.eval_on_selector_all("#answer td", "all => all.map(cell => cell.textContent)")
    assert cells[::2] == ["blue", "green", "red"]
    np.testing.assert_allclose([float(cell) for cell in cells[1::2]], [0.8, 0.4, 0.2], rtol=1e-5)


def test_nothing_leaves_a_phone_s_screen(tiny: Any, site: Site, page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(site.page(site.release(classifier(tiny, tmp_path))))
    report_of(page)
    outside = """() => [...document.querySelectorAll("form *, dl *")].filter(
      (one) => one.getBoundingClientRect().right > one.closest("form, dl").getBoundingClientRect().right + 1
    ).map((one) => one.outerHTML)"""
    assert page.evaluate(outside) == []
    write_report(tiny.version, site.root / "report.html")
    for address in (page.url, f"{site.url}/report.html"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address


def listening(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(site: Site, snippet: Path) -> Iterator[int]:
    """Debian's nginx with the bundle's file in its server block; the port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program, "tools/install-real-parts.sh installs nginx"
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    home = site.root.parent / "nginx"
    home.mkdir(exist_ok=True)
    paths = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"user root; pid {home}/pid; daemon off; error_log {home}/errors; events {{}}\n"
        f"http {{ include /etc/nginx/mime.types; access_log off; {paths}\n"
        f"server {{ listen 127.0.0.1:{port}; root {site.root}; include {snippet}; }} }}\n"
    )
    with subprocess.Popen([program, "-p", home, "-c", home / "nginx.conf"]) as server:
        try:
            until = time.monotonic() + 120
            while not listening(port):
                assert server.poll() is None, (home / "errors").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            yield port
        finally:
            server.terminate()


def test_nginx_isolates_the_page_and_hands_out_the_copies(tiny: Any, site: Site, page: Page) -> None:
    manifest = site.release(tiny, threads=2)
    site.point(manifest, 1)
    home = f"/releases/{manifest.release_id}"
    with nginx(site, site.root / home[1:] / "hosting" / "nginx.conf") as port:

        def head(path: str, **headers: str) -> dict[str, str]:
            with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                connection.request("HEAD", path, headers=headers)
                answer = connection.getresponse()
                assert answer.status == 200
                return {name.lower(): value for name, value in answer.getheaders()}

        for path, kind in (
            ("ort/ort-wasm-simd-threaded.wasm", "application/wasm"),
            ("ort/ort.wasm.min.js", "text/javascript"),
        ):
            plain, packed = head(f"{home}/{path}"), head(f"{home}/{path}", **{"Accept-Encoding": "gzip, br"})
            copy, original = manifest.file(f"{path}.br"), manifest.file(path)
            assert copy is not None
            assert original is not None
            assert (plain["content-type"], plain["content-length"]) == (kind, str(original.size))
            assert (packed["content-type"], packed["content-length"]) == (kind, str(copy.size))
            assert "content-encoding" not in plain
            assert packed["content-encoding"] == "br"
            for seen in (plain, packed):
                assert "access-control-allow-origin" not in seen
                assert seen["vary"] == "Accept-Encoding"
                assert seen["cross-origin-embedder-policy"] == "require-corp"
                assert "immutable" in seen["cache-control"]
        pointer = head("/current.json")
        assert (pointer["cache-control"], pointer["content-type"]) == ("no-store", "application/json")
        for name, kind in (("logo.svg", "image/svg+xml"), ("font.woff2", "font/woff2")):
            (site.root / name).write_bytes(b"the rest of the site")
            assert head(f"/{name}")["content-type"] == kind
        page.goto(f"http://localhost:{port}{home}/index.html")
        report = report_of(page)
        assert (report["passed"], report["threads"]) == (True, 2)


ELSEWHERE = """async ([code, pointer]) => {
  const { loadCurrent } = await import(code);
  const model = await loadCurrent(pointer);
  const { y } = await model.run({ x: { data: new Float32Array(4), dims: [1, 4] } });
  return { threads: model.threads, verified: model.verified, dims: y.dims };
}"""


def test_a_page_of_another_origin_loads_the_model_where_nginx_is_told_to_let_it(
    tiny: Any, site: Site, page: Page, tmp_path: Path
) -> None:
    """The page is isolated, so all that it loads from elsewhere must be allowed to it."""
    site.headers = ISOLATED
    (site.root / "app.html").write_text("<!doctype html><title>An app</title>")
    models = Site(tmp_path / "models")
    manifest = models.release(tiny, threads=2)
    models.point(manifest, 1)
    release = models.root / "releases" / manifest.release_id
    snippet = (release / "hosting" / "nginx.conf").read_text()
    switch = 'set $shipway_origin "";'
    assert switch in snippet
    allowed = tmp_path / "allowed.conf"
    for origin in ("", site.url, "*"):
        allowed.write_text(snippet.replace(switch, f'set $shipway_origin "{origin}";'))
        page.goto(f"{site.url}/app.html")
        with nginx(models, allowed) as port:
            there = f"http://localhost:{port}"
            addresses = [f"{there}/releases/{manifest.release_id}/model.js", f"{there}/current.json"]
            if origin:
                found = page.evaluate(ELSEWHERE, addresses)
                assert found == {"threads": 2, "verified": True, "dims": [1, 3]}
            else:
                with pytest.raises(Error, match="Failed to fetch"):
                    page.evaluate(ELSEWHERE, addresses)
