/* balm plan: what all alerts that fire now would lead to. */
#include <stddef.h>
#include <stdio.h>

#include "cli/alertmanager.h"
#include "cli/preview.h"

struct plan_cfg {
    struct preview_cfg preview;
    struct alertmanager_cfg alertmanager;
    const char *receiver;
};

static const struct config_option options[] = {
    CLI_ALERTMANAGER_OPTIONS(struct plan_cfg, alertmanager, "whose alerts; such as http://127.0.0.1:9093"),
    {.name = "receiver",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct plan_cfg, receiver),
     .value_name = "REGEX",
     .help = "only alerts that go to such a receiver"},
    CLI_PREVIEW_OPTIONS(struct plan_cfg, preview),
};

/* The API's alerts as the webhook would bring them: one decoder and its limits for both. Their endsAt, which
 * lies ahead as long as an alert fires, is not a webhook's. */
static json_t *webhook_of(json_t *list)
{
    size_t i;
    json_t *alert;
    json_array_foreach(list, i, alert)
    {
        (void)json_object_set_new(alert, "status", json_string("firing"));
        (void)json_object_del(alert, "endsAt");
    }
    return json_pack("{s:s, s:O}", "version", "4", "alerts", list);
}

static enum status get_firing(const struct plan_cfg *cfg, struct arena *a, json_t **ret_list,
                              struct error *err)
{
    struct strview path = SV("/alerts?active=true&silenced=false&inhibited=false");
    if (cfg->receiver != NULL)
        path = arena_printf(a, "%.*s&receiver=%.*s", SV_ARG(path),
                            SV_ARG(cli_url_encoded(a, sv(cfg->receiver))));
    json_t *list = NULL;
    enum status s = alertmanager_call(&cfg->alertmanager, "GET", arena_cstr(a, path), NULL, &list, err);
    if (s == STATUS_OK && !json_is_array(list)) {
        json_release(list);
        s = error_set(err, STATUS_FAILED_PRECONDITION,
                      "%s is no Alertmanager: its answer is not a list of alerts", cfg->alertmanager.url);
    }
    if (s == STATUS_OK) *ret_list = list;
    return s;
}

static enum status plan(const struct plan_cfg *cfg, struct arena *a, json_t **ret_preview, struct error *err)
{
    json_t *list = NULL, *body = NULL;
    struct webhook w = {0};
    if (cfg->alertmanager.url == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "say whose alerts: --alertmanager URL");
    enum status s = get_firing(cfg, a, &list, err);
    if (s == STATUS_OK && json_array_size(list) > 0) {
        body = webhook_of(list);
        s = webhook_decode(json_canonical(a, body), a, &w, err);
    }
    if (s == STATUS_OK) s = cli_preview(&cfg->preview, &w, ret_preview, err);
    json_release(body);
    json_release(list);
    return s;
}

static int run_plan(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct plan_cfg cfg = {0};
    struct error err = {0};
    int n = 0, code = CLI_OK;
    json_t *preview = NULL;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n > 0) {
        (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%s'", argv[1]);
        code = cli_fail(self, &err);
    } else if (plan(&cfg, &a, &preview, &err) != STATUS_OK) {
        code = cli_fail(self, &err);
    } else {
        cli_preview_print(&cfg.preview, preview);
    }
out:
    json_release(preview);
    arena_release(&a);
    return code;
}

const struct command command_plan = {
    .name = "plan",
    .arguments = "--alertmanager URL",
    .summary = "what all alerts that fire now would lead to; nothing acts",
    .description =
        "Asks Alertmanager for the alerts that fire (not silenced, not inhibited) and says for each what balm explain says of a webhook's.\n"
        "Before a new runbook acts: its effect on what is going on, with --runbooks DIR even before it is installed.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_plan,
};
