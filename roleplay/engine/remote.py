"""The engine protocol over an OpenAI-compatible server such as vLLM: base and adapters are model names there.

Prompts go out as the token ids that `prompt` renders, so no chat template runs on the server. Nothing here loads a
model, and nothing here knows who is asking.
"""

import contextlib
import dataclasses
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from transformers import PreTrainedTokenizerBase

from roleplay.engine import remote_scoring
from roleplay.engine.loops import repeats
from roleplay.engine.pieces import answer_ids, joined
from roleplay.engine.protocol import ADAPTER, CANDIDATES, LOOP, SCORE, STRENGTH, Answer, Piece, Request, Sampling
from roleplay.errors import ModelError, RoleplayError
from roleplay.text.prompts import TEMPLATES, Fitted, PromptEncoder
from roleplay.weights.adapters import Adapter

CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 120.0
LISTEN_SECONDS = 0.1  # after which a Stop is heard though the server says nothing
NO_STRENGTH = "a server's adapters speak at the strength that they were trained at"
NO_CANDIDATES = "a server weighs no answers against each other"
LACKS = {STRENGTH: NO_STRENGTH, CANDIDATES: NO_CANDIDATES}
CONTEXT = 2048  # tokens, where the server does not say
_URL = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?(/[\w./-]*)?", re.ASCII)
ENDS = {"stop": "end", "length": "length"}


class RemoteEngine:
    """`protocol.Engine` over HTTP; `adapters` are the local folders that tell each served adapter's template."""

    def __init__(
        self, url: str, tokenizer: PreTrainedTokenizerBase, adapters: Sequence[Adapter] = (), key: str = ""
    ) -> None:
        """`key` is the server's, sent as a bearer token; "" for a server that asks for none."""
        if not _URL.fullmatch(url):
            raise ModelError(f"ENGINE_URL is {url!r}; give the server's address, such as http://127.0.0.1:8000/v1")
        self.url = url.rstrip("/")
        self._parts = urlsplit(self.url)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._encoders = {template: PromptEncoder(tokenizer, template) for template in TEMPLATES}
        self._tokenizer = tokenizer
        self._known: dict[str, PromptEncoder] = {}
        for adapter in adapters:
            self.add(adapter)

    def add(self, adapter: Adapter) -> None:
        """Let an adapter be asked for where the server has one of its name."""
        self._known[adapter.name] = adapter.encoder(self._tokenizer)

    def describe(self) -> list[str]:
        started = time.monotonic()
        try:
            base, context, served = self._served()
        except ModelError as error:
            return [f"server       {error}"]
        return [
            f"server       {self.url}: answers in {(time.monotonic() - started) * 1000:.0f} ms",
            f"base model   {base}: on the server",
            f"adapters     {', '.join(self._usable(served)) or 'none of the local ones is served'}",
            f"context      {context} tokens",
        ]

    def adapters(self) -> list[str]:
        return self._usable(self._served()[2])

    def problem(self) -> str:
        try:
            self._served()
        except ModelError as error:
            return str(error)
        return ""

    def lacks(self) -> dict[str, str]:
        """`LACKS`, and scores where the server is there and gives no token probabilities."""
        try:
            base, _, _ = self._served()
        except ModelError:
            return dict(LACKS)
        try:
            start = self._encoders["gemma"].prefix("")
            remote_scoring.read(self._encoders["gemma"], self._post(remote_scoring.body(base, start)), start[1:])
        except ModelError as error:
            return LACKS | {SCORE: str(error)}
        return dict(LACKS)

    def kl_to_base(self, adapter: str) -> None:
        """The server does not say."""

    def answer(self, request: Request) -> Iterator[dict[str, Answer]]:
        if request.sampling.candidates > 1:
            raise RoleplayError(f"candidates is {request.sampling.candidates}, but {NO_CANDIDATES}: choose 1")
        started, answers, bodies = time.monotonic(), {}, {}
        for side, (model, encoder, prompt) in self._prompts(request).items():
            answers[side] = Answer(dropped_turns=prompt.dropped_turns, shown_rows=prompt.shown_rows)
            bodies[side] = _body(model, prompt.ids, encoder.stop_ids, request.sampling.of(side))
        news: SimpleQueue[tuple[str, Answer]] = SimpleQueue()
        sockets: list[socket.socket] = []
        try:
            for side, body in bodies.items():
                connection = self._connect(SILENCE_SECONDS)
                sockets.append(connection.sock)
                path = f"{self._parts.path}/completions"
                asked = (body, started, side, answers[side], news, request.cut_loops)
                follower = _Follower(connection, path, self._headers, *asked)
                threading.Thread(target=follower.run, daemon=True).start()
            while not all(answer.stop for answer in answers.values()):
                with contextlib.suppress(Empty):  # whoever reads may stop at any time, also before a word has come
                    side, answers[side] = news.get(timeout=LISTEN_SECONDS)
                while not news.empty():  # a slow reader gets the newest, not the backlog
                    side, answers[side] = news.get()
                yield dict(answers)
        finally:
            for one in sockets:
                with contextlib.suppress(OSError):  # the answer has ended and its socket is closed already
                    one.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it, and the server sees the end

    def score(self, request: Request, answer: Answer) -> list[Piece]:
        """As vLLM's `prompt_logprobs` have it; without its dice, what a side would have chosen is the likeliest."""
        prompts, readings = self._prompts(request), {}
        for side, (model, encoder, prompt) in prompts.items():
            said = answer_ids(encoder, answer)
            value = self._post(remote_scoring.body(model, [*prompt.ids, *said]))
            readings[side] = remote_scoring.read(encoder, value, said)
        return joined(encoder, said, readings)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the server answers at once."""
        connection = self._connect(SILENCE_SECONDS)
        try:
            headers = {"Content-Type": "application/json"} | self._headers
            connection.request("POST", f"{self._parts.path}/completions", json.dumps(body), headers)
            response = connection.getresponse()
            return _decode(response.read(), response.status)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ModelError(f"{self.url} gives no completion ({error!r:.120}): try again") from error
        finally:
            connection.close()

    def _prompts(self, request: Request) -> dict[str, tuple[str, PromptEncoder, Fitted]]:
        """By side: the model's name on the server, what encodes for it, and its prompt."""
        base, context, served = self._served()
        usable = self._usable(served)
        beside = request.adapter or (usable or [""])[0]
        limit = context - max(request.sampling.of(side).max_new_tokens for side in request.questions)
        prompts = {}
        for side, question in request.questions.items():
            speaker = request.speaker(side, beside)
            name = speaker.adapter
            if (name or side == ADAPTER) and name not in usable:
                raise RoleplayError(f"the server has no adapter {name!r}: choose one of {', '.join(usable) or 'none'}")
            if speaker.strength != 1:
                raise RoleplayError(f"the strength is {speaker.strength}, but {NO_STRENGTH}: choose 1")
            encoder = self._known[name] if name else self._encoders[self._template(beside)]
            prompts[side] = name or base, encoder, encoder.fit(question.persona, question.turns, question.user, limit)
        return prompts

    def _template(self, adapter: str) -> str:
        return self._known[adapter].template if adapter in self._known else "gemma"

    def _usable(self, served: Sequence[str]) -> list[str]:
        return [name for name in self._known if name in served]

    def _served(self) -> tuple[str, int, list[str]]:
        """Base model's name, context length in tokens, names of the adapters: what the server has right now."""
        connection = self._connect(CONNECT_SECONDS)
        try:
            connection.request("GET", f"{self._parts.path}/models", headers=self._headers)
            response = connection.getresponse()
            cards = _decode(response.read(), response.status)["data"]
            base = next(card for card in cards if not card.get("parent"))
            context = base.get("max_model_len") or CONTEXT
            return base["id"], context, [card["id"] for card in cards if card.get("parent")]
        except (OSError, http.client.HTTPException, LookupError, TypeError, StopIteration, ValueError) as error:
            raise ModelError(f"{self.url}/models gives no list of models ({error!r:.200}): check ENGINE_URL") from error
        finally:
            connection.close()

    def _connect(self, silence: float) -> http.client.HTTPConnection:
        """An open connection that gives up when nothing comes for `silence` seconds."""
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise ModelError(
                f"no server answers at {self.url} ({error.strerror or error}): start it, or unset ENGINE_URL"
            ) from error
        connection.sock.settimeout(silence)
        return connection


def _body(model: str, ids: list[int], stop_ids: tuple[int, ...], sampling: Sampling) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": ids,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": sampling.seed,
        "stop_token_ids": list(stop_ids),
    }


@dataclasses.dataclass
class _Follower:
    """Reads one side's event stream, in a thread of its own, and tells the news."""

    connection: http.client.HTTPConnection
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    started: float
    side: str
    answer: Answer
    news: SimpleQueue[tuple[str, Answer]]
    cut_loops: bool

    def run(self) -> None:
        stop = "the server ended the stream before the answer was whole: try again"
        try:
            headers = {"Content-Type": "application/json"} | self.headers
            self.connection.request("POST", self.path, json.dumps(self.body), headers)
            response = self.connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                _decode(response.read(), response.status)
            for line in response:
                if line.startswith(b"data: {"):
                    stop = self._take(_decode(line.removeprefix(b"data: "))) or stop
                    if self.cut_loops and repeats(self.answer.text):
                        stop = LOOP
                        break
                    self.news.put((self.side, self.answer))
        except ModelError as error:
            stop = str(error)
        except TimeoutError:
            stop = f"the server sent nothing for {SILENCE_SECONDS:.0f} s: it is overloaded, try again"
        except (OSError, http.client.HTTPException) as error:
            stop = f"the connection to the server was lost ({error!r:.120}): try again"
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            stop = f"the server does not stream completions as OpenAI's does ({error!r:.120}): check ENGINE_URL"
        finally:
            self.connection.close()
            seconds = time.monotonic() - self.started
            self.news.put((self.side, dataclasses.replace(self.answer, stop=stop, seconds=seconds)))

    def _take(self, event: dict[str, Any]) -> str:
        """Add one event to the answer; returns why it ended, "" while it goes on."""
        now, before = time.monotonic() - self.started, self.answer
        choice = (event["choices"] or [{}])[0]  # the last event has only the usage
        usage = event.get("usage") or {}
        tokens = usage.get("completion_tokens", before.tokens + bool(choice.get("text")))
        first = before.seconds_to_first_token or (now if tokens else 0.0)
        text = before.text + choice.get("text", "")
        self.answer = dataclasses.replace(before, text=text, tokens=tokens, seconds_to_first_token=first, seconds=now)
        reason = choice.get("finish_reason")
        return ENDS.get(reason, f"the server ended the answer ({reason}): try again") if reason else ""


def _decode(data: bytes, status: int = http.HTTPStatus.OK) -> dict[str, Any]:
    """The JSON object in `data`; raises `ModelError` with what the server says is wrong, `ValueError` for no JSON."""
    if status != http.HTTPStatus.OK and not data.startswith(b"{"):
        raise ModelError(f"the server answers {status} ({data[:120].decode('utf-8', 'replace')!r}): see its log")
    value = json.loads(data)
    if status != http.HTTPStatus.OK or "error" in value:
        error = value.get("error", value)
        said = error.get("message", error) if isinstance(error, dict) else error
        advice = "set ENGINE_KEY to its key" if status == http.HTTPStatus.UNAUTHORIZED else "see its log"
        raise ModelError(f"the server refuses with status {status} ({said!r:.240}): {advice}")
    return value
