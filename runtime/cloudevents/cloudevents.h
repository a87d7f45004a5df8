/* CloudEvents 1.0 over HTTP: binary, structured and batch in; binary and structured out
 * (contracts/knative-cloudevents.md §2). Pure: requests in, events out; no sockets. */
#ifndef BALM_CLOUDEVENTS_CLOUDEVENTS_H
#define BALM_CLOUDEVENTS_CLOUDEVENTS_H

#include "base/json.h"
#include "server/http.h"

#define CLOUDEVENT_EXTENSIONS_MAX 32
#define CLOUDEVENT_BATCH_MAX      1000

struct cloudevent {
    struct strview id, source, type, specversion;              /* required */
    struct strview subject, time, datacontenttype, dataschema; /* empty: absent */
    struct http_header extensions[CLOUDEVENT_EXTENSIONS_MAX];  /* name [a-z0-9], decoded value */
    size_t n_extensions;
    struct strview data; /* bytes as they would stand in a binary-mode body */
};

enum cloudevent_mode { CLOUDEVENT_NONE, CLOUDEVENT_BINARY, CLOUDEVENT_STRUCTURED, CLOUDEVENT_BATCH };

/* How the request carries events; NONE if it is an ordinary request. */
enum cloudevent_mode cloudevent_mode(const struct http_req *req);
/* All events of the request (one, or a batch), in req->arena. STATUS_INVALID_ARGUMENT says which attribute of
 * which event. STATUS_UNIMPLEMENTED: an event
 * format other than JSON (HTTP 415). */
enum status cloudevent_decode(const struct http_req *req, const struct cloudevent **ret_events, size_t *ret_n,
                              struct error *err) MUST_USE;
/* Extension's value or the empty view. */
struct strview cloudevent_extension(const struct cloudevent *e, struct strview name);
/* Binary mode: fills headers (≤ max) with ce-… and content-type, percent-encoded as the HTTP binding asks. */
enum status cloudevent_to_headers(const struct cloudevent *e, struct arena *a,
                                  struct http_header *ret_headers, size_t max, size_t *ret_n,
                                  struct error *err) MUST_USE;
/* The other way, for events that are not complete yet: what of the headers are attributes (ce-…,
 * content-type) goes into *e, required ones may be missing. */
enum status cloudevent_from_headers(const struct http_header *headers, size_t n, struct arena *a,
                                    struct cloudevent *e, struct error *err) MUST_USE;
/* STATUS_INVALID_ARGUMENT: a receiver would refuse it; the sentence says for which attribute. */
enum status cloudevent_validate(const struct cloudevent *e, struct error *err) MUST_USE;
/* Structured mode: application/cloudevents+json body. */
struct strview cloudevent_to_json(const struct cloudevent *e, struct arena *a);
/* Batch mode: application/cloudevents-batch+json body, "[]" for none. */
struct strview cloudevents_to_json(const struct cloudevent *events, size_t n, struct arena *a);

#endif
