# sensegate: setup, demo, quick, test, lint, bench, soak, fuzz. Each target sets up what it needs.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup compiled demo quick test suite coverage lint style types bench soak fuzz docs sbom clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

setup: $(VENV)/.ready ## install everything (system packages too, when root)

$(VENV)/.ready: pyproject.toml uv.lock deploy/bootstrap.txt deploy/system-packages.sh
	@bash deploy/system-packages.sh $(PYTHON)
	@echo "setup: installing Python packages into $(VENV), about a minute …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement deploy/bootstrap.txt
	@$(BIN)/uv sync --frozen --all-extras --quiet --compile-bytecode --python $(BIN)/python
	@touch $@
	@echo "setup: ready; $$($(BIN)/sensegate --version)"

# Where the environment forbids Python to keep bytecode, each of the many processes would compile everything again.
compiled: setup
	@$(BIN)/python -m compileall -q src tests
	@$(BIN)/python -m tests.support.rewriting

demo: compiled ## a centre and two nodes with simulated devices; Ctrl-C ends it
	$(BIN)/sensegate demo $(DEMO)

quick: compiled ## tests that need no server of their own, about two minutes
	HYPOTHESIS_PROFILE=quick $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -r fE -m "not live and not slow" --ignore tests/live $(PYTEST)

test: compiled style ## lint and all tests, with a short run of bench, soak and fuzz
	@$(MAKE) --no-print-directory -j 2 types suite

# Live tests wait more than they compute: three workers keep two cores busy.
suite: compiled
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST)

coverage: compiled ## all tests, with the lines and branches that they do not reach; half as long again
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-branch --cov-report=term:skip-covered $(PYTEST)

lint: style types ## ruff (all rules) and mypy (strict)

style: setup
	$(BIN)/ruff format --check src tests deploy
	$(BIN)/ruff check src tests deploy

types: setup
	$(BIN)/mypy $(MYPY)

bench: compiled ## every benchmark, a JSON line each, with its baseline in the same run
	@for name in drain live compare latency uplink scale start memory formats scripts reload fanout client latest history sensorthings video console border_flood storm fronts; do $(BIN)/sensegate bench $$name --json || exit 1; done

soak: compiled ## 300 seeded kills over 200,000 readings; 300 over the border with two centres and a hostile node
	$(BIN)/python -m tests.ledger.soak
	$(BIN)/python -m tests.border.campaign
	$(BIN)/python -m tests.live.resume --times 25 --target "node gateway" --target centre
	SENSEGATE_SOAK=1 SENSEGATE_CUT_S=60 $(BIN)/python -m pytest -q -s tests/ledger/test_controls.py tests/ledger/test_link.py tests/ledger/test_video.py tests/demo/test_run.py tests/border/test_patches.py tests/border/test_campaign.py tests/collect/front/test_kills.py tests/cluster tests/history tests/faults tests/live/test_pages.py tests/live/test_console_sites.py tests/web/test_openapi.py tests/test_bench.py $$(grep -rl --include="test_*.py" tests.support.timing tests)

fuzz: setup ## all property tests with forty times the examples, other ones each time; FUZZ=tests/video: of one folder
	@echo "fuzz: some minutes a folder, an hour or two in all. What is found stands at the end with its message; it comes first"
	@echo "      when that test runs again (.hypothesis/): make fuzz FUZZ='tests/... -k name'. FUZZ_EXAMPLES=200 looks less far."
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "(hypothesis or fuzz) and not live" --durations=10 $(or $(FUZZ),tests)

docs: setup ## write the generated tables of the documents and the plots of the benchmarks again
	$(BIN)/python -m tests.house.docs --write
	$(BIN)/python -m tests.bench.plots --write
	$(BIN)/python -m tests.house.decisions

sbom: setup ## write dist/sbom.cdx.json (CycloneDX): all packages, and nats-server with what is known of it
	$(BIN)/python -m tests.house.sbom

clean: ## remove what setup and tests made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov
