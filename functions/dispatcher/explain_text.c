#include "functions/dispatcher/explain.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"

/* Labels are a stranger's words, and this goes to a terminal: no control character passes, neither as a byte
 * nor as U+0080 … U+009F. */
static void put(struct buf *out, struct strview s)
{
    for (size_t i = 0; i < s.len;) {
        size_t n = sv_utf8_sequence(sv_sub(s, i, s.len));
        unsigned char c = (unsigned char)s.ptr[i];
        bool is_c1 = n == 2 && c == 0xC2 && (unsigned char)s.ptr[i + 1] < 0xA0;
        if (n == 0 || c < 0x20 || c == 0x7F || is_c1)
            buf_append_char(out, c == '\n' || c == '\t' ? ' ' : '?');
        else
            buf_append(out, sv_sub(s, i, i + n));
        i += n == 0 ? 1 : n;
    }
}

/* What was measured has nanoseconds, which tell nobody anything. Cut, not rounded: a cooldown of 15m that is
 * still on must not read as 15m. */
static int64_t cut_for_people(int64_t ns)
{
    int64_t step = ns < NS_PER_S          ? NS_PER_MS
                   : ns < 10 * NS_PER_S   ? 100 * NS_PER_MS
                   : ns < 3600 * NS_PER_S ? NS_PER_S
                                          : 60 * NS_PER_S;
    return ns - ns % step;
}

/* "14m32s105ms3us12ns" -> "14m32s". What somebody has written (15m, 1h30m15s) has no such small parts and
 * stays, like every other word. */
static void put_word(struct buf *out, struct strview word)
{
    char text[DURATION_TEXT_MAX];
    int64_t ns = 0;
    bool is_measured = (sv_ends_with(word, SV("us")) || sv_ends_with(word, SV("ns"))) &&
                       duration_parse(word, &ns) == STATUS_OK && ns >= NS_PER_MS;
    put(out, is_measured ? sv(duration_format(cut_for_people(ns), text)) : word);
}

/* A target's name (service/5ms1us) is one word, and no duration. */
static bool is_word_char(char c)
{
    return c > ' ' && memchr(";,()'", c, 5) == NULL;
}

/* Our own sentences, with their durations cut. */
static void put_sentence(struct buf *out, struct strview s)
{
    while (s.len > 0) {
        size_t word = 0, rest;
        while (word < s.len && is_word_char(s.ptr[word]))
            word++;
        put_word(out, sv_sub(s, 0, word));
        for (rest = word; rest < s.len && !is_word_char(s.ptr[rest]);)
            rest++;
        put(out, sv_sub(s, word, rest));
        s = sv_sub(s, rest, s.len);
    }
}

static void put_member(struct buf *out, const json_t *o, const char *name)
{
    put(out, json_get_text(o, name));
}

static void put_value(struct buf *out, const json_t *value)
{
    if (json_is_string(value)) {
        put(out, sv_n(json_string_value(value), json_string_length(value)));
        return;
    }
    struct buf text;
    buf_init(&text, 64 * 1024);
    json_append_canonical(&text, value);
    put(out, buf_view(&text));
    buf_release(&text);
}

/* Of a gate: a text of ours, or a number. */
static void put_measure(struct buf *out, const json_t *value)
{
    if (json_is_string(value))
        put_sentence(out, sv_n(json_string_value(value), json_string_length(value)));
    else
        put_value(out, value);
}

/* "2026-11-22T14:01:24.123456789Z" -> "14:01:24.123" */
static struct strview clock_part(struct strview time)
{
    return time.len == 30 ? sv_sub(time, 11, 23) : time;
}

static void put_head(struct buf *out, const char *name)
{
    buf_printf(out, "  %-10s", name);
}

static void put_labels(struct buf *out, json_t *labels)
{
    const char *name;
    json_t *value;
    bool is_first = true;
    json_object_foreach(labels, name, value)
    {
        buf_append(out, is_first ? SV("") : SV("  "));
        put(out, sv(name));
        buf_append_char(out, '=');
        put_value(out, value);
        is_first = false;
    }
}

static void put_alert(struct buf *out, const json_t *alert)
{
    const char *name;
    json_t *value;
    if (alert == NULL) return;
    bool is_tick = json_object_get(alert, "due") != NULL;
    put_head(out, is_tick ? "schedule" : "alert");
    put_member(out, alert, "name");
    if (!is_tick) {
        buf_append(out, SV(" from "));
        put_member(out, alert, "source");
    }
    buf_append(out, is_tick ? SV(", due at ") : SV(", firing since "));
    put_member(out, alert, is_tick ? "due" : "startsAt");
    buf_append(out, SV("\n            "));
    put_labels(out, json_object_get(alert, "labels"));
    buf_append_char(out, '\n');
    json_object_foreach(json_object_get(alert, "annotations"), name, value)
    {
        buf_append(out, SV("            "));
        put(out, sv(name));
        buf_append(out, SV(": "));
        put_value(out, value);
        buf_append_char(out, '\n');
    }
}

static void put_runbook(struct buf *out, const json_t *root)
{
    const json_t *runbook = json_object_get(root, "runbook");
    put_head(out, "runbook");
    if (runbook == NULL) {
        buf_append(out, SV("none takes this alert\n"));
        return;
    }
    put_member(out, runbook, "name");
    buf_append(out, SV(", mode "));
    put_member(out, runbook, "mode");
    buf_append(out, SV(", sha256 "));
    put_member(out, runbook, "hash");
    buf_append_char(out, '\n');
    put_head(out, "target");
    put_member(out, root, "target");
    buf_append_char(out, '\n');
}

static void put_gates(struct buf *out, const json_t *gates)
{
    for (size_t i = 0; i < json_array_size(gates); i++) {
        const json_t *gate = json_array_get(gates, i);
        const char *name = json_string_value(json_object_get(gate, "gate"));
        buf_printf(out, "            %s %-18s ", json_is_true(json_object_get(gate, "ok")) ? "ok  " : "STOP",
                   name != NULL ? name : "");
        put_measure(out, json_object_get(gate, "value"));
        buf_append(out, SV("  (limit "));
        put_measure(out, json_object_get(gate, "limit"));
        buf_append(out, SV(")\n"));
    }
}

static void put_params(struct buf *out, const json_t *o)
{
    put_member(out, o, "function");
    buf_append(out, SV(" on "));
    put_member(out, o, "target");
    buf_append(out, SV(" with "));
    put_value(out, json_object_get(o, "params"));
    buf_append_char(out, '\n');
}

static void put_outcome(struct buf *out, const json_t *outcome)
{
    buf_append(out, SV("            outcome "));
    if (outcome == NULL) {
        buf_append(out, SV("none yet\n"));
        return;
    }
    put_member(out, outcome, "state");
    buf_append(out, SV(" at "));
    put(out, clock_part(json_get_text(outcome, "time")));
    if (json_get_text(outcome, "reason").len > 0) { /* why it is dead */
        buf_append(out, SV(": "));
        put_member(out, outcome, "reason");
    }
    if (json_get_text(outcome, "message").len > 0) {
        buf_append(out, SV(": "));
        put_member(out, outcome, "message");
    }
    buf_append_char(out, '\n');
    if (json_object_get(outcome, "detail") != NULL) {
        buf_append(out, SV("            found "));
        put_value(out, json_object_get(outcome, "detail"));
        buf_append_char(out, '\n');
    }
}

/* "            retried by alice at 03:12:00.123: reason" */
static void put_person(struct buf *out, const json_t *o, const char *what)
{
    if (o == NULL) return;
    buf_printf(out, "%s by ", what);
    put_member(out, o, "actor");
    buf_append(out, SV(" at "));
    put(out, clock_part(json_get_text(o, "time")));
    if (json_get_text(o, "reason").len > 0) {
        buf_append(out, SV(": "));
        put_member(out, o, "reason");
    }
    buf_append_char(out, '\n');
}

static void put_dead_letter(struct buf *out, const json_t *act)
{
    bool is_dead = sv_eq(json_get_text(json_object_get(act, "outcome"), "state"), SV("dead"));
    if (!is_dead || json_object_get(act, "retried") != NULL || json_object_get(act, "dropped") != NULL)
        return;
    buf_append(out, SV("            a dead letter: balm dead retry "));
    put_member(out, act, "intent");
    buf_append(out, SV(", or balm dead drop\n"));
}

static void put_acts(struct buf *out, const json_t *acts)
{
    for (size_t i = 0; i < json_array_size(acts); i++) {
        const json_t *act = json_array_get(acts, i);
        bool is_escalation = sv_eq(json_get_text(act, "purpose"), SV("escalate"));
        bool is_follow_up = sv_eq(json_get_text(act, "purpose"), SV("follow_up"));
        put_head(out, is_escalation ? "told" : is_follow_up ? "follow-up" : "act");
        if (!is_escalation && !is_follow_up)
            buf_printf(out, "step %" JSON_INTEGER_FORMAT ": ",
                       json_integer_value(json_object_get(act, "step")));
        put_params(out, act);
        buf_append(out, SV("            intent "));
        put_member(out, act, "intent");
        buf_append(out, SV(" decided at "));
        put(out, clock_part(json_get_text(act, "decided")));
        buf_append_char(out, '\n');
        put_gates(out, json_object_get(act, "gates"));
        size_t n_retries = json_array_size(json_object_get(act, "retries"));
        if (n_retries > 0)
            buf_printf(out, "            %zu more attempt%s\n", n_retries, n_retries == 1 ? "" : "s");
        put_outcome(out, json_object_get(act, "outcome"));
        put_person(out, json_object_get(act, "retried"), "            retried");
        put_person(out, json_object_get(act, "dropped"), "            dropped");
        put_dead_letter(out, act);
    }
}

static void put_refusals(struct buf *out, const json_t *refusals)
{
    for (size_t i = 0; i < json_array_size(refusals); i++) {
        const json_t *refusal = json_array_get(refusals, i);
        put_head(out, "refused");
        buf_append(out, SV("gate "));
        put_member(out, refusal, "gate");
        buf_append(out, SV(" at "));
        put(out, clock_part(json_get_text(refusal, "time")));
        buf_append(out, SV(": "));
        put_sentence(out, json_get_text(refusal, "reason"));
        buf_append(out, SV("\n            "));
        put_params(out, refusal);
        put_gates(out, json_object_get(refusal, "gates"));
    }
}

static void put_verification(struct buf *out, const json_t *root)
{
    const json_t *list = json_object_get(root, "verification");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        put_head(out, "verified");
        buf_append(out, json_is_true(json_object_get(v, "ok")) ? SV("yes, by ") : SV("no, "));
        put_member(out, v, "how");
        buf_append(out, SV(" at "));
        put(out, clock_part(json_get_text(v, "time")));
        buf_append_char(out, '\n');
    }
    list = json_object_get(root, "escalation");
    for (size_t i = 0; i < json_array_size(list); i++) {
        put_head(out, "escalated");
        put_member(out, json_array_get(list, i), "reason");
        buf_append_char(out, '\n');
    }
}

static bool is_said(const json_t *list, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (json_equal(json_array_get(list, k), json_array_get(list, i))) return true;
    return false;
}

/* What takes back several acts alike is said once. */
static void put_undo(struct buf *out, const json_t *undo)
{
    for (size_t i = 0; i < json_array_size(undo); i++) {
        if (is_said(undo, i)) continue;
        put_head(out, "undo");
        put_value(out, json_array_get(undo, i));
        buf_append_char(out, '\n');
    }
}

static void put_notes(struct buf *out, const json_t *notes)
{
    for (size_t i = 0; i < json_array_size(notes); i++) {
        const json_t *note = json_array_get(notes, i);
        put_head(out, "note");
        put_member(out, note, "actor");
        buf_append(out, SV(" at "));
        put(out, clock_part(json_get_text(note, "time")));
        buf_append(out, SV(": "));
        put_member(out, note, "message");
        buf_append_char(out, '\n');
    }
}

static void put_end(struct buf *out, const json_t *root)
{
    const json_t *timeline = json_object_get(root, "timeline");
    put_notes(out, json_object_get(root, "notes"));
    put_person(out, json_object_get(root, "closing"), "  ended    ");
    put_head(out, "next");
    put_sentence(out, json_get_text(root, "next"));
    buf_append_char(out, '\n');
    put_undo(out, json_object_get(root, "undo"));
    buf_append(out, SV("\n"));
    for (size_t i = 0; i < json_array_size(timeline); i++) {
        const json_t *line = json_array_get(timeline, i);
        buf_append(out, SV("  "));
        put(out, clock_part(json_get_text(line, "time")));
        buf_printf(out, "  %6" JSON_INTEGER_FORMAT "  ", json_integer_value(json_object_get(line, "seq")));
        buf_printf(out, "%-10s", json_string_value(json_object_get(line, "kind")));
        if (sv_eq(json_get_text(line, "kind"), SV("refusal")))
            put_sentence(out, json_get_text(line, "text"));
        else
            put_member(out, line, "text");
        buf_append_char(out, '\n');
    }
}

void explain_text(const json_t *explained, struct buf *out)
{
    buf_append(out, SV("incident "));
    put_member(out, explained, "incident");
    buf_append(out, SV(": "));
    put_member(out, explained, "state");
    buf_append_char(out, '\n');
    put_alert(out, json_object_get(explained, "alert"));
    put_runbook(out, explained);
    put_acts(out, json_object_get(explained, "acts"));
    put_refusals(out, json_object_get(explained, "refusals"));
    put_verification(out, explained);
    put_end(out, explained);
}
