"""Every environment variable the project reads, read here and nowhere else."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from roleplay.errors import RoleplayError

ROOT = Path(__file__).parent.parent


def _text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def _port() -> int:
    value = _text("PORT", "7860")
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise RoleplayError(f"PORT is {value!r}; give a number from 1 to 65535")
    return int(value)


def _cache() -> Path:
    return Path(_text("ROLEPLAY_CACHE", str(Path.home() / ".cache" / "roleplay")))


@dataclass(frozen=True)
class Settings:
    """What the environment says, checked; a field is read when the object is made."""

    base_model: str = field(default_factory=lambda: _text("BASE_MODEL"))
    adapter: str = field(default_factory=lambda: _text("ADAPTER"))
    persona: str = field(default_factory=lambda: _text("PERSONA"))
    engine_url: str = field(default_factory=lambda: _text("ENGINE_URL"))
    host: str = field(default_factory=lambda: _text("HOST", "0.0.0.0" if _text("SPACE_ID") else "127.0.0.1"))
    port: int = field(default_factory=_port)
    auth: str = field(default_factory=lambda: _text("APP_AUTH"))
    votes_repo: str = field(default_factory=lambda: _text("VOTES_REPO"))
    cache: Path = field(default_factory=_cache)
