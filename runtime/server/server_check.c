/* Which requests no handler sees. picohttpparser and h2o 2.2.5 refuse by themselves: NUL and control
 * characters in headers, white space before the colon, an unknown transfer coding, a broken chunk size, a
 * Content-Length that is not a number, more than 100 headers. They let through: two lengths, a length beside
 * chunks (chunks win silently), two codings (the last wins), folded lines, a missing or doubled Host; and on
 * HTTP/2 a path with blanks or line ends. Lines may end in an LF alone. A proxy in front or an upstream
 * behind may read each of those differently, which is how requests are smuggled (RFC 9112 §11.2), so they are
 * refused here. */
#include "server/http_text.h"
#include "server/server_impl.h"

#define METHOD_MAX 32 /* longest registered one has 17 letters */

static bool is_token_char(unsigned char c)
{
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) return true;
    return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_visible(h2o_iovec_t s)
{
    return is_visible_text((struct strview){s.base, s.len});
}

static bool is_method(h2o_iovec_t m)
{
    if (m.len == 0 || m.len > METHOD_MAX) return false;
    for (size_t i = 0; i < m.len; i++) {
        if (!is_token_char((unsigned char)m.base[i])) return false;
    }
    return true;
}

/* Next line without its end, cut off *rest; false where no line end is left, or it is an LF alone (*rest
 * begins with that line then). */
static bool next_line(struct strview *rest, struct strview *ret_line)
{
    const char *end = memchr(rest->ptr, '\n', rest->len);
    if (end == NULL || end == rest->ptr || end[-1] != '\r') return false;
    size_t len = (size_t)(end - rest->ptr);
    *ret_line = (struct strview){rest->ptr, len - 1};
    *rest = (struct strview){end + 1, rest->len - len - 1};
    return true;
}

/* h2o has put the names into lower case where they stand. */
#define IS_HEADER(line, name)                                                                                \
    ((line).len > sizeof(name) - 1 && (line).ptr[sizeof(name) - 1] == ':' &&                                 \
     memcmp((line).ptr, (name), sizeof(name) - 1) == 0)

int head_check(struct strview head, int minor_version, const char **ret_why)
{
    struct strview rest = head, line;
    unsigned lines = 0, lengths = 0, codings = 0, hosts = 0;
    bool may_skip = true; /* one empty line may come before the request line */
    bool is_whole = false;
    while (!is_whole && next_line(&rest, &line)) {
        is_whole = line.len == 0 && !may_skip;
        may_skip = false;
        if (line.len == 0 || lines++ == 0) continue;
        if (line.ptr[0] == ' ' || line.ptr[0] == '\t') {
            *ret_why = "a header is folded over two lines";
            return 400;
        }
        switch (line.ptr[0]) {
        case 'c':
            if (IS_HEADER(line, "content-length")) lengths++;
            break;
        case 't':
            if (IS_HEADER(line, "transfer-encoding")) codings++;
            break;
        case 'h':
            if (IS_HEADER(line, "host")) hosts++;
            break;
        default:
            break;
        }
    }
    if (!is_whole)
        *ret_why = "a line ends with a line feed alone";
    else if (lengths > 1)
        *ret_why = "there is more than one Content-Length";
    else if (codings > 1)
        *ret_why = "there is more than one Transfer-Encoding";
    else if (lengths + codings > 1)
        *ret_why = "there are both Content-Length and Transfer-Encoding";
    else if (codings > 0 && minor_version == 0)
        *ret_why = "HTTP/1.0 has no Transfer-Encoding";
    else if (hosts > 1 || (hosts == 0 && minor_version > 0))
        *ret_why = "exactly one Host header is required";
    else if ((size_t)(rest.ptr - head.ptr) > SERVER_HEAD_MAX_BYTES) {
        *ret_why = "the request line and headers are larger than 65536 bytes";
        return 431;
    } else {
        return 0;
    }
    return 400;
}

static int fields_check(const h2o_req_t *req, const char **ret_why)
{
    size_t bytes = req->path.len + req->authority.len;
    if (req->headers.size > HTTP_HEADERS_MAX) {
        *ret_why = "there are more than 100 headers";
        return 431;
    }
    for (size_t i = 0; i < req->headers.size; i++) {
        const h2o_header_t *h = &req->headers.entries[i];
        bytes += h->name->len + h->value.len;
        if (h->name->len > 0) continue;
        *ret_why = "a header has no name";
        return 400;
    }
    if (bytes <= SERVER_HEAD_MAX_BYTES) return 0;
    *ret_why = "the request line and headers are larger than 65536 bytes";
    return 431;
}

int request_check(const h2o_req_t *req, const char **ret_why)
{
    if (!is_method(req->method)) {
        *ret_why = "the method is not a token of at most 32 characters";
        return 400;
    }
    bool is_star = req->path.len == 1 && req->path.base[0] == '*' &&
                   h2o_memis(req->method.base, req->method.len, "OPTIONS", 7);
    if (!is_star && (req->path.len == 0 || req->path.base[0] != '/' || !is_visible(req->path))) {
        *ret_why = "the target is not an absolute path of visible characters";
        return 400;
    }
    if (!is_visible(req->authority)) {
        *ret_why = "the host has characters that no host has";
        return 400;
    }
    if (req->version < 0x200) {
        /* h2o strips these headers from its list, but the raw bytes stay in the socket's buffer until the
         * answer is out. */
        const h2o_buffer_t *input = req->conn->callbacks->get_socket(req->conn)->input;
        int status = head_check((struct strview){input->bytes, input->size}, req->version & 0xff, ret_why);
        if (status != 0) return status;
    }
    return fields_check(req, ret_why);
}
