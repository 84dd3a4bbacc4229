# Each verb sets up what it needs. The machine needs make and Python 3.11 or newer.
# Everything is installed from hash-checked locks, and again whenever a lock changes.

PYTHON ?= python3
VENV ?= .venv
# Arguments for the command behind a verb: make test ARGS="-k refresher -x"
ARGS ?=

BIN := $(VENV)/bin
# The tests run an authorization server that npm installs here.
OAUTH_SERVERS := tests/integration/oauth_servers
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help demo test check generate lock image containers kubernetes cluster release browser commands differential egress network monitoring dashboard screencast fuzz soak simulation bench gate sporadic clean

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo '  ARGS="…" passes arguments on; PYTHON=python3.12 VENV=.venv-3.12 selects an interpreter and its environment.'

demo: $(VENV)/.runtime ## Run the proxy against the built-in Bits API emulator; needs no credentials
	@exec $(BIN)/python -m bits_auth_proxy demo $(ARGS)

test: $(VENV)/.dev ## Run all tests that need only Python, then list the lines and branches they missed
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/.dev ## Check lint rules, format, types, import contracts, YAML, Dockerfile and schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose*.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

generate: $(VENV)/.dev ## Write all generated files: config, the chart's copies, tables of the documentation
	@$(BIN)/python -m tools.generate

lock: $(VENV)/.dev ## Update the locks after pyproject.toml changed; ARGS=--upgrade takes the newest versions
	$(COMPILE) $(ARGS) pyproject.toml --output-file requirements/runtime.lock
	$(COMPILE) $(ARGS) --group build --output-file requirements/build.lock
	$(COMPILE) $(ARGS) --group checkov --output-file tests/system/kubernetes/checkov.lock
	$(COMPILE) $(ARGS) --group bench --output-file requirements/bench.lock
	$(COMPILE) $(ARGS) --constraint requirements/runtime.lock --constraint requirements/build.lock \
		pyproject.toml --group dev --output-file requirements/dev.lock
	$(COMPILE) $(ARGS) --constraint requirements/dev.lock \
		pyproject.toml --group neighbours --output-file requirements/neighbours.lock

image: $(VENV)/.dev ## Build the image without an image registry, on Debian packages; needs root, podman, debootstrap
	@$(BIN)/python -m tools.image build

containers: $(VENV)/.dev ## Test the image, locked down and with compose; needs root, podman, debootstrap, prometheus
	$(BIN)/python -m pytest tests/system/containers $(ARGS)

kubernetes: $(VENV)/.dev $(VENV)/.checkov ## Run the pods of the charts, and checkov on the manifests; needs what containers needs
	$(BIN)/python -m pytest tests/system/kubernetes $(ARGS)

cluster: $(VENV)/.dev ## Install the charts in a real Kubernetes; needs root, Go 1.26 and what CONTRIBUTING lists
	$(BIN)/python -m pytest tests/system/cluster $(ARGS)

browser: $(VENV)/.dev ## Test the admin page in a real browser; needs Chromium. SCREENSHOTS=DIR keeps pictures
	$(BIN)/python -m pytest tests/system/browser $(ARGS)

release: $(VENV)/.dev ## Build and check a release of the last commit, in dist/; publishes nothing
	@$(BIN)/python -m tools.release

commands: $(VENV)/.dev ## Run every command of the documentation in a shell; needs bash and curl
	$(BIN)/python -m pytest tests/system/commands $(ARGS)

differential: $(VENV)/.dev ## Send the same requests through other proxies; needs nginx, caddy and haproxy
	$(BIN)/python -m pytest tests/system/differential $(ARGS)

egress: $(VENV)/.dev ## Reach the API through a real egress proxy; needs tinyproxy
	$(BIN)/python -m pytest tests/system/egress $(ARGS)

network: $(VENV)/.dev ## Change the network under idle connections to the API; needs Linux, root and iproute2
	$(BIN)/python -m pytest tests/system/network $(ARGS)

fuzz: $(VENV)/.dev ## Change the bytes of requests and responses at random for ten minutes; needs Linux
	@exec $(BIN)/python -m tools.fuzz $(ARGS)

monitoring: $(VENV)/.dev ## Test alerts, dashboard and documented queries in a real Prometheus; needs prometheus
	$(BIN)/python -m pytest tests/system/monitoring $(ARGS)

dashboard: $(VENV)/.dev ## Draw the Grafana dashboard from a run of seven minutes; needs prometheus
	@exec $(BIN)/python -m tools.dashboard $(ARGS)

screencast: $(VENV)/.dev ## Record the README's terminal session and draw it; needs bash and curl, and the ports 8080, 8090, 9090
	@exec $(BIN)/python -m tools.screencast $(ARGS)

soak: $(VENV)/.dev ## Run short tokens, faults and rotations for ten minutes: no request fails because of a token
	@exec $(BIN)/python -m tools.soak $(ARGS)

simulation: $(VENV)/.dev ## Simulate two days of 10,000 proxies at the token endpoint; ARGS="--chart FILE" draws it
	@exec $(BIN)/python -m tests.simulation $(ARGS)

bench: $(VENV)/.bench ## Compare with Envoy, Caddy, nginx and aiohttp, 12 minutes; needs Linux, wrk, nginx, caddy
	@exec $(BIN)/python -m benchmarks $(ARGS)

gate: $(VENV)/.dev ## Check that the instructions per request stay within their bounds; needs Linux and valgrind
	@exec $(BIN)/python -m benchmarks.gate

sporadic: $(VENV)/.bench ## Time the first request after ten idle minutes, 40 ms from the API; ARGS="--idle SECONDS"
	@exec $(BIN)/python -m benchmarks.sporadic $(ARGS)

clean: ## Remove everything that the other verbs made, including the virtual environment
	rm -rf $(VENV) build dist fuzz-failures htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(OAUTH_SERVERS)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The venv module installs pip last, so an environment that has pip is complete.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make PYTHON=/path/to/python3 …' >&2; \
		exit 1; }
	@echo 'Setting up $(VENV) …'
	@$(PYTHON) -m venv $(VENV)

# The proxy with its locked dependencies, and the command bits-auth-proxy. The source is not copied, so that a
# change to it takes effect immediately.
$(VENV)/.runtime: requirements/runtime.lock requirements/build.lock pyproject.toml | $(BIN)/pip
	@$(PIP_INSTALL) --require-hashes --requirement requirements/runtime.lock --requirement requirements/build.lock
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(OAUTH_SERVERS)/package-lock.json $(VENV)/.runtime $(VENV)/.neighbours
	@$(PIP_INSTALL) --require-hashes --requirement requirements/dev.lock
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm ci --loglevel=error --no-audit --no-fund --ignore-scripts --prefix $(OAUTH_SERVERS)
	@touch $@

# The packaging tests install from these wheels, without a network, into environments that they make.
$(VENV)/.neighbours: requirements/neighbours.lock | $(BIN)/pip
	@rm -rf $(VENV)/wheels
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(VENV)/wheels \
		--require-hashes --requirement requirements/neighbours.lock
	@touch $@

# An environment of its own, because checkov pins other versions of packages that the rest needs.
$(VENV)/.checkov: tests/system/kubernetes/checkov.lock | $(BIN)/pip
	@$(BIN)/python -m venv --clear $(VENV)/checkov
	@$(VENV)/checkov/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--require-hashes --requirement tests/system/kubernetes/checkov.lock
	@touch $@

$(VENV)/.bench: requirements/bench.lock $(VENV)/.dev
	@$(PIP_INSTALL) --require-hashes --requirement requirements/bench.lock
	@touch $@
