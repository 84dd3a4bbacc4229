# Every verb sets up what it needs; a machine needs make and Python 3.11 or newer.
# Only hash-checked locks are installed, and again when they change.

PYTHON ?= python3
VENV ?= .venv
# Passed on to the command behind a verb: make test ARGS="-k refresher -x"
ARGS ?=

BIN := $(VENV)/bin
# Where the tests' authorization server comes from npm.
OAUTH_SERVERS := tests/integration/oauth_servers
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help demo test check lock image containers kubernetes cluster release browser commands differential egress monitoring dashboard screencast fuzz soak simulation bench gate sporadic clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="…" is passed on; PYTHON=python3.12 VENV=.venv-3.12 chooses an interpreter and where it is set up.'

demo: $(VENV)/.runtime ## Run the proxy against the embedded Bits API emulator; needs no credentials
	@exec $(BIN)/python -m bits_auth_proxy demo $(ARGS)

test: $(VENV)/.dev ## Run all tests, then show which lines and branches they missed
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/.dev ## Lint, format check, types, import contracts, YAML, Dockerfile, schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose*.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

lock: $(VENV)/.dev ## Lock the dependencies anew; ARGS=--upgrade takes the newest of each
	$(COMPILE) $(ARGS) pyproject.toml --output-file requirements/runtime.lock
	$(COMPILE) $(ARGS) --group build --output-file requirements/build.lock
	$(COMPILE) $(ARGS) --group checkov --output-file tests/system/kubernetes/checkov.lock
	$(COMPILE) $(ARGS) --group bench --output-file requirements/bench.lock
	$(COMPILE) $(ARGS) --constraint requirements/runtime.lock --constraint requirements/build.lock \
		pyproject.toml --group dev --output-file requirements/dev.lock

image: $(VENV)/.dev ## Build the image where no image registry is reached: on a base from Debian; needs root and podman
	@$(BIN)/python -m tools.image.podman build

containers: $(VENV)/.dev ## Build the image, run it locked down and with compose; needs root, podman, debootstrap, prometheus
	$(BIN)/python -m pytest tests/system/containers $(ARGS)

kubernetes: $(VENV)/.dev $(VENV)/.checkov ## Run the charts' pods, and checkov over what they render; needs what containers needs
	$(BIN)/python -m pytest tests/system/kubernetes $(ARGS)

cluster: $(VENV)/.dev ## Kubernetes itself, with the charts in it; needs root, Go 1.26, etcd and what CONTRIBUTING lists
	$(BIN)/python -m pytest tests/system/cluster $(ARGS)

browser: $(VENV)/.dev ## The admin page in a real browser; needs Chromium. SCREENSHOTS=DIR keeps pictures
	$(BIN)/python -m pytest tests/system/browser $(ARGS)

release: $(VENV)/.dev ## Make and check a release of what is committed, in dist/; publishes nothing
	@$(BIN)/python -m tools.release

commands: $(VENV)/.dev ## Every command of the documentation, in a shell; needs bash and curl
	$(BIN)/python -m pytest tests/system/commands $(ARGS)

differential: $(VENV)/.dev ## The same requests through nginx and through the proxy; needs nginx
	$(BIN)/python -m pytest tests/system/differential $(ARGS)

egress: $(VENV)/.dev ## The way to the API through a real http proxy; needs tinyproxy
	$(BIN)/python -m pytest tests/system/egress $(ARGS)

fuzz: $(VENV)/.dev ## Ten minutes of random changes to the bytes of requests and answers; needs Linux
	@exec $(BIN)/python -m tools.fuzz $(ARGS)

monitoring: $(VENV)/.dev ## Alerts, dashboard and documented queries against a real Prometheus; needs prometheus
	$(BIN)/python -m pytest tests/system/monitoring $(ARGS)

dashboard: $(VENV)/.dev ## Write the Grafana dashboard, and draw it from a run of seven minutes; needs prometheus
	@exec $(BIN)/python -m tools.dashboard $(ARGS)

screencast: $(VENV)/.dev ## Record the README's terminal session and draw it; needs bash and curl, and the ports 8080, 8090, 9090
	@exec $(BIN)/python -m tools.screencast $(ARGS)

soak: $(VENV)/.dev ## Ten minutes of short tokens, faults and rotations: no answer fails because of the token
	@exec $(BIN)/python -m tools.soak $(ARGS)

simulation: $(VENV)/.dev ## What 10,000 proxies ask of the token endpoint in two days; ARGS="--chart FILE" draws it
	@exec $(BIN)/python -m tests.simulation $(ARGS)

bench: $(VENV)/.bench ## This proxy beside Envoy, Caddy, nginx and aiohttp, 12 minutes; needs Linux, wrk, nginx, caddy
	@exec $(BIN)/python -m benchmarks $(ARGS)

gate: $(VENV)/.dev ## CPU per request must stay within its bounds; needs Linux, wrk and nginx
	@exec $(BIN)/python -m benchmarks.gate

sporadic: $(VENV)/.bench ## The first request after ten idle minutes, 40 ms from the API; ARGS="--idle SECONDS"
	@exec $(BIN)/python -m benchmarks.sporadic $(ARGS)

clean: ## Remove all that the other verbs made, the virtual environment included
	rm -rf $(VENV) build dist fuzz-failures htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(OAUTH_SERVERS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip comes last into a new environment: with it, the environment is whole.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make PYTHON=/path/to/python3 …' >&2; \
		exit 1; }
	@echo 'Setting up $(VENV) …'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements/runtime.lock | $(BIN)/pip
	@$(PIP_INSTALL) --require-hashes --requirement requirements/runtime.lock
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml $(OAUTH_SERVERS)/package-lock.json $(VENV)/.runtime
	@$(PIP_INSTALL) --require-hashes --requirement requirements/dev.lock
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm ci --loglevel=error --no-audit --no-fund --ignore-scripts --prefix $(OAUTH_SERVERS)
	@touch $@

# Apart, because it pins much of what the rest needs in other versions.
$(VENV)/.checkov: tests/system/kubernetes/checkov.lock | $(BIN)/pip
	@$(BIN)/python -m venv --clear $(VENV)/checkov
	@$(VENV)/checkov/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--require-hashes --requirement tests/system/kubernetes/checkov.lock
	@touch $@

$(VENV)/.bench: requirements/bench.lock $(VENV)/.dev
	@$(PIP_INSTALL) --require-hashes --requirement requirements/bench.lock
	@touch $@
