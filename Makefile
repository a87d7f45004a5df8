# balm: `make help` lists what can be asked for.
#
# All of runtime/ but cli and the shim is one archive, and the linker takes what a binary needs: a bot does not carry SQLite. Generated files go
# to $(B)/gen. `make B=build/asan SAN=asan …` builds a second tree beside the first.

B      ?= build
SAN    ?=
ifeq ($(origin CC),default)
CC     := gcc
endif
V      ?= 0
DEV    ?= 0
.DEFAULT_GOAL := all

# One short line a step; V=1 shows the commands.
ifeq ($(V),0)
say = @echo "  $(1)	$(patsubst $(B)/%,%,$@)";
endif

WARN   := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wvla
ifneq ($(DEV),0)
WARN   += -Werror
endif
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
OPT    := -O2
ifeq ($(SAN),asan)
OPT    := -O1 -fno-omit-frame-pointer
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all
HARDEN := -fPIE
endif
ifeq ($(SAN),tsan)
OPT    := -O1 -fno-omit-frame-pointer
SANFLAGS := -fsanitize=thread
HARDEN := -fPIE
endif
ifeq ($(SAN),fuzz)
OPT    := -O1 -fno-omit-frame-pointer
SANFLAGS := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
HARDEN := -fPIE
endif
ifeq ($(SAN),coverage)
OPT    := -O1
SANFLAGS := -fprofile-instr-generate -fcoverage-mapping
HARDEN := -fPIE
endif
CPPFLAGS_ALL = -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -I. -I$(B)/gen -include base/banned.h $(CPPFLAGS)
CFLAGS_ALL   = -std=c11 -g $(OPT) $(WARN) $(HARDEN) $(SANFLAGS) -ffunction-sections -fdata-sections -MMD -MP $(CFLAGS)
LDFLAGS_ALL  := -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed $(SANFLAGS) $(LDFLAGS)
# What every function links (libcurl is opened on its first use), and what only the platform links.
LIBS_FUNCTION := -lh2o-evloop -luv -ljansson -lssl -lcrypto -l:libboost_context.a -ldl -lpthread
LIBS_PLATFORM := -lnghttp2 -lprotobuf-c -lsqlite3 -lyaml -lpcre2-8 -lz -lm $(LIBS_FUNCTION)

# ---- the parts ----
SHIM_SRC    := $(sort $(wildcard runtime/gateway/shim*.c))
GEN_SRC     := runtime/cli/generate_main.c
DOG_SRC     := runtime/function/watchdog_main.c
CLI_SRC     := $(filter-out $(GEN_SRC),$(sort $(wildcard runtime/cli/*.c)))
LIB_SRC     := $(filter-out $(CLI_SRC) $(GEN_SRC) $(DOG_SRC) $(SHIM_SRC),$(sort $(wildcard runtime/*/*.c)))
# Core functions are linked into balm; every other folder of functions/ is a function with an executable of its own.
CORE        := alerts dispatcher audit scaler
CORE_SRC    := $(sort $(wildcard $(CORE:%=functions/%/*.c)))
FUNCTIONS   := $(sort $(filter-out $(CORE),$(notdir $(patsubst %/,%,$(dir $(wildcard functions/*/handler.c))))))

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
PROTOS      := $(patsubst runtime/%,%,$(sort $(wildcard runtime/grpc/*.proto)))
CORE_PROTOS := $(sort $(wildcard functions/*/*.proto))
PROTO_OBJ   := $(patsubst %.proto,$(B)/obj/gen/%.pb-c.o,$(PROTOS) $(CORE_PROTOS))
LIB_OBJ  := $(call objects,$(LIB_SRC)) $(PROTO_OBJ)
CLI_OBJ  := $(call objects,$(CLI_SRC))
CORE_OBJ := $(call objects,$(CORE_SRC))

DOCS := $(patsubst runtime/gateway/docs/%,$(B)/docs/%,$(wildcard runtime/gateway/docs/*))

.PHONY: all
all: $(B)/balm $(B)/balm-shim $(B)/balm-watchdog $(FUNCTIONS:%=$(B)/functions/%) $(DOCS) ## all binaries: build/balm and build/functions/NAME

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -c $< -o $@

$(B)/libbalm.a: $(LIB_OBJ)
	@rm -f $@
	$(call say,AR)ar rcs $@ $^

# Core functions and subcommands: all of balm but main(), so that tests can have them too.
MAIN_OBJ := $(B)/obj/runtime/cli/main.o
$(B)/libcore.a: $(filter-out $(MAIN_OBJ),$(CLI_OBJ)) $(CORE_OBJ)
	@rm -f $@
	$(call say,AR)ar rcs $@ $^

# ---- gRPC's messages: X.proto -> X.pb-c.h, X.pb-c.c and, for reflection, X.descriptor.h ----
.PRECIOUS: $(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h $(B)/gen/%.descriptor.h
# $(1): the folder that names are relative to
define protoc
@mkdir -p $(@D)
$(call say,PROTO)protoc-c --proto_path=$(1) --c_out=$(B)/gen --include_imports --descriptor_set_out=$(B)/gen/$*.set $<
@{ echo 'static const char $(*F)_descriptor[] = {'; od -An -v -tx1 $(B)/gen/$*.set | sed 's/\([0-9a-f][0-9a-f]\)/(char)0x\1,/g'; echo '};'; } >$(B)/gen/$*.descriptor.h
endef
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h $(B)/gen/%.descriptor.h: runtime/%.proto
	$(call protoc,runtime)
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h $(B)/gen/%.descriptor.h: %.proto
	$(call protoc,.)

$(B)/obj/gen/%.pb-c.o: $(B)/gen/%.pb-c.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -Wno-conversion -Wno-shadow -c $< -o $@
$(call objects,$(wildcard runtime/grpc/*.c)): $(PROTOS:%.proto=$(B)/gen/%.pb-c.h)
$(call objects,$(wildcard $(dir $(CORE_PROTOS))*.c)): $(CORE_PROTOS:%.proto=$(B)/gen/%.pb-c.h)
$(call objects,tests/fuzz/trigger.c): $(PROTOS:%.proto=$(B)/gen/%.pb-c.h) $(CORE_PROTOS:%.proto=$(B)/gen/%.pb-c.h)

$(B)/balm: $(MAIN_OBJ) $(B)/libcore.a $(B)/libbalm.a
	$(call say,LD)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_PLATFORM)

# Static and bare: it stands beside every replica.
$(B)/balm-shim: $(SHIM_SRC) runtime/gateway/shim_sandbox.h runtime/base/banned.h
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -std=c11 -D_GNU_SOURCE -Iruntime -include base/banned.h -Os $(WARN) -static -s -ffunction-sections -Wl,--gc-sections -o $@ $(SHIM_SRC)

# ---- pages below /docs: ours, and Swagger UI where it has been fetched ----
$(DOCS): $(B)/docs/%: runtime/gateway/docs/%
	@mkdir -p $(@D)
	$(call say,CP)cp $< $@
.PHONY: swagger-ui
swagger-ui: ## fetch Swagger UI for /docs (npm; once, then cached)
	@runtime/cli/package/swagger-ui.sh $(B)/docs

# Stands in the place of a function in another language.
$(B)/balm-watchdog: $(call objects,$(DOG_SRC)) $(B)/libbalm.a
	$(call say,LD)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lyaml $(LIBS_FUNCTION)

# ---- functions: bot.yaml -> NAME.gen.h, NAME.gen.c (parameters, decoder, manifest, main) ----
# The generator is balm's own subcommand, built first and alone, so that a change in the platform does not remake every function.
$(B)/balm-generate: $(B)/obj/runtime/cli/generate_main.o $(call objects,$(filter-out $(GEN_SRC),$(wildcard runtime/cli/generate*.c))) $(B)/libbalm.a
	$(call say,LD)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lyaml $(LIBS_FUNCTION)

.SECONDEXPANSION:
.PRECIOUS: $(B)/gen/functions/%.gen.c $(B)/gen/functions/%.gen.h
$(B)/gen/functions/%.gen.c $(B)/gen/functions/%.gen.h: functions/$$*/bot.yaml $(B)/balm-generate
	@mkdir -p $(@D)
	$(call say,GEN)$(B)/balm-generate bot functions/$*/bot.yaml --out $(@D)

$(B)/obj/gen/functions/%.gen.o: $(B)/gen/functions/%.gen.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CPPFLAGS_ALL) -I$(B)/gen/functions $(CFLAGS_ALL) -c $< -o $@

$(FUNCTIONS:%=$(B)/functions/%): $(B)/functions/%: $(B)/obj/gen/functions/%.gen.o $$(call objects,$$(wildcard functions/$$*/*.c)) $(B)/libbalm.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_FUNCTION)

# A function's own test, in its folder test/, has the main(): it calls the handler.
$(FUNCTIONS:%=$(B)/tests/functions/%): $(B)/tests/functions/%: $$(call objects,$$(wildcard functions/$$*/test/*.c functions/$$*/*.c)) $(B)/libbalm.a
	@mkdir -p $(@D)
	$(call say,LD)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_FUNCTION)

define function_rules
$(call objects,$(wildcard functions/$(1)/*.c functions/$(1)/test/*.c)): $(B)/gen/functions/$(1).gen.h
$(call objects,$(wildcard functions/$(1)/*.c functions/$(1)/test/*.c)): CPPFLAGS += -I$(B)/gen/functions
endef
$(foreach f,$(FUNCTIONS),$(eval $(call function_rules,$(f))))

# ---- templates and images ----
# What `faas-cli new` starts from, laid out as `faas-cli template pull` and ./template want it. c-balm carries what a bot is built of, so that
# an image needs Debian's packages and nothing else.
SDK_PARTS := base client cloudevents config fiber function log loop metrics server
SDK_FILES := Makefile runtime/balm.h $(wildcard $(SDK_PARTS:%=runtime/%/*.[ch]) runtime/cli/cli.h runtime/cli/generate*.[ch])
TEMPLATES := $(B)/templates/template
IMAGES    ?= $(FUNCTIONS)
IMAGE_TAG ?= latest
.PHONY: templates images e2e-images
templates: ## what faas-cli new --lang c-balm, shell-balm, python3-balm starts from: build/templates/template
	@rm -rf $(TEMPLATES) && mkdir -p $(TEMPLATES) && cp -R templates/* $(TEMPLATES)
	@mkdir $(TEMPLATES)/c-balm/sdk && cp --parents $(SDK_FILES) $(TEMPLATES)/c-balm/sdk
	@runtime/cli/package/template-repository.sh $(B)/templates
images: templates ## an image of every function, as Docker builds it from the template c-balm (IMAGES="NAME …", IMAGE_PREFIX=registry/team/)
	@runtime/cli/package/images.sh $(B) "$(IMAGE_PREFIX)" "$(IMAGE_TAG)" $(IMAGES)
e2e-images: deps-images ## images in a Docker Engine of its own: built by faas-cli and make images, run read-only, drained, looked into
	@tests/run.py --build $(B) --only test_images.py e2e

# ---- tests ----
# tests/unit/MODULE/*.c and tests/contract/*.c: one Criterion binary a folder; tests/property/test_X.c: one each; tests/fuzz/X.c: a replay of
# tests/fuzz/corpus/X; tests/tsan/X.c and tests/bench/X.c: plain programs.
UNIT     := $(sort $(notdir $(patsubst %/,%,$(dir $(wildcard tests/unit/*/test_*.c)))))
PROPERTY := $(sort $(basename $(notdir $(wildcard tests/property/test_*.c))))
FUZZ     := $(sort $(basename $(notdir $(wildcard tests/fuzz/*.c))))
# Fibers and what stands on them, up to the wire; what opens files and databases runs under ASan.
VALGRIND := base fiber loop server client cloudevents
TSAN     := $(sort $(basename $(notdir $(wildcard tests/tsan/*.c))))
BENCH    := $(sort $(basename $(notdir $(wildcard tests/bench/*.c))))
CRASH    := $(sort $(filter-out preload_%,$(basename $(notdir $(wildcard tests/crash/*.c)))))
PRELOAD  := $(sort $(basename $(notdir $(wildcard tests/crash/preload_*.c))))

UNIT_BIN     := $(UNIT:%=$(B)/tests/unit/%)
PROPERTY_BIN := $(PROPERTY:%=$(B)/tests/property/%)
CONTRACT_BIN := $(if $(wildcard tests/contract/*.c),$(B)/tests/contract/contract)
FUZZ_BIN     := $(FUZZ:%=$(B)/tests/fuzz/%)
TSAN_BIN     := $(TSAN:%=$(B)/tests/tsan/%)
BENCH_BIN    := $(BENCH:%=$(B)/tests/bench/%)
CRASH_BIN    := $(CRASH:%=$(B)/tests/crash/%)
PRELOAD_BIN  := $(PRELOAD:%=$(B)/tests/crash/%.so)
# A deliberate leak: the sanitizer build must catch it, or its silence about the rest means nothing.
CANARY_BIN   := $(if $(filter asan,$(SAN)),$(B)/tests/canary/leak)

# Criterion finds its tests through a section that nothing refers to: it must not be collected as garbage.
link_test = @mkdir -p $(@D); $(if $(filter 0,$(V)),echo "  LD	$(patsubst $(B)/%,%,$@)";) $(CC) $(LDFLAGS_ALL) -Wl,--no-gc-sections -o $@ $(filter $(B)/obj/tests/%,$^)

$(UNIT_BIN): $(B)/tests/unit/%: $$(call objects,$$(wildcard tests/unit/$$*/*.c)) $(B)/libcore.a $(B)/libbalm.a
	$(link_test) $(B)/libcore.a $(B)/libbalm.a -lcriterion $(LIBS_PLATFORM)
$(PROPERTY_BIN): $(B)/tests/property/%: $(B)/obj/tests/property/%.o $(B)/libcore.a $(B)/libbalm.a
	$(link_test) $(B)/libcore.a $(B)/libbalm.a -lcriterion $(LIBS_PLATFORM)
$(CONTRACT_BIN): $(call objects,$(wildcard tests/contract/*.c)) $(B)/libcore.a $(B)/libbalm.a
	$(link_test) $(B)/libcore.a $(B)/libbalm.a -lcriterion $(LIBS_PLATFORM)
# libFuzzer brings its own main.
ifeq ($(SAN),fuzz)
$(FUZZ_BIN): LDFLAGS_ALL += -fsanitize=fuzzer
else
$(FUZZ:%=$(B)/obj/tests/fuzz/%.o): CPPFLAGS += -DFUZZ_MAIN
endif
$(FUZZ_BIN) $(TSAN_BIN) $(BENCH_BIN) $(CRASH_BIN) $(CANARY_BIN): $(B)/tests/%: $(B)/obj/tests/%.o $(B)/libcore.a $(B)/libbalm.a
	$(link_test) $(B)/libcore.a $(B)/libbalm.a $(LIBS_PLATFORM)

.PHONY: tests bench-binaries crash-binaries
tests: all $(UNIT_BIN) $(PROPERTY_BIN) $(CONTRACT_BIN) $(FUZZ_BIN) $(CANARY_BIN) $(B)/tests/crash/ledger
bench-binaries: all $(BENCH_BIN)
crash-binaries: all $(CRASH_BIN) $(PRELOAD_BIN)
# Put between a program and libc by LD_PRELOAD; in front of the sanitizers too, which it must not need.
$(PRELOAD_BIN): $(B)/tests/crash/%.so: tests/crash/%.c
	@mkdir -p $(@D)
	$(call say,LD)$(CC) -D_GNU_SOURCE $(CPPFLAGS) $(filter-out $(SANFLAGS),$(CFLAGS_ALL)) -fPIC -shared -o $@ $< -ldl -lpthread

.PHONY: test check check-asan check-tsan check-valgrind check-all check-upgrade fuzz-replay integration
test: deps-test ## every test, with its own set-up; ends in `N passed, N failed`
	@$(MAKE) --no-print-directory -j$$(nproc) tests
	@tests/run.py --build $(B) unit property contract fuzz integration upgrade
check: tests ## unit and property tests, parallel, under a minute
	@tests/run.py --build $(B) unit property
check-asan: deps-test ## ASan, UBSan and leaks over unit and integration tests
	@$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/asan SAN=asan tests
	@tests/run.py --asan --build $(B)/asan unit property contract fuzz integration upgrade
check-tsan: deps-test ## TSan on the threaded parts, and on the whole platform
	@$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/tsan SAN=tsan all $(TSAN:%=$(B)/tsan/tests/tsan/%)
	@tests/run.py --build $(B)/tsan tsan
check-valgrind: deps-valgrind ## memcheck over the fiber core, its stacks registered: fibers, loop, server, client
	@$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/valgrind $(VALGRIND:%=$(B)/valgrind/tests/unit/%)
	@tests/run.py --valgrind --build $(B)/valgrind unit
check-all: ## everything, heavy targets too
	@CI_ALL=1 .ci/run
# libFuzzer's own build, and one that counts lines, beside the others.
FUZZ_BUILD := CC=clang B=$(B)/fuzz-asan SAN=fuzz
FUZZ_COVERAGE := CC=clang B=$(B)/fuzz-coverage SAN=coverage
.PHONY: fuzz fuzz-merge fuzz-coverage fuzz-binaries
fuzz-binaries: $(FUZZ_BIN)
fuzz: deps-fuzz ## every parser on mutated inputs; hours are added up in tests/fuzz/hours.tsv (FUZZ_SECONDS=60, FUZZ_TARGET="NAME …", FUZZ_JOBS)
	@$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ_BUILD) fuzz-binaries
	@tests/fuzz/fuzz.py run $(B)/fuzz-asan
fuzz-merge: deps-fuzz ## what make fuzz has learned, as far as it reaches new code, into tests/fuzz/corpus
	@$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ_BUILD) fuzz-binaries
	@tests/fuzz/fuzz.py merge $(B)/fuzz-asan
fuzz-coverage: deps-fuzz ## lines of the parsers that the corpora reach
	@$(MAKE) --no-print-directory -j$$(nproc) $(FUZZ_COVERAGE) fuzz-binaries
	@tests/fuzz/fuzz.py coverage $(B)/fuzz-coverage
.PHONY: check-openapi
check-openapi: deps-openapi ## calls made from each OpenAPI document (schemathesis): no reply outside it (BALM_SEED=N)
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tests/openapi/check.py --build $(B)
fuzz-replay: $(FUZZ_BIN) ## corpora through every parser
	@tests/run.py --build $(B) fuzz
check-upgrade: all ## the stored state of every release is opened and goes on; a newer one's is refused unchanged
	@tests/run.py --build $(B) upgrade
integration: all ## real platform, real neighbours
	@tests/run.py --build $(B) integration

.PHONY: demo up bench crash crash-sample
demo: deps-demo ## the main job on real parts: nginx dies, Prometheus and Alertmanager tell, balm repairs (KEEP=1 leaves it running)
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@BALM_BUILD=$(B) python3 tests/e2e/demo.py
.PHONY: e2e-logcli
e2e-logcli: deps-test ## the audit journal through Loki's own client, built from its Go module (cold: 8 minutes; skipped aloud without go)
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tests/run.py --build $(B) --only test_logcli.py e2e
.PHONY: e2e-knative
e2e-knative: deps-knative ## functions behind Knative's own queue-proxy, events of other languages' SDKs, manifests (cold: 10 minutes; skipped aloud without go)
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@tests/run.py --build $(B) --only test_knative e2e
.PHONY: e2e-docs
e2e-docs: deps-docs ## /docs in a headless Chromium: an operation is tried out by clicking (pictures: build/docs-*.png)
	@$(MAKE) --no-print-directory -j$$(nproc) all swagger-ui
	@tests/run.py --build $(B) --only test_docs.py e2e
up: deps ## the platform in the foreground
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@exec $(B)/balm up
bench: deps-test ## figures beside their floors, from one run
	@$(MAKE) --no-print-directory -j$$(nproc) bench-binaries
	@BALM_BUILD=$(B) python3 tests/bench/bench.py
.PHONY: soak
soak: deps-test ## hours at half the sustained rate: memory, descriptors and latency stay flat (SOAK_MINUTES=120)
	@$(MAKE) --no-print-directory -j$$(nproc) all crash-binaries
	@BALM_BUILD=$(B) python3 tests/bench/soak.py
crash: deps-test ## kills, power loss, full disks, hostile peers: a table of what was tried and what was lost (CAMPAIGN=..., BALM_SEED=N)
	@$(MAKE) --no-print-directory -j$$(nproc) crash-binaries
	@tests/crash/run.py --build $(B) $(CAMPAIGN)
crash-sample: deps-test ## a seeded sample of the same in minutes
	@$(MAKE) --no-print-directory -j$$(nproc) crash-binaries
	@tests/crash/run.py --build $(B) --sample $(CAMPAIGN)

# ---- install ----
# `balm` finds the rest from where it is (../lib/balm, ../share/balm), so DESTDIR and PREFIX need nothing compiled in. What is configured once
# stays: files in sysconfdir are written only where there are none.
PREFIX     ?= /usr/local
DESTDIR    ?=
bindir     ?= $(PREFIX)/bin
libdir     ?= $(PREFIX)/lib
datadir    ?= $(PREFIX)/share
mandir     ?= $(datadir)/man
sysconfdir ?= /etc
unitdir    ?= $(libdir)/systemd/system
bashdir    ?= $(datadir)/bash-completion/completions
zshdir     ?= $(datadir)/zsh/site-functions
RUNBOOKS   := $(sort $(wildcard functions/dispatcher/runbooks/*.yaml))
INSTALL    := install -D
CONFIG     := $(DESTDIR)$(sysconfdir)/balm
GENERATED  := $(B)/share/balm.1 $(B)/share/balm.bash $(B)/share/_balm $(B)/share/balm.service

# Man page and completion are printed by the binary from its own table of commands.
$(B)/share/balm.1: help_of = --man
$(B)/share/balm.bash: help_of = --completion bash
$(B)/share/_balm: help_of = --completion zsh
$(B)/share/balm.1 $(B)/share/balm.bash $(B)/share/_balm: $(B)/balm
	@mkdir -p $(@D)
	$(call say,GEN)$(B)/balm help $(help_of) >$@.new && mv $@.new $@
# Made each time: it holds the folders of this very call.
.PHONY: $(B)/share/balm.service
$(B)/share/balm.service: runtime/cli/package/balm.service.in
	@mkdir -p $(@D)
	$(call say,GEN)sed -e 's|@bindir@|$(bindir)|g' -e 's|@sysconfdir@|$(sysconfdir)|g' $< >$@

.PHONY: install uninstall deb e2e-systemd
# Without npm the pages say so; all else is there.
install: all templates $(GENERATED) ## binaries, man pages, completion, balm.service (DESTDIR, PREFIX=/usr/local)
	@runtime/cli/package/swagger-ui.sh $(B)/docs || echo "install: /docs comes without Swagger UI; later: make swagger-ui install" >&2
	$(INSTALL) $(B)/balm $(DESTDIR)$(bindir)/balm
	$(INSTALL) -t $(DESTDIR)$(libdir)/balm $(B)/balm-shim $(B)/balm-watchdog
	$(INSTALL) -t $(DESTDIR)$(libdir)/balm/functions $(FUNCTIONS:%=$(B)/functions/%)
	$(INSTALL) -m 644 -t $(DESTDIR)$(datadir)/balm stack.yml
	$(INSTALL) -m 644 -t $(DESTDIR)$(datadir)/balm/runbooks $(RUNBOOKS)
	$(INSTALL) -m 644 -t $(DESTDIR)$(datadir)/balm/docs $(B)/docs/*
	for f in $$(cd $(TEMPLATES) && find * -type f); do \
	    $(INSTALL) -m $$(stat -c %a $(TEMPLATES)/$$f) $(TEMPLATES)/$$f $(DESTDIR)$(datadir)/balm/templates/$$f || exit 1; done
	$(INSTALL) -m 644 $(B)/share/balm.1 $(DESTDIR)$(mandir)/man1/balm.1
	$(INSTALL) -m 644 -t $(DESTDIR)$(mandir)/man5 $(wildcard runtime/cli/man/*.5)
	$(INSTALL) -m 644 -t $(DESTDIR)$(mandir)/man7 $(wildcard runtime/cli/man/*.7)
	$(INSTALL) -m 644 $(B)/share/balm.bash $(DESTDIR)$(bashdir)/balm
	$(INSTALL) -m 644 $(B)/share/_balm $(DESTDIR)$(zshdir)/_balm
	$(INSTALL) -m 644 $(B)/share/balm.service $(DESTDIR)$(unitdir)/balm.service
	[ -e $(CONFIG)/stack.yml ] || $(INSTALL) -m 644 -t $(CONFIG) stack.yml
	[ -e $(CONFIG)/balm.env ] || $(INSTALL) -m 644 -t $(CONFIG) runtime/cli/package/balm.env
	[ -e $(CONFIG)/host-acts.yaml ] || $(INSTALL) -m 644 -t $(CONFIG) runtime/cli/package/host-acts.yaml
	[ -d $(CONFIG)/runbooks ] || $(INSTALL) -m 644 -t $(CONFIG)/runbooks $(filter-out %/demo-nginx.yaml,$(RUNBOOKS))
uninstall: ## what install put there; configuration and state stay
	rm -rf $(DESTDIR)$(libdir)/balm $(DESTDIR)$(datadir)/balm
	rm -f $(DESTDIR)$(bindir)/balm $(DESTDIR)$(mandir)/man1/balm.1 $(patsubst runtime/cli/man/%,$(DESTDIR)$(mandir)/man5/%,$(wildcard runtime/cli/man/*.5)) \
	    $(patsubst runtime/cli/man/%,$(DESTDIR)$(mandir)/man7/%,$(wildcard runtime/cli/man/*.7)) \
	    $(DESTDIR)$(bashdir)/balm $(DESTDIR)$(zshdir)/_balm $(DESTDIR)$(unitdir)/balm.service
deb: all ## a Debian package of it: build/deb/balm_VERSION_ARCH.deb
	+@runtime/cli/package/deb.sh $(B)
e2e-systemd: deps-systemd ## the package in a booted Debian: installed, heals a unit, killed, upgraded, purged
	@$(MAKE) --no-print-directory -j$$(nproc) deb
	@tests/run.py --build $(B) --only systemd e2e

# ---- what has to be installed ----
DEPS       := gcc make libc6-dev libh2o-evloop-dev libssl-dev libuv1-dev libboost-context-dev libcurl4-openssl-dev libjansson-dev libsqlite3-dev \
              libyaml-dev libpcre2-dev zlib1g-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler ca-certificates
DEPS_test  := $(DEPS) openssl libcriterion-dev python3 python3-venv curl nghttp2-client wrk libubsan1 libasan8 zsh mandoc
DEPS_demo  := $(DEPS) python3 libcrypt1
DEPS_systemd := $(DEPS) python3 dpkg-dev systemd-container debootstrap
DEPS_fuzz  := $(DEPS) python3 clang llvm libclang-rt-14-dev
DEPS_lint  := $(DEPS_test) clang clang-tidy clang-format cppcheck
DEPS_valgrind := $(DEPS_test) valgrind
DEPS_images := make python3 debootstrap binutils
DEPS_docs := $(DEPS) python3 chromium fonts-dejavu-core
DEPS_openapi := $(DEPS) python3 python3-venv
DEPS_knative := $(DEPS) openssl python3 python3-venv curl nghttp2-client util-linux
DEPS_TARGETS := deps-test deps-knative deps-demo deps-systemd deps-fuzz deps-lint deps-valgrind deps-openapi deps-docs deps-images
.PHONY: deps $(DEPS_TARGETS)
deps: ## install what is missing to build (one apt-get line, shown)
	@tests/deps.sh $(DEPS)
$(DEPS_TARGETS): deps-%:
	@tests/deps.sh $(DEPS_$*)

# ---- checks ----
.PHONY: lint
lint: deps-lint ## compilers' warnings as errors, clang-tidy, cppcheck, gcc -fanalyzer, format, generated files
	@tests/lint.sh $(B)

.PHONY: clean help
clean: ## remove everything generated
	rm -rf $(B)
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
