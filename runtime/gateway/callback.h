/* Where answers of asynchronous calls may be posted to (X-Callback-Url), and the posting.
 *
 * Whoever may call a function may name a URL, and the platform stands where the caller may not: next to
 * services that trust this machine, to a cloud's metadata server, to its own management API. So it is the
 * address that counts, as the connection is opened, whatever the URL looks like and its name resolves to:
 *
 *   our own port, on any address of this machine   functions that are deployed and do not act, which anybody
 *                                                  may call: so one function's answer is another one's call,
 *                                                  seven times in a row; nothing else there
 *   networks are listed (--callback-networks)      these and no others
 *   none are listed                                anything but link-local and metadata addresses, multicast,
 *                                                  reserved ones, and loopback unless the gateway itself
 *                                                  listens on loopback: then its callers are on this machine
 *
 * Each posting says in X-Balm-Hops how many there were in its chain (functions/dispatcher/invoker_call.c).
 * Redirects are not followed, no credentials are sent, and no proxy is used. */
#ifndef BALM_GATEWAY_CALLBACK_H
#define BALM_GATEWAY_CALLBACK_H

#include "base/clock.h"
#include "client/client.h"

#define CALLBACK_URL_MAX        2048
#define CALLBACK_TIMEOUT_NS     (10 * NS_PER_S) /* strangers' servers must not hold places of the queue */
#define CALLBACK_ANSWER_MAX     (64 * 1024)     /* is thrown away */
#define CALLBACK_NETWORKS_COUNT 64

struct gateway;

/* "10.0.0.0/8,fd00::/8,127.0.0.1": addresses with or without the length of a prefix. */
enum status callback_check_networks(const char *text, struct error *err) MUST_USE;
/* Of a caller: http or https, with a host, no user or password (the journal would keep it). An address that
 * is not allowed is said at once, if it is written as one. STATUS_INVALID_ARGUMENT. */
enum status callback_check_url(struct gateway *g, struct strview url, struct error *err) MUST_USE;
/* One POST. STATUS_OK: any answer. STATUS_PERMISSION_DENIED: no address of the host is allowed. Else as
 * http_request(). */
enum status callback_post(struct gateway *g, struct strview url, const struct http_header *headers,
                          size_t n_headers, struct strview body, struct arena *a, int *ret_http_status,
                          struct error *err) MUST_USE;

#endif
