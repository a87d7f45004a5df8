#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/forward.h"
#include "function/program_impl.h"
#include "log/log.h"
#include "loop/loop.h"

#define LOOK_AGAIN_NS (20 * NS_PER_MS)
#define CONNECT_NS    NS_PER_S
#define NO_LIMIT_NS   (24 * 3600 * NS_PER_S) /* exec_timeout=0 */

/* The one process, and the way to it. */
static struct {
    const struct program *program;
    struct strview prefix; /* of paths */
    uint16_t port;         /* 0: picked when it is started */
    bool is_picked;
    struct upstream *upstream;
    struct fiber_event listening; /* since something listens at its port */
} child;

/* ---- upstream_url ---- */

static enum status parse_port(struct strview text, struct error *err)
{
    uint64_t port = 80;
    if (text.len > 0 && (sv_parse_u64(sv_sub(text, 1, text.len), &port) != STATUS_OK || port > UINT16_MAX))
        return error_set(err, STATUS_INVALID_ARGUMENT, "upstream_url: '%.*s' is no port",
                         SV_ARG(sv_sub(text, 0, 40)));
    child.port = (uint16_t)port;
    return STATUS_OK;
}

/* A program of ours is on this machine: anything else would make a relay of the function. */
static enum status parse_url(struct strview url, struct error *err)
{
    struct strview rest = sv_sub(url, sizeof("http://") - 1, url.len);
    size_t end = sv_find(rest, '/');
    struct strview host = sv_sub(rest, 0, end), prefix = sv_sub(rest, end, rest.len);
    size_t colon = sv_find(host, ':');
    struct strview port = sv_sub(host, colon, host.len);
    host = sv_sub(host, 0, colon);
    if (!sv_starts_with(url, SV("http://")) ||
        (!sv_eq(host, SV("127.0.0.1")) && !sv_eq_nocase(host, SV("localhost"))))
        return error_set(err, STATUS_INVALID_ARGUMENT, "upstream_url: '%.*s' is not http://127.0.0.1:PORT",
                         SV_ARG(sv_sub(url, 0, 100)));
    child.prefix = sv_ends_with(prefix, SV("/")) ? sv_sub(prefix, 0, prefix.len - 1) : prefix;
    return parse_port(port, err);
}

enum status program_http_init(const struct program *p, struct error *err)
{
    const char *url = p->http_upstream_url != NULL ? p->http_upstream_url : p->upstream_url;
    child.program = p;
    fiber_event_init(&child.listening);
    enum status s = url != NULL ? parse_url(sv(url), err) : STATUS_OK;
    child.is_picked = child.port == 0;
    return s;
}

/* ---- its port ---- */

static struct sockaddr_in address_of(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Free at this moment: whoever takes it before the program does makes that end, and the next start picks
 * another. */
static enum status pick_port(struct error *err)
{
    struct sockaddr_in address = address_of(0);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_fine = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                   getsockname(fd, (struct sockaddr *)&address, &len) == 0;
    int failed = errno;
    if (fd >= 0) (void)close(fd);
    if (!is_fine) return error_set(err, status_from_errno(failed), "pick a port: %s", strerror(failed));
    child.port = ntohs(address.sin_port);
    return STATUS_OK;
}

static bool is_listening(uint16_t port)
{
    struct sockaddr_in address = address_of(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), failed = 0, events;
    if (fd < 0) return false;
    socklen_t len = sizeof(failed);
    bool is_there = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (!is_there && errno == EINPROGRESS)
        is_there = fd_wait(fd, POLLOUT, clock_monotonic_ns() + CONNECT_NS, &events) == STATUS_OK &&
                   getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &len) == 0 && failed == 0;
    (void)close(fd);
    return is_there;
}

/* Another replica's program there would be taken for ours. */
static enum status take_port(struct error *err)
{
    if (child.is_picked) return pick_port(err);
    if (!is_listening(child.port)) return STATUS_OK;
    return error_set(
        err, STATUS_ALREADY_EXISTS,
        "something listens at port %u of upstream_url already; without upstream_url, and a program that "
        "listens at the port in PORT, there can be several",
        child.port);
}

/* ---- its life ---- */

static enum status start(struct arena *a, struct process **ret_process, struct error *err)
{
    const struct program *p = child.program;
    const char *const port[] = {arena_printf(a, "PORT=%u", child.port).ptr,
                                arena_printf(a, "port=%u", child.port).ptr};
    struct process_spec spec = {.argv = p->argv,
                                .env = program_env_plain(a, port, ARRAY_LEN(port)),
                                .cwd = p->folder,
                                .stdin_fd = -1,
                                .stdout_fd = STDERR_FILENO,
                                .stderr_fd = STDERR_FILENO,
                                .new_session = true};
    return process_start(loop_current(), &spec, ret_process, err);
}

/* Until it ends, or we are to. */
static enum status look_after(struct process *process, int *ret_exit)
{
    enum status s = STATUS_DEADLINE_EXCEEDED;
    while (s == STATUS_DEADLINE_EXCEEDED && !is_listening(child.port))
        s = process_wait(process, clock_monotonic_ns() + LOOK_AGAIN_NS, ret_exit);
    if (s != STATUS_DEADLINE_EXCEEDED) return s;
    log_info("watchdog", "program listens", LOG_STR("program", child.program->name),
             LOG_INT("port", child.port));
    fiber_event_set(&child.listening);
    return process_wait(process, 0, ret_exit);
}

void program_http_attend(void)
{
    struct arena a = {0};
    struct process *process = NULL;
    struct error err;
    int exit_code;
    enum status s = take_port(&err);
    if (s == STATUS_OK)
        s = upstream_new(loop_current(), NULL, "127.0.0.1", child.port, 0, &child.upstream, &err);
    if (s == STATUS_OK) s = start(&a, &process, &err);
    if (s != STATUS_OK)
        log_error("watchdog", "program not started", LOG_STR("program", child.program->name),
                  LOG_STR("error", err.message));
    else if (look_after(process, &exit_code) == STATUS_OK)
        log_error("watchdog", "program ended by itself", LOG_STR("program", child.program->name),
                  LOG_INT("exit", exit_code));
    if (process != NULL) process_end_session(process);
    process_free(process);
    if (fiber_is_cancelled())
        upstream_free(child.upstream); /* else requests may be under way, and all ends now */
    arena_release(&a);
}

bool program_http_is_ready(void)
{
    return child.listening.is_set;
}

/* ---- a request ---- */

static enum status answer(const struct http_reply *reply, struct result *ret)
{
    struct http_header *headers = arena_array(ret->arena, reply->n_headers, sizeof(*headers));
    for (size_t i = 0; i < reply->n_headers; i++) {
        struct strview name = reply->headers[i].name;
        bool is_set_anyway = sv_eq(name, SV("content-type")) || sv_eq(name, SV("content-length"));
        if (!is_set_anyway && !forward_is_ours(name)) headers[ret->n_headers++] = reply->headers[i];
    }
    ret->headers = headers;
    return result_reply(ret, reply->status,
                        http_header_get(reply->headers, reply->n_headers, SV("content-type")), reply->body);
}

static enum status judge(const struct program *p, const struct http_reply *reply, struct result *ret,
                         struct error *err)
{
    if (reply->status == 200) return program_result(p, reply->body, ret, err);
    enum status s = status_from_http(reply->status);
    return error_set(err, s != STATUS_OK ? s : STATUS_UNKNOWN, "%s answered %d: %.*s", p->name, reply->status,
                     SV_ARG(sv_sub(sv_trim(reply->body), 0, 300)));
}

/* It may have begun: for an act that is on_unknown's to decide. */
static enum status not_answered(const struct program *p, enum status s, const struct error *why,
                                struct error *err)
{
    if (p->acts && !why->can_retry) s = STATUS_UNKNOWN;
    return error_set(err, s, "%s: %s", p->name, why->message);
}

/* As it comes, part by part: a stream of events has no end to wait for. */
static enum status pass_on(const struct forward_spec *spec, const struct invocation *inv, struct result *ret,
                           struct error *err)
{
    int http_status = 0;
    struct error why = {0};
    enum status s = http_forward_stream(child.upstream, spec, inv->req, ret->parts, &http_status, &why);
    if (s != STATUS_OK) return not_answered(child.program, s, &why, err);
    ret->is_answered = true;
    return STATUS_OK;
}

enum status program_http_forward(const struct program *p, struct invocation *inv, struct strview input,
                                 struct result *ret, struct error *err)
{
    const struct http_req *req = inv->req;
    struct http_reply reply;
    struct error why = {0};
    int64_t deadline_ns = fiber_deadline() != 0 ? fiber_deadline() : clock_monotonic_ns() + NO_LIMIT_NS;
    enum status s = fiber_event_wait(&child.listening, deadline_ns);
    if (s != STATUS_OK) return error_set(err, s, "%s does not listen at port %u yet", p->name, child.port);
    struct forward_spec spec = {
        .method = req->method,
        .target = arena_printf(inv->arena, "%.*s%.*s", SV_ARG(child.prefix), SV_ARG(req->target)),
        .authority = req->authority,
        .headers = req->headers,
        .n_headers = req->n_headers,
        .body = input,
        .deadline_ns = deadline_ns,
        .max_body_bytes = (size_t)p->max_output_bytes,
        .is_foreign = true};
    if (ret->parts != NULL) return pass_on(&spec, inv, ret, err);
    s = http_forward(child.upstream, &spec, inv->arena, &reply, &why);
    if (s != STATUS_OK) return not_answered(p, s, &why, err);
    return p->acts ? judge(p, &reply, ret, err) : answer(&reply, ret);
}
