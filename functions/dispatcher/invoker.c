#include "functions/dispatcher/invoker_impl.h"

#include "base/escape.h"
#include "log/log.h"

#define FROZEN_SNOOZE_NS NS_PER_S
#define UNSENT_SNOOZE_NS (3 * NS_PER_S) /* until a function that does not start is tried again */

/* ---- recording ---- */

static void append_stage(struct buf *b, const char *name, int64_t unix_ns)
{
    if (unix_ns == 0) return;
    char text[RFC3339_LEN + 1];
    rfc3339_format(unix_ns, text);
    buf_append(b, b->len > 1 ? SV(",\"") : SV("\""));
    buf_append(b, sv(name));
    buf_append(b, SV("\":\""));
    buf_append(b, sv(text));
    buf_append_char(b, '"');
}

/* When the alert and this process got where, as Unix time; 0: not seen (it was restarted in between). */
struct stages {
    int64_t received_ns, durable_ns, decided_ns, invoked_ns, entered_ns, healed_ns;
};

/* To be asked before the outcome is recorded: that may close the incident. */
static struct stages stages_of(const struct job *job)
{
    const struct dispatcher *d = job->d;
    const struct incident *inc = state_incident(dispatcher_state(d), job->item->record->incident);
    const struct decided_time *decided = &d->decided[job->item->seq % DECIDED_TIMES];
    return (struct stages){
        .received_ns = inc != NULL ? inc->opened_ns : 0,
        .durable_ns = inc != NULL ? journal_durable_unix_ns(d->env.journal, inc->seq) : 0,
        .decided_ns = decided->seq == job->item->seq ? decided->unix_ns : 0,
        .invoked_ns = job->invoked_unix_ns,
        .entered_ns = job->reply.entered_unix_ns,
        .healed_ns = job->reply.left_unix_ns,
    };
}

static struct strview stages_json(const struct stages *st, struct arena *a)
{
    struct buf b;
    buf_init(&b, 1024);
    buf_append_char(&b, '{');
    append_stage(&b, "decided", st->decided_ns);
    append_stage(&b, "durable", st->durable_ns);
    append_stage(&b, "entered", st->entered_ns);
    append_stage(&b, "healed", st->healed_ns);
    append_stage(&b, "invoked", st->invoked_ns);
    append_stage(&b, "received", st->received_ns);
    buf_append_char(&b, '}');
    struct strview text = arena_copy(a, buf_view(&b));
    buf_release(&b);
    return text;
}

/* The first act's way from where it began; what lies before that is observed of every alert
 * (alerts/handler.c, observe.c). */
static void observe_stages(const struct job *job, const struct stages *st)
{
    if (st->received_ns == 0 || st->invoked_ns == 0 || job->item->record->step != 1 ||
        job->item->attempt != 1)
        return;
    observe_stage("invoked", st->received_ns, st->invoked_ns);
    if (st->entered_ns != 0) observe_stage("entered", st->received_ns, st->entered_ns);
    if (st->healed_ns != 0) observe_stage("healed", st->received_ns, st->healed_ns);
}

void invoker_finish(const struct job *job, struct strview state, struct strview code, struct strview message)
{
    const struct record *r = job->item->record;
    const struct stages stages = stages_of(job);
    struct record outcome = {
        .kind = RECORD_OUTCOME,
        .time_ns = clock_unix_ns(),
        .tenant = job->d->env.tenant,
        .cluster = job->d->env.cluster,
        .fingerprint = r->fingerprint,
        .runbook = r->runbook,
        .step = r->step,
        .purpose = r->purpose,
        .state = state,
        .code = code,
        .message = message,
        .undo = job->reply.undo,
        .stages = stages_json(&stages, job->arena),
    };
    if (job->reply.detail.len > 2) outcome.detail = job->reply.detail;
    if (outcome.stages.len <= 2) outcome.stages = (struct strview){0};
    struct error err;
    enum status s = queue_done(job->d->queue, job->item, &outcome, &err);
    if (s == STATUS_INVALID_ARGUMENT) { /* a bot that talks too much must not keep its incident open */
        outcome.detail = (struct strview){0};
        outcome.message = sv_sub(outcome.message, 0, json_plain_run_max(outcome.message, 4096));
        outcome.undo = (struct strview){0};
        s = queue_done(job->d->queue, job->item, &outcome, &err);
    }
    if (s == STATUS_OK)
        observe_stages(job, &stages);
    else
        log_error("dispatcher", "outcome not recorded", LOG_SV("intent", r->intent), LOG_SV("state", state),
                  LOG_STR("error", err.message));
}

void invoker_repeat(const struct job *job, bool counts, int64_t after_ns, struct strview code,
                    struct strview reason)
{
    struct error err;
    enum status s = queue_retry(job->d->queue, job->item, counts, after_ns, code, reason, &err);
    if (s != STATUS_OK && s != STATUS_ABORTED)
        log_error("dispatcher", "retry not recorded", LOG_SV("intent", job->item->record->intent),
                  LOG_STR("error", err.message));
}

/* ---- acts ---- */

static int64_t step_timeout(struct strview detail)
{
    json_t *tree = NULL;
    int64_t ns = 0;
    if (detail.len > 0 && json_parse(detail, 0, &tree, NULL) == STATUS_OK)
        ns = json_integer_value(json_object_get(tree, "timeoutNs"));
    json_release(tree);
    return ns > 0 ? ns : 30 * NS_PER_S;
}

/* An end without a definite answer of the bot: if the answer of an attempt before was lost, that one may have
 * taken effect, whatever became of those after it. */
void invoker_give_up(const struct job *job, struct strview state, struct strview code, struct strview message)
{
    invoker_finish(job, job->item->has_lost_answer ? SV("unknown") : state, code, message);
}

/* Of the intent, by the clock of today; 0: none. */
static int64_t deadline_of(const struct job *job)
{
    const struct record *r = job->item->record;
    return r->deadline_ns != 0 ? clock_add_ns(r->deadline_ns, job->item->turned_ns) : 0;
}

static void expire(const struct job *job)
{
    const struct queue_item *item = job->item;
    if (item->has_lost_answer)
        invoker_finish(
            job, SV("unknown"), SV("DEADLINE_EXCEEDED"),
            SV("the answer of an attempt was lost, and the deadline passed before another could look"));
    else if (item->attempt > 1)
        invoker_finish(job, SV("failed"), SV("DEADLINE_EXCEEDED"),
                       SV("no attempt succeeded before the deadline"));
    else
        invoker_finish(job, SV("expired"), SV("DEADLINE_EXCEEDED"),
                       SV("the deadline passed before the act began; nothing was changed"));
}

/* There is no reason for it any more. */
static void withdraw(const struct job *job, const char *why)
{
    const struct queue_item *item = job->item;
    struct strview state = SV("refused");
    const char *what = "before the act began; nothing was changed";
    if (item->has_lost_answer) {
        state = SV("unknown");
        what = "before the act whose answer was lost could be repeated";
    } else if (item->attempt > 1) {
        state = SV("failed");
        what = "before a failed attempt could be repeated";
    }
    invoker_finish(job, state, SV("FAILED_PRECONDITION"), arena_printf(job->arena, "%s %s", why, what));
}

/* Is it still right to begin? Recorded as the end of the intent if not. The rest of the line is the bot's: it
 * checks the deadline before each mutation. */
static bool may_begin(struct job *job)
{
    const struct record *r = job->item->record;
    const struct state *s = dispatcher_state(job->d);
    clockwork_look(job->d);
    int64_t hold_ns = job->d->clock_hold_until_ns - clock_monotonic_ns();
    if (s->is_frozen || job->d->is_braked || !decider_is_active(job->d->decider)) {
        invoker_repeat(job, false, FROZEN_SNOOZE_NS, SV("CANCELLED"), SV("acting is stopped"));
        return false;
    }
    if (hold_ns > 0) {
        invoker_repeat(job, false, hold_ns, SV("UNAVAILABLE"), SV("the clock jumped and has not settled"));
        return false;
    }
    if (r->deadline_ns != 0 && clock_unix_ns() >= deadline_of(job)) {
        expire(job);
        return false;
    }
    if (sv_eq(r->purpose, SV("escalate")))
        return true; /* a person is told even if the alert is over by now */
    const struct incident *inc = state_incident(s, r->incident);
    if (inc == NULL || !sv_eq(sv(inc->intent), r->intent)) {
        withdraw(job, "the incident had moved on");
        return false;
    }
    if (inc->is_closing) {
        withdraw(job, "a person had closed the incident");
        return false;
    }
    if (!job->item->is_interrupted && state_mode(s, r->runbook) != RUNBOOK_ACT) {
        invoker_give_up(job, SV("refused"), SV("FAILED_PRECONDITION"),
                        SV("its runbook may not act any more: nothing was begun since"));
        return false;
    }
    if (inc->alert == ALERT_FIRING || job->item->is_interrupted || incident_is_following_up(inc))
        return true; /* what an interrupted attempt did belongs to the incident */
    withdraw(job, "the alert was over");
    return false;
}

static void answer_lost(const struct job *job, struct strview why)
{
    if (job->info.on_unknown == ON_UNKNOWN_ESCALATE)
        invoker_finish(job, SV("unknown"), SV("UNKNOWN"), why);
    else /* the same intent again: the bot finds its mark and does nothing, or does it */
        invoker_repeat(job, true, 0, SV("UNKNOWN"), why);
}

/* Who reads the record may know what callers are not told: why the function does not start. */
static struct strview why_unsent(const struct job *job, const struct error *err)
{
    const struct core_env *env = &job->d->env;
    struct function_info now = {0};
    enum status s = env->invoker->info(env->invoker_arg, job->item->record->function, &now, NULL);
    return s == STATUS_OK && now.start_error.len > 0 ? arena_copy(job->arena, now.start_error)
                                                     : sv(err->message);
}

/* The bot was never reached, which is no attempt of the act: again and again until the intent's deadline. */
static void snooze_unsent(const struct job *job, struct strview why)
{
    int64_t deadline_ns = deadline_of(job);
    if (deadline_ns == 0) /* nothing else would end it */
        invoker_repeat(job, true, 0, SV("UNAVAILABLE"), why);
    else if (clock_unix_ns() + UNSENT_SNOOZE_NS < deadline_ns)
        invoker_repeat(job, false, UNSENT_SNOOZE_NS, SV("UNAVAILABLE"), why);
    else
        invoker_give_up(job, job->item->attempt == 1 ? SV("expired") : SV("failed"), SV("UNAVAILABLE"), why);
}

static void take_reply(const struct job *job)
{
    const struct invocation_reply *reply = &job->reply;
    if (!sv_eq(reply->state, SV("failed")))
        invoker_finish(job, reply->state, reply->code, reply->message);
    else if (sv_eq(reply->code, SV("CANCELLED"))) /* stopped in time by balm stop */
        invoker_repeat(job, false, FROZEN_SNOOZE_NS, reply->code, reply->message);
    else if (sv_eq(reply->code, SV("UNKNOWN")))
        answer_lost(job, reply->message);
    else if (reply->can_retry)
        invoker_repeat(job, true, 0, reply->code, reply->message);
    else
        invoker_finish(job, SV("failed"), reply->code, reply->message);
}

static void act(struct job *job)
{
    const struct record *r = job->item->record;
    struct dispatcher *d = job->d;
    struct error err = {0};
    if (!may_begin(job)) return;
    enum status s = d->env.invoker->info(d->env.invoker_arg, r->function, &job->info, &err);
    if (s != STATUS_OK) {
        invoker_repeat(job, true, 0, sv(status_name(s)), sv(err.message));
        return;
    }
    if (job->item->has_lost_answer && job->info.on_unknown == ON_UNKNOWN_ESCALATE) {
        invoker_finish(job, SV("unknown"), SV("UNKNOWN"),
                       SV("the platform ended while the act was under way"));
        return;
    }
    struct invocation inv = {.function = r->function,
                             .intent = r->intent,
                             .incident = r->incident,
                             .target = r->target,
                             .epoch = r->epoch,
                             .attempt = job->item->attempt,
                             .intent_unix_ns = clock_add_ns(r->time_ns, job->item->turned_ns),
                             .arena = job->arena};
    job->invoked_unix_ns = clock_unix_ns();
    inv.deadline_unix_ns = clock_add_ns(job->invoked_unix_ns, step_timeout(r->detail));
    if (r->deadline_ns != 0 && deadline_of(job) < inv.deadline_unix_ns)
        inv.deadline_unix_ns = deadline_of(job);
    s = d->env.invoker->invoke(d->env.invoker_arg, &inv, r->params.len > 0 ? r->params : SV("{}"), job->arena,
                               &job->reply, &err);
    if (s == STATUS_CANCELLED && fiber_is_cancelled())
        return; /* we are going down: the next process finds it interrupted */
    if (s == STATUS_OK)
        take_reply(job);
    else if (s == STATUS_CANCELLED) /* balm stop came in between; it never left */
        invoker_repeat(job, false, FROZEN_SNOOZE_NS, sv(status_name(s)), sv(err.message));
    else if (s == STATUS_UNKNOWN || s == STATUS_DEADLINE_EXCEEDED)
        answer_lost(job, sv(err.message));
    else if (s == STATUS_UNAVAILABLE && err.can_retry)
        snooze_unsent(job, why_unsent(job, &err));
    else if (err.can_retry)
        invoker_repeat(job, true, 0, sv(status_name(s)), sv(err.message));
    else
        invoker_give_up(job, SV("failed"), sv(status_name(s)), sv(err.message));
}

/* One of INVOKERS: what it takes it brings to an end, unless the process goes down. */
void invoker_run(void *arg)
{
    struct dispatcher *d = arg;
    struct arena arena = {0};
    enum status s = STATUS_OK;
    while (s != STATUS_CANCELLED) {
        struct queue_item item;
        struct error err;
        arena_reset(&arena);
        s = queue_take(d->queue, 0, &arena, &item, &err);
        if (s == STATUS_OK) {
            struct job job = {.d = d, .item = &item, .arena = &arena};
            if (item.record->kind == RECORD_CALL)
                invoker_call(&job);
            else
                act(&job);
        } else if (s != STATUS_CANCELLED) {
            log_error("dispatcher", "no work taken", LOG_STR("error", err.message));
            s = sleep_ms(1000);
        }
    }
    arena_release(&arena);
}
