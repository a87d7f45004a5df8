#include "functions/dispatcher/explain.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "functions/dispatcher/explain_lines.h"

/* ---- the alert ---- */

static void put_labels(struct buf *out, json_t *labels)
{
    const char *name;
    json_t *value;
    struct buf par;
    lines_begin(&par);
    json_object_foreach(labels, name, value)
    {
        if (strcmp(name, "alertname") == 0) continue; /* it stands above */
        buf_append(&par, par.len > 0 ? SV("  ") : SV(""));
        lines_put(&par, sv(name));
        buf_append_char(&par, '=');
        lines_put_value(&par, value);
    }
    lines_end(&par, out, "", 2);
}

static void put_alert(struct buf *out, const json_t *alert)
{
    static const char *const shown[] = {"summary", "description", "message"};
    const json_t *annotations = json_object_get(alert, "annotations");
    struct strview due = json_get_text(alert, "due"); /* of a run that the clock has begun */
    struct strview since = due.len > 0 ? due : json_get_text(alert, "startsAt");
    struct buf par;
    if (alert == NULL) return;
    lines_begin(&par);
    lines_put_member(&par, "", alert, "name");
    if (due.len == 0) lines_put_member(&par, " from ", alert, "source");
    if (since.len == RFC3339_LEN)
        buf_printf(&par, ", %s %.*sZ", due.len > 0 ? "due at" : "firing since", 19, since.ptr);
    lines_end(&par, out, due.len > 0 ? "schedule" : "alert", 2);
    put_labels(out, json_object_get(alert, "labels"));
    for (size_t i = 0, n = 0; i < 3 && n < 1; i++) {
        struct strview text = json_get_text(annotations, shown[i]);
        if (text.len == 0) continue;
        lines_begin(&par);
        buf_printf(&par, "%s: ", shown[i]);
        lines_put(&par, text);
        lines_end(&par, out, "", 1);
        n++;
    }
}

static void put_runbook(struct buf *out, const json_t *root)
{
    const json_t *runbook = json_object_get(root, "runbook");
    struct buf par;
    lines_begin(&par);
    lines_put_member(&par, "", runbook, "name");
    lines_put_member(&par, ", mode ", runbook, "mode");
    lines_put_member(&par, ", for ", root, "target");
    buf_append(&par, runbook == NULL ? SV("none takes this alert") : SV(", sha256 "));
    lines_put(&par, sv_sub(json_get_text(runbook, "hash"), 0, 12));
    lines_end(&par, out, "runbook", 2);
}

/* ---- what was decided and done ---- */

/* Those that stopped it each on a line; the others as one text, and only of the newest decision. */
static void put_gates(struct buf *out, const json_t *gates, bool with_open)
{
    struct buf par;
    lines_begin(&par);
    for (size_t i = 0; i < json_array_size(gates); i++) {
        const json_t *gate = json_array_get(gates, i);
        const char *name = json_string_value(json_object_get(gate, "gate"));
        if (name == NULL) name = "";
        if (!json_is_true(json_object_get(gate, "ok"))) {
            struct buf stop;
            lines_begin(&stop);
            buf_printf(&stop, "STOP %-18s ", name);
            lines_put_measure(&stop, json_object_get(gate, "value"));
            buf_append(&stop, SV("  (limit "));
            lines_put_measure(&stop, json_object_get(gate, "limit"));
            buf_append_char(&stop, ')');
            lines_end(&stop, out, "", 1);
            continue;
        }
        buf_printf(&par, "%s%s ", par.len > 0 ? ", " : "ok: ", name);
        lines_put_measure(&par, json_object_get(gate, "value"));
        bool is_counted = strstr("cooldown rate in_flight_runbook", name) != NULL;
        if (!is_counted) continue;
        buf_append(&par, SV(" ("));
        lines_put_measure(&par, json_object_get(gate, "limit"));
        buf_append_char(&par, ')');
    }
    if (!with_open) buf_reset(&par);
    lines_end(&par, out, "", 3);
}

static void put_params(struct buf *par, const json_t *o)
{
    const json_t *params = json_object_get(o, "params");
    lines_put_member(par, "", o, "function");
    lines_put_member(par, " on ", o, "target");
    if (json_object_size(params) == 0) return;
    buf_append(par, SV(" with "));
    lines_put_value(par, params);
}

static void put_outcome(struct buf *out, const json_t *act)
{
    const json_t *outcome = json_object_get(act, "outcome"), *retries = json_object_get(act, "retries");
    size_t n_retries = json_array_size(retries);
    struct buf par;
    lines_begin(&par);
    buf_append(&par, SV("decided "));
    lines_put(&par, lines_clock(json_get_text(act, "decided")));
    if (outcome == NULL) {
        buf_append(&par, SV(", outcome none yet"));
        if (json_get_text(act, "deadline").len > 0) buf_append(&par, SV(", to end by "));
        lines_put(&par, lines_clock(json_get_text(act, "deadline")));
    } else {
        lines_put_member(&par, ", ", outcome, "state");
        buf_append(&par, SV(" at "));
        lines_put(&par, lines_clock(json_get_text(outcome, "time")));
    }
    if (n_retries > 0) buf_printf(&par, ", %zu attempt%s before", n_retries, n_retries == 1 ? "" : "s");
    if (outcome == NULL && n_retries > 0)
        lines_put_member(&par, ": ", json_array_get(retries, n_retries - 1), "reason");
    lines_put_member(&par, ": ", outcome, json_get_text(outcome, "message").len > 0 ? "message" : "reason");
    lines_end(&par, out, "", 3);
    if (json_object_get(outcome, "detail") == NULL) return;
    lines_begin(&par);
    buf_append(&par, SV("found "));
    lines_put_value(&par, json_object_get(outcome, "detail"));
    lines_end(&par, out, "", 1);
}

/* By a person. */
static void put_person(struct buf *out, const json_t *o, const char *head, const char *what)
{
    struct buf par;
    if (o == NULL) return;
    lines_begin(&par);
    buf_printf(&par, "%sby ", what);
    lines_put_member(&par, "", o, "actor");
    buf_append(&par, SV(" at "));
    lines_put(&par, lines_clock(json_get_text(o, "time")));
    lines_put_member(&par, ": ", o, "reason");
    lines_end(&par, out, head, 2);
}

/* For telling a person; an act of any other purpose is a bot's. */
static bool is_escalation(const json_t *act)
{
    return sv_eq(json_get_text(act, "purpose"), SV("escalate"));
}

static bool is_follow_up(const json_t *o)
{
    return sv_eq(json_get_text(o, "purpose"), SV("follow_up"));
}

enum { PARTS_MAX = 3 /* of acts, and of refusals: the newest */ };

static size_t first_shown(struct buf *out, const json_t *list, const char *head)
{
    size_t n = json_array_size(list);
    if (n <= PARTS_MAX) return 0;
    buf_printf(out, "  %-*s%zu before, see --json\n", LINES_INDENT - 2, head, n - PARTS_MAX);
    return n - PARTS_MAX;
}

static void put_acts(struct buf *out, const json_t *acts, bool is_newest)
{
    size_t n = json_array_size(acts), last = n;
    for (size_t i = 0; i < n; i++)
        if (!is_escalation(json_array_get(acts, i))) last = i;
    for (size_t i = first_shown(out, acts, "act"); i < n; i++) {
        const json_t *act = json_array_get(acts, i);
        bool is_told = is_escalation(act), is_step = json_get_text(act, "purpose").len == 0;
        struct buf par;
        lines_begin(&par);
        if (is_step)
            buf_printf(&par, "step %" JSON_INTEGER_FORMAT ": ",
                       json_integer_value(json_object_get(act, "step")));
        put_params(&par, act);
        lines_end(&par, out, is_told ? "told" : is_step ? "act" : "follow-up", is_told ? 1 : 2);
        if (!is_told) put_gates(out, json_object_get(act, "gates"), is_newest && i == last);
        put_outcome(out, act);
        put_person(out, json_object_get(act, "retried"), "", "retried ");
        put_person(out, json_object_get(act, "dropped"), "", "dropped ");
    }
}

/* One that was followed by an act is told in a line. */
static void put_refusals(struct buf *out, const json_t *refusals, bool is_newest)
{
    size_t n = json_array_size(refusals);
    for (size_t i = first_shown(out, refusals, "refused"); i < n; i++) {
        const json_t *refusal = json_array_get(refusals, i);
        bool is_last = is_newest && i + 1 == n;
        struct buf par;
        lines_begin(&par);
        if (is_follow_up(refusal)) buf_append(&par, SV("the follow-up, "));
        lines_put_member(&par, "gate ", refusal, "gate");
        buf_append(&par, SV(" at "));
        lines_put(&par, lines_clock(json_get_text(refusal, "time")));
        buf_append(&par, SV(": "));
        lines_put_sentence(&par, json_get_text(refusal, "reason"));
        lines_end(&par, out, "refused", is_last ? 3 : 1);
        if (!is_last) continue;
        lines_begin(&par);
        put_params(&par, refusal);
        lines_end(&par, out, "", 2);
        put_gates(out, json_object_get(refusal, "gates"), true);
    }
}

static bool is_open(const json_t *root)
{
    return sv_eq(json_get_text(root, "state"), SV("open"));
}

static void put_verification(struct buf *out, const json_t *root)
{
    const json_t *list = json_object_get(root, "verification");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        struct buf par;
        lines_begin(&par);
        lines_put_member(&par, json_is_true(json_object_get(v, "ok")) ? "yes, by " : "no, ", v, "how");
        buf_append(&par, SV(" at "));
        lines_put(&par, lines_clock(json_get_text(v, "time")));
        lines_end(&par, out, "verified", 1);
    }
    list = json_object_get(root, "escalation"); /* of one that is open, it stands at the top */
    for (size_t i = 0; i < json_array_size(list) && !is_open(root); i++)
        lines_put_said(out, "escalated", json_get_text(json_array_get(list, i), "reason"), 2);
    list = json_object_get(root, "notes");
    for (size_t i = first_shown(out, list, "note"); i < json_array_size(list); i++) {
        struct buf par;
        lines_begin(&par);
        lines_put_member(&par, "", json_array_get(list, i), "actor");
        buf_append(&par, SV(" at "));
        lines_put(&par, lines_clock(json_get_text(json_array_get(list, i), "time")));
        lines_put_member(&par, ": ", json_array_get(list, i), "message");
        lines_end(&par, out, "note", 2);
    }
}

/* ---- what to do ---- */

static void put_run(struct buf *out, const json_t *root)
{
    const json_t *run = json_object_get(root, "run");
    const char *head = "run";
    bool is_down = sv_eq(json_get_text(root, "platform"), SV("down"));
    if (is_down && is_open(root)) {
        lines_put_paragraph(out, head,
                            SV("balm up  # no platform runs on this journal: until then nothing goes on"), 1);
        head = "";
    }
    for (size_t i = 0; i < json_array_size(run); i++) {
        struct strview text = sv(json_string_value(json_array_get(run, i)));
        struct buf par;
        if (is_down && sv_starts_with(text, SV("balm stop"))) continue; /* nobody acts as it is */
        lines_begin(&par);
        lines_put(&par, text);
        lines_end(&par, out, head, 2);
        head = "";
    }
}

static bool is_said(const json_t *list, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (json_equal(json_array_get(list, k), json_array_get(list, i))) return true;
    return false;
}

/* Of what was done, and nobody has named anything that takes it back. */
static struct strview without_undo(const json_t *acts)
{
    struct strview said = SV("nothing to take back: no bot acted");
    for (size_t i = 0; i < json_array_size(acts); i++) {
        const json_t *act = json_array_get(acts, i), *outcome = json_object_get(act, "outcome");
        struct strview state = json_get_text(outcome, "state");
        if (is_escalation(act)) continue;
        if (outcome == NULL) return SV("not known before the act has ended");
        if (!sv_eq(state, SV("refused")) && !sv_eq(state, SV("expired")) && !sv_eq(state, SV("unchanged")))
            said = SV("the bot named nothing that takes it back");
    }
    return said;
}

/* What takes back several acts alike is said once. */
static void put_undo(struct buf *out, const json_t *root)
{
    const json_t *undo = json_object_get(root, "undo");
    for (size_t i = 0; i < json_array_size(undo); i++) {
        if (is_said(undo, i)) continue;
        struct buf par;
        lines_begin(&par);
        lines_put_value(&par, json_array_get(undo, i));
        lines_end(&par, out, "undo", 4);
    }
    if (json_array_size(undo) == 0)
        lines_put_paragraph(out, "undo", without_undo(json_object_get(root, "acts")), 1);
}

/* ---- the timeline ---- */

/* What a person does not miss; the sections above have the outcome of it. */
static bool is_shown(const json_t *line)
{
    struct strview kind = json_get_text(line, "kind");
    if (sv_eq(kind, SV("timer"))) return is_follow_up(line); /* its bot comes then: the others only wait */
    return !sv_eq(kind, SV("fired")) && !sv_eq(kind, SV("seen"));
}

static void put_time_line(struct buf *out, const json_t *line)
{
    struct buf par;
    char head[64];
    struct strview time = lines_clock(json_get_text(line, "time")), kind = json_get_text(line, "kind");
    lines_begin(&par);
    if (sv_eq(kind, SV("refusal")))
        lines_put_sentence(&par, json_get_text(line, "text"));
    else
        lines_put(&par, json_get_text(line, "text"));
    int n = snprintf(head, sizeof(head), "  %-12.*s  %6" JSON_INTEGER_FORMAT "  %-10.*s", SV_ARG(time),
                     json_integer_value(json_object_get(line, "seq")), SV_ARG(kind));
    struct strview text = buf_view(&par);
    size_t room = EXPLAIN_COLUMNS - (size_t)n, fits = lines_bytes(text, room);
    bool is_cut = fits < text.len;
    buf_append(out, sv(head));
    buf_append(out, sv_sub(text, 0, is_cut ? lines_bytes(text, room - 1) : fits));
    buf_append(out, is_cut ? SV("…\n") : SV("\n"));
    buf_release(&par);
}

enum { TIMELINE_MIN = 4 };

static void put_timeline(struct buf *out, const json_t *timeline)
{
    size_t n = 0, n_above = 1, at = 0; /* 1: the empty line */
    for (size_t i = 0; i < out->len; i++)
        n_above += out->ptr[i] == '\n';
    for (size_t i = 0; i < json_array_size(timeline); i++)
        n += is_shown(json_array_get(timeline, i));
    size_t room = n_above + TIMELINE_MIN < EXPLAIN_LINES ? EXPLAIN_LINES - n_above : TIMELINE_MIN;
    size_t from = n > room ? n - (room - 2) : 1; /* the first one, what is left out, and the newest */
    buf_append_char(out, '\n');
    for (size_t i = 0; i < json_array_size(timeline); i++) {
        const json_t *line = json_array_get(timeline, i);
        if (!is_shown(line)) continue;
        if (at == 1 && from > 1) buf_printf(out, "  … %zu more in between, see --json\n", from - 1);
        if (at == 0 || at >= from) put_time_line(out, line);
        at++;
    }
}

static bool decided_last_is_act(const json_t *root)
{
    const json_t *timeline = json_object_get(root, "timeline");
    for (size_t i = json_array_size(timeline); i > 0; i--) {
        struct strview kind = json_get_text(json_array_get(timeline, i - 1), "kind");
        if (sv_eq(kind, SV("refusal"))) return false;
        if (sv_eq(kind, SV("outcome")) || sv_eq(kind, SV("intent"))) return true;
    }
    return true;
}

void explain_text(const json_t *explained, struct buf *out)
{
    buf_append(out, SV("incident "));
    lines_put(out, json_get_text(explained, "incident"));
    buf_append(out, SV(": "));
    lines_put(out, json_get_text(explained, "state"));
    buf_append_char(out, '\n');
    lines_put_said(out, "what", json_get_text(explained, "what"), 3);
    put_alert(out, json_object_get(explained, "alert"));
    put_runbook(out, explained);
    bool is_act_newest = decided_last_is_act(explained);
    if (is_act_newest) put_refusals(out, json_object_get(explained, "refusals"), false);
    put_acts(out, json_object_get(explained, "acts"), is_act_newest);
    if (!is_act_newest) put_refusals(out, json_object_get(explained, "refusals"), true);
    put_verification(out, explained);
    put_person(out, json_object_get(explained, "closing"), "ended", "");
    lines_put_said(out, "next", json_get_text(explained, "next"), 3);
    put_run(out, explained);
    put_undo(out, explained);
    put_timeline(out, json_object_get(explained, "timeline"));
}
