"""Every environment variable the project reads, read here and nowhere else."""

import os
import re
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from roleplay.errors import RoleplayError

ROOT = Path(__file__).parent.parent
LOCAL = ("127.0.0.1", "localhost", "::1")
PRIVATE = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


# The client of the Hub's storage reads these; by itself it tries a dead one for six minutes and says nothing.
STORAGE = {
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "20s",
    "HF_XET_CLIENT_CONNECT_TIMEOUT": "10s",
    "HF_XET_CLIENT_READ_TIMEOUT": "30s",
}


def bound_storage() -> None:
    """Have a transfer to or from the Hub's storage that fails end soon, unless the environment says when."""
    for name, value in STORAGE.items():
        os.environ.setdefault(name, value)


OWN = "localhost,127.0.0.1,::1"  # never asked for by way of a proxy: Gradio would not find its own page
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_HOST = r"([^\s/?#]*@)?([\w.-]+|\[[\da-f:.]+])(:\d+)?(/\S*)?"  # with a user before it and a port behind, if any
# What gradio's httpx can read of a NO_PROXY: a name or an IPv4 address, also of a network, with a port if any.
_EXEMPT = re.compile(r"(\w+://)?[\w.*-]+(:\d+)?(/\d+)?", re.ASCII)


def fit_home() -> None:
    """Have ROLEPLAY_CACHE stand in for the home that a container's user may lack, before a library asks for one.

    Raises `RoleplayError` where there is neither.
    """
    try:
        Path.home()
    except RuntimeError as error:
        if not (named := _text("ROLEPLAY_CACHE")):
            raise RoleplayError(
                "this user has no home folder: set HOME or ROLEPLAY_CACHE to one that it can write"
            ) from error
        os.environ["HOME"] = os.path.abspath(named)


def fit_network(told: MutableMapping[str, str] = os.environ) -> None:
    """Have proxies and their exemptions, among them this machine, as clients can read them, before one is imported.

    Desktops write `socks://`. Where no proxy is named, Windows and macOS go on with those of their own settings. Raises
    `RoleplayError` for a proxy or an HF_ENDPOINT that is no address.
    """
    named = [name for name in told if name.lower() in PROXIES and told[name].strip()]
    for name in named:
        told[name] = re.sub("^socks://", "socks5://", told[name].strip())
        address = told[name] if "://" in told[name] else f"http://{told[name]}"
        _check_address(name, address, "https?|socks5h?", "http://, https:// or socks5://, a host and a port")
    if exempt := told.get("no_proxy") or told.get("NO_PROXY") or "":
        exempt = ",".join(filter(None, map(_exemption, exempt.split(","))))
        told["no_proxy"] = told["NO_PROXY"] = exempt
    if named:
        told["no_proxy"] = told["NO_PROXY"] = f"{exempt},{OWN}".lstrip(",")
    if endpoint := told.get("HF_ENDPOINT"):
        _check_address("HF_ENDPOINT", endpoint, "https?", "https:// and a host, as https://hf-mirror.com")


def _exemption(text: str) -> str:
    """One entry of a NO_PROXY, "" for one that no client can read: other programs pass such a one over."""
    entry = re.sub(r"^\[(.*)]$", r"\1", text.strip())
    try:
        IPv6Address(entry)
    except ValueError:
        return entry if _EXEMPT.fullmatch(entry) else ""
    return entry


def _check_address(name: str, address: str, schemes: str, wanted: str) -> None:
    """Raises `RoleplayError` unless it can be read; what stands before an @ may be a password, and is not shown."""
    if not re.fullmatch(f"({schemes})://{_HOST}", address, re.IGNORECASE):
        raise RoleplayError(f"{name} is no address ({address.rpartition('@')[2]!r:.60}): give {wanted}")


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _number(name: str, default: int, low: int, high: int) -> int:
    value = _text(name, str(default))
    if not (value.isdecimal() and low <= int(value) <= high):
        raise RoleplayError(f"{name} is {value!r}; give a number from {low} to {high}")
    return int(value)


def _choice(name: str, *choices: str) -> str:
    value = _text(name, choices[0])
    if value not in choices:
        raise RoleplayError(f"{name} is {value!r}; give {', '.join(filter(None, choices[:-1]))} or {choices[-1]}")
    return value


def _storage() -> Path | None:
    """Where a Space keeps what must outlive it: STORAGE, else the volume at /data if there is one."""
    named = _text("STORAGE", "/data" if _text("SPACE_ID") and os.path.ismount("/data") else "")
    return Path(named) if named else None


def _cores() -> int:
    text = _text("CPU_CORES").partition(".")[0]
    return int(text) if text.isdecimal() else 0


def _yes(name: str) -> bool:
    return _text(name).lower() in ("1", "t", "true")


def _host() -> str:
    return _text("HOST", "0.0.0.0" if _text("SPACE_ID") else "127.0.0.1").strip("[]")


def _cards() -> bool:
    if (value := _text("PERSONAS")) not in ("", "open"):
        raise RoleplayError(f"PERSONAS is {value!r:.40}; give open, or leave it out")
    return value == "open" or _host() in LOCAL


def _cache() -> Path:
    named = _text("ROLEPLAY_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "roleplay"


@dataclass(frozen=True)
class Environment:
    """What the environment says, checked; a field is read when the object is made."""

    base_model: str = field(default_factory=lambda: _text("BASE_MODEL"))
    # What the page computes in; with int8 in what the device chooses, and products with the base weights in 8 bits.
    dtype: str = field(default_factory=lambda: _choice("DTYPE", "", "float32", "bfloat16", "int8"))
    adapter: str = field(default_factory=lambda: _text("ADAPTER"))
    # Whether a base model without an adapter gets one trained at the start: auto where there is a CUDA GPU by then.
    train_missing: str = field(default_factory=lambda: _choice("TRAIN_MISSING", "auto", "always", "never"))
    adapter_repo: str = field(default_factory=lambda: _text("ADAPTER_REPO"))  # where such an adapter is kept
    storage: Path | None = field(default_factory=_storage)
    space: bool = field(default_factory=lambda: bool(_text("SPACE_ID")))
    persona: str = field(default_factory=lambda: _text("PERSONA"))
    engine_url: str = field(default_factory=lambda: _text("ENGINE_URL"))
    zero_gpu: bool = field(default_factory=lambda: _yes("SPACES_ZERO_GPU"))
    accelerator: str = field(default_factory=lambda: _text("ACCELERATOR", "none"))  # as a Space's hardware is called
    cores: int = field(default_factory=_cores)  # that a Space may use: PyTorch would count the host's; 0 is not known
    engine_key: str = field(default_factory=lambda: _text("ENGINE_KEY"))
    host: str = field(default_factory=_host)
    port: int = field(default_factory=lambda: _number("PORT", 7860, 1, 65535))
    auth: str = field(default_factory=lambda: _text("APP_AUTH"))
    # How many adapters from the Hub visitors may load: none where the page is open to more than this machine.
    hub_adapters: int = field(default_factory=lambda: _number("HUB_ADAPTERS", 4 if _host() in LOCAL else 0, 0, 64))
    # Whether visitors may load character cards: where only this machine reaches the page, or PERSONAS says so.
    cards: bool = field(default_factory=_cards)
    at_once: int = field(default_factory=lambda: _number("AT_ONCE", 0, 0, 512))  # rows of a batch; 0 has it measured
    rate: int = field(default_factory=lambda: _number("MESSAGES_PER_MINUTE", 30, 0, 10_000))
    # Whose X-Forwarded-For is believed, as uvicorn reads it: on a Space its own proxies, which have private addresses.
    proxies: str = field(
        default_factory=lambda: _text("FORWARDED_ALLOW_IPS", PRIVATE if _text("SPACE_ID") else "127.0.0.1")
    )
    votes_repo: str = field(default_factory=lambda: _text("VOTES_REPO"))
    votes_public: bool = field(default_factory=lambda: _yes("VOTES_PUBLIC"))  # whether all may read that repository
    cache: Path = field(default_factory=_cache)

    @property
    def url_host(self) -> str:
        """The host as it stands in a URL: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host
