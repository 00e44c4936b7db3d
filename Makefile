# Two commands are all a newcomer needs: `make demo` and `make test`. Every target asks scripts/need.sh for the programs
# it needs and for no others; what is missing is installed with apt-get where that is allowed, or named.

.DEFAULT_GOAL := help
CARGO ?= cargo

BUILD := cargo cc cmake
HARDENING := python3 go node openssl nginx apache2 gunicorn slowhttptest curl wrk
LOADTEST := python3 python3-venv node openssl redis-server
E2E := redis-server postgresql chromium node npm java mvn openssl python3-venv

.PHONY: help setup demo test faults hardening fuzz lint deploy-check e2e bench loadtest

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what all targets together need, cargo-deny and cargo-fuzz included
	@scripts/need.sh $(BUILD) $(E2E) $(HARDENING) c++ postgresql rustfmt clippy promtool wrk shellcheck python3-venv systemd-analyze
	@scripts/cargo-deny.sh
	@scripts/cargo-fuzz.sh

demo: ## Start everything on this machine: provider, sample API and page, proxy (PORT=8080)
	@scripts/need.sh $(BUILD)
	$(CARGO) run --locked --profile demo -- demo $(if $(PORT),--port $(PORT))

test: ## Run all Rust tests
	@scripts/need.sh $(BUILD) redis-server postgresql nginx
	$(CARGO) test --locked --all-targets
	$(CARGO) test --locked --doc

faults: ## Try to lose sessions: kills, outages, races (RUN="crash logout", SCALE=20 for a twentieth, WRITE=1)
	@scripts/need.sh $(BUILD) redis-server postgresql
	SCALE=$(SCALE) WRITE=$(WRITE) $(CARGO) test --locked --profile demo --features failpoints --test faults -- $(RUN)

hardening: ## Attack the edge: foreign suites, floods, crowds, slow clients (RUN="h2spec slow", SCALE=10, WRITE=1)
	@scripts/need.sh $(BUILD) $(HARDENING)
	@RUN="$(RUN)" SCALE="$(SCALE)" WRITE="$(WRITE)" scripts/hardening.sh

fuzz: ## Feed made-up inputs to what strangers may send (RUN="paths cookies", SECONDS=600 for each, 0 for the seeds alone, WRITE=1)
	@scripts/need.sh $(BUILD) c++
	@scripts/cargo-fuzz.sh
	@RUN="$(RUN)" WRITE="$(WRITE)" FUZZ_SECONDS="$(or $(SECONDS),$(FUZZ_SECONDS),60)" scripts/fuzz.sh

lint: ## Check format, clippy, licences and bans of dependencies, alert rules, shell scripts
	@scripts/need.sh $(BUILD) rustfmt clippy promtool
	@scripts/lint.sh

deploy-check: ## Look over deploy/: image, Helm chart, Kustomize, Compose, systemd, alert rules (WRITE=1 brings copies up to date)
	@scripts/need.sh $(BUILD) python3 python3-venv openssl systemd-analyze
	@WRITE="$(WRITE)" scripts/deploy-check.sh

e2e: ## Drive Chromium through the proxy and a real Keycloak
	@scripts/need.sh $(BUILD) $(E2E)
	@scripts/e2e.sh

bench: ## Measure the hot path, the stores, then the proxy against bare Pingora
	@scripts/need.sh $(BUILD) wrk redis-server postgresql
	$(CARGO) bench --locked --bench hot_path
	$(CARGO) bench --locked --bench store
	$(CARGO) bench --locked --bench side_by_side

loadtest: ## Put load on two replicas and watch the invariants, with k6 (RUN="login csrf", PROFILE=average, SABOTAGE=1)
	@$(if $(BASE_URL),scripts/need.sh python3-venv,scripts/need.sh $(if $(CLOAKROOM_BIN),,$(BUILD)) $(LOADTEST))
	@RUN="$(RUN)" PROFILE="$(PROFILE)" SABOTAGE="$(SABOTAGE)" scripts/loadtest.sh
