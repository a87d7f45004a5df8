/* A function's settings from any environment and command line: each value lies in its range, or the start is
 * refused by a sentence.
 *
 * Input: one setting a line: "NAME=VALUE" for the environment, anything else an argument.
 *
 * Reads: function/function_config.c config/config.c config/bytes.c */
#include "function/function_impl.h"

#include <assert.h>
#include <stdlib.h>

#include "base/list.h"
#include "config/config.h"
#include "replay.h"

#define ARGUMENTS_MAX 32

/* No other variable is touched: this process has its own. */
static const char *const names[] = {"port",
                                    "PORT",
                                    "K_SERVICE",
                                    "BALM_HOST",
                                    "metrics_port",
                                    "read_timeout",
                                    "write_timeout",
                                    "exec_timeout",
                                    "healthcheck_interval",
                                    "max_inflight",
                                    "max_body",
                                    "ready_path",
                                    "suppress_lock",
                                    "log_callid",
                                    "log_level",
                                    "secret_mount_path",
                                    "knative_health",
                                    "http2",
                                    "BALM_LISTEN_FD",
                                    "BALM_METRICS",
                                    "BALM_FROZEN",
                                    "jwt_auth"};

static void set(struct strview line, struct arena *a)
{
    size_t end = sv_find(line, '=');
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (sv_eq(sv_sub(line, 0, end), sv(names[i])))
            (void)setenv(names[i], arena_cstr(a, sv_sub(line, end + 1, line.len)), 1);
}

static void check(const struct function_cfg *cfg)
{
    assert(cfg->read_timeout_ns >= 0 && cfg->write_timeout_ns >= 0 && cfg->exec_timeout_ns >= 0);
    assert(cfg->healthcheck_interval_ns >= 0 && cfg->max_inflight >= 0 && cfg->max_body_bytes >= 0);
    assert(cfg->ready_path == NULL || cfg->ready_path[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const struct function_def def = {.name = "f", .summary = "A function"};
    char *argv[ARGUMENTS_MAX + 2] = {NULL};
    struct arena arena = {0};
    struct function_cfg cfg;
    struct error err = {0};
    struct strview rest = sv_n((const char *)bytes, n), line;
    int argc = 0;
    argv[argc++] = arena_cstr(&arena, SV("f"));
    while (sv_next(&rest, '\n', &line)) {
        if (memchr(line.ptr, '\0', line.len) != NULL) continue;
        if (!sv_starts_with(line, SV("-")) && sv_find(line, '=') < line.len)
            set(line, &arena);
        else if (argc <= ARGUMENTS_MAX)
            argv[argc++] = arena_cstr(&arena, line);
    }
    if (function_config_load(&def, argc, argv, &arena, &cfg, &err) == STATUS_OK)
        check(&cfg);
    else
        assert(err.code == STATUS_INVALID_ARGUMENT && err.message[0] != '\0');
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unsetenv(names[i]);
    arena_release(&arena);
    return 0;
}
