"""Every environment variable the project reads, read here and nowhere else."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from roleplay.errors import RoleplayError

ROOT = Path(__file__).parent.parent
LOCAL = ("127.0.0.1", "localhost", "::1")
PRIVATE = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _number(name: str, default: int, low: int, high: int) -> int:
    value = _text(name, str(default))
    if not (value.isdecimal() and low <= int(value) <= high):
        raise RoleplayError(f"{name} is {value!r}; give a number from {low} to {high}")
    return int(value)


def _yes(name: str) -> bool:
    return _text(name).lower() in ("1", "t", "true")


def _host() -> str:
    return _text("HOST", "0.0.0.0" if _text("SPACE_ID") else "127.0.0.1").strip("[]")


def _cache() -> Path:
    return Path(_text("ROLEPLAY_CACHE", str(Path.home() / ".cache" / "roleplay")))


@dataclass(frozen=True)
class Environment:
    """What the environment says, checked; a field is read when the object is made."""

    base_model: str = field(default_factory=lambda: _text("BASE_MODEL"))
    adapter: str = field(default_factory=lambda: _text("ADAPTER"))
    persona: str = field(default_factory=lambda: _text("PERSONA"))
    engine_url: str = field(default_factory=lambda: _text("ENGINE_URL"))
    zero_gpu: bool = field(default_factory=lambda: _yes("SPACES_ZERO_GPU"))
    accelerator: str = field(default_factory=lambda: _text("ACCELERATOR", "none"))  # as a Space's hardware is called
    engine_key: str = field(default_factory=lambda: _text("ENGINE_KEY"))
    host: str = field(default_factory=_host)
    port: int = field(default_factory=lambda: _number("PORT", 7860, 1, 65535))
    auth: str = field(default_factory=lambda: _text("APP_AUTH"))
    # How many adapters from the Hub visitors may load: none where the page is open to more than this machine.
    hub_adapters: int = field(default_factory=lambda: _number("HUB_ADAPTERS", 4 if _host() in LOCAL else 0, 0, 64))
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
