/* The services of every server: health and reflection. */
#include "peer.h"

#define CHECK        "/grpc.health.v1.Health/Check"
#define HEALTH_WATCH "/grpc.health.v1.Health/Watch"
#define REFLECT      "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
#define REFLECT_OLD  "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

/* A message with one string field. */
static struct strview text_field(unsigned number, const char *text)
{
    static char bytes[256];
    size_t len = strlen(text);
    cr_assert_lt(len, 128);
    bytes[0] = (char)(number << 3 | 2);
    bytes[1] = (char)len;
    memcpy(bytes + 2, text, len);
    return sv_n(bytes, len + 2);
}

static struct reply *ask_about(struct peer *p, const char *path, const char *service)
{
    struct strview body = framed(text_field(1, service));
    return ask(p, path, body.ptr, body.len);
}

static void assert_told(const struct reply *r, size_t n, char serving)
{
    struct strview message;
    cr_assert(message_of(r, n, &message), "message %zu", n);
    cr_assert(sv_eq(message, sv_n((const char[]){8, serving}, 2)));
}

static void checks(struct peer *p)
{
    assert_told(ask_about(p, CHECK, ""), 0, 1);
    assert_told(ask_about(p, CHECK, "test.Service"), 0, 1);
    assert_told(ask_about(p, CHECK, "grpc.health.v1.Health"), 0, 1);
    assert_status(ask_about(p, CHECK, "test.Servic"), STATUS_NOT_FOUND);
    assert_status(ask_about(p, CHECK, "\xff\xfe"), STATUS_NOT_FOUND);
    assert_status(ask(p, CHECK, "\0\0\0\0\1\x0a", 6), STATUS_INVALID_ARGUMENT);
    grpc_server_set_serving(p->server, false);
    assert_told(ask_about(p, CHECK, ""), 0, 2);
    assert_told(ask_about(p, CHECK, "test.Service"), 0, 2);
}
Test(grpc_services, health_is_checked)
{
    with_peer(checks);
}

static void watches(struct peer *p)
{
    const struct reply *all = ask_about(p, HEALTH_WATCH, ""),
                       *one = ask_about(p, HEALTH_WATCH, "test.Service"),
                       *none = ask_about(p, HEALTH_WATCH, "no.Service");
    assert_told(all, 0, 1);
    assert_told(one, 0, 1);
    assert_told(none, 0, 3);
    for (char i = 0; i < 4; i++) {
        grpc_server_set_serving(p->server, i % 2 != 0);
        settle(p);
        assert_told(all, (size_t)i + 1, (char)(i % 2 != 0 ? 1 : 2));
        assert_told(one, (size_t)i + 1, (char)(i % 2 != 0 ? 1 : 2));
    }
    cr_assert_eq(n_messages(none), 1);
}
Test(grpc_services, health_is_watched)
{
    with_peer(watches);
}

/* The answer before waits for a window as the next one comes. */
static void slow_watcher(struct peer *p)
{
    const struct reply *r = ask_about(p, HEALTH_WATCH, "");
    grpc_server_set_serving(p->server, false);
    settle(p);
    cr_assert_eq(n_messages(r), 0);
    nghttp2_submit_window_update(p->h2, NGHTTP2_FLAG_NONE, r->stream_id, 1000);
    for (unsigned i = 0; i < 300 && n_messages(r) < 2; i++) {
        settle(p);
        (void)!sleep_ms(10);
    }
    assert_told(r, 0, 1);
    assert_told(r, 1, 2);
}
Test(grpc_services, who_watches_slowly_is_told_the_last_state)
{
    const struct grpc_cfg cfg = {0};
    with_peer_of(&cfg, NO_WINDOW, slow_watcher);
}

/* ---- reflection ---- */

static bool tells(const struct reply *r, const char *text)
{
    struct strview message;
    cr_assert(message_of(r, 0, &message));
    assert_status(r, STATUS_OK);
    return sv_contains(message, sv(text));
}

static struct reply *reflect(struct peer *p, const char *path, unsigned field, const char *text)
{
    struct strview body = framed(text_field(field, text));
    return ask(p, path, body.ptr, body.len);
}

static void reflection(struct peer *p)
{
    enum { BY_FILE = 3, BY_SYMBOL = 4, LIST = 7 };
    const struct reply *r = reflect(p, REFLECT, LIST, "*");
    cr_assert(tells(r, "grpc.health.v1.Health") && tells(r, "grpc.reflection.v1.ServerReflection"));
    cr_assert(tells(reflect(p, REFLECT_OLD, LIST, ""), "grpc.health.v1.Health"));
    cr_assert(tells(reflect(p, REFLECT, BY_SYMBOL, "grpc.health.v1.Health"), "HealthCheckRequest"));
    cr_assert(tells(reflect(p, REFLECT, BY_SYMBOL, "grpc.health.v1.Health.Check"), "HealthCheckRequest"));
    cr_assert(
        tells(reflect(p, REFLECT, BY_SYMBOL, "grpc.health.v1.HealthCheckRequest"), "HealthCheckRequest"));
    cr_assert(tells(reflect(p, REFLECT, BY_SYMBOL, "grpc.health.v1.Healthy"), "not known here"));
    cr_assert(tells(reflect(p, REFLECT, BY_SYMBOL, ""), "not known here"));
    cr_assert(tells(reflect(p, REFLECT, BY_FILE, "grpc/health.proto"), "HealthCheckRequest"));
    cr_assert(tells(reflect(p, REFLECT, BY_FILE, "../../etc/passwd"), "not known here"));
    cr_assert(tells(reflect(p, REFLECT, 6, "x"), "no extensions"));
    assert_status(reflect(p, REFLECT, 5, "x"), STATUS_INVALID_ARGUMENT); /* no string, a message */
}
Test(grpc_services, reflection_tells_what_is_served)
{
    with_peer(reflection);
}
