/* Chunked bodies, as RFC 9112 §7.1 has them and not a byte otherwise. The reader in h2o 2.2.5 ends a line at
 * any LF, throws away whatever stands between a size and that LF ("0x0", "0 0", a bare CR, NUL), and takes an
 * LF alone behind a chunk: what another parser in front of us reads otherwise is how a request is smuggled.
 * h2o calls its reader by name, from another shared object's point of view like anybody, so that the one
 * defined here, in the executable, is the one that is called; server_start() looks whether it is.
 *
 *   size [blanks] [;extension] CR LF  data CR LF  ...  0 CR LF  [trailer CR LF]...  CR LF */
#include "server/server_impl.h"

#include <dlfcn.h>

#define SIZE_DIGITS_MAX 15 /* no overflow; longer ones are refused, zeros or not */
#define INCOMPLETE      (-2)
#define BROKEN          (-1)

enum {
    IN_SIZE,
    IN_EXTENSION,
    IN_DATA,
    AFTER_DATA, /* CR */
    AT_TRAILER,
    IN_TRAILER,
    AFTER_SIZE, /* blanks, until an extension or CR */
    SIZE_LF,
    DATA_LF,
    TRAILER_LF,
    LAST_LF,
    AT_END,
    NOWHERE,
};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_text(char c)
{
    return c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f);
}

static char after_size(char c)
{
    if (c == '\r') return SIZE_LF;
    if (c == ';') return IN_EXTENSION;
    return c == ' ' || c == '\t' ? AFTER_SIZE : NOWHERE;
}

static char in_size(struct phr_chunked_decoder *d, char c)
{
    int value = hex_value(c);
    if (value < 0) return d->_hex_count > 0 ? after_size(c) : NOWHERE;
    if (d->_hex_count == SIZE_DIGITS_MAX) return NOWHERE;
    if (d->_hex_count++ == 0) d->bytes_left_in_chunk = 0;
    d->bytes_left_in_chunk = d->bytes_left_in_chunk * 16 + (size_t)value;
    return IN_SIZE;
}

static char after_head(struct phr_chunked_decoder *d)
{
    d->_hex_count = 0;
    if (d->bytes_left_in_chunk > 0) return IN_DATA;
    return d->consume_trailer ? AT_TRAILER : AT_END;
}

/* Where one byte that is no data leads. */
static char next_state(struct phr_chunked_decoder *d, char c)
{
    switch (d->_state) {
    case IN_SIZE:
        return in_size(d, c);
    case AFTER_SIZE:
        return after_size(c);
    case IN_EXTENSION:
        if (c == '\r') return SIZE_LF;
        return is_text(c) ? IN_EXTENSION : NOWHERE;
    case SIZE_LF:
        return c == '\n' ? after_head(d) : NOWHERE;
    case AFTER_DATA:
        return c == '\r' ? DATA_LF : NOWHERE;
    case DATA_LF:
        return c == '\n' ? IN_SIZE : NOWHERE;
    case AT_TRAILER:
    case IN_TRAILER:
        if (c == '\r') return d->_state == AT_TRAILER ? LAST_LF : TRAILER_LF;
        return is_text(c) ? IN_TRAILER : NOWHERE;
    case TRAILER_LF:
        return c == '\n' ? AT_TRAILER : NOWHERE;
    case LAST_LF:
        return c == '\n' ? AT_END : NOWHERE;
    default:
        return NOWHERE;
    }
}

static size_t take_data(struct phr_chunked_decoder *d, char *to, const char *from, size_t n)
{
    if (n > d->bytes_left_in_chunk) n = d->bytes_left_in_chunk;
    if (to != from) memmove(to, from, n);
    d->bytes_left_in_chunk -= n;
    if (d->bytes_left_in_chunk == 0) d->_state = AFTER_DATA;
    return n;
}

ssize_t phr_decode_chunked(struct phr_chunked_decoder *d, char *buf, size_t *io_bytes)
{
    size_t at = 0, out = 0, n = *io_bytes;
    while (at < n && d->_state != AT_END) {
        if (d->_state == IN_DATA) {
            size_t taken = take_data(d, buf + out, buf + at, n - at);
            at += taken;
            out += taken;
            continue;
        }
        d->_state = next_state(d, buf[at]);
        if (d->_state == NOWHERE) break;
        at++;
    }
    memmove(buf + out, buf + at, n - at);
    *io_bytes = out;
    if (d->_state == NOWHERE) return BROKEN;
    return d->_state == AT_END ? (ssize_t)(n - at) : INCOMPLETE;
}

int phr_decode_chunked_is_in_data(struct phr_chunked_decoder *d)
{
    return d->_state == IN_DATA;
}

bool server_chunks_are_ours(void)
{
    ssize_t (*ours)(struct phr_chunked_decoder *, char *, size_t *) = phr_decode_chunked;
    void *called = dlsym(RTLD_DEFAULT, "phr_decode_chunked"), *here;
    memcpy(&here, &ours, sizeof(here)); /* ISO C has no conversion from a function */
    return called == here;
}
