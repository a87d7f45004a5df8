#include "cli/preview.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "functions/dispatcher/preview.h"
#include "store/episode.h"

#define RECORDS_BYTES_MAX (64 * 1024 * 1024) /* of a body's alerts as records; the platform takes less */

/* ---- asking ---- */

/* As the intake would record it, were it new. */
static struct record signal_of(const struct webhook *w, const struct webhook_alert *alert, struct arena *a)
{
    char *id = arena_alloc(a, INCIDENT_ID_MAX);
    webhook_incident_id(w->source, alert->fingerprint, alert->starts_at_ns, id);
    return (struct record){.kind = RECORD_SIGNAL,
                           .time_ns = clock_unix_ns(),
                           .tenant = SV("default"),
                           .cluster = SV("local"),
                           .source = w->source,
                           .status = alert->is_firing ? SV("firing") : SV("resolved"),
                           .incident = sv(id),
                           .fingerprint = alert->fingerprint,
                           .labels = alert->labels,
                           .annotations = alert->annotations,
                           .starts_at_ns = alert->starts_at_ns,
                           .ends_at_ns = alert->ends_at_ns};
}

/* Why the intake would not make a signal of it; empty: it would. */
static struct strview refusal_of(const struct webhook_alert *alert)
{
    return alert->reason.len > 0 ? alert->reason : alert->unmeasured;
}

static struct record *signals_of(const struct webhook *w, struct arena *a, size_t *ret_n)
{
    struct record *signals = arena_array(a, w->n_alerts, sizeof(*signals));
    size_t n = 0;
    for (size_t i = 0; i < w->n_alerts; i++)
        if (refusal_of(&w->alerts[i]).len == 0) signals[n++] = signal_of(w, &w->alerts[i], a);
    *ret_n = n;
    return signals;
}

static enum status ask_platform(const struct preview_cfg *cfg, const struct record *signals, size_t n,
                                json_t **ret_answer, struct error *err)
{
    struct buf lines;
    buf_init(&lines, RECORDS_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        record_encode(&signals[i], &lines);
        buf_append_char(&lines, '\n');
    }
    enum status s = buf_status(&lines);
    if (s != STATUS_OK)
        s = error_set(err, s, "the alerts are too large together");
    else
        s = cli_api_text(&cfg->platform, "POST", "/function/dispatcher/explain", buf_view(&lines), ret_answer,
                         err);
    buf_release(&lines);
    return s;
}

static enum status ask_runbooks(const char *dir, const struct record *signals, size_t n, json_t **ret_answer,
                                struct error *err)
{
    struct runbook_set set;
    struct error why;
    if (runbook_set_read(dir, &set, &why) != STATUS_OK)
        return error_set(err, STATUS_INVALID_ARGUMENT, "%s", why.message);
    struct state *state = preview_state_of(&set);
    struct preview *p = preview_new(state, signals, n, clock_unix_ns(), false);
    json_t *alerts = json_array();
    for (json_t *o; (o = preview_next(p, state)) != NULL;)
        (void)json_array_append_new(alerts, o);
    preview_free(p);
    state_free(state);
    runbook_set_release(&set);
    char now[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns(), now);
    *ret_answer = json_pack("{s:o, s:b, s:s}", "alerts", alerts, "frozen", 0, "time", now);
    return STATUS_OK;
}

static json_t *labels_json(const struct record_labels *labels)
{
    json_t *o = json_object();
    for (size_t i = 0; i < labels->n; i++)
        (void)json_object_setn_new(o, labels->items[i].name.ptr, labels->items[i].name.len,
                                   json_text(labels->items[i].value));
    return o;
}

static json_t *rejected_json(const struct webhook_alert *alert)
{
    bool may_end = alert->reason.len == 0 && !alert->is_firing;
    return json_pack("{s:s, s:o, s:s}", "result", "rejected", "reason", json_text(refusal_of(alert)), "next",
                     may_end ? "its incident, if one is open, ends as unknown"
                             : "nothing: the intake does not take it");
}

/* The answer is about the alerts that the intake takes; those that it rejects come back to their places. */
static void complete(json_t *answer, const struct webhook *w)
{
    json_t *all = json_array(), *counts = json_object();
    const json_t *answered = json_object_get(answer, "alerts");
    for (size_t i = 0, k = 0; i < w->n_alerts; i++) {
        const struct webhook_alert *alert = &w->alerts[i];
        json_t *o =
            refusal_of(alert).len > 0 ? rejected_json(alert) : json_incref(json_array_get(answered, k++));
        if (o == NULL) break; /* a platform that answers about fewer */
        if (alert->reason.len == 0) (void)json_object_set_new(o, "labels", labels_json(&alert->labels));
        const char *result = json_string_value(json_object_get(o, "result"));
        (void)json_array_append_new(all, o);
        if (result == NULL) continue;
        json_int_t n = json_integer_value(json_object_get(counts, result));
        (void)json_object_set_new(counts, result, json_integer(n + 1));
    }
    (void)json_object_set_new(answer, "alerts", all);
    (void)json_object_set_new(answer, "counts", counts);
}

enum status cli_preview(const struct preview_cfg *cfg, const struct webhook *w, json_t **ret_preview,
                        struct error *err)
{
    struct arena a = {0};
    json_t *answer = NULL;
    size_t n;
    const struct record *signals = signals_of(w, &a, &n);
    enum status s = cfg->runbooks_dir != NULL ? ask_runbooks(cfg->runbooks_dir, signals, n, &answer, err)
                                              : ask_platform(cfg, signals, n, &answer, err);
    if (s == STATUS_OK) {
        complete(answer, w);
        *ret_preview = answer;
    }
    arena_release(&a);
    return s;
}

/* ---- showing ---- */

enum { LABELS_SHOWN_BYTES = 300 };

static const char *shown(struct arena *a, const json_t *o, const char *key)
{
    return cli_shown(a, json_get_text(o, key)).ptr;
}

static const char *shown_json(struct arena *a, const json_t *value)
{
    return value == NULL ? "{}" : cli_shown(a, json_canonical(a, value)).ptr;
}

/* What tells it from others of its name. */
static void print_labels(const json_t *labels, struct arena *a)
{
    size_t n_bytes = 0, n_left_out = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)labels, name, value)
    {
        if (strcmp(name, "alertname") == 0) continue;
        struct strview text = arena_printf(a, "  %s=%.*s", name, SV_ARG(json_get_text(labels, name)));
        n_bytes += text.len;
        if (n_bytes <= LABELS_SHOWN_BYTES)
            printf("%s", cli_shown(a, text).ptr);
        else
            n_left_out++;
    }
    if (n_left_out > 0) printf("  and %zu more", n_left_out);
}

static void print_gates(const json_t *o, struct arena *a)
{
    size_t i;
    json_t *gate;
    json_array_foreach(json_object_get(o, "gates"), i, gate)
    {
        if (json_is_true(json_object_get(gate, "ok"))) continue;
        struct strview value = json_get_text(gate, "value"), limit = json_get_text(gate, "limit");
        if (value.len == 0) value = json_canonical(a, json_object_get(gate, "value"));
        if (limit.len == 0) limit = json_canonical(a, json_object_get(gate, "limit"));
        printf("  closed    %-18s %s  (limit %s)\n", shown(a, gate, "gate"), cli_shown(a, value).ptr,
               cli_shown(a, limit).ptr);
    }
}

static void print_others(const json_t *o, struct arena *a)
{
    size_t i;
    json_t *other;
    json_array_foreach(json_object_get(o, "others"), i, other)
        printf("  others    incident %s: %s %s\n", shown(a, other, "incident"), shown(a, other, "kind"),
               shown(a, other, "function"));
}

static void print_decision(const json_t *o, struct arena *a)
{
    static const struct {
        const char *result, *heading;
    } headings[] = {{"act", "act"}, {"shadow", "shadow"}, {"refused", "refused"}};
    struct strview result = json_get_text(o, "result");
    for (size_t i = 0; i < ARRAY_LEN(headings); i++)
        if (sv_eq(result, sv(headings[i].result)) && json_object_get(o, "function") != NULL)
            printf("  %-9s %s with %s\n", headings[i].heading, shown(a, o, "function"),
                   shown_json(a, json_object_get(o, "params")));
    if (json_object_get(o, "reason") != NULL) {
        const char *gate = shown(a, o, "gate");
        printf("  because   %s%s%s\n", gate, gate[0] != '\0' ? ": " : "", shown(a, o, "reason"));
    }
    print_gates(o, a);
    const json_t *escalation = json_object_get(o, "escalation");
    if (escalation != NULL)
        printf("  escalate  %s with %s\n", shown(a, escalation, "function"),
               shown_json(a, json_object_get(escalation, "params")));
    print_others(o, a);
}

static void print_alert(const json_t *o, struct arena *a)
{
    const json_t *runbook = json_object_get(o, "runbook");
    const char *name = shown(a, o, "alert"), *mode = shown(a, runbook, "mode");
    printf("\n%s: %s\n", name[0] != '\0' ? name : "(an alert)", shown(a, o, "result"));
    if (json_object_size(json_object_get(o, "labels")) > 1) {
        printf("  labels  ");
        print_labels(json_object_get(o, "labels"), a);
        putchar('\n');
    }
    if (json_object_get(o, "incident") != NULL)
        printf("  incident  %s, %s\n", shown(a, o, "incident"), shown(a, o, "phase"));
    if (runbook != NULL)
        printf("  runbook   %s%s%s\n", shown(a, runbook, "name"), mode[0] != '\0' ? ", mode " : "", mode);
    if (json_object_get(o, "target") != NULL) printf("  target    %s\n", shown(a, o, "target"));
    print_decision(o, a);
    printf("  next      %s\n", shown(a, o, "next"));
}

static void print_counts(const json_t *preview)
{
    static const struct {
        const char *result, *words;
    } results[] = {
        {"act", "would act"},
        {"shadow", "in shadow"},
        {"refused", "refused"},
        {"tell", "for a person"},
        {"open", "open already"},
        {"closed", "closed before"},
        {"no_runbook", "without a runbook"},
        {"resolved", "resolved"},
        {"rejected", "rejected"},
    };
    const json_t *counts = json_object_get(preview, "counts");
    size_t n = json_array_size(json_object_get(preview, "alerts"));
    printf("%zu alert%s", n, n == 1 ? "" : "s");
    const char *separator = ": ";
    for (size_t i = 0; i < ARRAY_LEN(results); i++) {
        long long of_these = (long long)json_integer_value(json_object_get(counts, results[i].result));
        if (of_these == 0) continue;
        printf("%s%lld %s", separator, of_these, results[i].words);
        separator = ", ";
    }
    puts("; nothing was done and nothing recorded");
}

void cli_preview_print(const struct preview_cfg *cfg, const json_t *preview)
{
    struct arena a = {0};
    size_t i;
    json_t *alert;
    if (cfg->is_json) {
        (void)json_dumpf(preview, stdout, JSON_COMPACT | JSON_SORT_KEYS);
        putchar('\n');
        return;
    }
    print_counts(preview);
    if (json_is_true(json_object_get(preview, "frozen")))
        puts("acting is stopped: no bot acts until balm resume");
    json_array_foreach(json_object_get(preview, "alerts"), i, alert)
    {
        print_alert(alert, &a);
        arena_reset(&a);
    }
    arena_release(&a);
}
