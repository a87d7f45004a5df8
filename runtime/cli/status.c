#include "cli/cli.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define INCIDENTS_SHOWN "10"

struct status_cfg {
    struct cli_platform platform;
    bool is_json;
};

static const struct config_option options[] = {
    CLI_PLATFORM_OPTIONS(struct status_cfg, platform),
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct status_cfg, is_json),
     .help = "JSON instead of text"},
};

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static long long number_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_retention(const json_t *store)
{
    long long bytes = number_of(store, "bytes"), max = number_of(store, "maxBytes");
    if (max == 0) return;
    printf("           %lld MiB of %lld MiB", bytes >> 20, max >> 20);
    if (json_object_get(store, "oldest") != NULL)
        printf(", the oldest record is of %s", text_of(store, "oldest"));
    putchar('\n');
    if (json_object_get(store, "keptBy") != NULL)
        printf("           older records stay: %s needs them from record %lld on (%s)\n",
               text_of(store, "keptBy"), number_of(store, "keptFrom"),
               strcmp(text_of(store, "keptBy"), "queue") == 0 ? "balm dead list" : "balm incident list");
}

static void print_stopped(const json_t *frozen, struct arena *a)
{
    const char *since = text_of(frozen, "since"), *by = cli_shown(a, sv(text_of(frozen, "by"))).ptr,
               *reason = cli_shown(a, sv(text_of(frozen, "reason"))).ptr;
    printf("STOPPED    no bot acts%s%s%s%s%s%s (%s)\n", since[0] != '\0' ? " since " : "", since,
           by[0] != '\0' ? ", by " : "", by, reason[0] != '\0' ? ": " : "", reason,
           json_is_true(json_object_get(frozen, "file"))
               ? "remove the file stop from the data folder, then balm resume"
               : "balm resume");
    if (json_is_false(json_object_get(frozen, "recorded")))
        puts("           NOT RECORDED yet: the journal does not take it (see the log)");
}

static void print_reload(const json_t *status, struct arena *a)
{
    bool is_refused = json_object_get(status, "reloadError") != NULL;
    if (is_refused)
        printf("reload     refused, the old set stays: %s\n",
               cli_shown(a, sv(text_of(status, "reloadError"))).ptr);
    if (json_object_get(status, "runbooksError") != NULL)
        printf("runbooks   cannot be looked at, the old set stays: %s\n",
               cli_shown(a, sv(text_of(status, "runbooksError"))).ptr);
    if (json_object_get(status, "runbooksChanged") != NULL && !is_refused)
        printf("runbooks   changed on disk since %s and not read: balm reload\n",
               text_of(status, "runbooksChanged"));
}

static void print_reserve(const json_t *store)
{
    long long left = number_of(store, "reserveBytes"), max = number_of(store, "reserveMaxBytes");
    if (left < max)
        printf("disk       FULL, or was: %lld MiB of %lld MiB of the reserve are left; make room\n",
               left >> 20, max >> 20);
}

static void print_head(const json_t *status, struct arena *a)
{
    const json_t *frozen = json_object_get(status, "frozen");
    if (json_is_true(json_object_get(frozen, "on")))
        print_stopped(frozen, a);
    else
        printf("acting     %zu runbook%s may act\n", json_array_size(json_object_get(status, "mayAct")),
               json_array_size(json_object_get(status, "mayAct")) == 1 ? "" : "s");
    printf("journal    %lld records, epoch %lld%s\n", number_of(status, "seq"), number_of(status, "epoch"),
           json_is_false(json_object_get(status, "deciding")) ? ", NOT DECIDING: see the log" : "");
    print_retention(json_object_get(status, "store"));
    print_reserve(json_object_get(status, "store"));
    if (json_is_false(json_object_get(json_object_get(status, "store"), "healthy")))
        puts("store      FAILING: nothing is accepted until it is whole again (see the log)");
    if (json_is_true(json_object_get(status, "clockSettling")))
        puts("clock      it jumped: nothing acts until it settles");
    print_reload(status, a);
}

static void print_sources(const json_t *list)
{
    size_t i;
    json_t *o;
    char age[32];
    puts("\nsources");
    if (json_array_size(list) == 0)
        puts("  none yet: no alert has arrived (is the receiver in Alertmanager's configuration?)");
    json_array_foreach(list, i, o)
        printf("  %-16s %lld signals, last %s ago\n", text_of(o, "name"), number_of(o, "signals"),
               cli_age(json_object_get(o, "ageSeconds"), age));
}

/* Whom we ask what fires, beside those who tell us. */
static void print_alertmanagers(const json_t *list)
{
    size_t i;
    json_t *o;
    char age[32];
    json_array_foreach(list, i, o)
    {
        const char *last = cli_age(json_object_get(o, "ageSeconds"), age);
        printf("  %-16s %s, last answer %s%s%s%s\n", text_of(o, "name"),
               json_is_true(json_object_get(o, "up")) ? "answers" : "DOES NOT ANSWER", last,
               strcmp(last, "never") == 0 ? "" : " ago", text_of(o, "error")[0] != '\0' ? ": " : "",
               text_of(o, "error"));
    }
}

static void print_backlog(const json_t *backlog)
{
    char age[32] = "";
    bool is_empty = !json_is_integer(json_object_get(backlog, "oldestSeconds"));
    printf("\nbacklog    %lld ready, %lld under way, %lld waiting, %lld dead%s%s\n",
           number_of(backlog, "ready"), number_of(backlog, "leased"), number_of(backlog, "waiting"),
           number_of(backlog, "dead"), is_empty ? "" : "; oldest ",
           is_empty ? "" : cli_age(json_object_get(backlog, "oldestSeconds"), age));
}

static void print_incidents(const json_t *summary, const json_t *list, struct arena *a)
{
    size_t i;
    json_t *o;
    char age[32];
    printf("\nincidents  %lld open, %lld closed, %lld alerts matched no runbook\n",
           number_of(summary, "open"), number_of(summary, "closed"), number_of(summary, "unmatched"));
    json_array_foreach(list, i, o) printf(
        "  %-30s %-9s %-10s %-22s %-24s %s\n", text_of(o, "incident"), text_of(o, "state"),
        text_of(o, "phase"), cli_shown(a, sv(text_of(o, "alert"))).ptr, text_of(o, "target"),
        json_is_integer(json_object_get(o, "ageSeconds")) ? cli_age(json_object_get(o, "ageSeconds"), age)
                                                          : "");
}

static void print_missing_secrets(const json_t *function, struct arena *a)
{
    size_t i;
    json_t *name;
    json_array_foreach(json_object_get(function, "missingSecrets"), i, name)
        printf("  %-20s CANNOT START: no secret %s (faas-cli secret create %s)\n", "",
               cli_shown(a, sv(json_string_value(name))).ptr, cli_shown(a, sv(json_string_value(name))).ptr);
}

static void print_functions(const json_t *list, struct arena *a)
{
    size_t i;
    json_t *o;
    puts("\nfunctions");
    if (json_array_size(list) == 0) puts("  none deployed");
    json_array_foreach(list, i, o)
    {
        printf("  %-20s %lld running, %lld calls%s\n", text_of(o, "name"), number_of(o, "replicas"),
               number_of(o, "invocationCount"), json_is_true(json_object_get(o, "acts")) ? ", acts" : "");
        print_missing_secrets(o, a);
    }
}

static void print_schedule(const json_t *schedule)
{
    if (schedule == NULL) return;
    const char *next = text_of(schedule, "next"), *last = text_of(schedule, "last");
    printf("  %-20s by '%s' in %s; next %.19s%s, last %.19s%s\n", "", text_of(schedule, "expression"),
           text_of(schedule, "timeZone"), next[0] != '\0' ? next : "never", next[0] != '\0' ? "Z" : "",
           last[0] != '\0' ? last : "never", last[0] != '\0' ? "Z" : "");
}

static void print_runbooks(const json_t *list)
{
    size_t i, k;
    json_t *o, *bot;
    puts("\nrunbooks");
    if (json_array_size(list) == 0) puts("  none: nothing is ever decided");
    json_array_foreach(list, i, o)
    {
        printf("  %-20s %-7s %.12s ", text_of(o, "name"), text_of(o, "mode"), text_of(o, "hash"));
        json_array_foreach(json_object_get(o, "bots"), k, bot)
            printf(" %s%s", k > 0 ? "> " : "", json_string_value(bot));
        if (json_object_get(o, "followUp") != NULL) printf(", later %s", text_of(o, "followUp"));
        puts("");
        print_schedule(json_object_get(o, "schedule"));
    }
}

static void print_text(const void *cfg, const json_t *all, struct arena *a)
{
    (void)cfg;
    const json_t *status = json_object_get(all, "status");
    print_head(status, a);
    print_sources(json_object_get(status, "sources"));
    print_alertmanagers(json_object_get(all, "alertmanagers"));
    print_backlog(json_object_get(status, "backlog"));
    print_incidents(json_object_get(status, "incidents"), json_object_get(all, "incidents"), a);
    print_functions(json_object_get(all, "functions"), a);
    print_runbooks(json_object_get(status, "runbooks"));
}

static enum status gather(const void *arg, char *const *arguments, struct arena *a, json_t **ret_all,
                          struct error *err)
{
    const struct status_cfg *cfg = arg;
    (void)arguments;
    (void)a;
    static const struct {
        const char *name, *path;
    } parts[] = {
        {"status", "/function/dispatcher/status"},
        {"incidents", "/function/dispatcher/incidents?limit=" INCIDENTS_SHOWN},
        {"alertmanagers", "/function/alerts/alertmanagers"},
        {"functions", "/system/functions"},
    };
    json_t *all = json_object();
    enum status s = STATUS_OK;
    for (size_t i = 0; i < ARRAY_LEN(parts) && s == STATUS_OK; i++) {
        json_t *answer = NULL;
        s = cli_api(&cfg->platform, "GET", parts[i].path, NULL, &answer, err);
        if (s == STATUS_OK) (void)json_object_set_new(all, parts[i].name, answer);
    }
    if (s == STATUS_OK)
        *ret_all = all;
    else
        json_release(all);
    return s;
}

static int run_status(const struct command *self, int argc, char **argv)
{
    static const struct cli_action action = {.arguments = "", .ask = gather, .print = print_text};
    struct status_cfg cfg = {0};
    return cli_act(self, &action, 1, argc, argv, &cfg, &cfg.is_json);
}

const struct command command_status = {
    .name = "status",
    .arguments = "",
    .summary = "one screen: sources and their age, backlog, incidents, functions, what may act",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_status,
};
