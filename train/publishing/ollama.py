"""What Ollama reads beside the weights: layout, persona and sampling, as a Modelfile and as files of a repository.

It knows no weights.
"""

import json
import re
from typing import Any

from roleplay.engine.protocol import Sampling
from roleplay.weights.adapters import Adapter

STOP = "<end_of_turn>"
# Ollama's templates are Go's. The last action prints nothing: it keeps the line break before it.
_GO_TURNS = (
    '{{ $first := true }}{{ range .Messages }}{{ if eq .Role "user" }}<start_of_turn>user\n'
    "%s{{ $first = false }}{{ .Content }}<end_of_turn>\n"
    '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}'
    '<start_of_turn>model\n{{ "" }}'
)
GO_TEMPLATES = {
    "gemma": _GO_TURNS % "{{ if and $first $.System }}{{ $.System }}\n\n{{ end }}",
    "tutorial": "{{ if .System }}<start_of_turn>system\n{{ .System }}<end_of_turn>\n{{ end }}" + _GO_TURNS % "",
}


def parameters() -> dict[str, Any]:
    """The page's sampling by Ollama's names."""
    sampling = Sampling()
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repeat_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }


def modelfile(adapter: Adapter, source: str) -> str:
    """What `ollama create` reads: weights, layout, persona and sampling."""
    # Ollama ends such a text where a line ends with three quotes: one at the persona's end is still its own.
    persona = re.sub('"{3,}', '""', adapter.persona)
    lines = (
        f"# {adapter.name}",
        f"FROM {source}",
        f'TEMPLATE """{GO_TEMPLATES[adapter.template]}"""',
        f'SYSTEM """{persona}"""',
        f'PARAMETER stop "{STOP}"',
        *(f"PARAMETER {name} {value}" for name, value in parameters().items()),
    )
    return "\n".join(lines) + "\n"


def repository_files(adapter: Adapter) -> dict[str, str]:
    """What `ollama run hf.co/user/name` reads beside the GGUF file, by file name; each must be named exactly so."""
    return {
        "template": GO_TEMPLATES[adapter.template],
        "system": adapter.persona,
        "params": json.dumps({"stop": [STOP], **parameters()}, indent=1) + "\n",
    }
