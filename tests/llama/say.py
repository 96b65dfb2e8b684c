"""Greedy replies of a GGUF in llama.cpp, in an environment that has `xllamacpp` and nothing of this project.

python tests/llama/say.py MODEL.gguf < asked.json        # {"persona": "…", "questions": ["…"], "tokens": 24}
"""

import json
import sys

import xllamacpp

asked = json.load(sys.stdin)
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.use_jinja = sys.argv[1], 2048, True
params.cpuparams.n_threads = 2
server = xllamacpp.Server(params)
said = []
for question in asked["questions"]:
    messages = [{"role": "system", "content": asked["persona"]}, {"role": "user", "content": question}]
    answer = server.handle_chat_completions({"messages": messages, "temperature": 0, "max_tokens": asked["tokens"]})
    said.append(answer["choices"][0]["message"]["content"])
print(json.dumps(said))
