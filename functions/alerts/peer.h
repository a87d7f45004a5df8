/* One Alertmanager that is asked what fires: where it is, how it lets us in, and what became of the last
 * question. Loop thread only. */
#ifndef BALM_FUNCTIONS_ALERTS_PEER_H
#define BALM_FUNCTIONS_ALERTS_PEER_H

#include "base/json.h"
#include "functions/alerts/intake.h"
#include "functions/alerts/survey.h"

struct peer {
    struct strview url;  /* arena; without a slash at its end */
    struct strview name; /* host:port */
    bool is_up;
    int64_t last_unix_ns; /* when it answered last; 0: never */
    char error[ERROR_MESSAGE_MAX];
    struct quiet failed;
    struct metric *up, *last_seconds;
};

/* What is sent along with every question. */
struct peer_login {
    struct strview bearer, basic; /* one of them, or none; basic: the header's value */
    const char *ca_file;          /* NULL: system's */
};

/* "http://am-0:9093/prefix/" -> url without the slash, name "am-0:9093". Counts from here on.
 * STATUS_INVALID_ARGUMENT: no URL, or one with a user or password in it. */
enum status peer_init(struct peer *peer, struct strview url, struct arena *a, struct error *err) MUST_USE;
/* From a file: a bearer token, or USER:PASSWORD. NULL: none. Suspends. */
enum status peer_login_read(const char *token_file, struct arena *a, struct peer_login *ret_login,
                            struct error *err) MUST_USE;
/* Asks since when it runs and what fires; suspends. receiver: whose alerts are ours. What came of it is noted
 * in `peer`, counted and, where it went wrong, logged at most once a minute. Not STATUS_OK: no answer that
 * can be used, or the fiber is cancelled. */
enum status peer_ask(struct peer *peer, const struct peer_login *login, struct strview receiver,
                     struct arena *a, struct survey_answer *ret_answer) MUST_USE;
/* No question could be asked. */
void peer_note_failure(struct peer *peer, const struct error *err);
/* {"name","up","last","ageSeconds","error"}: a new value. */
json_t *peer_json(const struct peer *peer);

#endif
