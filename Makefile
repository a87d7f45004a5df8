# balm: `make help` lists what can be asked for.
#
# Layout: one static library a layer of runtime/ would buy nothing; all of runtime/ is one archive and the linker takes
# what a binary needs (a bot must not carry SQLite). Generated files go to $(B)/gen. `make B=build/asan SAN=asan` builds beside.

B      ?= build
SAN    ?=
CC     ?= gcc
DEV    ?= 0
.DEFAULT_GOAL := all

WARN   := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wvla
ifneq ($(DEV),0)
WARN   += -Werror
endif
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
OPT    := -O2
SANFLAGS :=
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
CPPFLAGS_ALL := -D_GNU_SOURCE -DH2O_USE_LIBUV=0 -Iruntime -I. -I$(B)/gen -include base/banned.h $(CPPFLAGS)
CFLAGS_ALL   := -std=c11 -g $(OPT) $(WARN) $(HARDEN) $(SANFLAGS) -ffunction-sections -fdata-sections -MMD -MP $(CFLAGS)
LDFLAGS_ALL  := -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed $(SANFLAGS) $(LDFLAGS)
# What every function links, and what only the platform links.
LIBS_FUNCTION := -lh2o-evloop -luv -ljansson -lssl -lcrypto -l:libboost_context.a -ldl -lpthread
LIBS_PLATFORM := -lsqlite3 -lyaml -lpcre2-8 -lz $(LIBS_FUNCTION)

RUNTIME_SRC := $(sort $(wildcard runtime/*/*.c))
RUNTIME_OBJ := $(RUNTIME_SRC:%.c=$(B)/obj/%.o)
CLI_OBJ     := $(filter $(B)/obj/runtime/cli/%,$(RUNTIME_OBJ))
LIB_OBJ     := $(filter-out $(CLI_OBJ),$(RUNTIME_OBJ))

# Core functions are linked into balm; every other folder of functions/ is a bot or plain function with its own executable.
CORE        := alerts dispatcher audit
CORE_SRC    := $(sort $(wildcard $(CORE:%=functions/%/*.c)))
CORE_OBJ    := $(CORE_SRC:%.c=$(B)/obj/%.o)
FUNCTIONS   := $(filter-out $(CORE),$(notdir $(patsubst %/,%,$(dir $(wildcard functions/*/bot.yaml)))))

.PHONY: all
all: $(B)/balm $(FUNCTIONS:%=$(B)/functions/%) ## all binaries

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -c $< -o $@

$(B)/libbalm.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(B)/balm: $(CLI_OBJ) $(CORE_OBJ) $(B)/libbalm.a
	$(CC) $(LDFLAGS_ALL) -o $@ $(CLI_OBJ) $(CORE_OBJ) $(B)/libbalm.a $(LIBS_PLATFORM)

# ---- unit tests: one Criterion binary a module: tests/unit/MODULE/*.c -> $(B)/tests/unit/MODULE
UNIT := $(notdir $(patsubst %/,%,$(dir $(wildcard tests/unit/*/test_*.c))))
UNIT := $(sort $(UNIT))
.SECONDEXPANSION:
$(UNIT:%=$(B)/tests/unit/%): $(B)/tests/unit/%: $$(patsubst %.c,$(B)/obj/%.o,$$(wildcard tests/unit/$$*/*.c)) $(CORE_OBJ) $(B)/libbalm.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS_ALL) -o $@ $(filter $(B)/obj/tests/%,$^) $(CORE_OBJ) $(B)/libbalm.a -lcriterion $(LIBS_PLATFORM)

.PHONY: clean
clean: ## remove everything generated
	rm -rf $(B)

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
