/* One request to the dispatcher; for the files that answer them alone:
 *
 *   handler.c  the routes, and what only reads
 *   steer.c    what persons do: stop and resume, remarks, the end of an incident
 *   dead.c     dead letters: which there are, their retry, their end */
#ifndef BALM_DISPATCHER_HANDLER_IMPL_H
#define BALM_DISPATCHER_HANDLER_IMPL_H

#include "functions/dispatcher/dispatcher_impl.h"

#define REASON_MAX 1000

struct exchange {
    struct dispatcher *d;
    const struct http_req *req;
    struct http_resp *resp;
};

void exchange_answer(const struct exchange *x, json_t *moved);
void exchange_fail(const struct exchange *x, const struct error *err);
/* Answers 405 if it is another one. */
bool exchange_is_method(const struct exchange *x, struct strview method);
/* "limit" of the query, from 1 to LIST_MAX; what it does not say is left as it is. */
#define LIST_MAX 1000
enum status exchange_limit(const struct exchange *x, uint64_t *ret_limit, struct error *err) MUST_USE;
/* The body, a JSON object that says who does it (owned; borrow the views from it). */
enum status exchange_body(const struct exchange *x, json_t **ret_body, struct strview *ret_actor,
                          struct error *err) MUST_USE;
/* A person's words in the body: 1 to `max` bytes, and of the control characters only line breaks and tabs, as
 * they are shown on terminals. */
enum status exchange_words(const json_t *body, const char *name, size_t max, struct strview *ret_words,
                           struct error *err) MUST_USE;
/* One record of a person, on disk when it returns. */
enum status exchange_append(const struct exchange *x, struct record *r, uint64_t *ret_seq,
                            struct error *err) MUST_USE;
/* Which incident is meant (ids.h). *ret_json: what explains it, if that had to be read for the answer (the
 * caller's), else NULL. What was closed long ago is known by its whole id alone. Suspends. */
enum status exchange_incident(const struct exchange *x, struct strview text, struct strview *ret_id,
                              json_t **ret_json, struct error *err) MUST_USE;

/* steer.c */
void steer_freeze(const struct exchange *x);
void steer_note(const struct exchange *x);
void steer_close(const struct exchange *x);
/* dead.c; rest: the path behind /dead */
void dead_handle(const struct exchange *x, struct strview rest);

#endif
