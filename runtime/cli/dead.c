/* balm dead: acts and calls whose attempts are used up. */
#include <stddef.h>
#include <stdio.h>

#include "cli/cli.h"

struct dead_cfg {
    struct cli_platform platform;
    const char *function, *reason, *actor;
    int64_t limit;
    bool is_all, is_json;
};

static const struct config_option options[] = {
    {.name = "all",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct dead_cfg, is_all),
     .help = "retry, drop: every one of them, instead of an ID"},
    {.name = "function",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct dead_cfg, function),
     .value_name = "NAME",
     .help = "list, --all: of this function alone"},
    {.name = "reason",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct dead_cfg, reason),
     .value_name = "TEXT",
     .help = "drop: why, for the record"},
    {.name = "limit",
     .type = CONFIG_INT,
     .offset = offsetof(struct dead_cfg, limit),
     .default_text = "100",
     .min = 1,
     .max = 1000,
     .help = "list: at most so many, those that died first first"},
    CLI_ACTOR_OPTION(struct dead_cfg, actor),
    CLI_PLATFORM_OPTIONS(struct dead_cfg, platform),
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct dead_cfg, is_json),
     .help = "JSON instead of text"},
};

/* ---- list ---- */

static enum status ask_list(const void *arg, char *const *arguments, struct arena *a, json_t **ret_answer,
                            struct error *err)
{
    const struct dead_cfg *cfg = arg;
    (void)arguments;
    struct strview path = arena_printf(a, "/function/dispatcher/dead?limit=%lld", (long long)cfg->limit);
    if (cfg->function != NULL)
        path = arena_printf(a, "%s&function=%.*s", path.ptr, SV_ARG(cli_url_encoded(a, sv(cfg->function))));
    return cli_api(&cfg->platform, "GET", path.ptr, NULL, ret_answer, err);
}

static void print_letter(const json_t *o, struct arena *a)
{
    char age[32];
    const char *incident = cli_text(a, o, "incident"), *target = cli_text(a, o, "target");
    printf("%s\n  %s of %s%s%s, dead for %s, %lld attempts\n", cli_text(a, o, "id"), cli_text(a, o, "kind"),
           cli_text(a, o, "function"), target[0] != '\0' ? " on " : cli_text(a, o, "path"), target,
           cli_age(json_object_get(o, "ageSeconds"), age),
           (long long)json_integer_value(json_object_get(o, "attempts")));
    printf("  %s%s%s%s %s%s%s\n", incident[0] != '\0' ? "incident " : "", incident,
           incident[0] != '\0' ? "; " : "", cli_text(a, o, "code"), cli_text(a, o, "error"),
           cli_text(a, o, "message")[0] != '\0' ? "; " : "", cli_text(a, o, "message"));
}

static void print_list(const void *arg, const json_t *answer, struct arena *a)
{
    size_t i;
    json_t *o;
    const json_t *letters = json_object_get(answer, "dead");
    long long total = (long long)json_integer_value(json_object_get(answer, "total"));
    (void)arg;
    json_array_foreach(letters, i, o) print_letter(o, a);
    if (total == 0)
        puts("no dead letters");
    else if ((size_t)total > json_array_size(letters))
        printf("\n%zu of %lld are shown (--limit)\n", json_array_size(letters), total);
}

/* ---- retry, drop ---- */

static enum status send(const struct dead_cfg *cfg, const char *path, const char *id, bool is_drop,
                        json_t **ret_answer, struct error *err)
{
    if ((id != NULL) == cfg->is_all)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "say which one, by its ID from balm dead list, or --all");
    if (is_drop && cfg->reason == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "say why, for the record: --reason TEXT");
    if (!is_drop && cfg->reason != NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "--reason is for drop");
    json_t *body = json_object();
    enum status s = cli_put(body, "actor", cfg->actor, err);
    if (s == STATUS_OK && id != NULL) s = cli_put(body, "id", id, err);
    if (s == STATUS_OK && is_drop) s = cli_put(body, "reason", cfg->reason, err);
    if (s == STATUS_OK && cfg->function != NULL) s = cli_put(body, "function", cfg->function, err);
    if (cfg->is_all) (void)json_object_set_new(body, "all", json_true());
    if (s == STATUS_OK) s = cli_api(&cfg->platform, "POST", path, body, ret_answer, err);
    json_release(body);
    return s;
}

static enum status ask_retry(const void *cfg, char *const *arguments, struct arena *a, json_t **ret_answer,
                             struct error *err)
{
    (void)a;
    return send(cfg, "/function/dispatcher/dead/retry", arguments[0], false, ret_answer, err);
}

static enum status ask_drop(const void *cfg, char *const *arguments, struct arena *a, json_t **ret_answer,
                            struct error *err)
{
    (void)a;
    return send(cfg, "/function/dispatcher/dead/drop", arguments[0], true, ret_answer, err);
}

static int judge_sweep(const json_t *answer)
{
    return json_array_size(json_object_get(answer, "refused")) == 0 ? CLI_OK : CLI_FAILED;
}

static void print_retried(const json_t *o, struct arena *a)
{
    const char *phase = cli_text(a, o, "phase"), *intent = cli_text(a, o, "intent"),
               *gate = cli_text(a, o, "gate");
    printf("%s: ", cli_text(a, o, "id"));
    if (intent[0] != '\0')
        printf("decided anew, as intent %s\n", intent);
    else if (gate[0] != '\0')
        printf("decided anew, and %s at gate %s: balm why %s\n", phase, gate, cli_text(a, o, "incident"));
    else
        puts("put back");
}

static void print_sweep(const void *arg, const json_t *answer, struct arena *a)
{
    size_t i;
    json_t *o;
    const json_t *retried = json_object_get(answer, "retried"), *dropped = json_object_get(answer, "dropped"),
                 *refused = json_object_get(answer, "refused");
    (void)arg;
    json_array_foreach(retried, i, o) print_retried(o, a);
    json_array_foreach(dropped, i, o) printf("%s: dropped\n", cli_text(a, o, "id"));
    json_array_foreach(refused, i, o)
        printf("%s: NOT retried: %s\n", cli_text(a, o, "id"), cli_text(a, o, "reason"));
    if (json_array_size(retried) + json_array_size(dropped) + json_array_size(refused) == 0)
        puts("no dead letters");
    if (json_array_size(retried) > 0 && json_is_true(json_object_get(answer, "stopped")))
        puts("acting is stopped: nothing of it begins before balm resume");
}

static int run_dead(const struct command *self, int argc, char **argv)
{
    static const struct cli_action actions[] = {
        {"list", "", ask_list, print_list, NULL},
        {"retry", "[ID]", ask_retry, print_sweep, judge_sweep},
        {"drop", "[ID]", ask_drop, print_sweep, judge_sweep},
    };
    struct dead_cfg cfg = {0};
    return cli_act(self, actions, ARRAY_LEN(actions), argc, argv, &cfg, &cfg.is_json);
}

const struct command command_dead = {
    .name = "dead",
    .arguments = "list | retry [ID] | drop [ID]",
    .summary = "acts and calls that were given up: list, retry, drop them",
    .description =
        "list   each with its function, target, incident, how long it is dead, its attempts and last error\n"
        "retry  ID, or --all [--function NAME]. An asynchronous call is handed out again, with all its attempts. An act is not repeated as it\n"
        "       was: its step is decided on anew, through all gates and as another intent, and only while nothing has been done about its incident\n"
        "       since. Refused if the incident is closed, its alert is over, or it has gone on to another act; so what was repaired meanwhile\n"
        "       is not touched again. A message to a person is sent once more. If an answer was lost (code UNKNOWN), look at the target first:\n"
        "       the act may have taken effect, and a retry does it again.\n"
        "drop   ID, or --all [--function NAME], with --reason TEXT: gone from the list, its end recorded. Its incident went on when it died.\n"
        "An ID may be a part that fits no other. What was answered with is on disk; the record says who did it (--actor).\n"
        "Exit code 1: at least one was refused.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_dead,
};
