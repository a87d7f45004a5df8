#include "client/answer.h"

#include <string.h>

#include "server/http_text.h"

void answer_init(struct answer *a, bool is_to_head, struct arena *arena)
{
    a->state = ANSWER_HEAD;
    a->arena = arena;
    a->is_to_head = is_to_head;
    a->is_keepable = a->has_status = false;
    a->head_bytes = a->n_headers = 0;
    a->left = 0;
    a->status = 0;
    a->length = a->coding = (struct strview){0};
}

static void give_up(struct answer *a)
{
    a->state = ANSWER_BROKEN;
    a->is_keepable = false;
}

/* Cut off *bytes with its end; false: it is not whole yet. */
static bool take_line(struct strview *bytes, struct strview *ret_line)
{
    size_t end = sv_find(*bytes, '\n');
    if (end == bytes->len) return false;
    *ret_line = sv_sub(*bytes, 0, end > 0 && bytes->ptr[end - 1] == '\r' ? end - 1 : end);
    *bytes = sv_sub(*bytes, end + 1, bytes->len);
    return true;
}

/* ---- head ---- */

/* "HTTP/1.1 200 OK"; the reason may be missing, with its blank or without. A status that nobody could pass on
 * is malformed, and so is 101: nobody here asks for another protocol. */
static void read_status(struct answer *a, struct strview line)
{
    uint64_t status = 0;
    bool is_ok = line.len >= 12 && sv_starts_with(line, SV("HTTP/1.")) && line.ptr[7] >= '0' &&
                 line.ptr[7] <= '9' && line.ptr[8] == ' ' && (line.len == 12 || line.ptr[12] == ' ') &&
                 sv_parse_u64(sv_sub(line, 9, 12), &status) == STATUS_OK && status >= 100 && status <= 599 &&
                 status != 101 && is_header_text(line);
    if (!is_ok) {
        give_up(a);
        return;
    }
    a->has_status = true;
    a->status = (int)status;
    a->is_keepable = line.ptr[7] != '0';
}

static struct strview lower_copy(struct arena *arena, struct strview name)
{
    char *copy = arena_alloc(arena, name.len);
    for (size_t i = 0; i < name.len; i++)
        copy[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + ('a' - 'A')) : name.ptr[i];
    return sv_n(copy, name.len);
}

static bool has_option(struct strview list, struct strview option)
{
    struct strview part;
    while (sv_next(&list, ',', &part))
        if (sv_eq_nocase(sv_trim(part), option)) return true;
    return false;
}

/* What one header says about the framing; false: what nobody can frame by. */
static bool note_framing(struct answer *a, const struct http_header *h)
{
    uint64_t length;
    if (sv_eq(h->name, SV("content-length"))) {
        bool is_again = a->length.len > 0;
        if (sv_parse_u64(h->value, &length) != STATUS_OK || (is_again && length != a->left)) return false;
        a->length = h->value;
        a->left = length;
    } else if (sv_eq(h->name, SV("transfer-encoding"))) {
        if (sv_eq_nocase(h->value, SV("identity"))) return true;
        if (a->coding.len > 0 || !sv_eq_nocase(h->value, SV("chunked"))) return false;
        a->coding = h->value;
    } else if (sv_eq(h->name, SV("connection"))) {
        a->is_keepable =
            has_option(h->value, SV("keep-alive")) || (a->is_keepable && !has_option(h->value, SV("close")));
    }
    return true;
}

static void read_header(struct answer *a, struct strview line)
{
    size_t colon = sv_find(line, ':');
    struct strview name = sv_sub(line, 0, colon), value = sv_trim(sv_sub(line, colon + 1, line.len));
    bool is_ok = colon > 0 && colon < line.len && a->n_headers < ANSWER_HEADERS_MAX &&
                 is_visible_text(name) && is_header_text(value);
    if (is_ok) {
        struct http_header *h = &a->headers[a->n_headers++];
        *h = (struct http_header){lower_copy(a->arena, name), arena_copy(a->arena, value)};
        is_ok = note_framing(a, h);
    }
    if (!is_ok) give_up(a);
}

/* RFC 9112 §6.3. A length beside chunks is how answers are smuggled: the chunks count, and nothing may
 * follow.
 */
static void begin_body(struct answer *a)
{
    bool has_body = !a->is_to_head && a->status >= 200 && a->status != 204 && a->status != 304;
    if (a->coding.len > 0 && a->length.len > 0) a->is_keepable = false;
    if (!has_body)
        a->state = ANSWER_END;
    else if (a->coding.len > 0)
        a->state = ANSWER_CHUNK_SIZE;
    else if (a->length.len > 0)
        a->state = a->left > 0 ? ANSWER_BODY_LENGTH : ANSWER_END;
    else
        a->state = ANSWER_BODY_UNTIL_CLOSE;
    if (a->state == ANSWER_BODY_UNTIL_CLOSE) a->is_keepable = false;
}

/* Of an interim answer (1xx) a head of its own follows. */
static void end_head(struct answer *a)
{
    if (a->status >= 200) {
        begin_body(a);
        return;
    }
    size_t head_bytes = a->head_bytes; /* of all of them together */
    answer_init(a, a->is_to_head, a->arena);
    a->head_bytes = head_bytes;
}

static void feed_head(struct answer *a, struct strview *bytes)
{
    struct strview line;
    size_t before = bytes->len;
    bool is_whole = take_line(bytes, &line);
    a->head_bytes += before - bytes->len;
    if (a->head_bytes + (is_whole ? 0 : bytes->len) > ANSWER_HEAD_MAX_BYTES)
        give_up(a);
    else if (is_whole && !a->has_status)
        read_status(a, line);
    else if (is_whole && line.len > 0)
        read_header(a, line);
    else if (is_whole)
        end_head(a);
}

/* ---- chunks ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "1f;name=value" */
static void read_chunk_size(struct answer *a, struct strview line)
{
    size_t n = 0;
    for (a->left = 0; n < line.len && n < 15 && hex_digit(line.ptr[n]) >= 0; n++)
        a->left = a->left << 4 | (unsigned)hex_digit(line.ptr[n]);
    struct strview rest = sv_trim(sv_sub(line, n, line.len));
    if (n == 0 || (rest.len > 0 && rest.ptr[0] != ';'))
        give_up(a);
    else
        a->state = a->left > 0 ? ANSWER_CHUNK_DATA : ANSWER_TRAILER;
}

static void feed_chunk_line(struct answer *a, struct strview *bytes)
{
    struct strview line;
    size_t before = bytes->len;
    if (!take_line(bytes, &line)) {
        if (before > ANSWER_CHUNK_LINE_MAX) give_up(a);
        return;
    }
    if (a->state == ANSWER_CHUNK_SIZE)
        read_chunk_size(a, line);
    else if (a->state == ANSWER_TRAILER && line.len == 0)
        a->state = ANSWER_END;
    else if (a->state == ANSWER_CHUNK_END && line.len == 0)
        a->state = ANSWER_CHUNK_SIZE;
    else if (a->state == ANSWER_CHUNK_END)
        give_up(a);
    if (a->state == ANSWER_TRAILER && (a->head_bytes += before - bytes->len) > ANSWER_HEAD_MAX_BYTES)
        give_up(a);
}

/* ---- all of it ---- */

static void feed_counted(struct answer *a, struct strview *bytes, struct buf *body)
{
    size_t n = bytes->len < a->left ? bytes->len : (size_t)a->left;
    buf_append(body, sv_sub(*bytes, 0, n));
    *bytes = sv_sub(*bytes, n, bytes->len);
    a->left -= n;
    if (a->left == 0) a->state = a->state == ANSWER_CHUNK_DATA ? ANSWER_CHUNK_END : ANSWER_END;
}

static void feed_once(struct answer *a, struct strview *bytes, struct buf *body)
{
    switch (a->state) {
    case ANSWER_HEAD:
        feed_head(a, bytes);
        break;
    case ANSWER_BODY_LENGTH:
    case ANSWER_CHUNK_DATA:
        feed_counted(a, bytes, body);
        break;
    case ANSWER_BODY_UNTIL_CLOSE:
        buf_append(body, *bytes);
        *bytes = sv_sub(*bytes, bytes->len, bytes->len);
        break;
    case ANSWER_CHUNK_SIZE:
    case ANSWER_CHUNK_END:
    case ANSWER_TRAILER:
        feed_chunk_line(a, bytes);
        break;
    case ANSWER_END:
    case ANSWER_BROKEN:
        break;
    }
}

size_t answer_feed(struct answer *a, struct strview bytes, struct buf *body)
{
    struct strview rest = bytes;
    size_t before;
    do {
        before = rest.len;
        feed_once(a, &rest, body);
    } while (rest.len > 0 && rest.len < before && a->state != ANSWER_END && a->state != ANSWER_BROKEN);
    if (a->state == ANSWER_END && rest.len > 0)
        a->is_keepable = false; /* whatever that is, nobody asked for it */
    return bytes.len - rest.len;
}

void answer_close(struct answer *a)
{
    if (a->state == ANSWER_BODY_UNTIL_CLOSE)
        a->state = ANSWER_END;
    else if (a->state != ANSWER_END)
        give_up(a);
    a->is_keepable = false;
}
