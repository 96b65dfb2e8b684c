"""Other machines than this one: every module is imported as Windows, macOS and Alpine Linux would have it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import httpx
import httpx2
import pytest
from huggingface_hub import constants

from roleplay.environment import OWN, ROOT, fit_network
from roleplay.errors import HubError, RoleplayError
from roleplay.weights import base_models, hub
from tests.test_imports import PRODUCT, name_of

# Once as it is, so that every library is there; then again without what a machine may lack.
WITHOUT = """
import ctypes, importlib, json, os, select, signal, sys

modules = json.loads(sys.argv[1])
for module in modules:
    importlib.import_module(module)
for name in [name for name in sys.modules if name.split(".")[0] in {module.split(".")[0] for module in modules}]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None  # an import of it fails
for name in ("SIGKILL", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "SIGQUIT"):
    delattr(signal, name)
del select.poll, select.epoll, signal.alarm
for name in ("fork", "getuid", "geteuid", "getpgid", "killpg", "mkfifo", "sched_getaffinity", "setsid"):
    delattr(os, name)
ctypes.CDLL = lambda name, *rest, **more: object()  # a C library without glibc's functions
for module in modules:
    importlib.import_module(module)
from roleplay import heap
heap.return_blocks(1 << 20)
heap.trim()
"""


def test_every_module_is_imported_without_what_unix_and_glibc_have() -> None:
    modules = sorted(name_of(path) for path in PRODUCT)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(modules)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_local_addresses_pass_a_proxy_by() -> None:
    told = {"ALL_PROXY": "socks://127.0.0.1:7890/", "https_proxy": "http://proxy:3128 ", "NO_PROXY": "corp.cn"}
    fit_network(told)
    assert told["ALL_PROXY"] == "socks5://127.0.0.1:7890/" and told["https_proxy"] == "http://proxy:3128"
    assert told["no_proxy"] == told["NO_PROXY"] == f"corp.cn,{OWN}"


def test_without_a_proxy_the_systems_own_settings_stay() -> None:
    told = {"HTTP_PROXY": "", "PATH": "/bin"}
    fit_network(told)
    assert told == {"HTTP_PROXY": "", "PATH": "/bin"}


READ = "corp.cn, .corp.cn,*.corp.cn,10.0.0.0/8,192.168.*,localhost:7860,http://a.cn,::1,fe80::1%eth0,*"


@pytest.mark.parametrize(
    ("exempt", "read"),
    [("[::1]", "::1"), ("fe80::/10,[::1]:80,公司.cn,corp.cn:abc,<local>,a.cn", "a.cn"), (READ, READ.replace(" ", ""))],
)
def test_an_exemption_is_such_that_clients_can_read_it(exempt: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"NO_PROXY": exempt}
    fit_network(told)
    assert told == {"NO_PROXY": read, "no_proxy": read}
    monkeypatch.setenv("no_proxy", read)
    for client in (httpx.Client, httpx2.Client):
        client().close()


ADDRESSES = {  # of a proxy or a mirror, and what of it a refusal shows: "" where it is taken
    ("ALL_PROXY", "socks4://127.0.0.1:1080"): "'socks4://127.0.0.1:1080'): give http://, https:// or socks5://",
    ("HTTPS_PROXY", "http://127.0.0.1:port"): "'http://127.0.0.1:port'",
    ("https_proxy", "127.0.0.1:port"): "'http://127.0.0.1:port'",
    ("http_proxy", "http://me:secret@proxy:port"): "'proxy:port'",
    ("http_proxy", "http://me:sec/ret@proxy:3128"): "'proxy:3128'",
    ("all_proxy", "http://"): "'http://'",
    ("HF_ENDPOINT", "https://hf-mirror.com:abc"): "'https://hf-mirror.com:abc'): give https:// and a host",
    ("HF_ENDPOINT", "hf-mirror.com"): "'hf-mirror.com'): give https:// and a host",
    ("HF_ENDPOINT", "https://hf-mirror.com/"): "",
    ("HTTPS_PROXY", "HTTP://me:se%20cret@[::1]:3128/"): "",
    ("ALL_PROXY", "socks5h://127.0.0.1"): "",
    ("http_proxy", "proxy:3128"): "",
}


@pytest.mark.parametrize(("name", "address"), ADDRESSES)
def test_an_address_that_is_none_is_told_without_its_password(name: str, address: str) -> None:
    said = ADDRESSES[name, address]
    with pytest.raises(RoleplayError) if said else nullcontext() as error:
        fit_network({name: address})
    if error:
        assert f"{name} is no address ({said}" in str(error.value) and "sec" not in str(error.value)


def test_a_proxy_that_cannot_be_used_ends_a_command_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import roleplay"],
        **dict(cwd=ROOT, env=os.environ | {"ALL_PROXY": "socks4://127.0.0.1:1080"}, capture_output=True, text=True),
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ALL_PROXY is") and done.stderr.count("\n") == 1


class _LoginPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<html><title>Welcome to the hotel</title></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def login_page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _LoginPage) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def refusals(tmp_path: Path) -> list[str]:
    """What is said where a base model, an adapter and a list of adapters are wanted."""
    found = []
    for ask in (
        lambda: base_models.load("me/base", tmp_path),
        lambda: hub.fetch_adapter("me/adapter", tmp_path),
        lambda: hub.hub_adapters("me/base"),
    ):
        with pytest.raises(RoleplayError) as error:
            ask()
        found.append(str(error.value))
    assert not any("\n" in line for line in found)
    return found


def test_a_login_page_that_answers_for_the_hub(
    login_page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", login_page)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert all("what answers is no hub, as a network's login page" in line for line in refusals(tmp_path))
    assert hub.exists("me/adapter") is None


def test_an_offline_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert all("HF_HUB_OFFLINE is set, so that no hub is asked" in line for line in refusals(tmp_path))


def test_a_socks_proxy_is_spoken_to_and_one_that_is_none_is_told() -> None:
    greetings: Queue[bytes] = Queue()

    def greet() -> None:
        connection, _ = proxy.accept()
        with connection:
            greetings.put(connection.recv(16))

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        Thread(target=greet, daemon=True).start()
        client = httpx2.Client(proxy=f"socks5://127.0.0.1:{proxy.getsockname()[1]}", timeout=60)
        refused = pytest.raises(HubError, match="^me/base: the proxy does not answer as SOCKS does")
        with client, refused, hub.sentences("me/base"):
            client.get("http://hub.example")
        assert greetings.get(timeout=60)[0] == 5  # the version


def test_debug_shows_the_traceback_above_the_line() -> None:
    command = [sys.executable, "-m", "dataset.new", "no name"]
    plain, debug = (
        subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)
        for more in ([], ["--debug"])
    )
    assert plain.returncode == debug.returncode == 2
    assert plain.stderr.startswith("error: ") and plain.stderr.count("\n") == 1
    assert debug.stderr.startswith("Traceback") and debug.stderr.splitlines()[-1] == plain.stderr.strip()


NOBODY = ["unshare", "-U", "--map-user=12345", "--map-group=12345", "env", "-u", "HOME", "-u", "ROLEPLAY_CACHE"]


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*NOBODY, "true"], check=False, capture_output=True).returncode != 0,
    reason="no user without a home can be had here",
)
def test_a_user_without_a_home_needs_a_cache_alone(tmp_path: Path) -> None:
    start = [sys.executable, "-c", "import app; print(app.Environment().cache)"]
    with_cache, without = (
        subprocess.run([*NOBODY, *told, *start], cwd=ROOT, capture_output=True, text=True, check=False)
        for told in ([f"ROLEPLAY_CACHE={tmp_path}"], [])
    )
    assert with_cache.returncode == 0 and with_cache.stdout.splitlines()[-1] == str(tmp_path), with_cache.stderr
    assert without.returncode == 2 and without.stderr.count("\n") == 1
    assert "this user has no home folder: set HOME or ROLEPLAY_CACHE" in without.stderr
