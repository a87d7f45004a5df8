/* A direct call of a function that acts (faas-cli invoke, curl), by somebody with the login: an alert that
 * this person raises, and that a runbook takes or not.
 *
 *   call --signal firing "DirectCall"--> decided as any alert: gates, intent, queue --outcome--> answer
 *     `--signal resolved, when it is answered: what a gate holds back or has not begun never acts later
 *
 * So a runbook says what may be asked for, of which targets, how often, and in which mode; without one that
 * matches it is refused. After our death the act goes on as any other; its caller sees a cut connection, and
 * balm why tells the rest. */
#include "base/escape.h"
#include "base/random.h"
#include "functions/dispatcher/handler_impl.h"
#include "store/episode.h"

#define DIRECT_ALERT      "DirectCall"
#define DIRECT_SOURCE     "direct"
#define DIRECT_PARAMS_MAX 32
#define DIRECT_VALUE_MAX  1024
#define DIRECT_OWN_LABELS 3
#define DIRECT_TIMEOUT_NS (55 * NS_PER_S) /* before callers' own limit of a minute */
#define DIRECT_SLACK_NS   (5 * NS_PER_S)  /* to what one attempt may take: queue, start of the bot */

/* What the journal tells of the call. */
struct direct {
    struct journal_follower follower;
    struct fiber_event ended;
    struct arena *arena;
    struct record signal;
    int64_t answer_by_ns; /* monotonic */
    struct strview intent, state, code, message, gate, undo, detail;
};

/* ---- the alert ---- */

static bool is_label_name(struct strview name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!is_letter && (i == 0 || c < '0' || c > '9')) return false;
    }
    return name.len > 0 && name.len <= 64;
}

/* Parameters are one value each; what is more than that, a runbook cannot put anywhere. */
static enum status read_param(struct arena *a, struct strview name, const json_t *value,
                              struct http_header *ret_label, struct error *err)
{
    bool is_taken = sv_eq(name, SV("alertname")) || sv_eq(name, SV("bot")) || sv_eq(name, SV("call"));
    if (!is_label_name(name) || is_taken)
        return error_set(err, STATUS_INVALID_ARGUMENT, "'%.*s' cannot be the name of a parameter",
                         SV_ARG(sv_sub(name, 0, json_plain_run_max(name, 64))));
    struct strview text = json_is_string(value) ? sv_n(json_string_value(value), json_string_length(value))
                                                : (struct strview){0};
    if (json_is_integer(value))
        text = arena_printf(a, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_boolean(value))
        text = json_is_true(value) ? SV("true") : SV("false");
    else if (!json_is_string(value))
        return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%.*s' is no text, integer or boolean",
                         SV_ARG(name));
    if (text.len > DIRECT_VALUE_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT, "parameter '%.*s' is longer than %d bytes",
                         SV_ARG(name), DIRECT_VALUE_MAX);
    *ret_label = (struct http_header){arena_copy(a, name), arena_copy(a, text)};
    return STATUS_OK;
}

static enum status read_labels(const struct http_req *req, struct strview function,
                               struct record_labels *ret_labels, struct error *err)
{
    json_t *params = NULL, *value;
    const char *name;
    struct http_header *items =
        arena_array(req->arena, DIRECT_PARAMS_MAX + DIRECT_OWN_LABELS, sizeof(*items));
    size_t n = DIRECT_OWN_LABELS;
    char call[UUID_LEN + 1];
    random_uuid(call); /* no two calls are one alert */
    items[0] = (struct http_header){SV("alertname"), SV(DIRECT_ALERT)};
    items[1] = (struct http_header){SV("bot"), function};
    items[2] = (struct http_header){SV("call"), arena_copy(req->arena, sv(call))};
    enum status s = sv_trim(req->body).len == 0 ? STATUS_OK : json_parse(req->body, 0, &params, err);
    if (s == STATUS_OK && params != NULL && !json_is_object(params))
        s = error_set(err, STATUS_INVALID_ARGUMENT, "the body must be a JSON object of parameters");
    if (s == STATUS_OK && json_object_size(params) > DIRECT_PARAMS_MAX)
        s = error_set(err, STATUS_INVALID_ARGUMENT, "more than %d parameters", DIRECT_PARAMS_MAX);
    if (s == STATUS_OK)
        json_object_foreach(params, name, value) if (s == STATUS_OK) s =
            read_param(req->arena, sv(name), value, &items[n++], err);
    json_release(params);
    record_labels_sort(items, &n);
    *ret_labels = (struct record_labels){items, n};
    return s;
}

/* A runbook that takes it and begins with this very bot: labels that a caller chose must not start another.
 */
static enum status check_runbook(const struct dispatcher *d, const struct record_labels *labels,
                                 struct strview function, int64_t *ret_timeout_ns, struct error *err)
{
    if (!decider_is_active(d->decider))
        return error_set(err, STATUS_UNAVAILABLE,
                         "nothing is decided now: the journal does not take records");
    const struct runbook *rb = state_match(dispatcher_state(d), labels, NULL);
    if (rb != NULL && rb->n_steps > 0 && sv_eq(rb->steps[0].bot, function)) {
        *ret_timeout_ns = rb->steps[0].timeout_ns + DIRECT_SLACK_NS;
        return STATUS_OK;
    }
    return error_set(
        err, STATUS_PERMISSION_DENIED,
        "no runbook takes direct calls of '%.*s' with these parameters: one that does has match: "
        "['alertname=\"" DIRECT_ALERT "\"', 'bot=\"%.*s\"'] and it as its first step",
        SV_ARG(function), SV_ARG(function));
}

static void make_signal(const struct dispatcher *d, struct direct *c, const struct http_req *req,
                        const struct record_labels *labels, struct strview actor)
{
    char fingerprint[17], id[INCIDENT_ID_MAX];
    int64_t now_ns = clock_unix_ns();
    record_fingerprint(labels, fingerprint);
    incident_id(sv(fingerprint), now_ns, id);
    c->signal = (struct record){.kind = RECORD_SIGNAL,
                                .status = SV("firing"),
                                .source = SV(DIRECT_SOURCE),
                                .incident = arena_copy(req->arena, sv(id)),
                                .fingerprint = arena_copy(req->arena, sv(fingerprint)),
                                .labels = *labels,
                                .starts_at_ns = now_ns,
                                .actor = actor};
    dispatcher_stamp(d, &c->signal);
}

/* ---- what becomes of it ---- */

static void end(struct direct *c, struct strview state, const struct record *r)
{
    c->state = arena_copy(c->arena, state);
    c->code = arena_copy(c->arena, r->code);
    c->message = arena_copy(c->arena, r->message.len > 0 ? r->message : r->reason);
    c->gate = arena_copy(c->arena, r->gate);
    c->undo = arena_copy(c->arena, r->undo);
    c->detail = arena_copy(c->arena, r->detail);
    fiber_event_set(&c->ended);
}

static void on_record(struct journal_follower *f, const struct journal_entry *e)
{
    struct direct *c = container_of(f, struct direct, follower);
    const struct record *r = e->record;
    if (!sv_eq(r->incident, c->signal.incident) || c->state.len > 0) return;
    if (r->kind == RECORD_INTENT && c->intent.len == 0)
        c->intent = arena_copy(c->arena, r->intent);
    else if (r->kind == RECORD_REFUSAL && c->intent.len == 0)
        end(c, SV("refused"), r);
    else if (r->kind == RECORD_OUTCOME && sv_eq(r->intent, c->intent))
        end(c, r->state, r);
}

/* Whatever the answer: nobody waits for it any more, so nothing that has not begun begins. */
static enum status withdraw(struct dispatcher *d, struct direct *c, struct error *err)
{
    uint64_t seq;
    struct record over = c->signal;
    over.status = SV("resolved");
    over.ends_at_ns = clock_unix_ns();
    dispatcher_stamp(d, &over);
    fiber_shield_begin();
    enum status s = dispatcher_append_durably(d, &over, &seq, err);
    fiber_shield_end();
    return s;
}

static enum status run(struct dispatcher *d, struct direct *c, const struct http_req *req, struct error *err)
{
    uint64_t seq;
    struct error ignored;
    c->arena = req->arena;
    c->follower.on_record = on_record;
    fiber_event_init(&c->ended);
    journal_follow(d->env.journal, &c->follower);
    enum status s = dispatcher_append_durably(d, &c->signal, &seq, err);
    if (s == STATUS_OK) {
        enum status waited = fiber_event_wait(&c->ended, c->answer_by_ns);
        s = withdraw(d, c, &ignored);
        if (s != STATUS_OK) s = error_set(err, s, "%s", ignored.message);
        if (s == STATUS_OK && waited == STATUS_CANCELLED) s = error_set(err, waited, "cut");
    }
    journal_unfollow(d->env.journal, &c->follower);
    return s;
}

/* ---- the answer ---- */

static int http_status_of(const struct direct *c)
{
    if (c->state.len == 0) return 504;
    if (sv_eq(c->state, SV("done")) || sv_eq(c->state, SV("unchanged"))) return 200;
    if (sv_eq(c->state, SV("refused"))) return 403;
    if (sv_eq(c->state, SV("expired")) || sv_eq(c->code, SV("DEADLINE_EXCEEDED"))) return 504;
    if (sv_eq(c->state, SV("failed"))) return sv_eq(c->code, SV("INVALID_ARGUMENT")) ? 400 : 500;
    return 502;
}

static void put(json_t *o, const char *name, struct strview text)
{
    if (text.len > 0) (void)json_object_set_new(o, name, json_text(text));
}

static void answer(const struct exchange *x, const struct direct *c)
{
    json_t *o = json_object(), *detail = NULL;
    put(o, "incident", c->signal.incident);
    put(o, "intent", c->intent);
    put(o, "state", c->state.len > 0 ? c->state : SV("pending"));
    put(o, "code", c->code);
    put(o, "gate", c->gate);
    put(o, "message",
        c->state.len > 0
            ? c->message
            : SV("no outcome in time: what has begun may still end, nothing begins again; see balm why"));
    put(o, "undo", c->undo);
    if (c->detail.len > 0 && json_parse(c->detail, 0, &detail, NULL) == STATUS_OK)
        (void)json_object_set_new(o, "detail", detail);
    exchange_answer(x, o);
    x->resp->status = http_status_of(c);
}

void direct_call(void *state, struct strview function, struct strview actor, const struct http_req *req,
                 struct http_resp *resp)
{
    const struct exchange x = {state, req, resp};
    struct direct c = {0};
    struct record_labels labels;
    struct error err;
    int64_t timeout_ns = 0;
    enum status s = read_labels(req, function, &labels, &err);
    if (s == STATUS_OK) s = check_runbook(x.d, &labels, function, &timeout_ns, &err);
    if (s == STATUS_OK) {
        c.answer_by_ns = req->received_ns + (timeout_ns < DIRECT_TIMEOUT_NS ? timeout_ns : DIRECT_TIMEOUT_NS);
        make_signal(x.d, &c, req, &labels, actor);
        s = run(x.d, &c, req, &err);
    }
    if (s == STATUS_OK)
        answer(&x, &c);
    else
        exchange_fail(&x, &err);
}
