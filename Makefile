# make book: the pages; make test: unit tests and every notebook. Each works from a fresh clone.
# TORCH_INDEX=<address of PyTorch's CPU wheels> keeps pip from fetching the CUDA build.

PYTHON ?= python3
VENV   ?= .venv
PEERS  ?= .venv-peers
EXTRAS ?= peers
COLAB  ?= _build/colab
WORK   ?= work
PORT   ?= 8000
SERVER ?= .venv-server
TORCH  ?= 2.4.1
OTHER  ?= .venv-torch-$(TORCH)
SERVER_PORT ?= 8765
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
PAGE_TOOLS := $(VENV)/page-tools
NBVAL ?= --nbval
CHROMIUM ?= $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))
PAGES  := _build/html/index.html
NOTEBOOKS = $(sort $(wildcard chapters/*.ipynb reference/*.ipynb))
SOURCES = $(NOTEBOOKS) $(wildcard *.md reference/*.md reference/*.bib theme/* theme/static/*) _config.yml _toc.yml
STRICT ?= -W -n --keep-going
# One thread a process: two would fight over the cores, and the last bits would change.
export OMP_NUM_THREADS = 1
# What is tested, stored and timed comes from the CPU, also where there is a GPU. `make lab` trains on the GPU.
ifneq ($(MAKECMDGOALS),lab)
export BOOK_DEVICE ?= cpu
endif

ifeq ($(wildcard requirements.txt),)
$(error Run make in the book's folder, or name it: make -C FOLDER book)
endif

.PHONY: book test test-unit test-notebooks test-seeds test-device test-pages test-peers test-torch test-server server bench teachers run lint pdf epub downloads serve lab colab clean help

help:
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /: /' | sort

# A virtual environment with pip in $(1), also where an earlier run was cut off or Debian's python3-venv was missing.
# What another program made without pip is completed; emptied is only what has no Python that runs.
define environment
@$(1)/bin/python -m pip --version > /dev/null 2>&1 || $(1)/bin/python -m ensurepip > /dev/null 2>&1 || \
		$(PYTHON) -m venv $(if $(wildcard $(1)/pyvenv.cfg),--clear) $(1) || \
		{ echo "Install Python's venv module (Debian: python3-venv), then run make again."; exit 1; }
endef

.PHONY: environment
environment:
	$(call environment,$(VENV))

$(READY): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Install Python 3.10 to 3.13 first (with venv)."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
		{ echo "The book needs Python 3.10 to 3.13; $$($(PYTHON) --version) found. Try: make PYTHON=python3.12 …"; exit 1; }
	@echo "Installing the book's environment into $(VENV) (a few minutes, once) …"
	$(call environment,$(VENV))
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) $(shell grep ^torch== requirements.txt))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@touch $@

# What drives a browser, for the page tests and the PDF.
$(PAGE_TOOLS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[pages]'
	@touch $@

$(PAGES): $(READY) $(SOURCES)
	$(BIN)/jupyter-book build . $(STRICT)
	@touch $@

book: $(PAGES)  ## build the pages
	@echo "$$(find _build/html -name '*.html' | wc -l) pages made. Open $(CURDIR)/$(PAGES)"

test: test-unit test-notebooks  ## unit tests, then every notebook again, compared with its outputs
	@echo "All tests passed: tests/ and $(words $(NOTEBOOKS)) notebooks."
	@echo "Left to others: tests/pages to make test-pages (needs Chromium), tests/peers to make test-peers."

test-unit: $(READY) teachers
	$(BIN)/python -m pytest tests --ignore=tests/pages -n 2 --dist worksteal

test-pages: book $(PAGE_TOOLS)  ## every built page in Chromium: console, network, links, widths, formulas, accessibility
	$(BIN)/python -m pytest tests/pages -n 2 --dist loadgroup --durations=12

# Bounds are drawn within a factor of two where outputs are stored; another processor measures a little else.
test-notebooks: $(READY) teachers  ## nbval over every notebook
	BOOK_SLACK=3 $(BIN)/python -m pytest -n 2 --dist loadfile -p tests.nbval_figures $(NBVAL) --nbval-current-env --durations=8 \
		--nbval-sanitize-with=tests/nbval.cfg --nbval-cell-timeout=600 $(NOTEBOOKS)

# Under another seed outputs differ, and the claims must hold: cells are run, and their outputs not compared.
test-seeds: $(READY)  ## every notebook's claims under five other seeds (about 50 minutes)
	for seed in 1 2 3 4 5; do BOOK_SEED=$$seed $(MAKE) --no-print-directory NBVAL=--nbval-lax test-notebooks || exit 1; done

test-device: $(READY)  ## every notebook with its training on a second device, which refuses what a GPU refuses (about 20 minutes)
	BOOK_DEVICE=second PYTHONPATH="$(CURDIR)/tests/on_second_device" $(MAKE) --no-print-directory test-notebooks

test-peers: $(READY)  ## our losses beside torchdistill's, in an environment of its own
	$(call environment,$(PEERS))
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check $(shell grep -E '^(torch|pytest)==' requirements.txt) -e '.[$(EXTRAS)]'
	BOOK_PEERS=$(EXTRAS) $(PEERS)/bin/python -m pytest tests/peers -rs

test-torch: $(READY)  ## the losses under another PyTorch, the oldest one allowed: make test-torch, or make test-torch TORCH=2.11.0
	$(call environment,$(OTHER))
	$(if $(TORCH_INDEX),$(OTHER)/bin/python -m pip install --quiet --index-url $(TORCH_INDEX) torch==$(TORCH))
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH) 'numpy<2' \
		$(shell grep -E '^(pytest|hypothesis|scipy)==' requirements.txt) -e '.[book]'
	$(OTHER)/bin/python -m pytest tests/test_losses.py tests/test_tokens.py tests/test_features.py tests/test_transforms.py \
		-k "not torch.export"  # older ones refuse to export what a function finds outside it

# A server of SmolLM2 in the chat-completions form, with log-probabilities: MLX's own, which runs on the CPU too.
define serving
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The server needs Python 3.11 or newer; $$($(PYTHON) --version) found. Try: make PYTHON=python3.12 …"; exit 1; }
$(call environment,$(SERVER))
$(SERVER)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		'mlx-lm[cpu]==0.32.2' mlx==0.32.4 transformers==5.24.0
@$(BIN)/python scripts/save_smollm2.py
endef

server: $(READY) teachers  ## SmolLM2 behind a server for companion.remote, at http://127.0.0.1:8765/v1 (SERVER_PORT=… for another port)
	$(serving)
	cd "$$($(BIN)/python scripts/save_smollm2.py)/.." && HF_HUB_OFFLINE=1 "$(abspath $(SERVER))/bin/python" -m mlx_lm server \
		--model SmolLM2-135M-Instruct --host 127.0.0.1 --port $(SERVER_PORT)

test-server: $(READY) teachers  ## companion.remote beside that server, in an environment of its own
	$(serving)
	BOOK_SERVER="$(abspath $(SERVER))/bin/python" $(BIN)/python -m pytest tests/server -rs

bench: $(READY)  ## time losses, training, encoders, exported students and two processes, and write the tables of benchmarks/README.md (about 11 minutes)
	$(if $(wildcard $(PEERS)/bin/python),$(PEERS),$(VENV))/bin/python benchmarks/losses.py
	$(if $(wildcard $(PEERS)/bin/python),$(PEERS),$(VENV))/bin/python benchmarks/fused.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/embedding.py
	$(BIN)/python benchmarks/deploy.py
	$(BIN)/python benchmarks/scaling.py

teachers: $(READY)  ## bring the real teachers of language into the user's cache (203 MB, once), checked by their SHA-256
	$(BIN)/python -m companion.teachers

run: $(READY)  ## run the notebooks and store their outputs: make run, or make run NOTEBOOKS=chapters/04_mathematics.ipynb
	@for notebook in $(NOTEBOOKS); do echo "$$notebook"; \
		$(BIN)/python scripts/run_notebook.py $$notebook || exit 1; done

lint: $(READY)  ## ruff over package, tests, scripts and notebooks; the form of the bibliography
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/python scripts/lint_bib.py

pdf: $(PAGE_TOOLS)  ## the book as one PDF (needs Chromium or Chrome)
	@test -n "$(CHROMIUM)" || { echo "make pdf prints with Chromium. Install it (Debian: apt-get install chromium) or pass CHROMIUM=…"; exit 1; }
	$(BIN)/jupyter-book build . $(STRICT) --path-output _build/pdf --builder custom --custom-builder singlehtml
	$(BIN)/python scripts/print_pdf.py _build/pdf/_build/singlehtml/index.html _build/book.pdf "$(CHROMIUM)"
	@echo "Made $(CURDIR)/_build/book.pdf"

epub: $(READY)  ## the book as one EPUB
	rm -rf _build/epub/_build/epub  # what lies there is packed
	$(BIN)/jupyter-book build . $(STRICT) --path-output _build/epub --builder custom --custom-builder epub
	@cp _build/epub/_build/epub/book.epub _build/book.epub && echo "Made $(CURDIR)/_build/book.epub"

downloads: book $(PAGE_TOOLS)  ## PDF and EPUB put beside the pages, and linked from the front page
	$(MAKE) --no-print-directory -j2 pdf epub
	cp _build/book.pdf _build/book.epub _build/html
	$(BIN)/jupyter-book build . $(STRICT)

serve: book  ## read the built pages at http://localhost:8000, or at another port: make serve PORT=8001
	@$(BIN)/python -c "import socket as s; o = s.socket(); o.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1); o.bind(('127.0.0.1', $(PORT)))" \
		2> /dev/null || { echo "Port $(PORT) is not free. Name another: make serve PORT=8001"; exit 1; }
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lab: $(PAGES)  ## open plain copies of the chapters in Jupyter, in work/, where your changes are kept
	@$(BIN)/python scripts/lab.py $(dir $(PAGES)) "$(WORK)"

colab: $(READY)  ## plain copies tied to this repository and commit, for Colab and GitHub (needs BOOK_REPOSITORY)
	@test -n "$(BOOK_REPOSITORY)$(GITHUB_REPOSITORY)" || { echo "No repository address: set BOOK_REPOSITORY, or run this in the CI that publishes."; exit 1; }
	$(BIN)/jupyter-book build . $(STRICT) --path-output _build/published
	mkdir -p "$(COLAB)" && cp -R _build/published/_build/html/_sources/. "$(COLAB)" && find "$(COLAB)" -name '*.md' -delete

clean:
	rm -rf _build
