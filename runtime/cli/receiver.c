/* balm receiver: what Alertmanager's configuration needs, with the values of a running platform. */
#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"

#define TOKEN_FILE_MAX 4096
#define GROUP_INTERVAL "10s"

struct receiver_cfg {
    struct cli_platform platform;
    const char *webhook_token_file;
    bool with_token, is_full, is_json;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct receiver_cfg, platform),
    {.name = "webhook-token-file",
     .type = CONFIG_PATH,
     .offset = offsetof(struct receiver_cfg, webhook_token_file),
     .value_name = "FILE",
     .help = "where Alertmanager finds the token for alerts (secrets/webhook-token of the data folder)"},
    {.name = "inline-token",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct receiver_cfg, with_token),
     .help = "the token itself instead of its file: the output is a secret then"},
    {.name = "full",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct receiver_cfg, is_full),
     .help = "a whole configuration in which balm is the only receiver"},
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct receiver_cfg, is_json),
     .help = "JSON instead of YAML (Alertmanager reads both)"},
};

/* What goes into the text. */
struct receiver {
    struct strview url, repeat_interval;
    struct strview token_file, token; /* one of them */
};

/* Alertmanager has a working directory of its own. */
static enum status find_token_file(const struct receiver_cfg *cfg, struct arena *a, struct strview *ret_path,
                                   struct error *err)
{
    const char *path = cfg->webhook_token_file;
    if (path == NULL && cfg->platform.url != NULL)
        return error_set(
            err, STATUS_INVALID_ARGUMENT,
            "--url needs --webhook-token-file: where Alertmanager finds a copy of that platform's "
            "secrets/webhook-token");
    if (path == NULL) {
        const char *dir;
        enum status s = cli_data_dir(cfg->platform.data_dir, a, &dir, err);
        if (s != STATUS_OK) return s;
        path = arena_printf(a, "%s/secrets/webhook-token", dir).ptr;
    }
    char *absolute = realpath(path, NULL);
    *ret_path = arena_copy(a, sv(absolute != NULL ? absolute : path));
    free(absolute);
    return STATUS_OK;
}

static enum status read_token(struct arena *a, struct strview path, struct strview *ret_token,
                              struct error *err)
{
    struct strview text;
    struct error why;
    if (file_read(a, arena_cstr(a, path), TOKEN_FILE_MAX, &text, &why) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "the token for alerts: %s", why.message);
    *ret_token = sv_trim(text);
    if (ret_token->len == 0)
        return error_set(err, STATUS_INVALID_ARGUMENT, "the token for alerts: %.*s is empty", SV_ARG(path));
    return STATUS_OK;
}

/* The platform is asked, so that what is printed is true: it runs, there, with this repeat_interval. */
static enum status find_receiver(const struct receiver_cfg *cfg, struct arena *a, struct receiver *ret,
                                 struct error *err)
{
    struct strview url, path;
    json_t *status = NULL;
    *ret = (struct receiver){0};
    enum status s = find_token_file(cfg, a, &path, err);
    if (s == STATUS_OK) s = cli_platform_url(&cfg->platform, a, &url, err);
    if (s == STATUS_OK) s = cli_api(&cfg->platform, "GET", "/function/dispatcher/status", NULL, &status, err);
    if (s == STATUS_OK && cfg->with_token) s = read_token(a, path, &ret->token, err);
    if (s != STATUS_OK) goto out;
    if (!cfg->with_token) ret->token_file = path;
    ret->url = arena_printf(a, "%.*s/function/alerts", SV_ARG(url));
    ret->repeat_interval =
        arena_copy(a, json_get_text(json_object_get(status, "alertmanager"), "repeatInterval"));
    if (ret->repeat_interval.len == 0) ret->repeat_interval = SV("4h");
out:
    json_release(status);
    return s;
}

/* ---- the text ---- */

/* A JSON string is a YAML one. */
static struct strview quoted(struct arena *a, struct strview text)
{
    json_t *value = json_text(text);
    struct strview quoted_text = json_canonical(a, value);
    json_decref(value);
    return quoted_text;
}

static void print_grouping(const struct receiver *r, const char *indent)
{
    printf("%sgroup_by: ['...']        # every alert by itself\n"
           "%sgroup_wait: 0s           # no waiting for others to come along\n"
           "%sgroup_interval: " GROUP_INTERVAL "\n"
           "%srepeat_interval: %.*s\n",
           indent, indent, indent, indent, SV_ARG(r->repeat_interval));
}

static void print_yaml(const struct receiver *r, bool is_full, struct arena *a)
{
    if (!is_full)
        puts("# Two parts for Alertmanager's configuration; then `amtool check-config FILE`, and reload it.");
    if (r->token.len == 0)
        puts("# Alertmanager's user must be able to read the token file (mode 0600): give it a copy, or see "
             "--inline-token.");
    printf("receivers:\n"
           "  - name: balm\n"
           "    webhook_configs:\n"
           "      - url: %.*s\n"
           "        send_resolved: true    # how balm learns that a repair helped\n"
           "        max_alerts: 0          # none may be cut off\n"
           "        http_config:\n"
           "          authorization:\n"
           "            type: Bearer\n",
           SV_ARG(quoted(a, r->url)));
    if (r->token.len > 0)
        printf("            credentials: %.*s\n", SV_ARG(quoted(a, r->token)));
    else
        printf("            credentials_file: %.*s\n", SV_ARG(quoted(a, r->token_file)));
    puts("route:");
    if (is_full) {
        puts("  receiver: balm");
        print_grouping(r, "  ");
        return;
    }
    puts("  routes:                      # as the first one\n"
         "    - receiver: balm\n"
         "      continue: true           # and on to whom the alert went before");
    print_grouping(r, "      ");
}

static json_t *receiver_json(const struct receiver *r, bool is_full)
{
    json_t *route =
        json_pack("{s:s, s:[s], s:s, s:s, s:o}", "receiver", "balm", "group_by", "...", "group_wait", "0s",
                  "group_interval", GROUP_INTERVAL, "repeat_interval", json_text(r->repeat_interval));
    if (!is_full) {
        (void)json_object_set_new(route, "continue", json_true());
        route = json_pack("{s:[o]}", "routes", route);
    }
    bool with_token = r->token.len > 0;
    json_t *authorization =
        json_pack("{s:s, s:o}", "type", "Bearer", with_token ? "credentials" : "credentials_file",
                  json_text(with_token ? r->token : r->token_file));
    return json_pack("{s:[{s:s, s:[{s:o, s:b, s:i, s:{s:o}}]}], s:o}", "receivers", "name", "balm",
                     "webhook_configs", "url", json_text(r->url), "send_resolved", 1, "max_alerts", 0,
                     "http_config", "authorization", authorization, "route", route);
}

static int run_receiver(const struct command *self, int argc, char **argv)
{
    struct arena a = {0};
    struct receiver_cfg cfg = {0};
    struct receiver receiver;
    struct error err = {0};
    int n = 0, code = CLI_OK;
    if (!cli_parse(self, argc, argv, &a, &cfg, &n, &code)) goto out;
    if (n > 0) {
        (void)!error_set(&err, STATUS_INVALID_ARGUMENT, "takes no argument, got '%s'", argv[1]);
        code = cli_fail(self, &err);
    } else if (find_receiver(&cfg, &a, &receiver, &err) != STATUS_OK) {
        code = cli_fail(self, &err);
    } else if (cfg.is_json) {
        json_t *json = receiver_json(&receiver, cfg.is_full);
        (void)json_dumpf(json, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
        json_decref(json);
    } else {
        print_yaml(&receiver, cfg.is_full, &a);
    }
out:
    arena_release(&a);
    return code;
}

const struct command command_receiver = {
    .name = "receiver",
    .arguments = "",
    .summary = "what Alertmanager's configuration needs to send its alerts here",
    .description =
        "Prints receiver and route for Alertmanager's configuration, with URL and token file of the running platform.\n"
        "As it listens, not as others may reach it: behind a proxy or a name say --url.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_receiver,
};
