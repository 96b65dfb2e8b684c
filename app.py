"""The page: chat with a fine-tuned character beside what the untuned base model would have said.

    python app.py
    python app.py --base-model google/gemma-2b-it

It starts an engine, builds the page around it and serves it; it writes nothing but `votes/`. The environment variables
it reads are listed in `roleplay/environment.py`.
"""

import roleplay  # noqa: F401 - first, so that Ctrl-C while a library loads ends in one line

# isort: split
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace

import spaces  # on ZeroGPU it must come before anything that may touch a GPU
from gradio import Blocks

from page.build import QUEUE_SIZE, build, launch_options
from page.serving.loading_page import loading, say_nothing
from page.serving.start import end_on_signals, start
from roleplay.environment import ROOT, Environment
from roleplay.errors import RoleplayError, one_line_errors
from roleplay.flags import flag, parse
from roleplay.results.votes import Box

demo: Blocks | None = None  # the page, by the name that Gradio's hot reload on Spaces looks for in here


@dataclass(frozen=True)
class Flags:
    base_model: str = flag("", "embedded, a Hugging Face id, modelscope:ID or a folder; instead of BASE_MODEL")


def main() -> None:
    global demo
    flags, settings = parse(Flags, __doc__), Environment()
    user, _, password = settings.auth.partition(":")
    if settings.auth and not (user and password):
        raise RoleplayError("APP_AUTH is not of the form user:password; write it so, or leave it out")
    lender = spaces.GPU if settings.zero_gpu else None
    # ZeroGPU takes a port that answers for the page itself, whose launch has to report to it first.
    before = nullcontext(say_nothing) if lender else loading(settings.host, settings.port)

    says = "opens when all is loaded" if lender else "says what is loaded until it opens"
    print(f"page         http://{settings.url_host}:{settings.port} {says}")
    with before as tell:
        started = start(settings, flags.base_model or settings.base_model, tell, lender)
        votes, repo = ROOT / "votes", settings.votes_repo
        box = Box.on_hub(votes, repo, settings.votes_public) if repo else Box(votes)
        print(*started.engine.describe(), sep="\n")
        print(f"queue        {started.at_once} at once, at most {QUEUE_SIZE} waiting")
        demo = build(replace(started, cards=settings.cards), box, settings.rate)

    auth = (user, password) if settings.auth else None
    os.environ["FORWARDED_ALLOW_IPS"] = settings.proxies  # the server under Gradio reads it
    demo.launch(
        server_name=settings.url_host,
        server_port=settings.port,
        auth=auth,
        prevent_thread_lock=True,
        **launch_options(),
    )

    def last() -> None:
        box.close()
        if started.guests:
            started.guests.turn_away()

    end_on_signals(last)  # after Gradio has installed its own
    demo.block_thread()


if __name__ == "__main__":
    with one_line_errors():
        main()
