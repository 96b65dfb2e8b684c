# make demo: chat in a browser.  make test: set up and run every check and test.  Everything else is listed by make help.
PYTHON ?= python3
# An environment for each Python that is named: PYTHON=python3.12 has .venv-python3.12.
VENV := .venv$(addprefix -,$(filter-out python python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
export PYTHONUTF8 := 1

.PHONY: help demo train character test mutants check format screenshots test-space test-vllm test-llama bench-peers
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/demo: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/dev: $(VENV)/demo requirements-dev.txt
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	command -v chromium >/dev/null || { $(SUDO) apt-get update -qq && \
	  $(SUDO) apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk; }
	touch $@

demo: $(VENV)/demo ## set up once and serve the page on http://127.0.0.1:7860 (PORT and HOST override)
	$(BIN)/python app.py

train: $(VENV)/demo ## teach a new adapter to speak as her, then to look up what it says (adapters/zhenhuan-mine)
	$(BIN)/python -m train.lora --name zhenhuan-mine-alone
	$(BIN)/python -m train.lora --adapter adapters/zhenhuan-mine-alone --retrieval --data dataset/zhenhuan/intents.json \
	  --epochs 0.06 --learning-rate 6e-4 --keep 1 --loss-on last --name zhenhuan-mine-rows
	$(BIN)/python -m train.lora --adapter adapters/zhenhuan-mine-rows --retrieval \
	  --data dataset/zhenhuan/intents.json dataset/zhenhuan/conversations.json \
	  --epochs 0.018 --learning-rate 5e-4 --keep 0.5 --loss-on last

CHARACTER ?= keeper
character: $(VENV)/demo ## train, measure and open dataset/keeper, about ten minutes on 2 cores (CHARACTER=NAME: another)
	$(BIN)/python -m train.lora --character $(CHARACTER) --name $(CHARACTER) --overwrite
	$(BIN)/python -m train.evaluate --adapter adapters/$(CHARACTER)
	ADAPTER=$(CHARACTER) $(BIN)/python app.py

check: $(VENV)/dev ## format, lint, types and Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

test: check ## set up and run every test, offline (PYTHON=python3.12: on another Python, in an environment of its own)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

mutants: $(VENV)/dev ## damage the product on purpose, a hundred times, and see that the tests notice (tests/damages.py)
	$(BIN)/python -m tests.mutants

format: $(VENV)/dev ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

screenshots: $(VENV)/dev ## make the README's screenshots from the real page
	$(BIN)/python -m tests.screenshots

test-space: $(VENV)/dev ## push to a stand-in hub, install what arrived and start it (2 GB in an environment of its own)
	$(PYTHON) -m venv $(VENV)-space
	$(BIN)/python -m tests.space --python $(VENV)-space/bin/python

test-vllm: $(VENV)/dev ## check the app against a real vLLM server on loopback (3.5 GB in an environment of its own)
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/pip install --quiet --requirement tests/vllm/requirements.txt
	$(VENV)-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(BIN)/python -m tests.vllm.run --python $(VENV)-vllm/bin/python

test-llama: $(VENV)/dev ## check the exported GGUF's words in a real llama.cpp (34 MB in an environment of its own)
	$(PYTHON) -m venv $(VENV)-llama
	$(VENV)-llama/bin/pip install --quiet --requirement tests/llama/requirements.txt
	$(BIN)/python -m tests.llama.run --python $(VENV)-llama/bin/python

bench-peers: $(VENV)/dev ## our engine against llama.cpp and peft: speed, memory, loss (30 MB through npm)
	npm install --silent --no-audit --no-fund --prefix .venv-peers @node-llama-cpp/linux-x64@3.22.1
	$(BIN)/python -m benchmarks.peers
