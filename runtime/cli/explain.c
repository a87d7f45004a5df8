/* balm explain: one webhook body, and what it would lead to. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cli/preview.h"
#include "functions/alerts/body.h"

struct explain_cfg {
    struct preview_cfg preview;
};

static const struct config_option options[] = {
    CLI_PREVIEW_OPTIONS(struct explain_cfg, preview),
};

static enum status read_stdin(struct arena *a, struct strview *ret_body, struct error *err)
{
    struct buf text;
    char part[65536];
    ssize_t n;
    buf_init(&text, PREVIEW_BODY_MAX);
    while ((n = read(STDIN_FILENO, part, sizeof(part))) > 0 && !text.is_full)
        buf_append(&text, sv_n(part, (size_t)n));
    enum status s = STATUS_OK;
    if (n < 0)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "read standard input: %s", strerror(errno));
    else if (text.is_full)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "standard input: more than %d bytes", PREVIEW_BODY_MAX);
    else
        *ret_body = arena_copy(a, buf_view(&text));
    buf_release(&text);
    return s;
}

static enum status read_body(const char *path, struct arena *a, struct strview *ret_body, struct error *err)
{
    struct error why;
    if (strcmp(path, "-") == 0) return read_stdin(a, ret_body, err);
    if (file_read(a, path, PREVIEW_BODY_MAX, ret_body, &why) == STATUS_OK) return STATUS_OK;
    return error_set(err, STATUS_INVALID_ARGUMENT, "%s", why.message);
}

static enum status explain(const struct explain_cfg *cfg, const char *path, struct arena *a,
                           json_t **ret_preview, struct error *err)
{
    struct strview body;
    struct webhook w;
    enum status s = read_body(path, a, &body, err);
    if (s == STATUS_OK) s = body_decode_text(body, clock_unix_ns(), a, &w, err);
    return s == STATUS_OK ? cli_preview(&cfg->preview, &w, ret_preview, err) : s;
}

static int run_explain(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct explain_cfg cfg = {0};
    struct error err = {0};
    int n = 0, code = CLI_OK;
    json_t *preview = NULL;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n != 1) {
        (void)!error_set(&err, STATUS_INVALID_ARGUMENT,
                         "say which file has the webhook's body, or '-' for standard input");
        code = cli_fail(self, &err);
    } else if (explain(&cfg, argv[1], &a, &preview, &err) != STATUS_OK) {
        code = cli_fail(self, &err);
    } else {
        cli_preview_print(&cfg.preview, preview);
    }
out:
    json_release(preview);
    arena_release(&a);
    return code;
}

const struct command command_explain = {
    .name = "explain",
    .arguments = "FILE|-",
    .summary = "what the alerts of one webhook body would lead to now; nothing acts",
    .description =
        "For each alert of a body as Alertmanager or Grafana posts it, of a structured CloudEvent or a batch of them:\n"
        "runbook, target, act and refusals as they would be decided now, by the\n"
        "running platform's own deciding on a copy of what it knows. Nothing is recorded, nothing acts. With --runbooks DIR no platform is\n"
        "needed: a folder of runbooks alone is asked, as if no alert had come before.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_explain,
};
