#include "function/program.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/config.h"
#include "function/api_key.h"
#include "function/openapi.h"
#include "function/program_impl.h"
#include "log/log.h"
#include "loop/loop.h"

#define INFLIGHT_DEFAULT   "64" /* processes at once: a flood of requests must not become a flood of those */
#define MANIFEST_BYTES_MAX ((size_t)1024 * 1024)

#define AT(member) .offset = offsetof(struct program, member)

static const struct config_option options[] = {
    {.env = "mode", .type = CONFIG_TEXT, AT(mode), .help = "streaming, serializing or http"},
    {.env = "http_upstream_url",
     .type = CONFIG_TEXT,
     AT(http_upstream_url),
     .help = "mode http: where it listens"},
    {.env = "upstream_url", .type = CONFIG_TEXT, AT(upstream_url), .help = "the same"},
    {.env = "content_type", .type = CONFIG_TEXT, AT(content_type), .help = "of answers"},
    {.env = "combine_output",
     .type = CONFIG_BOOL,
     AT(combine_output),
     .help = "stderr is part of the answer"},
    {.env = "max_output",
     .type = CONFIG_BYTES,
     .default_text = "8MiB",
     .min = 1,
     .max = PROCESS_OUTPUT_MAX,
     AT(max_output_bytes),
     .help = "longest answer"},
};

static struct program self; /* one function a process */

static bool is_http(void)
{
    return self.mode != NULL && strcmp(self.mode, "http") == 0;
}

static enum status load_settings(struct arena *a, struct error *err)
{
    static const char *const modes[] = {"streaming", "serializing", "http"};
    struct program cfg = {0};
    int n;
    char *argv[] = {(char *)(uintptr_t) "balm-watchdog", NULL};
    enum status s = config_load(options, ARRAY_LEN(options), 1, argv, a, &cfg, &n, err);
    if (s != STATUS_OK) return s;
    bool is_mode = cfg.mode == NULL;
    for (size_t i = 0; i < ARRAY_LEN(modes) && !is_mode; i++)
        is_mode = strcmp(cfg.mode, modes[i]) == 0;
    if (!is_mode)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "mode: '%.40s' is not offered here; allowed are streaming, serializing and http",
                         cfg.mode);
    self = cfg;
    return STATUS_OK;
}

/* ---- the manifest ---- */

static enum status read_stdin(struct arena *a, struct strview *ret_text, struct error *err)
{
    char *text = arena_alloc(a, MANIFEST_BYTES_MAX + 1);
    size_t len = 0;
    while (len <= MANIFEST_BYTES_MAX) {
        ssize_t n = read(STDIN_FILENO, text + len, MANIFEST_BYTES_MAX + 1 - len);
        if (n == 0) break;
        if (n > 0)
            len += (size_t)n;
        else if (errno != EINTR)
            return error_set(err, status_from_errno(errno), "read the manifest: %s", strerror(errno));
    }
    *ret_text = sv_trim(sv_n(text, len));
    return len <= MANIFEST_BYTES_MAX ? STATUS_OK
                                     : error_set(err, STATUS_INVALID_ARGUMENT,
                                                 "the manifest has more than %zu bytes", MANIFEST_BYTES_MAX);
}

/* keep: for what lasts until exit. */
static enum status load_manifest(struct arena *keep, struct error *err)
{
    struct arena a = {0};
    struct strview text = {0};
    json_t *json = NULL;
    enum status s = read_stdin(&a, &text, err);
    self.has_manifest = s == STATUS_OK && text.len > 0;
    if (self.has_manifest) s = json_parse(text, 0, &json, err);
    if (self.has_manifest && s == STATUS_OK) s = manifest_params_parse(json, &self.params, err);
    self.acts = json_is_true(json_object_get(json, "acts"));
    if (s == STATUS_OK && openapi_is_known(json)) {
        json_t *document = openapi_document(json);
        self.openapi_json = json_canonical(keep, document).ptr;
        json_release(document);
    }
    struct strview key_secret = api_key_secret(json, keep);
    self.api_key_secret = key_secret.len > 0 ? arena_cstr(keep, key_secret) : NULL;
    json_release(json);
    arena_release(&a);
    return s == STATUS_OK ? s : error_prefix(err, s, "manifest");
}

/* ---- what the function runtime calls ---- */

/* BALM_PARAM_name: for whom JSON is no easy thing, as for a shell. Entries of a list, a line each. */
static const char *variable(struct arena *a, const char *name, const json_t *value)
{
    struct strview text = {0};
    if (json_is_string(value)) text = sv_n(json_string_value(value), json_string_length(value));
    if (json_is_integer(value)) text = arena_printf(a, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_boolean(value)) text = json_is_true(value) ? SV("true") : SV("false");
    for (size_t i = 0; i < json_array_size(value); i++)
        text = arena_printf(a, "%.*s%s%s", SV_ARG(text), i > 0 ? "\n" : "",
                            json_string_value(json_array_get(value, i)));
    return arena_printf(a, "BALM_PARAM_%s=%.*s", name, SV_ARG(text)).ptr;
}

static enum status decode(const json_t *body, struct arena *a, void *ret_params, struct error *err)
{
    struct program_params *p = ret_params;
    json_t *complete = NULL;
    enum status s = manifest_complete(&self.params, self.function, body, &complete, err);
    if (s != STATUS_OK) return s;
    const char *name;
    json_t *value;
    p->json = json_canonical(a, complete);
    p->env = arena_array(a, json_object_size(complete), sizeof(*p->env));
    json_object_foreach(complete, name, value) p->env[p->n_env++] = variable(a, name, value);
    json_release(complete);
    return STATUS_OK;
}

static enum status handle(struct invocation *inv, const void *params, struct result *ret, struct error *err)
{
    const struct program_params raw = {.json = inv->req->body}, *input = params != NULL ? params : &raw;
    return is_http() ? program_http_forward(&self, inv, input->json, ret, err)
                     : program_run(&self, inv, input, ret, err);
}

/* ---- main ---- */

static int usage(void)
{
    fputs("usage: balm-watchdog [--folder DIR] -- PROGRAM [ARG ...]\n", stderr);
    return 2;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static enum status load(struct arena *a, struct error *err)
{
    enum status s = load_settings(a, err);
    if (s == STATUS_OK) s = load_manifest(a, err);
    return s;
}

int program_main(int argc, char **argv)
{
    static struct arena arena; /* settings; until exit */
    static struct function_def def = {
        .summary = "runs a program", .on_unknown = ON_UNKNOWN_ESCALATE, .manifest_json = "{}"};
    struct error err;
    const char *folder = "/";
    int at = 1;
    if (argc > 3 && strcmp(argv[1], "--folder") == 0) {
        folder = argv[2];
        at = 3;
    }
    if (argc < at + 2 || strcmp(argv[at], "--") != 0 || argv[at + 1][0] != '/') return usage();
    enum status s = load(&arena, &err);
    self.argv = (const char *const *)argv + at + 1;
    self.name = last_part(self.argv[0]);
    self.folder = folder;
    if (s == STATUS_OK && is_http()) s = program_http_init(&self, &err);
    if (s != STATUS_OK) {
        log_error("watchdog", "start refused", LOG_STR("program", self.argv[0]),
                  LOG_STR("error", err.message));
        return 1;
    }
    const char *name = getenv("OPENFAAS_NAME");
    def.name = self.function = name != NULL ? name : self.name;
    def.acts = self.acts;
    def.params_bytes = self.params.n_params > 0 ? sizeof(struct program_params) : 0;
    def.decode = decode;
    def.handle = handle;
    def.api_key_secret = self.api_key_secret;
    def.openapi_json = self.openapi_json;
    def.attend = is_http() ? program_http_attend : NULL;
    def.is_ready = is_http() ? program_http_is_ready : NULL;
    (void)setenv("max_inflight", INFLIGHT_DEFAULT, 0);
    char *none[] = {argv[0], NULL};
    return function_main(&def, 1, none);
}
