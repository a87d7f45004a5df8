/* API keys, for functions that ask for one in bot.yaml (`auth: api-key`).
 *
 *   caller --X-Api-Key: one of the secret's--> gateway --X-Api-Key: the gateway's own--> function
 *   caller --X-Api-Key: one of the secret's------------------------------------------> function run alone
 *
 * The keys are the lines of the secret NAME-api-key, where NAME is the manifest's: several while they are
 * changed. The secret is read for each call, so a change counts at once and nothing is started anew.
 *
 * Balm's gateway looks itself (DIR/secrets/functions), and shows the function a key that only the two have,
 * made like invocation keys (function/invocation.h) and given as the secret file `balm-gateway-key`. Calls of
 * the platform's own carry it as well. So no caller's key is recorded, and none reaches a function's process.
 * Where that file is, it alone counts; elsewhere (OpenFaaS, Knative, Kubernetes) the function compares with
 * the secret as it is mounted. The handler sees no key, nor does a program's environment. */
#ifndef BALM_FUNCTION_API_KEY_H
#define BALM_FUNCTION_API_KEY_H

#include "base/json.h"
#include "server/server.h"

#define API_KEY_HEADER         "x-api-key"
#define API_KEY_GATEWAY_SECRET "balm-gateway-key"
#define API_KEY_LEN_MIN        32 /* is not guessed, however often: `openssl rand -hex 32` makes 64 */
#define API_KEY_LEN_MAX        512

/* The secret that holds its keys, in the arena; empty: it asks for none. manifest: as JSON, perhaps not of
 * ours: what is no name there does not become one here. */
struct strview api_key_secret(const json_t *manifest, struct arena *a);
/* Hex key (64 characters) that the gateway shows to `function`, from the platform's master key. */
void api_key_derive(struct strview master, struct strview function, char ret_hex[65]);
/* Is `given` one of the keys in folder/secret? In constant time. STATUS_UNAUTHENTICATED: it is not, or is
 * empty. STATUS_UNAVAILABLE: there are no keys to compare with; the sentence is for whoever runs it. */
enum status api_key_check(const char *folder, const char *secret, struct strview given,
                          struct error *err) MUST_USE;
/* The same for a function's own process: the gateway's key or the secret's, from where its secrets are
 * (function/secret.h). */
enum status api_key_check_own(const char *secret, struct strview given, struct error *err) MUST_USE;
/* The request's headers without the key, in its arena; with `key` in its place where that is not empty
 * (borrowed). */
const struct http_header *api_key_replace(const struct http_req *req, struct strview key, size_t *ret_n);
/* 401, or 503 where nobody can be let in: in words for anybody. */
void api_key_refuse(const struct http_req *req, struct strview function, enum status why,
                    struct http_resp *resp);

#endif
