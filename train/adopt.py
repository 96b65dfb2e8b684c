"""Take in a LoRA that another trainer made with peft: TRL, LLaMA-Factory, Unsloth, axolotl, ms-swift, a tutorial.

    python -m train.adopt output/checkpoint-400 --name mara --template tutorial --persona dataset/mara/persona.json
    python -m train.adopt you/gemma-lora --name mara --base-model google/gemma-2b-it

It writes adapters/NAME/, a whole folder as train.lora writes it, whose card says where it is from. Of the origin only
safetensors and JSON are read. What is more than plain LoRA is refused with the reason; the chat template is recognised
and never run. The base model must be the one that the adapter was trained on, and the adapter must move it.
"""

import dataclasses
import importlib.metadata
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roleplay.adoption import bases, matrices, templates
from roleplay.adoption import origin as origins
from roleplay.adoption.configuration import Configuration, read_configuration
from roleplay.adoption.keys import read_pairs
from roleplay.adoption.matrices import Plain
from roleplay.adoption.origin import Origin
from roleplay.engine.local import LocalEngine
from roleplay.environment import ROOT, Environment
from roleplay.errors import AdapterError, DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.text.personas import Persona, load_persona, parse_persona
from roleplay.text.prompts import TEMPLATES
from roleplay.weights import base_models, embedded, inspection
from roleplay.weights.base_models import BaseModel
from roleplay.weights.layout import CONFIG, NAME, TRAINING, WEIGHTS
from train.publishing.folders import written_adopted

LEAST_KL = 1e-6  # nat; an adapter of another model, or of none, may fit in shape and move nothing


@dataclass(frozen=True)
class AdoptFlags:
    source: str = flag("", "the adapter: a folder, or user/name, user/name@v1 or modelscope:user/name", place="first")
    name: str = flag("", "folder under adapters/ to write")
    template: str = flag("", "the prompts that it was trained with; by default as the files tell", tuple(TEMPLATES))
    persona: str = flag("", "JSON file of who it speaks as; by default as the files tell, else nobody")
    base_model: str = flag("", "what it was trained on: embedded, a Hugging Face id, modelscope:OWNER/NAME, a folder")


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parse(AdoptFlags, __doc__, arguments)
    folder = ROOT / "adapters" / flags.name
    if not NAME.fullmatch(flags.name):
        raise RoleplayError(f"--name {flags.name!r:.80}: give the new adapter one, of letters, digits, dots and dashes")
    if folder.exists():
        raise RoleplayError(f"{folder} exists: choose another --name, or remove it first")
    with tempfile.TemporaryDirectory() as place:
        origin = origins.find(flags.source, Path(place))
        config = read_configuration(origin.json(CONFIG), CONFIG)  # all that can be refused without the base model
        read_pairs(origin.folder / WEIGHTS)
        templates.template_of(origin, flags.template)
        environment = Environment()
        base = base_models.load(flags.base_model or environment.base_model, environment.cache)
        adopt(origin, config, base, folder, flags)


def adopt(origin: Origin, config: Configuration, base: BaseModel, folder: Path, flags: AdoptFlags) -> None:
    """Write the adopted adapter to `folder`, and say how each thing about it was known.

    Raises `AdapterError` where it does not fit the base model, is damaged, or does not move the model.
    """
    weights = origin.folder / WEIGHTS
    template, why_template = templates.template_of(origin, flags.template)
    persona, why_persona = persona_of(origin, flags)
    identity, why_base = base_of(origin, config, base, bool(flags.base_model))
    pairs = read_pairs(weights)
    matrices.check_fit(pairs, config, base.model, weights)
    plain = matrices.convert(pairs, config, matrices.projections_of(base.model), weights)
    record = {
        "adopted": {"from": origin.name, "files": origin.hashes(), "base_model": why_base, "template": why_template}
        | {"persona": why_persona, "changes": plain.changes},
        "settings": settings_of(plain),
        "data": [],
        "base_model": identity,
        "persona": dataclasses.asdict(persona),
        "template": template,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")},
    }
    try:
        with written_adopted(folder, plain, record) as part:
            kl = moved(part, base)
    except AdapterError as error:
        raise AdapterError(str(error).replace(f".{folder.name}.part/", "")) from error
    print(f"adapter      {origin.name}: rank {plain.rank}; {'; '.join(plain.changes) or 'its matrices as they are'}")
    print(f"base model   {identity['name']}: {why_base}", f"template     {template}: {why_template}", sep="\n")
    print(f"persona      {persona.name}: {why_persona}", f"{folder}: moves the model by {kl:.2g} nat", sep="\n")


def settings_of(plain: Plain) -> dict[str, Any]:
    """The LoRA's own settings, in the words of train.lora's flags."""
    return {"rank": plain.rank, "alpha": plain.alpha, "rslora": plain.rslora, "projections": plain.projections}


def persona_of(origin: Origin, flags: AdoptFlags) -> tuple[Persona, str]:
    """Who it speaks as, and why; nobody is a persona without a system prompt."""
    if flags.persona:
        return load_persona(flags.persona), "as --persona says"
    reason = "no system prompt is known"
    if told := origin.json(TRAINING).get("persona"):
        try:
            return parse_persona(told, TRAINING), f"as {TRAINING} says"
        except DataError as error:
            reason = str(error)
    return Persona(flags.name, ""), f"{reason}; give one with --persona"


def base_of(origin: Origin, config: Configuration, base: BaseModel, given: bool) -> tuple[dict[str, Any], str]:
    """The base model's identity as training.json has it, and why it is this one; raises `AdapterError` if it is not.

    A fingerprint that a training of this project recorded decides.
    """
    identity, told = base.identity(), origin.json(TRAINING).get("base_model")
    if isinstance(told, dict) and (recorded := told.get("fingerprint")):
        dequantised = base.hub_id == embedded.HUB_ID and recorded == embedded.FINGERPRINT
        if recorded != identity["fingerprint"] and not dequantised:
            trained = f"{origin.name} was trained on {told.get('name')!r:.80} (fingerprint {recorded!r:.20})"
            raise AdapterError(f"{trained}, the base model has {identity['fingerprint']}: give its own --base-model")
        return identity | {"fingerprint": recorded}, "known by its fingerprint"
    try:
        return identity, bases.matched(config.base_model, base.hub_id, given)
    except AdapterError as error:
        raise AdapterError(f"{origin.name}: {error}") from error


def moved(folder: Path, base: BaseModel) -> float:
    """How far the adapter of a folder moves its base model, in nat, in the engine that will serve it.

    Raises `AdapterError` where it does not stand the inspection or moves nothing.
    """
    adapter, engine = inspection.inspect(folder), LocalEngine(base)
    engine.add(adapter)
    kl = engine.kl_to_base(adapter.name) or 0.0
    if kl < LEAST_KL:
        raise AdapterError(f"{adapter.name} moves the model by {kl:.1g} nat, which is nothing: give what was trained")
    return kl


if __name__ == "__main__":
    with one_line_errors():
        main()
