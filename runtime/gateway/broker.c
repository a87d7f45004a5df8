#include "gateway/broker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "gateway/broker_list.h"
#include "gateway/broker_service.h"
#include "log/log.h"

#define MESSAGE_MAX        (64 * 1024)
#define PEER_CALLS_MAX     16              /* at once for one replica: a bot that floods waits for its own answers */
#define RESTART_TIMEOUT_NS (90 * NS_PER_S) /* systemd's own default of TimeoutStartSec */

struct broker {
    struct loop *loop;
    const char *file; /* owned copy; NULL: nothing is allowed */
    struct broker_list *list; /* owned; replaced whole by a reload, kept while `users` > 0 */
    unsigned users;           /* calls that borrow from the list across waits */
    unsigned restarts_under_way;
    bool is_frozen;
    struct fiber_event restarts_ended, users_gone;
};

/* Our end of one replica's pair. */
struct peer {
    struct broker *broker;
    int fd;
    char *function;
    unsigned calls;
    struct fiber_event call_ended;
    struct fiber_scope scope;
};

/* One message, on a fiber of its own. */
struct peer_call {
    struct peer *peer;
    json_t *message; /* owned */
};

static char *copy_text(struct strview s)
{
    char *copy = mem_alloc(s.len + 1);
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

enum status broker_new(struct loop *l, const char *allow_list_file, struct broker **ret_broker, struct error *err)
{
    struct broker *b = mem_zalloc(1, sizeof(*b));
    b->loop = l;
    b->list = mem_zalloc(1, sizeof(*b->list));
    if (allow_list_file != NULL) b->file = copy_text(sv(allow_list_file));
    fiber_event_init(&b->restarts_ended);
    fiber_event_init(&b->users_gone);
    fiber_event_set(&b->restarts_ended);
    fiber_event_set(&b->users_gone);
    enum status s = broker_list_read(b->file, b->list, err);
    if (s == STATUS_OK) *ret_broker = b;
    else broker_free(b);
    return s;
}

void broker_free(struct broker *b)
{
    if (b == NULL) return;
    broker_list_release(b->list);
    free(b->list);
    free((char *)b->file);
    free(b);
}

enum status broker_reload(struct broker *b, struct error *err)
{
    struct broker_list fresh;
    enum status s = broker_list_read(b->file, &fresh, err);
    if (s != STATUS_OK) return s;
    while (b->users > 0)
        if (fiber_event_wait(&b->users_gone, 0) != STATUS_OK) {
            broker_list_release(&fresh);
            return error_set(err, STATUS_CANCELLED, "reload of the allow list was cut short");
        }
    broker_list_release(b->list);
    *b->list = fresh;
    return STATUS_OK;
}

void broker_freeze(struct broker *b, bool is_frozen)
{
    b->is_frozen = is_frozen;
    if (!is_frozen) return;
    fiber_shield_begin();
    while (b->restarts_under_way > 0)
        (void)!fiber_event_wait(&b->restarts_ended, 0);
    fiber_shield_end();
}

/* ---- one call ---- */

static enum status restart(struct broker *b, const struct broker_service *service, struct arena *a, json_t **ret_reply, struct error *err)
{
    if (b->is_frozen) return error_set(err, STATUS_CANCELLED, "balm stop is in force: '%.*s' is not restarted", SV_ARG(service->name));
    b->restarts_under_way++;
    fiber_event_reset(&b->restarts_ended);
    enum status s = broker_service_restart(service, clock_monotonic_ns() + RESTART_TIMEOUT_NS, a, ret_reply, err);
    if (--b->restarts_under_way == 0) fiber_event_set(&b->restarts_ended);
    return s;
}

static enum status answer(const struct peer_call *c, struct arena *a, json_t **ret_reply, struct error *err)
{
    struct broker *b = c->peer->broker;
    struct strview act = json_get_text(c->message, "act"), subject = json_get_text(c->message, "subject");
    struct strview intent = json_get_text(c->message, "intent");
    const struct broker_service *service = broker_list_find(b->list, subject);
    if (service == NULL || !broker_service_allows(service, sv(c->peer->function)))
        return error_set(err, STATUS_PERMISSION_DENIED, "service '%.*s' is not on the allow list for function '%s'",
                         (int)(subject.len < 64 ? subject.len : 64), subject.ptr, c->peer->function);
    if (sv_eq(act, SV("service-status"))) return broker_service_status(service, a, ret_reply, err);
    if (!sv_eq(act, SV("service-restart")))
        return error_set(err, STATUS_INVALID_ARGUMENT, "the broker knows service-status and service-restart, not '%.*s'",
                         (int)(act.len < 64 ? act.len : 64), act.ptr);
    enum status s = restart(b, service, a, ret_reply, err);
    log_info("broker", s == STATUS_OK ? "service restart was run" : "service restart did not run", LOG_SV("service", service->name),
             LOG_STR("function", c->peer->function), LOG_SV("intent", intent), LOG_STR("error", s == STATUS_OK ? "" : err->message));
    return s;
}

static json_t *error_reply(const struct error *err)
{
    return json_pack("{s:b, s:s, s:s}", "ok", 0, "code", status_name(err->code), "message", err->message);
}

/* SEQPACKET: whole or not at all. A peer that does not read its answers within the limit loses them, and its own wait ends by its deadline. */
static void send_reply(struct peer *p, json_t *reply)
{
    char *text = json_dumps(reply, JSON_COMPACT | JSON_SORT_KEYS);
    int64_t deadline_ns = clock_monotonic_ns() + 5 * NS_PER_S;
    while (send(p->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && (errno == EAGAIN || errno == EINTR)) {
        int events;
        if (fd_wait(p->fd, POLLOUT, deadline_ns, &events) == STATUS_ALREADY_EXISTS) {
            if (sleep_ms(5) != STATUS_OK) break; /* the reading fiber waits on it: look again soon */
        } else if (clock_monotonic_ns() >= deadline_ns) break;
    }
    free(text);
}

static void call_fiber(void *arg)
{
    struct peer_call *c = arg;
    struct peer *p = c->peer;
    struct arena a = {0};
    struct error err;
    json_t *reply = NULL;
    p->broker->users++;
    fiber_event_reset(&p->broker->users_gone);
    if (answer(c, &a, &reply, &err) == STATUS_OK) (void)json_object_set_new(reply, "ok", json_true());
    else reply = error_reply(&err);
    if (--p->broker->users == 0) fiber_event_set(&p->broker->users_gone);
    (void)json_object_set(reply, "id", json_object_get(c->message, "id"));
    send_reply(p, reply);
    json_release(reply);
    json_release(c->message);
    arena_release(&a);
    free(c);
    p->calls--;
    fiber_event_set(&p->call_ended);
}

/* ---- one peer ---- */

static void take_message(struct peer *p, struct strview bytes)
{
    struct error err;
    json_t *message = NULL;
    enum status s = json_parse(bytes, 0, &message, &err);
    if (s == STATUS_OK && !json_is_object(message)) s = error_set(&err, STATUS_INVALID_ARGUMENT, "message is not an object");
    if (s == STATUS_OK) {
        struct peer_call *c = mem_zalloc(1, sizeof(*c));
        *c = (struct peer_call){.peer = p, .message = json_incref(message)};
        p->calls++;
        s = fiber_scope_spawn(&p->scope, call_fiber, c, &err);
        if (s != STATUS_OK) {
            p->calls--;
            json_release(c->message);
            free(c);
        }
    }
    if (s != STATUS_OK) {
        json_t *reply = error_reply(&err);
        if (json_is_object(message)) (void)json_object_set(reply, "id", json_object_get(message, "id"));
        send_reply(p, reply);
        json_release(reply);
    }
    json_release(message);
}

/* False once the peer has closed, or we are to end. */
static bool read_message(struct peer *p, char *buffer)
{
    ssize_t n = recv(p->fd, buffer, MESSAGE_MAX, MSG_DONTWAIT | MSG_TRUNC);
    if (n > 0 && n <= MESSAGE_MAX) take_message(p, sv_n(buffer, (size_t)n));
    if (n != 0 && (n > 0 || errno == EINTR)) return true;
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) return false;
    int events;
    return fd_wait(p->fd, POLLIN, 0, &events) == STATUS_OK;
}

static void peer_fiber(void *arg)
{
    struct peer *p = arg;
    char *buffer = mem_alloc(MESSAGE_MAX);
    bool is_open = true;
    while (is_open) {
        if (p->calls < PEER_CALLS_MAX) {
            is_open = read_message(p, buffer);
            continue;
        }
        fiber_event_reset(&p->call_ended);
        is_open = fiber_event_wait(&p->call_ended, 0) == STATUS_OK;
    }
    /* A restart that was begun is run to its end, although nobody hears of it: half a restart is worse. */
    fiber_scope_join(&p->scope);
    (void)close(p->fd);
    free(buffer);
    free(p->function);
    free(p);
}

enum status broker_serve(struct broker *b, struct fiber_scope *scope, int fd, struct strview function, struct error *err)
{
    struct peer *p = mem_zalloc(1, sizeof(*p));
    *p = (struct peer){.broker = b, .fd = fd, .function = copy_text(function)};
    fiber_event_init(&p->call_ended);
    fiber_scope_init(&p->scope);
    enum status s = fiber_scope_spawn(scope, peer_fiber, p, err);
    if (s == STATUS_OK) return STATUS_OK;
    (void)close(fd);
    free(p->function);
    free(p);
    return s;
}
