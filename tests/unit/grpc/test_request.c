/* What a request may look like, and what is answered to one that may not. */
#include "peer.h"

static struct reply *echo(struct peer *p, const char *const *headers)
{
    struct strview body = framed(SV("hello"));
    return ask_with(p, ECHO, body.ptr, body.len, headers);
}

static void assert_echoed(const struct reply *r, struct strview message)
{
    struct strview came;
    assert_status(r, STATUS_OK);
    cr_assert_str_eq(r->http_status, "200");
    cr_assert_str_eq(r->content_type, "application/grpc");
    cr_assert_eq(n_messages(r), 1);
    cr_assert(message_of(r, 0, &came) && sv_eq(came, message), "%.*s", SV_ARG(came));
    cr_assert(r->is_closed && !r->was_reset);
    cr_assert_eq(r->n_heads, 2, "head and trailers");
}

static void plain(struct peer *p)
{
    assert_echoed(echo(p, NULL), SV("hello"));
    cr_assert_eq(p->n_settings, 1);
    cr_assert_eq(p->session.n_calls, 0);
}
Test(grpc_request, is_answered)
{
    with_peer(plain);
}

static void in_single_bytes(struct peer *p)
{
    p->piece = 1;
    for (unsigned i = 0; i < 3; i++)
        assert_echoed(echo(p, NULL), SV("hello"));
}
Test(grpc_request, may_come_byte_by_byte)
{
    with_peer(in_single_bytes);
}

/* ---- the head ---- */

static void assert_http(struct peer *p, const char *status, const char *const *headers)
{
    const struct reply *r = echo(p, headers);
    cr_assert_str_eq(r->http_status, status);
    cr_assert_eq(r->grpc_status, -1);
    cr_assert_eq(r->n_heads, 1);
    cr_assert(r->is_closed);
}

static void no_grpc(struct peer *p)
{
    assert_http(p, "415", (const char *const[]){"content-type", "application/json", NULL});
    assert_http(p, "415", (const char *const[]){"content-type", "", NULL});
    assert_http(p, "415", (const char *const[]){"content-type", "application/grpc-web", NULL});
    assert_http(p, "405", (const char *const[]){":method", "GET", NULL});
    assert_http(p, "405", (const char *const[]){":method", "PUT", NULL});
    assert_http(p, "405", (const char *const[]){":method", "post", NULL});
}
Test(grpc_request, that_is_no_grpc_gets_an_http_status)
{
    with_peer(no_grpc);
}

static void lenient(struct peer *p)
{
    assert_echoed(echo(p, (const char *const[]){"te", "", NULL}), SV("hello"));
    assert_echoed(echo(p, (const char *const[]){"content-type", "application/grpc+proto", NULL}),
                  SV("hello"));
    assert_echoed(echo(p, (const char *const[]){"content-type", "application/grpc;charset=utf-8", NULL}),
                  SV("hello"));
    assert_echoed(echo(p, (const char *const[]){"grpc-encoding", "identity", NULL}), SV("hello"));
    assert_echoed(echo(p, (const char *const[]){"grpc-accept-encoding", "gzip", "x-trace-bin", "AAE",
                                                "grpc-previous-rpc-attempts", "1", NULL}),
                  SV("hello"));
}
Test(grpc_request, with_what_clients_may_add_is_answered)
{
    with_peer(lenient);
}

static void assert_trailers_only(const struct reply *r, enum status status)
{
    assert_status(r, status);
    cr_assert_str_eq(r->http_status, "200");
    cr_assert_str_eq(r->content_type, "application/grpc");
    cr_assert_eq(r->n_heads, 1);
    cr_assert_eq(r->n_data, 0, "an empty DATA frame would read as an end without trailers");
    cr_assert(r->is_closed);
}

static void refused_heads(struct peer *p)
{
    const struct reply *r = echo(p, (const char *const[]){"grpc-encoding", "gzip", NULL});
    assert_trailers_only(r, STATUS_UNIMPLEMENTED);
    cr_assert_str_eq(r->accept_encoding, "identity");
    struct strview body = framed(SV("x"));
    assert_trailers_only(ask(p, "/test.Service/Unknown", body.ptr, body.len), STATUS_UNIMPLEMENTED);
    assert_trailers_only(ask(p, "/other.Service/Echo", body.ptr, body.len), STATUS_UNIMPLEMENTED);
    assert_trailers_only(ask(p, "/", body.ptr, body.len), STATUS_UNIMPLEMENTED);
    assert_trailers_only(ask(p, ECHO "/", body.ptr, body.len), STATUS_UNIMPLEMENTED);
    assert_trailers_only(echo(p, (const char *const[]){"grpc-timeout", "1s", NULL}), STATUS_INTERNAL);
    assert_trailers_only(echo(p, (const char *const[]){"grpc-timeout", "123456789S", NULL}), STATUS_INTERNAL);
}
Test(grpc_request, that_cannot_be_is_answered_by_trailers_only)
{
    with_peer(refused_heads);
}

static void much_metadata(struct peer *p)
{
    const char *many[2 * 100 + 1] = {0}, *big[] = {"x-a", NULL, NULL};
    static char long_value[20 * 1024];
    for (size_t i = 0; i < 200; i++)
        many[i] = i % 2 == 0 ? "x-many" : "v";
    assert_trailers_only(echo(p, many), STATUS_RESOURCE_EXHAUSTED);
    memset(long_value, 'v', sizeof(long_value) - 1);
    big[1] = long_value;
    assert_trailers_only(echo(p, big), STATUS_RESOURCE_EXHAUSTED); /* two frames: HEADERS and CONTINUATION */
    long_value[12 * 1024] = '\0';
    assert_echoed(echo(p, big), SV("hello"));
    p->piece = 100;
    assert_echoed(echo(p, big), SV("hello"));
}
Test(grpc_request, with_too_much_metadata_is_refused)
{
    with_peer(much_metadata);
}

/* By hand: nghttp2's client would not split so small a head. */
static void continued(struct peer *p)
{
    static const char head[] = "\x83\x86\x01\x01h\x04\x12" ECHO "\x0f\x10\x10"
                               "application/grpc";
    struct strview bytes = sv_n(head, sizeof(head) - 1), body = framed(SV("hello"));
    struct reply *r = begin(p, TALK, NULL, 0); /* takes stream 1 */
    assert_status(r, STATUS_OK);
    put_frame(p, NGHTTP2_HEADERS, NGHTTP2_FLAG_NONE, 3, sv_sub(bytes, 0, 7));
    put_frame(p, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_NONE, 3, sv_sub(bytes, 7, 8));
    put_frame(p, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_NONE, 3, (struct strview){0});
    put_frame(p, NGHTTP2_CONTINUATION, NGHTTP2_FLAG_END_HEADERS, 3, sv_sub(bytes, 8, bytes.len));
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 3, body);
    struct buf out;
    buf_init(&out, 1 << 20);
    while (p->by_hand.len > 0) {
        p->is_broken = session_receive(&p->session, p->by_hand.ptr, p->by_hand.len) != STATUS_OK;
        buf_reset(&p->by_hand);
    }
    (void)!fiber_yield();
    (void)!fiber_yield();
    cr_assert_eq(session_take_output(&p->session, &out, 1 << 19), STATUS_OK);
    cr_assert_not(p->is_broken);
    cr_assert(sv_contains(buf_view(&out), body), "the answer is not there");
    buf_release(&out);
}
Test(grpc_request, may_have_its_head_in_continuations)
{
    with_peer(continued);
}

/* ---- the message ---- */

static struct strview frame(const char *bytes, size_t n)
{
    return sv_n(bytes, n);
}

static void assert_body(struct peer *p, const char *path, struct strview body, enum status status)
{
    assert_status(ask(p, path, body.ptr, body.len), status);
}

static void bodies(struct peer *p)
{
    assert_echoed(ask(p, ECHO, "\0\0\0\0\0", 5), (struct strview){0}); /* an all-default message */
    assert_body(p, ECHO, frame("\1\0\0\0\1x", 6), STATUS_INTERNAL);    /* compressed, but no encoding told */
    assert_body(p, ECHO, frame("\7\0\0\0\1x", 6), STATUS_INTERNAL);
    assert_body(p, ECHO, frame("", 0), STATUS_INTERNAL);               /* none */
    assert_status(ask(p, ECHO, NULL, 0), STATUS_INTERNAL);             /* none, the head ends the stream */
    assert_body(p, ECHO, frame("\0\0\0", 3), STATUS_INTERNAL);         /* cut in the prefix */
    assert_body(p, ECHO, frame("\0\0\0\0\5hell", 9), STATUS_INTERNAL); /* cut in the message */
    assert_body(p, ECHO, frame("\0\0\0\0\1x\0\0\0\0\1y", 12), STATUS_INTERNAL); /* two */
    assert_body(p, ECHO, frame("\0\0\0\0\1x\0", 7), STATUS_INTERNAL);           /* one and a piece */
    assert_body(p, WATCH, frame("\0\0\0\0\1x\0\0\0\0\1y", 12), STATUS_INTERNAL);
    assert_body(p, ECHO, frame("\0\0\1\0\1", 5), STATUS_RESOURCE_EXHAUSTED); /* 64 KiB and one are told */
    assert_body(p, ECHO, frame("\0\xff\xff\xff\xff", 5), STATUS_RESOURCE_EXHAUSTED);
    cr_assert_eq(p->session.n_calls, 0);
    cr_assert_eq(p->session.held_bytes, 0);
}
Test(grpc_request, has_exactly_one_message_where_one_is_asked_for)
{
    with_peer(bodies);
}

static void largest(struct peer *p)
{
    static char message[GRPC_MESSAGE_MAX_BYTES];
    memset(message, 'm', sizeof(message));
    struct strview body = framed(sv_n(message, sizeof(message)));
    assert_echoed(ask(p, ECHO, body.ptr, body.len), sv_n(message, sizeof(message)));
    p->piece = 1000;
    assert_echoed(ask(p, ECHO, body.ptr, body.len), sv_n(message, sizeof(message)));
}
Test(grpc_request, of_the_largest_size_is_answered)
{
    with_peer(largest);
}

/* A map of 3 MiB: refused by its length, and its client is told not to send the rest. */
static void three_mib(struct peer *p)
{
    static char map[3 * 1024 * 1024];
    struct strview body = framed(sv_n(map, sizeof(map)));
    const struct reply *r = ask(p, ECHO, body.ptr, body.len);
    assert_trailers_only(r, STATUS_RESOURCE_EXHAUSTED);
    cr_assert(r->was_reset);
    cr_assert_eq(r->code, NGHTTP2_NO_ERROR);
    assert_echoed(echo(p, NULL), SV("hello")); /* the connection's window is as it was */
}
Test(grpc_request, of_three_mib_is_refused_at_once)
{
    with_peer(three_mib);
}

static void in_five_frames(struct peer *p)
{
    struct reply *r = begin(p, ECHO, "", 0);
    struct strview body = framed(SV("hello"));
    for (size_t i = 0; i < 5; i++)
        put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_NONE, r->stream_id, sv_sub(body, i, i + 1));
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_NONE, r->stream_id, (struct strview){0});
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_NONE, r->stream_id, sv_sub(body, 5, body.len));
    settle(p);
    cr_assert_eq(n_messages(r), 0, "it is not over yet");
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, r->stream_id, (struct strview){0});
    settle(p);
    cr_assert_eq(n_messages(r), 1);
    assert_status(r, STATUS_OK);
}
Test(grpc_request, may_have_its_prefix_in_five_frames)
{
    with_peer(in_five_frames);
}

static void padded(struct peer *p)
{
    struct reply *r = begin(p, ECHO, "", 0);
    static const char data[] =
        "\x20\0\0\0\0\5hello\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    put_frame(p, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_PADDED, r->stream_id,
              sv_n(data, 11 + 32));
    settle(p);
    cr_assert_eq(n_messages(r), 1);
    assert_status(r, STATUS_OK);
}
Test(grpc_request, may_be_padded)
{
    with_peer(padded);
}
