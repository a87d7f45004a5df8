/* Shared by routes_*.c below /system/ and /docs: answers as clients of OpenFaaS print them, plain text where
 * something is wrong. */
#ifndef BALM_GATEWAY_ROUTES_H
#define BALM_GATEWAY_ROUTES_H

#include "gateway/gateway_impl.h"

/* sentence: copied; a line break is added. */
void route_answer_text(const struct http_req *req, struct http_resp *resp, int status, const char *sentence);
/* value: moved. */
void route_answer_json(const struct http_req *req, struct http_resp *resp, int status, json_t *value);
void route_answer_error(const struct http_req *req, struct http_resp *resp, const struct error *err);
/* Namespace in the body or in the query, as clients differ; the body's wins. None is ours. */
bool route_is_our_namespace(const struct http_req *req, const json_t *body);
/* A JSON value, sent as JSON: a page in a browser cannot send that type without being asked first. False:
 * answered already. ret_body is owned. */
bool route_read_body(const struct gateway *g, const struct http_req *req, struct http_resp *resp,
                     json_t **ret_body) MUST_USE;

/* 405: `allowed` as in "GET, POST". */
void route_refuse_method(const struct http_req *req, struct http_resp *resp, const char *allowed);
/* GET or HEAD? */
bool route_is_reading(const struct http_req *req);

/* Does the function say what it takes and answers? Then this is its document, as it would answer itself; no
 * process is started. Authorized already, where it needs to be. */
bool routes_docs_has_document(const struct deployment *d);
void routes_docs_document(const struct deployment *d, const struct http_req *req, struct http_resp *resp);
/* The same of the core function `name`, from its file. Suspends. */
void routes_docs_core_document(const struct gateway *g, const struct http_req *req, struct strview name,
                               struct http_resp *resp);
/* /docs, what is below it, and /openapi.json; authorized already. Suspends. */
void routes_docs(struct gateway *g, const struct http_req *req, struct http_resp *resp);
/* GET /system/logs; authorized already. Suspends as long as somebody follows. */
void routes_logs(struct gateway *g, const struct http_req *req, struct http_resp *resp);
/* POST /system/check-function/NAME; authorized already. */
void routes_check(struct gateway *g, const struct http_req *req, struct strview name, struct http_resp *resp);

#endif
