/* An HTTP/1 answer as its bytes come in: head into an arena, body out in parts. Pure: no socket, no clock.
 * Not h2o's own client (2.2.5): an HTTP/1.1 answer with a Content-Length that is no number, or with a
 * transfer coding that it does not know, ends that one's process by an assertion, so any function could end
 * the platform.
 *
 *   head --> body: by length | by chunks | until the connection ends --> end
 *     ^ |                                                           \--> broken
 *     +-+ 1xx are passed over
 *
 * As strict as framing needs (RFC 9112 §6.3): folded lines, lengths that differ or are no number, codings
 * other than chunked, and chunks that are none are broken. Line ends may lack the CR. */
#ifndef BALM_CLIENT_ANSWER_H
#define BALM_CLIENT_ANSWER_H

#include "base/arena.h"
#include "base/buf.h"
#include "client/client.h"

#define ANSWER_HEADERS_MAX 100 /* as many as our own server takes */
#define ANSWER_HEAD_MAX_BYTES                                                                                \
    (64 * 1024)                    /* with all 1xx before it: headers without end would fill memory          \
                                    */
#define ANSWER_CHUNK_LINE_MAX 1024 /* a chunk's size with extensions, a trailer */

enum answer_state {
    ANSWER_HEAD,
    ANSWER_BODY_LENGTH,
    ANSWER_BODY_UNTIL_CLOSE,
    ANSWER_CHUNK_SIZE,
    ANSWER_CHUNK_DATA,
    ANSWER_CHUNK_END, /* the line end behind a chunk's data */
    ANSWER_TRAILER,
    ANSWER_END,
    ANSWER_BROKEN
};

struct answer {
    enum answer_state state;
    struct arena *arena;
    bool is_to_head;   /* of a HEAD request: never a body */
    bool is_keepable;  /* the connection may be used again once the state is ANSWER_END */
    bool has_status;   /* the status line was read */
    size_t head_bytes; /* read of the head so far */
    uint64_t left;     /* of the body by length, or of this chunk */
    /* Complete once the state is past ANSWER_HEAD. Names in lower case. */
    int status;
    struct http_header headers[ANSWER_HEADERS_MAX];
    size_t n_headers;
    struct strview length, coding; /* as announced; empty: not */
};

/* Before the first byte. `arena` keeps the headers; is_to_head: no body follows, whatever the headers say. */
void answer_init(struct answer *a, bool is_to_head, struct arena *arena);
/* Takes what it can; body bytes are appended to *body. Returns how many bytes were used: less than all of an
 * unfinished line, which has to be given again with more behind it, or of what came behind the end. */
size_t answer_feed(struct answer *a, struct strview bytes, struct buf *body);
/* The connection has ended: the end of a body that lasts until then, else broken. */
void answer_close(struct answer *a);

#endif
