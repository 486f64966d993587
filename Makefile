# For people. `make help` lists the targets. Everything that is needed is installed by name, at pinned versions, from
# the package registries into the user's cache ($XDG_CACHE_HOME/stowage); nothing is written outside of it and this
# checkout.

PYTHON ?= python3
BOOTSTRAP = $(PYTHON) -m tools.bootstrap
# Evaluated in recipes only: makes the environment if it is not there.
VENV = $$($(BOOTSTRAP) venv)
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo down test golden check format crds bench env lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Show the whole path on this machine (KEEP=1 leaves the cluster up)
	@venv=$(VENV) && vllm=$$($(BOOTSTRAP) vllm) && \
	STOWAGE_VLLM_ENV="$$vllm" "$$venv/bin/python" -m e2e.demo $(if $(KEEP),--keep)

down: ## End the cluster that `make demo KEEP=1` left up
	@venv=$(VENV) && "$$venv/bin/python" -m e2e.demo --down

test: ## Run all tests, on real parts (PYTEST_ARGS="-k name" for some)
	@venv=$(VENV) && vllm=$$($(BOOTSTRAP) vllm) && "$$venv/bin/python" -m e2e.controlplane build >/dev/null && \
	STOWAGE_VLLM_ENV="$$vllm" "$$venv/bin/python" -m tools.run_tests $(PYTEST_ARGS)

golden: ## Ask vLLM's own code again for every golden value of the memory model
	@venv=$(VENV) && vllm=$$($(BOOTSTRAP) vllm) && \
	STOWAGE_VLLM_ENV="$$vllm" "$$venv/bin/python" -m tests.memory.oracle.regenerate

check: ## Run every static check: format, lint, types, layers, generated files
	@venv=$(VENV) && "$$venv/bin/python" -m tools.check

format: ## Format the code
	@venv=$(VENV) && "$$venv/bin/ruff" format . && "$$venv/bin/ruff" check --fix .

crds: ## Generate the CRD and the reference pages from the models
	@venv=$(VENV) && "$$venv/bin/python" -m tools.generate_crd && "$$venv/bin/python" -m tools.generate_docs

bench: ## Run the benchmarks; each prints a table (CASES=FILE MODELS=DIR: also score the memory model)
	@venv=$(VENV) && "$$venv/bin/python" bench/operator_footprint.py && "$$venv/bin/python" bench/planner_speed.py && \
	"$$venv/bin/python" bench/latency_accuracy.py --brief && if [ -n "$(CASES)" ]; then \
	"$$venv/bin/python" bench/memory_accuracy.py --cases "$(CASES)" --models "$(MODELS)"; \
	else echo "bench/memory_accuracy.py needs measured start-ups: make bench CASES=FILE.jsonl MODELS=DIR"; fi

env: ## Print the shell lines that put this checkout's commands on PATH: eval "$$(make -s env)"
	@$(BOOTSTRAP) env

lock: ## Compile the lock files anew
	@$(PYTHON) -m tools.lock

clean: ## Remove what tests and tools left in the checkout (caches outside of it are kept)
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
