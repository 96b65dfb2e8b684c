"""The page: chat with a fine-tuned character beside what the untuned base model would have said.

    python app.py
    python app.py --base-model google/gemma-2b-it

Layout and wiring only, with the parts that are in `page/`: nothing else imports Gradio. It writes nothing but `votes/`.
The environment variables it reads are listed in `roleplay/settings.py`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from html import escape
from typing import Any

import gradio as gr
import spaces  # on ZeroGPU it must come before anything that may touch a GPU

from page.adapters import adapters_accordion
from page.chat import exchanges, shown
from page.chat.choices import GIVEN, NOTHING, NUMBERS, PERSONA, Choices
from page.chat.exchanges import PRESETS, VOTES, Exchange
from page.chat.saved import Kept, as_markdown, as_rows, from_json, to_json
from page.look import I18N, language_of, look
from page.panes import pane
from page.scoreboard import scoreboard_html
from page.server import doors, too_fast
from page.serving import start as startup
from page.serving.loading_page import loading
from page.serving.rate_limit import Rate
from page.serving.start import About
from roleplay.answers import ADAPTER, BASE, Engine, Sampling
from roleplay.ballots import Box, count, score
from roleplay.errors import DataError, RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.guests import Guests
from roleplay.persona import Persona, load_persona
from roleplay.settings import ROOT, Settings

QUEUE_SIZE = 16  # requests that wait at most; the next one is turned away with a sentence
STORE = "roleplay-conversation"  # the browser's storage key; fixed, so that a restarted server can still read it
# Events that do not wait for an answer in progress.
FREE: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
Record = list[Exchange]


def build_demo(
    engine: Engine,
    personas: Sequence[Persona],
    box: Box,
    about: Mapping[str, About],
    at_once: int = 1,
    guests: Guests | None = None,
    per_minute: int = 0,
) -> gr.Blocks:
    """The whole page; `about` is what it tells of each of the engine's adapters, `at_once` how many answers may run.

    With `guests` adapters from the Hub may join; a client may send `per_minute` messages, 0 for no limit.
    """
    rate = Rate(per_minute)
    names, by_name, first = engine.adapters(), {p.name: p for p in personas}, personas[0]
    speaker = names[0] if names else ""
    sides = (ADAPTER, BASE) if names else (BASE, ADAPTER)  # what the left and the right pane show

    def check_message(message: str, request: gr.Request) -> dict[str, Any]:
        """What is wrong with a message, told at the composer before anything is sent."""
        refusal = exchanges.refusal(language_of(request), message)
        refusal = refusal or too_fast(rate.wait(request.client.host), rate, request)
        return gr.validate(not refusal, refusal)

    def draw(record: Sequence[Exchange], blind: bool, language: str) -> list[list[Any]]:
        """The left pane as it is shown and as the ChatInterface goes on from it, then the right pane."""
        left, right = (shown.pane_messages(record, number, blind, sides, language) for number in (0, 1))
        return [left, left, right]

    def idle(record: Record, compare: bool, prompt: str, given: str) -> tuple[Any, ...]:
        """Ballot, browser's copy, both switches and composer as they are while nothing is being answered."""
        copy, free = to_json(Kept(record, compare, prompt, given)), gr.Checkbox(interactive=True)
        return (
            gr.Row(visible=bool(record) and record[-1].votable),
            copy,
            free,
            free,
            gr.Textbox(placeholder=I18N("ask")),
        )

    def respond(
        message: str, history: list[Any], request: gr.Request, record: Record, blind: bool, *rest: Any
    ) -> Iterator[tuple[Any, ...]]:
        compare, prompt, given, adapter, *numbers, seed = rest
        language = language_of(request)
        record = exchanges.align(shown.users(history), record)
        retriever = about[adapter].retriever if adapter in about else None
        refused = too_fast(rate.take(request.client.host), rate, request)
        chosen = Choices(compare, blind, prompt, given, adapter or "", seed, dict(zip(NUMBERS, numbers, strict=True)))
        try:
            new = exchanges.begin(message, chosen, retriever)
        except RoleplayError as error:  # the seed is no number: the answer says so, and the page goes on
            new, refused = exchanges.begin(message, replace(chosen, seed=""), retriever), refused or str(error)
        # The switches rest meanwhile: an answer that is shown blind must not end up under a label.
        busy: tuple[Any, ...] = (gr.Row(visible=False), gr.skip(), *[gr.Checkbox(interactive=False)] * 2, gr.skip())
        for now in exchanges.grow(engine, record, new, language, refused):
            whole = [*record, now]
            left, right = shown.answer_message(now, 0, blind, sides, language), draw(whole, blind, language)[2]
            yield left, right, whole, *busy
            busy = (gr.skip(),) * len(busy)
        yield left, right, whole, *idle(whole, compare, prompt, given)

    def stopped(seen: list[Any], request: gr.Request, record: Record, blind: bool, *settings: Any) -> tuple[Any, ...]:
        record = exchanges.close(exchanges.align(shown.users(seen), record))
        return record, *draw(record, blind, language_of(request)), *idle(record, *settings)

    def undone(request: gr.Request, record: Record, blind: bool, *settings: Any) -> tuple[Any, ...]:
        record = record[:-1]
        return record, draw(record, blind, language_of(request))[2], *idle(record, *settings)

    def cleared(*settings: Any) -> tuple[Any, ...]:
        return [], [], [], [], *idle([], *settings)

    def offered(name: str, given: str, **options: Any) -> gr.Radio:
        """What the base model may be given beside this adapter; the persona where `given` is not among it."""
        offers = GIVEN if name in about and about[name].retriever else (PERSONA, NOTHING)
        choices = [(I18N(f"given_{offer}"), offer) for offer in offers]
        return gr.Radio(choices, value=given if given in offers else PERSONA, **options)

    def restored(saved: Any, request: gr.Request) -> tuple[Any, ...]:
        """What this browser kept, or the page as it starts."""
        kept = Kept([], bool(names), first.system_prompt, PERSONA)
        try:
            kept = from_json(saved) if saved else kept
        except DataError as error:
            gr.Info(str(error))
        values = (kept.record, kept.compare, kept.persona, offered(speaker, kept.given))
        return *draw(kept.record, False, language_of(request)), *values

    def sick() -> Any:
        """The line that says why nothing can be answered, where that is so."""
        return gr.Markdown(problem := engine.problem(), visible=bool(problem))

    def compared(compare: bool, blind: bool) -> tuple[Any, bool]:
        return gr.Chatbot(visible=compare), blind and compare

    def blinded(blind: bool, compare: bool, record: Record, request: gr.Request) -> tuple[Any, ...]:
        record, compare = record if blind else exchanges.unveil(record), compare or blind
        left, state, right = draw(record, blind, language_of(request))
        a, b = (I18N(label) for label in (("answer_a", "answer_b") if blind else sides))
        shown, beside = gr.Chatbot(left, label=a), gr.Chatbot(right, label=b, visible=compare)
        return record, shown, state, beside, compare, gr.Row(visible=False)

    def voted(choice: str, record: Record, blind: bool, request: gr.Request) -> tuple[Any, ...]:
        record, vote = exchanges.judge(record, choice, {name: known.provenance for name, known in about.items()})
        if vote:
            box.add(vote)
        return record, *draw(record, blind, language_of(request)), gr.Row(visible=False)

    def measured(name: str, request: gr.Request) -> str:
        votes = score(language_of(request), count(vote for vote in box.votes() if vote.adapter == name))
        return scoreboard_html(name, about[name].folder, votes, language_of(request))

    def chosen(name: str) -> tuple[str, Any]:
        openers: list[Any] = [{"text": opener} for opener in by_name[name].openers]
        return by_name[name].system_prompt, gr.Chatbot(placeholder=by_name[name].greeting, examples=openers)

    def exported(kind: str, record: Record, name: str, request: gr.Request) -> list[str]:
        if kind == "rows":
            return ["conversation.json", as_rows(record)]
        return ["conversation.md", as_markdown(record, name, language_of(request))]

    with gr.Blocks(title=first.name, fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        record, saved = gr.State([]), gr.BrowserState(storage_key=STORE, secret=STORE)
        health = gr.Markdown(visible=False, elem_id="health")
        with gr.Row(elem_id="head"):
            seal = f'<span class="seal" aria-hidden="true">{escape(first.name[:1])}</span>'
            gr.HTML(f"<h1>{seal}{escape(first.name)}</h1>", elem_id="title")
            gr.Markdown(I18N("tagline"), elem_id="tagline")
            who = gr.Dropdown([*by_name], label=I18N("persona_menu"), visible=len(by_name) > 1, elem_id="who")
            adapter = gr.Dropdown(names, label=I18N("adapter_menu"), visible=len(names) > 1, elem_id="adapter")
            compare = gr.Checkbox(bool(names), label=I18N("compare"), visible=bool(names), elem_id="compare")
            blind = gr.Checkbox(False, label=I18N("blind"), visible=bool(names), elem_id="blind")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(I18N("chat")):
                panes = gr.Row(elem_id="panes")
                with gr.Column(elem_id="composer"):
                    with gr.Row(visible=False, elem_id="ballot") as ballot:
                        choices = {c: gr.Button(I18N(c), size="sm") for c in ("left", "tie", "bad", "right")}
                    below = gr.Column(elem_id="ask")
                with gr.Row(elem_id="desk"):
                    if names:
                        adapters_accordion(demo, engine, guests, rate, adapter, FREE)
                    with gr.Accordion(I18N("persona"), open=False):
                        prompt = gr.Textbox(first.system_prompt, label=I18N("persona_prompt"), lines=4, max_lines=10)
                        options = {"label": I18N("given"), "visible": bool(names), "elem_id": "given"}
                        given = offered(speaker, PERSONA, **options)
                        reset = gr.Button(I18N("reset"), size="sm")
                    with gr.Accordion(I18N("sampling"), open=False):
                        with gr.Row():
                            presets = {name: gr.Button(I18N(name), size="sm") for name in PRESETS}
                        start = Sampling()
                        numbers = [
                            gr.Slider(0, 2, start.temperature, step=0.05, label=I18N("temperature")),
                            gr.Slider(0.05, 1, start.top_p, step=0.05, label=I18N("top_p")),
                            gr.Slider(0, 200, start.top_k, step=1, label=I18N("top_k")),
                            gr.Slider(1, 2, start.repetition_penalty, step=0.05, label=I18N("repetition_penalty")),
                            gr.Slider(0, 2, start.frequency_penalty, step=0.05, label=I18N("frequency_penalty")),
                            gr.Slider(1, 1024, start.max_new_tokens, step=1, label=I18N("max_new_tokens")),
                        ]
                        # A gr.Number that is empty becomes 0 as soon as the accordion opens (Gradio 6.31).
                        seed = gr.Textbox(label=I18N("seed"), placeholder=I18N("new_seed"), max_length=10)
                    with gr.Accordion(I18N("keep"), open=False):
                        gr.Markdown(I18N("keep_note"))
                        with gr.Row():
                            exports = {kind: gr.Button(I18N(kind), size="sm") for kind in ("markdown", "rows")}
                        file = gr.JSON(visible="hidden")
            with gr.Tab(I18N("scoreboard"), visible=bool(names)) as scores:
                board = gr.HTML(elem_id="board")

        with panes:
            right = pane(
                label=I18N(BASE), placeholder=I18N("base_waits"), visible=bool(names), elem_id="right", render=False
            )
        with below:
            label = I18N(ADAPTER if names else "base_only")
            sends: dict[str, Any] = {"max_lines": 6, "submit_btn": True, "stop_btn": True, "autofocus": True}
            text = gr.Textbox(label=I18N("message"), placeholder=I18N("ask"), **sends)
            idles = [ballot, saved, compare, blind, text]
            chat = gr.ChatInterface(
                respond,
                chatbot=pane(label=label, placeholder=first.greeting, elem_id="left"),
                textbox=text,
                additional_inputs=[record, blind, compare, prompt, given, adapter, *numbers, seed],
                additional_outputs=[right, record, *idles],
                examples=[[opener] for opener in first.openers],
                cache_examples=False,
                editable=True,
                flagging_mode="never",
                concurrency_limit=at_once,
                validator=check_message,
                api_visibility="private",
            )
        with panes:  # the composer spans both panes, so the left one moves out of the ChatInterface's own column
            chat.chatbot.unrender().render()
            right.render()

        settings, left = [compare, prompt, given], [chat.chatbot, chat.chatbot_state]  # as shown, as continued
        gr.on([demo.load, text.submit], sick, None, health, **FREE)
        demo.load(restored, saved, [*left, right, record, *settings], **FREE)
        chat.textbox.stop(stopped, [chat.chatbot, record, blind, *settings], [record, *left, right, *idles], **FREE)
        chat.chatbot.undo(undone, [record, blind, *settings], [record, right, *idles], **FREE)
        gr.on([chat.chatbot.clear, right.clear], cleared, settings, [record, *left, right, *idles], **FREE)
        compare.change(compared, [compare, blind], [right, blind], **FREE)
        blind.change(blinded, [blind, compare, record], [record, *left, right, compare, ballot], **FREE)
        for choice in VOTES:
            ins = [gr.State(choice), record, blind]
            choices[choice].click(voted, ins, [record, *left, right, ballot], **FREE)
        adapter.change(offered, [adapter, given], given, **FREE)
        gr.on([scores.select, adapter.change], measured, adapter, board, **FREE)
        gr.on([who.change, reset.click], chosen, who, [prompt, chat.chatbot], **FREE)
        for name, button in presets.items():
            tastes = numbers[:-1]  # the length is none
            values = list(astuple(PRESETS[name]))[: len(tastes)]
            button.click(lambda values: values, gr.State(values), tastes, **FREE)
        for kind, button in exports.items():
            made = button.click(exported, [gr.State(kind), record, who], file, **FREE)
            made.then(None, file, None, js="(file) => window.saveFile(...file)")
    demo.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)
    return demo


@dataclass(frozen=True)
class Flags:
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:ID or a folder; instead of BASE_MODEL")


def main() -> None:
    flags, settings = parse(Flags, __doc__), Settings()
    user, _, password = settings.auth.partition(":")
    if settings.auth and not (user and password):
        raise RoleplayError("APP_AUTH is not of the form user:password; write it so, or leave it out")
    lender = (spaces.GPU, gr.Error) if settings.zero_gpu else None
    print(f"page         http://{settings.host}:{settings.port} says what is loaded until it opens")
    with loading(settings.host, settings.port) as tell:
        started = startup.start(settings, flags.base_model or settings.base_model, tell, lender)
        persona = load_persona(settings.persona) if settings.persona else started.persona
        votes = ROOT / "votes"
        box = Box.on_hub(votes, settings.votes_repo) if settings.votes_repo else Box(votes)
        print(*started.engine.describe(), sep="\n")
        print(f"queue        {started.at_once} at once, at most {QUEUE_SIZE} waiting")
        demo = build_demo(started.engine, [persona], box, started.about, started.at_once, started.guests, settings.rate)
    startup.end_on_signals(box.close)
    auth = (user, password) if settings.auth else None
    os.environ["FORWARDED_ALLOW_IPS"] = settings.proxies  # the server under Gradio reads it
    demo.launch(server_name=settings.host, server_port=settings.port, auth=auth, **look(), **doors())


if __name__ == "__main__":
    with one_line_errors():
        main()
