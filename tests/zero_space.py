"""A ZeroGPU Space as far as it goes without a GPU; `test_zero.py` runs it in a process of its own.

    python -m tests.zero_space ADAPTER_FOLDER SCRATCH_FOLDER
    python -m tests.zero_space app SCRATCH_FOLDER              # app.py as it is, with the settings of the environment

The real `spaces` package patches torch, packs the model and forks a process a call, and the real page asks; the device
API is a small server in here, and in the forked process the weights go to the CPU in place of a GPU. The last line it
prints is a JSON object of what was said.
"""

import json
import multiprocessing
import os
import runpy
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ROOT = Path(__file__).parent.parent
ASKED: list[dict[str, list[str]]] = []
ANSWERS: list[tuple[int, object]] = []  # to the next requests for a GPU; while it is empty, there is one
RELEASED: list[str] = []


class DeviceApi(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        status, value = 200, object()
        if parts.path == "/startup-report":
            print("startup report", flush=True)
        elif parts.path == "/schedule":
            ASKED.append(parse_qs(parts.query))
            lent = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
            status, value = ANSWERS.pop(0) if ANSWERS else (200, lent)
        elif parts.path == "/release":
            RELEASED.append(parts.query)
        data = json.dumps(value if isinstance(value, dict) else {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def emulate(scratch: Path) -> None:
    """Make this process one of ZeroGPU; PyTorch must not have been imported."""
    api = ThreadingHTTPServer(("127.0.0.1", 0), DeviceApi)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    (scratch / "cgroup").write_text("0::/me\n")
    os.environ |= {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{api.server_address[1]}",
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(scratch / "cgroup"),
        "ZEROGPU_OFFLOAD_DIR": str(scratch / "tensors"),
    }
    os.O_DIRECT = 0  # a folder in memory has no such thing
    import torch

    # `spaces` looks for a CUDA build of torch.
    torch.version.cuda, torch._C._cuda_init, torch.cuda._is_in_bad_fork = "13.0", lambda: None, bool


def main(adapter: Path, scratch: Path) -> None:
    emulate(scratch)
    import app  # imports `spaces`, which patches torch
    from page.build import build, launch_options
    from page.serving.start import Started
    from roleplay.engine.lent_gpu import ZeroEngine
    from roleplay.engine.local import LocalEngine
    from roleplay.engine.protocol import ADAPTER, BASE, Question, Request, Sampling
    from roleplay.environment import Environment
    from roleplay.results.votes import Box
    from roleplay.weights import base_models as models
    from roleplay.weights import devices, inspection
    from tests import tiny
    from tests.raw import Visitor

    lent = app.spaces.zero.torch
    lent.init, lent.move = lambda uuid: None, lambda callback: unpack(lent._patching.tensor_packs)
    assert Environment().zero_gpu and devices.choose_device()[0] == "cuda"
    chosen = ("cuda", "lent"), ("float32", "test"), ("sdpa", "test")
    base = models.BaseModel(tiny.gemma().to("cuda"), tiny.tokenizer(), tiny.BASE_NAME, "random", *chosen)
    engine = LocalEngine(base, [inspection.inspect(adapter)], 400)
    zero = ZeroEngine(engine, app.spaces.GPU)
    demo = build(Started(zero, at_once=4), Box(scratch / "votes"))
    url = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())[1]

    def answers(user: str = "?", tokens: int = 8, wait: bool = True) -> dict[str, list[object]]:
        questions = dict.fromkeys((ADAPTER, BASE), Question("", (), user))
        request = Request(
            questions, Sampling(temperature=0.0, repetition_penalty=1.0, frequency_penalty=0.0, max_new_tokens=tokens)
        )
        with closing(zero.answer(request)) as stream:
            for now in stream:
                if not wait and any(answer.tokens for answer in now.values()):
                    break
        return {side: [answer.text, answer.shown_rows] for side, answer in now.items()}

    def page(user: str) -> str:
        return Visitor(demo, url).say(user, "tiny")

    found = {"moves": engine.kl_to_base("tiny"), "first": answers(), "again": answers()}
    found["page"] = page("?")
    found["stopped"] = len(answers(tokens=300, wait=False)[BASE][0])
    found["after"] = answers()
    found["too long"] = page("x" * 500)
    ANSWERS.append((429, {"left": 3, "wait": 3600}))
    found["quota"] = page("?")
    ANSWERS.append((503, {}))
    found["no gpu"] = page("?")
    found["seconds"] = [int(query["durationSeconds"][0]) for query in ASKED]
    found["released"] = len(RELEASED)
    found["kept in the main process"] = engine.kept_bytes
    print(json.dumps(found), flush=True)
    for child in multiprocessing.active_children():  # it would keep our output open
        child.kill()
    os._exit(0)


def unpack(packs: list) -> None:  # type: ignore[type-arg]  # of `spaces`
    """The packed weights from the disk into the tensors that stand for them, on the CPU."""
    import torch

    for pack in packs:
        data, offset = Path(pack.path()).read_bytes(), 0
        for tensor, size, aligned in (part for batch in [*pack.batches, pack.big_tensors] for part in batch):
            flat = torch.frombuffer(bytearray(data[offset : offset + size]), dtype=tensor.dtype)
            for fake in pack.fakes[tensor]:
                fake.data = flat.as_strided(tensor.shape, tensor.stride())
            offset += aligned


if __name__ == "__main__":
    if sys.argv[1] == "app":
        emulate(Path(sys.argv[2]))
        sys.argv[1:] = []
        runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
