"""What ADAPTER may name, and what is fetched for it: against the real clients and `hub_server` on loopback."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from roleplay.errors import AdapterError, HubError, RoleplayError
from roleplay.weights import adapters, inspection, layout, sources
from tests import tiny
from tests.hub_server import Hub

NAMED = {
    "": [],
    "me": [("me", "", "")],
    "me/poet": [("me/poet", "me/poet", "")],
    "me/poet@v1": [("me/poet@v1", "me/poet", "v1")],
    "modelscope:me/poet": [("modelscope:me/poet", "me/poet", "")],
    " me/poet , two,, me/poet": [("me/poet", "me/poet", ""), ("two", "", "")],
}


@pytest.mark.parametrize("setting", NAMED)
def test_what_a_setting_names(setting: str) -> None:
    assert [(s.text, s.repo, s.revision) for s in sources.parse(setting)] == NAMED[setting]


def fetch(text: str, cache: Path, said: list[str] | None = None) -> adapters.Adapter:
    return sources.fetch(sources.parse(text)[0], cache, [].append if said is None else said.append)


def downloads(server: Hub) -> list[str]:
    return [line for line in server.log if "/resolve/" in line and line.startswith("GET")]


def test_a_private_adapter_is_fetched_once_a_revision(server: Hub, folder: Path, tmp_path: Path) -> None:
    repo, said = server.add("models/me/poet", tiny.contents(folder)), list[str]()
    first = fetch("me/poet", tmp_path, said)
    assert (first.name, first.revision) == ("me/poet", repo.commits[-1])
    assert adapters.read_weights(first).keys() == adapters.read_weights(inspection.inspect(folder)).keys()
    assert said[0].startswith("me/poet: 0.0 of ") and said[0].endswith(" MB")
    server.log.clear()
    assert fetch("me/poet", tmp_path) == first and downloads(server) == []
    repo.files[layout.BOARD] = b"{}"
    repo.commit()
    assert fetch("me/poet", tmp_path).revision == repo.commits[-1] != first.revision  # the next start has what is new
    server.log.clear()
    old = fetch(f"me/poet@{first.revision}", tmp_path)
    assert (old.folder, server.log) == (first.folder, [])  # a whole commit needs no asking


def test_two_first_starts_fetch_one_adapter(server: Hub, folder: Path, tmp_path: Path) -> None:
    tiny.looking_up(folder)
    server.add("models/me/poet", tiny.contents(folder))
    server.faults = {"GET /me/poet/resolve/": [0.5]}  # the other start comes meanwhile
    with ThreadPoolExecutor(2) as starts:
        one, other = starts.map(fetch, ["me/poet"] * 2, [tmp_path] * 2)
    assert one.folder == other.folder and len(downloads(server)) == len(layout.FILES)


def test_an_older_revision(server: Hub, folder: Path, tmp_path: Path) -> None:
    repo = server.add("models/me/poet", tiny.contents(folder))
    old = repo.commits[-1]
    repo.files = {"README.md": b"gone"}
    repo.commit()
    assert fetch(f"me/poet@{old}", tmp_path).revision == old
    with pytest.raises(HubError, match="me/poet has no such revision"):
        fetch("me/poet@v9", tmp_path)


def test_from_modelscope(server: Hub, folder: Path, tmp_path: Path) -> None:
    tiny.looking_up(folder)
    repo = server.add("scope/me/poet", tiny.contents(folder))
    first = fetch("modelscope:me/poet", tmp_path)
    assert first.name == "modelscope:me/poet" and len(first.revision) == 40
    assert tiny.contents(first.folder).keys() >= set(layout.FILES)
    server.log.clear()
    assert fetch("modelscope:me/poet", tmp_path).folder == first.folder
    assert not [line for line in server.log if line.endswith("/repo")]
    repo.files[layout.BOARD] = b"{}"
    assert fetch("modelscope:me/poet", tmp_path).revision != first.revision
    with pytest.raises(HubError, match="you/none cannot be had from ModelScope"):
        fetch("modelscope:you/none", tmp_path)


@pytest.mark.parametrize("name", layout.FILES)
@pytest.mark.parametrize("at", ["", "modelscope:"])
def test_no_file_of_an_adapter_may_be_of_any_size(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, name: str
) -> None:
    monkeypatch.setitem(layout.MAX_BYTES, layout.WEIGHTS, 1 << 20)
    large = {name: b" " * (layout.MAX_BYTES[name] + 1)}
    server.add("scope/me/poet" if at else "models/me/poet", tiny.contents(folder) | large)
    with pytest.raises(HubError, match=f"its {name} has .* are the limit"):
        fetch(f"{at}me/poet", tmp_path)
    assert downloads(server) == [] and not list(tmp_path.glob("adapters*/*poet/*"))


def test_what_is_refused_is_not_kept(server: Hub, folder: Path, tmp_path: Path) -> None:
    server.add("models/me/poet", tiny.contents(folder) | {layout.TEMPLATE: b"{{ 1 }}"})
    with pytest.raises(AdapterError, match="none of this project's own"):
        fetch("me/poet", tmp_path)
    assert not list((tmp_path / "adapters" / "me--poet").iterdir())


def test_where_no_hub_is_reached_the_last_revision_speaks(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("models/me/poet", tiny.contents(folder))
    first = fetch("me/poet", tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch("me/poet", tmp_path) == first
    assert f"me/poet: revision {first.revision[:12]} from the cache; " in capsys.readouterr().out
    for other in ("me/other", "me/poet@v1"):
        with pytest.raises(HubError, match="the connection to the Hub was lost"):
            fetch(other, tmp_path)


@pytest.mark.parametrize(("text", "repo"), [("me/poet", "models/me/poet"), ("modelscope:me/poet", "scope/me/poet")])
def test_a_hub_that_fails_or_is_away_leaves_the_last_revision(
    server: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, repo: str
) -> None:
    server.add(repo, tiny.contents(folder))
    first = fetch(text, tmp_path)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # ModelScope's client waits between its attempts
    server.faults = {"models/me/poet": [503] * 10}
    assert fetch(text, tmp_path) == first and len(server.faults["models/me/poet"]) < 10
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(text, tmp_path) == first


def test_what_is_taken_away_is_not_served_from_the_cache(server: Hub, folder: Path, tmp_path: Path) -> None:
    server.add("models/me/poet", tiny.contents(folder))
    fetch("me/poet", tmp_path)
    del server.repos["models/me/poet"]
    with pytest.raises(RoleplayError, match="is not on the Hub"):
        fetch("me/poet", tmp_path)
