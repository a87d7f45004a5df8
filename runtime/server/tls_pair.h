/* Certificate and key of a listener: TLS 1.2 or 1.3, read at the start and again within moments of a change
 * of their files. A pair that cannot be used leaves the one before in force; connections that are open keep
 * what they were greeted with. Loop thread only. */
#ifndef BALM_SERVER_TLS_PAIR_H
#define BALM_SERVER_TLS_PAIR_H

#include "loop/loop.h"

struct ssl_ctx_st; /* OpenSSL's SSL_CTX */
struct tls_pair;

#define TLS_PIN_MAX 64

struct tls_pair_cfg {                 /* strings are copied */
    const char *cert_file, *key_file; /* PEM; the chain's own certificate first */
    const char
        *client_ca_file; /* a client has to show a certificate of one of these; NULL: none is asked for */
    bool is_h2;          /* by ALPN "h2" and nothing else */
    void (*on_renewed)(void *arg); /* from a fiber; NULL: nobody */
    void *arg;
    const char *logger;
};

/* From a fiber; suspends. STATUS_INVALID_ARGUMENT, STATUS_NOT_FOUND, STATUS_PERMISSION_DENIED (everybody may
 * read the key): they cannot be used. */
enum status tls_pair_new(struct loop *l, const struct tls_pair_cfg *cfg, struct tls_pair **ret_pair,
                         struct error *err) MUST_USE;
/* No handshake is under way on it. From a fiber. NULL does nothing. */
void tls_pair_free(struct tls_pair *p);
/* In force for the next connection; borrowed for its handshake. */
struct ssl_ctx_st *tls_pair_ctx(const struct tls_pair *p);
/* Of the public key in force, as curl takes it ("sha256//BASE64"); borrowed until it is renewed. */
const char *tls_pair_pin(const struct tls_pair *p);

#endif
