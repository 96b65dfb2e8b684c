"""Whether two names of a base model mean the same weights. It opens nothing."""

import re

from roleplay.errors import AdapterError

# A release of Gemma's: its generation, size and kind, whoever holds the copy, quantised or not.
_RELEASE = re.compile(
    r"(?<![a-z])gemma-(?:[\d.]+-)?\d+[bm](?P<kind>-it|-pt)?(?=$|[/\\]|-(?:unsloth-)?bnb-4bit|-(?:4|8)bit|-bf16)"
)


def release(name: str) -> str:
    """The release of Gemma that a name or a path says, such as gemma-2b-it; "" where it says none."""
    found = list(_RELEASE.finditer(name.lower()))
    return found[-1][0].removesuffix("-pt") if found else ""


def matched(told: str, name: str, given: bool) -> str:
    """Why a model of this `name` is taken for the one that an adapter's trainer `told` of, or was `given` for it.

    Raises `AdapterError` where the two names contradict each other, or nothing says that they mean the same.
    """
    ours, theirs = release(name), release(told)
    said = theirs or repr(re.split(r"[/\\]", told.rstrip("/\\"))[-1])[:80]  # no path of a machine
    if told and (told.rstrip("/\\") == name or (ours and ours == theirs)):
        return f"its configuration names {said}"
    trained = f"it was trained on {told!r:.120}" if told else "it does not say what it was trained on"
    if ours and theirs:
        raise AdapterError(f"{trained}, and the base model is {name}: give --base-model with a copy of {theirs}")
    if not given:
        raise AdapterError(f"{trained}, and the base model is {name}: say with --base-model which one that is")
    return f"as --base-model says; its configuration names {said}"
