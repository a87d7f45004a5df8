/* Functions that run elsewhere: Deployments behind a Kubernetes Service, a Knative Service, another machine.
 *
 *   annotations: {balm.dev/url: "http://service-restart.balm.svc:8080"}
 *
 * What such a function may do is known here all the same: by its executable or its folder with a bot.yaml
 * below the functions folder, as for others; where neither is, it is a plain function. It has no processes
 * here, and somebody else scales it (KEDA asks functions/scaler). While nobody serves it, an act or call has
 * not been sent, and waits in the queue. */
#ifndef BALM_GATEWAY_REMOTE_H
#define BALM_GATEWAY_REMOTE_H

#include "client/forward.h"

struct deployment;
struct deployment_spec;
struct gateway;

#define REMOTE_ANNOTATION "balm.dev/url"

/* STATUS_INVALID_ARGUMENT: the annotation is there and is no http or https URL of a host alone. */
enum status remote_check(const struct deployment_spec *spec, struct error *err) MUST_USE;
/* Its URL without a slash at the end; empty: it runs here. Borrowed from the spec. */
struct strview remote_url(const struct deployment_spec *spec);

/* As http_forward(): err->can_retry: nothing was sent for sure. */
enum status remote_forward(const struct deployment *d, const struct forward_spec *spec, struct arena *a,
                           struct http_reply *ret_reply, struct error *err) MUST_USE;
/* The same, and the answer is what `resp` says; *ret_status is its status. */
enum status remote_answer(const struct deployment *d, const struct forward_spec *spec,
                          const struct http_req *req, struct http_resp *resp, int *ret_status,
                          struct error *err) MUST_USE;
/* Does anybody there answer the health question? Suspends. */
enum status remote_check_health(const struct deployment *d, struct error *err) MUST_USE;

#endif
