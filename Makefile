# Everything that people, hooks and CI run. Each target sets up what it needs, from a bare clone on.
#
#   PYTHON       the interpreter that makes .venv (3.11 or 3.12)
#   TORCH_INDEX  a package index to look for torch in, besides pip's own
#   WORKERS      processes of the test suite; each uses one thread

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# Each worker has whole files, as far as the work allows: what a file shares is made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
KERNELS := $(wildcard selenite/ops/csrc/*)
KERNELS_BUILT := $(VENV)/.kernels$(addprefix -,$(ATEN_CPU_CAPABILITY))
BENCHMARKS := $(filter-out __init__ results peers trainees,$(basename $(notdir $(wildcard benchmarks/*.py))))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart install test test-slow check bench results verify peers clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.train $(KERNELS_BUILT) ## install; pre-train, fine-tune and reinforce a small K2-style model, serve it
	$(BIN)/selenite pretrain configs/nano.toml
	$(BIN)/selenite generate runs/nano --prompt "def "
	$(BIN)/selenite rl measure configs/nano-rl.toml train.init_from=runs/nano
	$(BIN)/selenite rl lessons configs/nano-rl.toml runs/nano-lessons.jsonl --tasks 8000
	$(BIN)/selenite sft configs/nano-sft.toml
	$(BIN)/selenite rl run configs/nano-rl.toml
	echo "Turn on the lamp in the kitchen." | $(BIN)/selenite chat runs/nano-rl --tools configs/house-tools.json --temperature 0

install: $(VENV)/.dev $(KERNELS_BUILT) ## everything, for work on the code

test: $(VENV)/.dev $(KERNELS_BUILT) $(VENV)/.chromium $(VENV)/.bubblewrap ## the default test suite, at most 5 minutes
	$(PYTEST) -m "not slow and not gpu and not network"

test-slow: $(VENV)/.dev $(KERNELS_BUILT) $(VENV)/.chromium $(VENV)/.bubblewrap ## the tests that take over 20 seconds each
	$(PYTEST) -m "slow and not gpu and not network"

check: $(VENV)/.dev ## lint, format, types and import order
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev $(KERNELS_BUILT) ## every benchmark, each writing its result rows, then the results page
	set -e; for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.results

results: $(VENV)/.dev ## render dev/RESULTS.md from dev/results/
	$(BIN)/python -m benchmarks.results

verify: $(VENV)/.dev $(KERNELS_BUILT) ## ROW=id: run the command of a result row again and compare
	@test -n "$(ROW)" || { echo "make verify needs ROW=id, an id of dev/RESULTS.md" >&2; exit 2; }
	$(BIN)/python -m benchmarks.results verify $(ROW)

peers: $(VENV)/.dev ## build the peers that benchmarks compare with, under .peers/
	$(BIN)/python -m benchmarks.peers

clean: ## remove environments and caches; runs and results stay
	rm -rf $(VENV) .peers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so that a second run installs nothing, and is
# written last, so that an interrupted installation is taken up again.
$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[train,serve]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[all,dev]'
	@touch $@ $(VENV)/.train

# For the instruction set that this process may use. Without a compiler it says so, and everything
# runs on torch's own kernels.
$(KERNELS_BUILT): $(KERNELS)
	$(BIN)/selenite doctor --build
	@touch $@

# Looked for again at each run until it is there.
$(VENV)/.chromium: | $(VENV)/.created
	@bash .ci/chromium && touch $@ || true

$(VENV)/.bubblewrap: | $(VENV)/.created
	@bash .ci/bubblewrap && touch $@ || true
