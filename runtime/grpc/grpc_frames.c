/* The frames of gRPC, whose borders have nothing to do with those of HTTP/2's. */
#include <string.h>

#include "grpc/grpc_impl.h"

static size_t length_of(const uint8_t prefix[GRPC_PREFIX_BYTES])
{
    return (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | prefix[4];
}

static size_t take(struct strview *io_bytes, void *to, size_t want)
{
    size_t n = io_bytes->len < want ? io_bytes->len : want;
    if (n > 0) memcpy(to, io_bytes->ptr, n);
    *io_bytes = sv_sub(*io_bytes, n, io_bytes->len);
    return n;
}

/* Before anything is allocated for it. */
static enum status check_prefix(const struct grpc_frames *f, struct error *err)
{
    size_t len = length_of(f->prefix);
    if (f->prefix[0] == 1)
        return error_set(err, STATUS_INTERNAL,
                         "a compressed message on a call whose grpc-encoding is identity");
    if (f->prefix[0] != 0)
        return error_set(err, STATUS_INTERNAL, "a message begins with flag %u, which is none", f->prefix[0]);
    if (len > f->max_bytes)
        return error_set(err, STATUS_RESOURCE_EXHAUSTED, "a message of %zu bytes; at most %zu are accepted",
                         len, f->max_bytes);
    return STATUS_OK;
}

enum status grpc_frames_next(struct grpc_frames *f, struct arena *a, struct strview *io_bytes,
                             struct strview *ret_message, struct error *err)
{
    if (f->n_prefix < GRPC_PREFIX_BYTES) {
        f->n_prefix += take(io_bytes, f->prefix + f->n_prefix, GRPC_PREFIX_BYTES - f->n_prefix);
        if (f->n_prefix < GRPC_PREFIX_BYTES) return STATUS_NOT_FOUND;
        enum status s = check_prefix(f, err);
        if (s != STATUS_OK) return s;
        f->len = length_of(f->prefix);
        f->got = 0;
        f->message = arena_alloc(a, f->len);
    }
    f->got += take(io_bytes, f->message + f->got, f->len - f->got);
    if (f->got < f->len) return STATUS_NOT_FOUND;
    *ret_message = sv_n(f->message, f->len);
    f->n_prefix = 0;
    return STATUS_OK;
}
