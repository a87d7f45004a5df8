/* balm runbook list and show: what the running platform has in force. */
#include <inttypes.h>

#include "cli/runbook.h"

static const char *shown(struct arena *a, const json_t *o, const char *key)
{
    return cli_shown(a, json_get_text(o, key)).ptr;
}

static long long number_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_json(const json_t *value)
{
    (void)json_dumpf(value, stdout, JSON_COMPACT | JSON_SORT_KEYS);
    putchar('\n');
}

/* "a, b" of texts. */
static const char *joined(struct arena *a, const json_t *list, const char *separator)
{
    struct strview text = SV("");
    size_t i;
    const json_t *item;
    json_array_foreach((json_t *)(uintptr_t)list, i, item) text =
        arena_printf(a, "%.*s%s%s", SV_ARG(text), i > 0 ? separator : "", json_string_value(item));
    return cli_shown(a, text).ptr;
}

static void print_start(const json_t *o, struct arena *a)
{
    struct strview zone = json_get_text(o, "time_zone");
    if (json_object_get(o, "match") != NULL)
        printf("\n  match   %s\n", joined(a, json_object_get(o, "match"), ", "));
    else
        printf("\n  at      %s%s%s\n", shown(a, o, "schedule"), zone.len > 0 ? ", " : "",
               shown(a, o, "time_zone"));
}

static void print_row(const json_t *o, struct arena *a)
{
    struct strview last = json_get_text(o, "lastActed"), escalate = json_get_text(o, "escalate"),
                   follow_up = json_get_text(o, "follow_up");
    const char *steps = joined(a, json_object_get(o, "steps"), " > ");
    printf("%-24s %-6s  %.12s  acted %lld times", shown(a, o, "name"), shown(a, o, "mode"),
           shown(a, o, "hash"), number_of(o, "acts"));
    if (last.len > 0) printf(", last %.*s", SV_ARG(last));
    if (number_of(o, "shadowed") > 0) printf("; in shadow %lld", number_of(o, "shadowed"));
    if (number_of(o, "inFlight") > 0) printf("; %lld under way", number_of(o, "inFlight"));
    print_start(o, a);
    printf("  steps   %s%s%s%s%s\n", steps[0] != '\0' ? steps : "none", follow_up.len > 0 ? ", later " : "",
           shown(a, o, "follow_up"), escalate.len > 0 ? ", then " : "", shown(a, o, "escalate"));
    if (json_object_get(o, "file") != NULL)
        printf("  file    %s:%lld\n", shown(a, o, "file"), number_of(o, "line"));
}

static enum status ask(const struct runbook_cfg *cfg, const char *path, json_t **ret_answer,
                       struct error *err)
{
    return cli_api(&cfg->platform, "GET", path, NULL, ret_answer, err);
}

int runbook_run_list(const struct command *self, const struct runbook_cfg *cfg)
{
    struct arena a = {0};
    struct error err = {0};
    json_t *list = NULL, *o;
    size_t i;
    if (ask(cfg, "/function/dispatcher/runbooks", &list, &err) != STATUS_OK) return cli_fail(self, &err);
    if (cfg->is_json) print_json(list);
    if (!cfg->is_json && json_array_size(list) == 0) puts("none is in force: nothing is ever decided");
    json_array_foreach(list, i, o) if (!cfg->is_json) print_row(o, &a);
    json_release(list);
    arena_release(&a);
    return CLI_OK;
}

/* ---- show: a runbook again, that could be given back ---- */

/* JSON is YAML, and quotes whatever needs it. */
static const char *yaml_value(struct arena *a, const json_t *value)
{
    return value == NULL ? "{}" : cli_shown(a, json_canonical(a, value)).ptr;
}

static void print_member(const char *indent, const json_t *o, const char *key, struct arena *a)
{
    const json_t *value = json_object_get(o, key);
    if (value != NULL) printf("%s%s: %s\n", indent, key, yaml_value(a, value));
}

static void print_step(const json_t *step, const char *first, const char *indent, struct arena *a)
{
    printf("%sbot: %s\n", first, yaml_value(a, json_object_get(step, "bot")));
    print_member(indent, step, "with", a);
    print_member(indent, step, "after", a);
    print_member(indent, step, "timeout", a);
    print_member(indent, step, "verify", a);
}

static void print_comments(const json_t *o, struct arena *a)
{
    const json_t *activated = json_object_get(o, "activated");
    struct strview time = json_get_text(activated, "time"), last = json_get_text(o, "lastActed");
    printf("# hash %s\n", shown(a, o, "hash"));
    if (json_object_get(o, "file") != NULL)
        printf("# from %s:%lld\n", shown(a, o, "file"), number_of(o, "line"));
    printf("# in force since record %lld", number_of(activated, "seq"));
    if (time.len > 0) printf(", %.*s, by %s", SV_ARG(time), shown(a, activated, "actor"));
    printf("\n# acted %lld times", number_of(o, "acts"));
    if (last.len > 0) printf(", last %.*s", SV_ARG(last));
    printf("; in shadow %lld; %lld under way, %lld waiting\n", number_of(o, "shadowed"),
           number_of(o, "inFlight"), number_of(o, "waiting"));
}

static void print_runbook(const json_t *o, struct arena *a)
{
    static const char *const plain[] = {"name",      "summary",        "match",  "schedule",
                                        "time_zone", "start_deadline", "target", "mode"};
    static const char *const rails[] = {"cooldown", "rate", "max_in_flight"};
    static const char *const others[] = {"follow_up", "escalate"};
    const json_t *steps = json_object_get(o, "steps"), *guardrails = json_object_get(o, "guardrails");
    size_t i;
    json_t *step;
    print_comments(o, a);
    for (i = 0; i < ARRAY_LEN(plain); i++)
        print_member("", o, plain[i], a);
    if (json_array_size(steps) > 0) puts("steps:");
    json_array_foreach(steps, i, step) print_step(step, "  - ", "    ", a);
    puts("guardrails:");
    for (i = 0; i < ARRAY_LEN(rails); i++)
        print_member("  ", guardrails, rails[i], a);
    for (i = 0; i < ARRAY_LEN(others); i++) {
        if (json_object_get(o, others[i]) == NULL) continue;
        printf("%s:\n", others[i]);
        print_step(json_object_get(o, others[i]), "  ", "  ", a);
    }
}

int runbook_run_show(const struct command *self, const struct runbook_cfg *cfg, const char *name)
{
    struct arena a = {0};
    struct error err = {0};
    json_t *o = NULL;
    struct strview path =
        arena_printf(&a, "/function/dispatcher/runbooks/%.*s", SV_ARG(cli_url_encoded(&a, sv(name))));
    int code = CLI_OK;
    if (ask(cfg, path.ptr, &o, &err) != STATUS_OK)
        code = cli_fail(self, &err);
    else if (cfg->is_json)
        print_json(o);
    else
        print_runbook(o, &a);
    json_release(o);
    arena_release(&a);
    return code;
}
