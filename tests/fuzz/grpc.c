/* Raw bytes, or a script of HTTP/2 frames, into a gRPC session without sockets, on a server with methods of
 * all kinds. What goes out is whole frames; afterwards no call, no handler and none of their memory is left.
 *
 * Input: one byte, its bits: 1 the rest is a script (see play_script()), else bytes behind the connection's
 * preface; 2 without that preface; 4 the session gets its bytes in pieces of seven.
 *
 * Reads: grpc/grpc_session.c grpc/grpc_answer.c grpc/grpc_call.c grpc/grpc_frames.c grpc/grpc_text.c
 * grpc/grpc_health.c grpc/grpc_reflection.c grpc/message.c */
#include "grpc/grpc_impl.h"

#include <string.h>

#include "in_loop.h"
#include "replay.h"

#define PREFACE     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
#define OUT_MAX     ((size_t)1024 * 1024)
#define FRAME_BYTES 9
#define STREAMS     8 /* a script's are 1, 3, … 15: it comes back to them */

struct scene {
    struct grpc_server *server;
    struct grpc_session session;
    struct grpc_call *watched; /* detached, alive */
    struct fiber_event go;
    int64_t now_ns;
    size_t piece;
    bool is_broken;
};

struct
try {
    struct strview bytes;
    unsigned bits;
};

/* ---- methods ---- */

static enum status echo(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview message;
    enum status s = grpc_receive(call, &message, err);
    return s == STATUS_OK ? grpc_send(call, message, err) : s;
}

/* Until the script says so. */
static enum status wait(void *arg, struct grpc_call *call, struct error *err)
{
    struct scene *scene = arg;
    if (fiber_event_wait(&scene->go, 0) != STATUS_OK) return STATUS_CANCELLED;
    return grpc_send(call, SV("gone on"), err);
}

static void on_gone(void *arg)
{
    struct scene *scene = arg;
    assert(scene->watched != NULL);
    scene->watched = NULL;
}

static enum status watch(void *arg, struct grpc_call *call, struct error *err)
{
    struct scene *scene = arg;
    if (scene->watched != NULL) return error_set(err, STATUS_RESOURCE_EXHAUSTED, "one is all");
    grpc_call_detach(call, on_gone, scene);
    scene->watched = call;
    return STATUS_OK;
}

static enum status talk(void *arg, struct grpc_call *call, struct error *err)
{
    (void)arg;
    struct strview message;
    enum status s;
    while ((s = grpc_receive(call, &message, err)) == STATUS_OK)
        if ((s = grpc_send(call, message, err)) != STATUS_OK) break;
    return s == STATUS_NOT_FOUND ? STATUS_OK : s;
}

static const struct grpc_method methods[] = {{"/a.B/Echo", GRPC_UNARY, echo},
                                             {"/a.B/Wait", GRPC_UNARY, wait},
                                             {"/a.B/Watch", GRPC_SERVER_STREAM, watch},
                                             {"/a.B/Talk", GRPC_BIDI_STREAM, talk}};
/* What a script calls. */
static const char *const paths[] = {"/a.B/Echo",
                                    "/a.B/Wait",
                                    "/a.B/Watch",
                                    "/a.B/Talk",
                                    "/grpc.health.v1.Health/Check",
                                    "/grpc.health.v1.Health/Watch",
                                    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                    "/a.B/None"};

static struct scene *scene_get(void)
{
    static struct scene scene;
    static struct grpc_service service = {.name = "a.B", .methods = methods, .n_methods = ARRAY_LEN(methods)};
    static const struct grpc_service *const services[] = {&service};
    const struct grpc_cfg cfg = {.host = "127.0.0.1",
                                 .listen_fd = -1,
                                 .services = services,
                                 .n_services = 1,
                                 .max_message_bytes = 4096};
    struct error err;
    if (scene.server != NULL) return &scene;
    service.arg = &scene;
    enum status s = grpc_server_start(the_loop(), &cfg, &scene.server, &err);
    assert(s == STATUS_OK);
    return &scene;
}

/* ---- bytes ---- */

static void wants_output(void *arg)
{
    (void)arg;
}

static void check_frames(struct strview out)
{
    while (out.len > 0) {
        assert(out.len >= FRAME_BYTES);
        const uint8_t *f = (const uint8_t *)out.ptr;
        size_t len = (size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2];
        assert(len <= 16384 && out.len >= FRAME_BYTES + len && f[3] <= NGHTTP2_CONTINUATION);
        out = sv_sub(out, FRAME_BYTES + len, out.len);
    }
}

static void take_output(struct scene *scene)
{
    struct buf out;
    buf_init(&out, OUT_MAX);
    if (session_take_output(&scene->session, &out, OUT_MAX / 2) != STATUS_OK) scene->is_broken = true;
    check_frames(buf_view(&out));
    buf_release(&out);
}

static void put(struct scene *scene, struct strview bytes)
{
    size_t piece = scene->piece > 0 ? scene->piece : bytes.len;
    while (bytes.len > 0 && !scene->is_broken) {
        size_t n = bytes.len < piece ? bytes.len : piece;
        scene->is_broken = session_receive(&scene->session, bytes.ptr, n) != STATUS_OK;
        bytes = sv_sub(bytes, n, bytes.len);
    }
}

static void let_run(struct scene *scene)
{
    (void)!fiber_yield();
    (void)!fiber_yield();
    take_output(scene);
}

/* ---- a script ---- */

static uint8_t take_byte(struct strview *io)
{
    if (io->len == 0) return 0;
    uint8_t b = (uint8_t)io->ptr[0];
    *io = sv_sub(*io, 1, io->len);
    return b;
}

static struct strview take_bytes(struct strview *io, size_t n)
{
    struct strview bytes = sv_sub(*io, 0, n < io->len ? n : io->len);
    *io = sv_sub(*io, bytes.len, io->len);
    return bytes;
}

static void put_frame(struct scene *scene, uint8_t type, uint8_t flags, int32_t stream,
                      struct strview payload)
{
    char bytes[FRAME_BYTES + 2048] = {(char)(payload.len >> 16),
                                      (char)(payload.len >> 8),
                                      (char)payload.len,
                                      (char)type,
                                      (char)flags,
                                      0,
                                      0,
                                      0,
                                      (char)stream};
    assert(payload.len <= 2048);
    memcpy(bytes + FRAME_BYTES, payload.ptr, payload.len);
    put(scene, sv_n(bytes, FRAME_BYTES + payload.len));
}

/* HPACK: literal, never indexed. */
static void add_header(struct buf *head, struct strview name, struct strview value)
{
    buf_append_char(head, 0x10);
    buf_append_char(head, (char)name.len);
    buf_append(head, name);
    buf_append_char(head, (char)value.len);
    buf_append(head, value);
}

/* A byte: the method, and in its upper bits what else the head has. */
static void put_head(struct scene *scene, int32_t stream, uint8_t flags, struct strview *io)
{
    uint8_t what = take_byte(io);
    struct buf head;
    buf_init(&head, 2048);
    add_header(&head, SV(":method"), (what & 8) != 0 ? take_bytes(io, 4) : SV("POST"));
    add_header(&head, SV(":scheme"), SV("http"));
    add_header(&head, SV(":path"), sv(paths[what % ARRAY_LEN(paths)]));
    add_header(&head, SV("content-type"), (what & 16) != 0 ? take_bytes(io, 24) : SV("application/grpc"));
    if ((what & 32) != 0) add_header(&head, SV("grpc-timeout"), take_bytes(io, 9));
    if ((what & 64) != 0) add_header(&head, SV("grpc-encoding"), take_bytes(io, 8));
    if ((what & 128) != 0) add_header(&head, take_bytes(io, 16), take_bytes(io, 64));
    put_frame(scene, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | (flags & NGHTTP2_FLAG_END_STREAM), stream,
              buf_view(&head));
    buf_release(&head);
}

/* With a prefix that tells its length, or any bytes. */
static void put_data(struct scene *scene, int32_t stream, uint8_t flags, struct strview *io)
{
    struct strview bytes = take_bytes(io, take_byte(io));
    char message[GRPC_PREFIX_BYTES + 255] = {0, 0, 0, 0, (char)bytes.len};
    if (bytes.len > 0) memcpy(message + GRPC_PREFIX_BYTES, bytes.ptr, bytes.len);
    if ((flags & 2) == 0) bytes = sv_n(message, GRPC_PREFIX_BYTES + bytes.len);
    put_frame(scene, NGHTTP2_DATA, flags & (NGHTTP2_FLAG_END_STREAM | NGHTTP2_FLAG_PADDED), stream, bytes);
}

static void use_watched(struct scene *scene, uint8_t how)
{
    struct grpc_call *call = scene->watched;
    if (call == NULL) return;
    if ((how & 1) == 0) {
        (void)!grpc_try_send(call, SV("news"));
        return;
    }
    scene->watched = NULL;
    grpc_call_finish(call, (enum status)(how % 17), (how & 2) != 0 ? "finished\n%" : NULL);
}

static void pass_time(struct scene *scene, uint8_t seconds)
{
    scene->now_ns += seconds * NS_PER_S;
    if (!session_sweep(&scene->session, scene->now_ns)) scene->is_broken = true;
}

/* Byte by byte: what to do and to which stream, then what that takes. */
static void play_script(struct scene *scene, struct strview bytes)
{
    while (bytes.len > 0 && !scene->is_broken) {
        uint8_t what = take_byte(&bytes), flags = take_byte(&bytes);
        int32_t stream = 1 + 2 * ((what >> 4) % STREAMS);
        switch (what % 12) {
        case 0:
        case 1:
            put_head(scene, stream, flags, &bytes);
            break;
        case 2:
        case 3:
            put_data(scene, stream, flags, &bytes);
            break;
        case 4:
            put_frame(scene, NGHTTP2_RST_STREAM, 0, stream, sv_n((const char[]){0, 0, 0, (char)flags}, 4));
            break;
        case 5:
            put_frame(scene, NGHTTP2_WINDOW_UPDATE, 0, (flags & 1) != 0 ? stream : 0,
                      sv_n((const char[]){0, (char)(flags & 127), 0, (char)(flags | 1)}, 4));
            break;
        case 6:
            put_frame(scene, take_byte(&bytes), flags, stream, take_bytes(&bytes, take_byte(&bytes)));
            break;
        case 7:
            use_watched(scene, flags);
            break;
        case 8:
            pass_time(scene, flags);
            break;
        case 9:
            fiber_event_set(&scene->go);
            break;
        case 10: /* the windows of what comes back: small ones */
            put_frame(scene, NGHTTP2_SETTINGS, 0, 0, sv_n((const char[]){0, 4, 0, 0, 0, (char)flags}, 6));
            break;
        default:
            if ((flags & 15) == 1) session_drain(&scene->session);
            if ((flags & 15) == 2) session_drain_now(&scene->session);
            let_run(scene);
            break;
        }
    }
}

static void play(void *arg)
{
    struct try *t = arg;
    struct scene *scene = scene_get();
    scene->is_broken = false;
    scene->piece = (t->bits & 4) != 0 ? 7 : 0;
    scene->now_ns = clock_monotonic_ns();
    fiber_event_init(&scene->go);
    enum status s = session_init(&scene->session, scene->server, wants_output, scene);
    assert(s == STATUS_OK);
    if ((t->bits & 3) != 2) put(scene, sv_n(PREFACE, sizeof(PREFACE) - 1));
    if ((t->bits & 1) != 0)
        play_script(scene, t->bytes);
    else
        put(scene, t->bytes);
    let_run(scene);
    session_release(&scene->session);
    fiber_event_set(&scene->go);
    for (unsigned i = 0; i < 8; i++)
        (void)!fiber_yield();
    assert(scene->watched == NULL && scene->server->n_running == 0 && scene->server->held_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct try t = {.bits = n > 0 ? bytes[0] : 0};
    if (n == 0) return 0;
    t.bytes = sv_n((const char *)bytes + 1, n - 1);
    in_loop(play, &t);
    return 0;
}
