/* The signed invocation: how the platform tells a bot to act, and how the bot answers. Both ends use these
 * functions.
 *
 *   POST /            content-type: application/json                 body: the parameters, canonical JSON
 *   ce-specversion: 1.0   ce-type: dev.balm.invocation   ce-id: INTENT   ce-source: /balm/CLUSTER ce-subject:
 * TARGET ce-time: the intent's time (RFC 3339) ce-balmincident, ce-balmfunction, ce-balmepoch,
 * ce-balmattempt, ce-balmdeadline (RFC 3339) ce-balmsignature: hex HMAC-SHA256 with the function's own key
 * over "balm-invocation-v1\n" FUNCTION \n INTENT \n INCIDENT \n TARGET \n EPOCH \n ATTEMPT \n TIME \n
 * DEADLINE \n hex(SHA-256(body))
 *
 * Each function has its own key, HMAC-SHA256(master, "balm-invocation-key-v1:" NAME) in hex, given to it as
 * the secret file `balm-invocation-key`: one bot cannot forge an invocation of another. The 64 hex characters
 * themselves are the HMAC's key, so that `openssl dgst -sha256 -hmac "$(cat balm-invocation-key)"` makes the
 * same signature; EPOCH and ATTEMPT are decimal, TIME and DEADLINE as they stand in their headers, the others
 * as they are before percent-encoding.
 *
 * Answer of an acting function: 200 and
 *   {"detail":{…},"entered":"RFC 3339","left":"RFC
 * 3339","message":"…","state":"done|unchanged|refused","undo":"…"} or an error status and
 * {"code":"UNAVAILABLE","entered":"…","message":"…","retry":true,"state":"failed"}. */
#ifndef BALM_FUNCTION_INVOCATION_H
#define BALM_FUNCTION_INVOCATION_H

#include "function/function.h"

#define INVOCATION_KEY_SECRET  "balm-invocation-key"
#define INVOCATION_HEADERS_MAX 16

/* Hex key (64 characters) of `function` from the platform's master key. */
void invocation_derive_key(struct strview master, struct strview function, char ret_hex[65]);
/* Headers of a signed invocation, in the arena. inv: function, intent, incident, target, epoch, attempt,
 * intent_unix_ns and deadline_unix_ns are read. ret_headers has room for INVOCATION_HEADERS_MAX. */
enum status invocation_sign(const struct invocation *inv, struct strview cluster, struct strview key_hex,
                            struct strview body, struct arena *a, struct http_header *ret_headers,
                            size_t *ret_n, struct error *err) MUST_USE;
/* Reads and checks the headers of req against the key, this function's name and the clock. Fills inv's signed
 * part. STATUS_PERMISSION_DENIED: unsigned, wrong signature, other function. STATUS_DEADLINE_EXCEEDED: too
 * late. */
enum status invocation_verify(const struct http_req *req, struct strview function, struct strview key_hex,
                              int64_t now_unix_ns, struct invocation *ret_inv, struct error *err) MUST_USE;

/* The answer as the platform reads it. Views are arena copies. */
struct invocation_reply {
    struct strview state; /* "done", "unchanged", "refused", "failed" */
    struct strview message, undo, code;
    struct strview detail; /* canonical JSON object, "{}" if none */
    int64_t entered_unix_ns, left_unix_ns;
    unsigned certificates_refused; /* of peers that it called, since its last answer */
    bool can_retry;
};
/* STATUS_INVALID_ARGUMENT: the body is no such object (a foreign function: state is then made from the HTTP
 * status: 2xx done, and the call still succeeds with the text as message). */
enum status invocation_parse_reply(int http_status, struct strview body, struct arena *a,
                                   struct invocation_reply *ret_reply, struct error *err) MUST_USE;

#endif
