/* balm incident: what is open, and what a person has to say about it. */
#include <stddef.h>
#include <stdio.h>

#include "cli/cli.h"

struct incident_cfg {
    struct cli_platform platform;
    const char *reason, *actor;
    int64_t limit;
    bool is_closed, is_json;
};

static const struct config_option options[] = {
    {.name = "closed",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct incident_cfg, is_closed),
     .help = "list: those that are over, instead of the open ones"},
    {.name = "limit",
     .type = CONFIG_INT,
     .offset = offsetof(struct incident_cfg, limit),
     .default_text = "100",
     .min = 1,
     .max = 1000,
     .help = "list: at most so many, the newest first"},
    {.name = "reason",
     .type = CONFIG_TEXT,
     .offset = offsetof(struct incident_cfg, reason),
     .value_name = "TEXT",
     .help = "close: why, for the record"},
    CLI_ACTOR_OPTION(struct incident_cfg, actor),
    CLI_PLATFORM_OPTIONS(struct incident_cfg, platform),
    {.name = "json",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct incident_cfg, is_json),
     .help = "JSON instead of text"},
};

/* ---- list ---- */

static enum status ask_list(const void *arg, char *const *arguments, struct arena *a, json_t **ret_answer,
                            struct error *err)
{
    const struct incident_cfg *cfg = arg;
    (void)arguments;
    const char *path = arena_printf(a, "/function/dispatcher/incidents?state=%s&limit=%lld",
                                    cfg->is_closed ? "closed" : "open", (long long)cfg->limit)
                           .ptr;
    return cli_api(&cfg->platform, "GET", path, NULL, ret_answer, err);
}

/* "2026-11-22T14:01:24.123456789Z" -> "2026-11-22 14:01:24" */
static const char *time_text(struct arena *a, const json_t *o, const char *key)
{
    struct strview time = json_get_text(o, key);
    if (time.len < 19) return "";
    return cli_shown(a,
                     arena_printf(a, "%.*s %.*s", SV_ARG(sv_sub(time, 0, 10)), SV_ARG(sv_sub(time, 11, 19))))
        .ptr;
}

static void print_row(const json_t *o, bool is_closed, struct arena *a)
{
    const char *mark = json_is_true(json_object_get(o, "stuck"))     ? "  STUCK"
                       : json_is_true(json_object_get(o, "closing")) ? "  closing"
                                                                     : "";
    printf("%-29s %-9s %-22s %-24s %-20s %-19s%s\n", cli_text(a, o, "incident"),
           cli_text(a, o, is_closed ? "state" : "phase"), cli_text(a, o, "alert"), cli_text(a, o, "target"),
           cli_text(a, o, "runbook"), time_text(a, o, is_closed ? "closed" : "since"), mark);
}

static void print_list(const void *arg, const json_t *answer, struct arena *a)
{
    const struct incident_cfg *cfg = arg;
    size_t i;
    json_t *o;
    if (json_array_size(answer) == 0) {
        puts(cfg->is_closed ? "no incident has been closed" : "no incident is open");
        return;
    }
    printf("%-29s %-9s %-22s %-24s %-20s %s\n", "INCIDENT", cfg->is_closed ? "STATE" : "PHASE", "ALERT",
           "TARGET", "RUNBOOK", cfg->is_closed ? "CLOSED (UTC)" : "SINCE (UTC)");
    json_array_foreach(answer, i, o) print_row(o, cfg->is_closed, a);
    if (json_array_size(answer) == (size_t)cfg->limit)
        printf("\nthe newest %zu (--limit)\n", json_array_size(answer));
}

/* ---- show ---- */

static enum status ask_show(const void *arg, char *const *arguments, struct arena *a, json_t **ret_answer,
                            struct error *err)
{
    const struct incident_cfg *cfg = arg;
    return cli_explain_incident(&cfg->platform, sv(arguments[0]), a, ret_answer, err);
}

static void print_acts(const json_t *acts, struct arena *a)
{
    size_t i;
    json_t *act;
    json_array_foreach(acts, i, act)
    {
        const json_t *outcome = json_object_get(act, "outcome");
        bool is_message = json_get_text(act, "purpose").len > 0;
        const char *why =
            cli_text(a, outcome, json_object_get(outcome, "message") != NULL ? "message" : "reason");
        printf("%-10s %s %s: %s%s%s\n", is_message ? "told" : "act", time_text(a, act, "decided"),
               cli_text(a, act, "function"), outcome != NULL ? cli_text(a, outcome, "state") : "under way",
               why[0] != '\0' ? ", " : "", why);
    }
}

static void print_notes(const json_t *notes, struct arena *a)
{
    size_t i;
    json_t *note;
    json_array_foreach(notes, i, note) printf("%-10s %s %s: %s\n", "note", time_text(a, note, "time"),
                                              cli_text(a, note, "actor"), cli_text(a, note, "message"));
}

static void print_show(const void *arg, const json_t *o, struct arena *a)
{
    const json_t *alert = json_object_get(o, "alert"), *runbook = json_object_get(o, "runbook");
    const struct {
        const char *name, *text;
    } facts[] = {
        {"incident", cli_text(a, o, "incident")},   {"state", cli_text(a, o, "state")},
        {"alert", cli_text(a, alert, "name")},      {"source", cli_text(a, alert, "source")},
        {"since", time_text(a, alert, "startsAt")}, {"runbook", cli_text(a, runbook, "name")},
        {"target", cli_text(a, o, "target")},       {"closed", time_text(a, o, "closed")},
    };
    (void)arg;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++)
        if (facts[i].text[0] != '\0') printf("%-10s %s\n", facts[i].name, facts[i].text);
    print_acts(json_object_get(o, "acts"), a);
    print_notes(json_object_get(o, "notes"), a);
    printf("%-10s %s\n\nEach gate, the whole timeline and how to take it back: balm why %s\n", "next",
           cli_text(a, o, "next"), facts[0].text);
}

/* ---- note, close ---- */

/* What a person says of an incident. */
static enum status say(const struct incident_cfg *cfg, const char *path, const char *incident,
                       const char *member, const char *text, json_t **ret_answer, struct error *err)
{
    json_t *body = json_object();
    enum status s = cli_put(body, "actor", cfg->actor, err);
    if (s == STATUS_OK) s = cli_put(body, "incident", incident, err);
    if (s == STATUS_OK) s = cli_put(body, member, text, err);
    if (s == STATUS_OK) s = cli_api(&cfg->platform, "POST", path, body, ret_answer, err);
    json_release(body);
    return s;
}

static enum status ask_note(const void *cfg, char *const *arguments, struct arena *a, json_t **ret_answer,
                            struct error *err)
{
    (void)a;
    return say(cfg, "/function/dispatcher/notes", arguments[0], "message", arguments[1], ret_answer, err);
}

static void print_note(const void *arg, const json_t *answer, struct arena *a)
{
    (void)arg;
    printf("noted on %s\n", cli_text(a, answer, "incident"));
}

static enum status ask_close(const void *arg, char *const *arguments, struct arena *a, json_t **ret_answer,
                             struct error *err)
{
    const struct incident_cfg *cfg = arg;
    (void)a;
    if (cfg->reason == NULL)
        return error_set(err, STATUS_INVALID_ARGUMENT, "say why, for the record: --reason TEXT");
    return say(cfg, "/function/dispatcher/close", arguments[0], "reason", cfg->reason, ret_answer, err);
}

static void print_close(const void *arg, const json_t *answer, struct arena *a)
{
    (void)arg;
    if (json_is_true(json_object_get(answer, "closed")))
        printf("closed %s\n", cli_text(a, answer, "incident"));
    else
        printf("%s is closed as soon as its act has ended: %s\n", cli_text(a, answer, "incident"),
               cli_text(a, answer, "intent"));
}

static int run_incident(const struct command *self, int argc, char **argv)
{
    static const struct cli_action actions[] = {
        {"list", "", ask_list, print_list, NULL},
        {"show", "INCIDENT", ask_show, print_show, NULL},
        {"note", "INCIDENT TEXT", ask_note, print_note, NULL},
        {"close", "INCIDENT", ask_close, print_close, NULL},
    };
    struct incident_cfg cfg = {0};
    return cli_act(self, actions, ARRAY_LEN(actions), argc, argv, &cfg, &cfg.is_json);
}

const struct command command_incident = {
    .name = "incident",
    .arguments = "list | show INCIDENT | note INCIDENT TEXT | close INCIDENT",
    .summary = "open incidents; a remark on one, or its end",
    .description =
        "list   the open ones, with the phase each is in, since when, and STUCK if it should have moved on by itself; --closed: the last 1000 that ended\n"
        "show   the facts of one, its acts and notes; balm why has everything\n"
        "note   a remark for the record, in one argument: balm why shows it, Loki's clients find it\n"
        "close  with --reason TEXT: a person takes over. No further act, and who waited for its target goes on. An act under way is not cut: it\n"
        "       ends and is recorded first (unless it is STUCK); one that waits for another attempt is withdrawn. The alert may go on firing: this episode opens no\n"
        "       incident again, the next one does.\n"
        "INCIDENT is an id or a part of it that fits no other; the record says who did it (--actor).",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .run = run_incident,
};
