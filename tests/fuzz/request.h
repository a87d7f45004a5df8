/* A request from bytes: header lines "name: value" up to an empty line, then the body. */
#ifndef BALM_TESTS_FUZZ_REQUEST_H
#define BALM_TESTS_FUZZ_REQUEST_H

#include "server/http.h"

static inline struct strview lower_case(struct arena *a, struct strview s)
{
    char *text = arena_cstr(a, s);
    for (size_t i = 0; i < s.len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z') text[i] = (char)(text[i] + ('a' - 'A'));
    return sv_n(text, s.len);
}

static inline void read_headers(struct strview *rest, struct http_req *req, struct http_header *headers)
{
    struct strview line;
    while (sv_next(rest, '\n', &line) && line.len > 0) {
        size_t colon = sv_find(line, ':');
        if (req->n_headers == HTTP_HEADERS_MAX) continue;
        headers[req->n_headers++] =
            (struct http_header){.name = lower_case(req->arena, sv_sub(line, 0, colon)),
                                 .value = sv_trim(sv_sub(line, colon + 1, line.len))};
    }
    req->headers = headers;
    req->body = *rest;
}

#endif
