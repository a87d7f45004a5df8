/* One socket to the broker, many fibers that ask: the first one that waits reads for all, hands out answers
 * by their id, and leaves the reading to another waiter when it has its own. No callback, and nothing reads
 * while nobody waits. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/memory.h"
#include "function/function.h"
#include "loop/loop.h"

#define HOST_ACT_BYTES_MAX  ((size_t)64 * 1024) /* gateway/broker.h */
#define HOST_ACT_TIMEOUT_NS (60 * NS_PER_S)     /* where the invocation has no deadline */
#define SEND_RETRY_MS       5

struct host_call {
    struct list node;
    json_int_t id;
    json_t *reply;            /* owned; NULL until it came */
    struct fiber_event woken; /* reply is there, the broker is gone, or it is our turn to read */
};

static struct list calls; /* waiting for their replies */
static json_int_t last_id;
static bool is_reading, is_broken;

static enum status broker_gone(struct error *err, const char *why)
{
    return error_set(err, STATUS_UNAVAILABLE, "host act: the platform's broker is gone: %s", why);
}

static enum status check_socket(struct error *err)
{
    int type = 0;
    socklen_t len = sizeof(type);
    if (is_broken) return broker_gone(err, "its socket was closed");
    if (getsockopt(HOST_ACT_FD, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET)
        return error_set(
            err, STATUS_FAILED_PRECONDITION,
            "host act: there is no broker: this function was not started by balm, or may not act on the host");
    (void)fcntl(HOST_ACT_FD, F_SETFD, FD_CLOEXEC);
    if (calls.next == NULL) list_init(&calls);
    return STATUS_OK;
}

/* ---- asking ---- */

static enum status send_message(struct strview message, int64_t deadline_ns, struct error *err)
{
    for (;;) {
        if (send(HOST_ACT_FD, message.ptr, message.len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return STATUS_OK;
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != ENOBUFS) return broker_gone(err, strerror(errno));
        /* Its queue is full. The descriptor's one waiter is whoever reads, so this one looks again a little
         * later. */
        if (clock_monotonic_ns() >= deadline_ns)
            return error_set(err, STATUS_DEADLINE_EXCEEDED, "host act: the broker took no message in time");
        enum status s = sleep_ms(SEND_RETRY_MS);
        if (s != STATUS_OK) return error_set(err, s, "host act: ended before the broker was asked");
    }
}

static struct strview deadline_text(struct arena *a, int64_t deadline_ns)
{
    char text[RFC3339_LEN + 1];
    rfc3339_format(clock_unix_ns() + deadline_ns - clock_monotonic_ns(), text);
    return arena_copy(a, sv(text));
}

static enum status ask(const struct invocation *inv, struct strview act, struct strview subject,
                       const json_t *arguments, json_int_t id, int64_t deadline_ns, struct error *err)
{
    json_t *question = json_object();
    json_object_set_new(question, "act", json_text(act));
    json_object_set_new(question, "subject", json_text(subject));
    if (arguments != NULL) json_object_set_new(question, "arguments", json_deep_copy(arguments));
    json_object_set_new(question, "intent", json_text(inv->intent));
    json_object_set_new(question, "deadline", json_text(deadline_text(inv->arena, deadline_ns)));
    json_object_set_new(question, "id", json_integer(id));
    struct strview message = json_canonical(inv->arena, question);
    json_decref(question);
    if (message.len > HOST_ACT_BYTES_MAX)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "host act: a message of %zu bytes, at most %zu are allowed", message.len,
                         HOST_ACT_BYTES_MAX);
    return send_message(message, deadline_ns, err);
}

/* ---- reading ---- */

static void hand_out(struct strview message)
{
    json_t *reply = NULL;
    if (json_parse(message, 0, &reply, NULL) != STATUS_OK)
        return; /* not even an id: its caller runs into its deadline */
    json_int_t id = json_integer_value(json_object_get(reply, "id"));
    for (struct list *n = calls.next; n != &calls; n = n->next) {
        struct host_call *c = container_of(n, struct host_call, node);
        if (c->id != id || c->reply != NULL) continue;
        c->reply = reply;
        fiber_event_set(&c->woken);
        return;
    }
    json_release(reply); /* its caller has left */
}

static void wake_all(void)
{
    for (struct list *n = calls.next; n != &calls; n = n->next)
        fiber_event_set(&container_of(n, struct host_call, node)->woken);
}

/* Takes what is there. false: the broker has closed. */
static bool read_messages(struct arena *a)
{
    char *buffer = arena_alloc(a, HOST_ACT_BYTES_MAX);
    for (;;) {
        ssize_t n = recv(HOST_ACT_FD, buffer, HOST_ACT_BYTES_MAX, MSG_DONTWAIT);
        if (n > 0)
            hand_out(sv_n(buffer, (size_t)n));
        else if (n < 0 && errno == EINTR)
            continue;
        else
            return n < 0 && errno == EAGAIN;
    }
}

/* Until our own reply is there. */
static enum status read_for_all(struct host_call *c, int64_t deadline_ns)
{
    enum status s = STATUS_OK;
    struct arena a = {0};
    int events;
    is_reading = true;
    while (c->reply == NULL && !is_broken) {
        s = fd_wait(HOST_ACT_FD, POLLIN, deadline_ns, &events);
        if (s != STATUS_OK) break;
        arena_reset(&a);
        if (!read_messages(&a)) {
            is_broken = true;
            wake_all();
        }
    }
    is_reading = false;
    arena_release(&a);
    return s;
}

/* The next reader, if somebody waits without a reply. */
static void pass_on_reading(void)
{
    for (struct list *n = calls.next; n != &calls; n = n->next) {
        struct host_call *c = container_of(n, struct host_call, node);
        if (c->reply != NULL) continue;
        fiber_event_set(&c->woken);
        return;
    }
}

static enum status await_reply(struct host_call *c, int64_t deadline_ns)
{
    enum status s = STATUS_OK;
    while (s == STATUS_OK && c->reply == NULL && !is_broken) {
        if (!is_reading) {
            s = read_for_all(c, deadline_ns);
            continue;
        }
        fiber_event_reset(&c->woken);
        s = fiber_event_wait(&c->woken, deadline_ns);
    }
    list_remove(&c->node);
    if (!is_reading) pass_on_reading();
    return c->reply != NULL ? STATUS_OK : s;
}

/* ---- the call ---- */

/* It was sent, so it may have been done: that is for on_unknown to decide, not for a retry that takes it for
 * not done. */
static enum status answer_lost(struct strview act, struct strview subject, const char *why, struct error *err)
{
    return error_set(err, STATUS_UNKNOWN, "host act %.*s '%.*s': asked, but no reply of the broker: %s",
                     SV_ARG(sv_sub(act, 0, 64)), SV_ARG(sv_sub(subject, 0, 128)), why);
}

static enum status code_of(struct strview name)
{
    for (int code = STATUS_CANCELLED; code <= STATUS_UNAUTHENTICATED; code++)
        if (sv_eq(name, sv(status_name((enum status)code)))) return (enum status)code;
    return STATUS_UNKNOWN;
}

static enum status judge(const json_t *reply, struct strview act, struct strview subject, struct error *err)
{
    if (json_is_true(json_object_get(reply, "ok"))) return STATUS_OK;
    struct strview message = json_get_text(reply, "message");
    return error_set(err, code_of(json_get_text(reply, "code")), "host act %.*s '%.*s': %.*s",
                     SV_ARG(sv_sub(act, 0, 64)), SV_ARG(sv_sub(subject, 0, 128)),
                     SV_ARG(message.len > 0 ? message : SV("refused")));
}

enum status host_act(const struct invocation *inv, struct strview act, struct strview subject,
                     json_t **ret_reply, struct error *err)
{
    return host_act_with(inv, act, subject, NULL, ret_reply, err);
}

enum status host_act_with(const struct invocation *inv, struct strview act, struct strview subject,
                          const json_t *arguments, json_t **ret_reply, struct error *err)
{
    struct host_call c = {.id = last_id + 1};
    assert(fiber_current() != NULL);
    enum status s = check_socket(err);
    if (s == STATUS_OK) s = invocation_check(inv, err);
    if (s != STATUS_OK) return s;
    int64_t deadline_ns = clock_monotonic_ns() + HOST_ACT_TIMEOUT_NS;
    if (inv->deadline_unix_ns != 0) {
        int64_t until_ns = clock_monotonic_ns() + inv->deadline_unix_ns - clock_unix_ns();
        if (until_ns < deadline_ns) deadline_ns = until_ns;
    }
    last_id++;
    fiber_event_init(&c.woken);
    list_push_back(&calls, &c.node);
    s = ask(inv, act, subject, arguments, c.id, deadline_ns, err);
    if (s != STATUS_OK) {
        list_remove(&c.node);
        json_release(c.reply);
        return s;
    }
    s = await_reply(&c, deadline_ns);
    if (s != STATUS_OK)
        return answer_lost(act, subject, s == STATUS_CANCELLED ? "cancelled" : "the deadline has passed",
                           err);
    if (c.reply == NULL) return answer_lost(act, subject, "its socket was closed", err);
    s = judge(c.reply, act, subject, err);
    if (s == STATUS_OK)
        *ret_reply = c.reply;
    else
        json_release(c.reply);
    return s;
}
