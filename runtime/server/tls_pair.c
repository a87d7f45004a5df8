#include "server/tls_pair.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "log/log.h"
#include "loop/folder_watch.h"

#define LOOK_NS        (60 * NS_PER_S) /* where the kernel does not tell of changes */
#define SETTLE_MS      500             /* both files are there by then */
#define HANDSHAKE_NS   (11 * NS_PER_S) /* h2o ends one after 10 s; it may look into the old context so long */
#define EXPIRES_SOON_S (14 * 24 * 3600)
#define PIN_PREFIX     "sha256//" /* as curl writes a pin */
#define FILE_MAX       (1024 * 1024)

_Static_assert(sizeof(PIN_PREFIX) + (SHA256_BYTES + 2) / 3 * 4 <= TLS_PIN_MAX, "TLS_PIN_MAX");

struct tls_pair {
    struct loop *loop;
    struct tls_pair_cfg cfg; /* its strings in the arena */
    struct arena arena;
    SSL_CTX *ctx, *old; /* old: of connections whose handshake has not begun */
    char pin[TLS_PIN_MAX];
    int64_t expires_unix_s;
    uint8_t seen[SHA256_BYTES]; /* of the files as last read, good or bad */
    struct fiber_scope scope;
};

/* One reading of the files, on a worker. */
struct tls_reading {
    const struct tls_pair_cfg *cfg;
    SSL_CTX *ctx;
    char pin[TLS_PIN_MAX];
    int64_t expires_unix_s;
    uint8_t seen[SHA256_BYTES];
    enum status status;
    struct error *err;
};

/* ---- reading ---- */

static enum status say(struct error *err, const char *file)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    enum status s = error_set(err, STATUS_INVALID_ARGUMENT, "TLS: %s: %s", file,
                              why != NULL ? why : "no certificate or key in PEM");
    ERR_clear_error();
    return s;
}

/* OpenSSL would ask on the terminal. */
static int no_passphrase(char *buf, int size, int is_writing, void *arg)
{
    (void)buf, (void)size, (void)is_writing, (void)arg;
    return -1;
}

static enum status check_key_file(const char *path, struct error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return error_set(err, status_from_errno(errno), "TLS: %s: %s", path, strerror(errno));
    if ((st.st_mode & S_IROTH) == 0) return STATUS_OK;
    return error_set(err, STATUS_PERMISSION_DENIED,
                     "TLS: %s: everybody may read this key; chmod o= and make another", path);
}

static enum status read_expiry(struct tls_reading *r, const X509 *cert)
{
    struct tm tm = {0};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1) return say(r->err, r->cfg->cert_file);
    r->expires_unix_s = (int64_t)timegm(&tm);
    return STATUS_OK;
}

static enum status read_pin(struct tls_reading *r, X509 *cert)
{
    unsigned char *der = NULL;
    uint8_t digest[SHA256_BYTES];
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (n <= 0) return say(r->err, r->cfg->cert_file);
    sha256(sv_n((const char *)der, (size_t)n), digest);
    OPENSSL_free(der);
    memcpy(r->pin, PIN_PREFIX, sizeof(PIN_PREFIX));
    (void)EVP_EncodeBlock((unsigned char *)r->pin + sizeof(PIN_PREFIX) - 1, digest, sizeof(digest));
    return STATUS_OK;
}

static enum status load_pair(struct tls_reading *r)
{
    SSL_CTX *ctx = r->ctx;
    if (SSL_CTX_use_certificate_chain_file(ctx, r->cfg->cert_file) != 1)
        return say(r->err, r->cfg->cert_file);
    enum status s = check_key_file(r->cfg->key_file, r->err);
    if (s != STATUS_OK) return s;
    if (SSL_CTX_use_PrivateKey_file(ctx, r->cfg->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return say(r->err, r->cfg->key_file);
    X509 *cert = SSL_CTX_get0_certificate(ctx);
    s = read_expiry(r, cert);
    return s == STATUS_OK ? read_pin(r, cert) : s;
}

static enum status load_client_ca(struct tls_reading *r)
{
    const char *file = r->cfg->client_ca_file;
    if (file == NULL) return STATUS_OK;
    if (SSL_CTX_load_verify_locations(r->ctx, file, NULL) != 1) return say(r->err, file);
    SSL_CTX_set_client_CA_list(r->ctx, SSL_load_client_CA_file(file));
    SSL_CTX_set_verify(r->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return STATUS_OK;
}

/* A client that offers others and not this one is told so. */
static int select_h2(SSL *ssl, const unsigned char **ret_protocol, unsigned char *ret_len,
                     const unsigned char *offered, unsigned int offered_len, void *arg)
{
    static const unsigned char h2[] = "\x02h2";
    (void)ssl, (void)arg;
    int found = SSL_select_next_proto((unsigned char **)ret_protocol, ret_len, h2, sizeof(h2) - 1, offered,
                                      offered_len);
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void digest_files(struct tls_reading *r)
{
    struct arena a = {0};
    struct strview parts[5] = {{0}, SV("\n"), {0}, SV("\n"), {0}};
    (void)!file_read(&a, r->cfg->cert_file, FILE_MAX, &parts[0], NULL);
    if (r->cfg->client_ca_file != NULL)
        (void)!file_read(&a, r->cfg->client_ca_file, FILE_MAX, &parts[2], NULL);
    (void)!file_read(&a, r->cfg->key_file, FILE_MAX, &parts[4], NULL);
    struct strview all = arena_join(&a, parts, ARRAY_LEN(parts));
    sha256(all, r->seen);
    mem_wipe((char *)all.ptr, all.len);
    mem_wipe((char *)parts[4].ptr, parts[4].len);
    arena_release(&a);
}

static void read_files(void *arg)
{
    struct tls_reading *r = arg;
    digest_files(r);
    ERR_clear_error();
    r->ctx = SSL_CTX_new(TLS_server_method());
    if (r->ctx == NULL) mem_exhausted(1);
    (void)SSL_CTX_set_min_proto_version(r->ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(r->ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_session_cache_mode(r->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_default_passwd_cb(r->ctx, no_passphrase);
    if (r->cfg->is_h2) SSL_CTX_set_alpn_select_cb(r->ctx, select_h2, NULL);
    r->status = load_pair(r);
    if (r->status == STATUS_OK) r->status = load_client_ca(r);
    if (r->status == STATUS_OK) return;
    SSL_CTX_free(r->ctx);
    r->ctx = NULL;
}

/* ---- in force ---- */

static void warn_of_expiry(const struct tls_pair *p)
{
    int64_t left_s = p->expires_unix_s - clock_unix_ns() / NS_PER_S;
    char expires[RFC3339_LEN + 1];
    rfc3339_format(p->expires_unix_s * NS_PER_S, expires);
    if (left_s < EXPIRES_SOON_S)
        log_warn(p->cfg.logger,
                 left_s < 0 ? "the TLS certificate has expired" : "the TLS certificate expires soon",
                 LOG_STR("file", p->cfg.cert_file), LOG_STR("expires", expires));
}

static void put_in_force(struct tls_pair *p, const struct tls_reading *r)
{
    p->old = p->ctx;
    p->ctx = r->ctx;
    p->expires_unix_s = r->expires_unix_s;
    memcpy(p->pin, r->pin, sizeof(p->pin));
    warn_of_expiry(p);
}

static void forget_old(struct tls_pair *p)
{
    SSL_CTX_free(p->old);
    p->old = NULL;
}

/* A pair that cannot be used leaves the one before in force: the log says why, once for each content. */
static void look_again(struct tls_pair *p)
{
    struct error err;
    struct tls_reading r = {.cfg = &p->cfg, .err = &err};
    work_run(read_files, &r);
    if (memcmp(r.seen, p->seen, sizeof(r.seen)) == 0) {
        SSL_CTX_free(r.ctx);
        return;
    }
    memcpy(p->seen, r.seen, sizeof(p->seen));
    if (r.status != STATUS_OK) {
        log_warn(p->cfg.logger, "the TLS certificate was not renewed: the one before stays",
                 LOG_STR("reason", err.message));
        return;
    }
    put_in_force(p, &r);
    log_info(p->cfg.logger, "TLS certificate renewed", LOG_STR("file", p->cfg.cert_file));
    if (p->cfg.on_renewed != NULL) p->cfg.on_renewed(p->cfg.arg);
    if (sleep_until(clock_monotonic_ns() + HANDSHAKE_NS) == STATUS_OK) forget_old(p);
}

static char *folder_of(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? arena_cstr(a, SV(".")) : arena_cstr(a, sv_n(path, (size_t)(slash - path) + 1));
}

static void watch_fiber(void *arg)
{
    struct tls_pair *p = arg;
    const char *const files[] = {p->cfg.cert_file, p->cfg.key_file, p->cfg.client_ca_file};
    struct folder_watch *watches[ARRAY_LEN(files)] = {NULL};
    struct fiber_event changed;
    struct arena a = {0};
    struct error ignored;
    fiber_event_init(&changed);
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (files[i] != NULL)
            (void)!folder_watch_start(p->loop, folder_of(&a, files[i]), &changed, &watches[i], &ignored);
    for (;;) {
        enum status st = fiber_event_wait(&changed, clock_monotonic_ns() + LOOK_NS);
        if (st == STATUS_CANCELLED || sleep_ms(SETTLE_MS) != STATUS_OK) break;
        fiber_event_reset(&changed);
        look_again(p);
    }
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        folder_watch_stop(watches[i]);
    arena_release(&a);
}

static const char *copy_text(struct arena *a, const char *text)
{
    return text != NULL ? arena_cstr(a, sv(text)) : NULL;
}

static void copy_cfg(struct tls_pair *p, const struct tls_pair_cfg *cfg)
{
    p->cfg = *cfg;
    p->cfg.cert_file = copy_text(&p->arena, cfg->cert_file);
    p->cfg.key_file = copy_text(&p->arena, cfg->key_file);
    p->cfg.client_ca_file = copy_text(&p->arena, cfg->client_ca_file);
    p->cfg.logger = copy_text(&p->arena, cfg->logger);
}

enum status tls_pair_new(struct loop *l, const struct tls_pair_cfg *cfg, struct tls_pair **ret_pair,
                         struct error *err)
{
    struct tls_pair *p = mem_zalloc(1, sizeof(*p));
    p->loop = l;
    fiber_scope_init(&p->scope);
    copy_cfg(p, cfg);
    struct tls_reading r = {.cfg = &p->cfg, .err = err};
    work_run(read_files, &r);
    enum status s = r.status;
    if (s == STATUS_OK) {
        memcpy(p->seen, r.seen, sizeof(r.seen));
        put_in_force(p, &r);
        s = fiber_scope_spawn(&p->scope, watch_fiber, p, err);
    }
    if (s == STATUS_OK)
        *ret_pair = p;
    else
        tls_pair_free(p);
    return s;
}

void tls_pair_free(struct tls_pair *p)
{
    if (p == NULL) return;
    fiber_scope_cancel(&p->scope);
    fiber_scope_join(&p->scope);
    SSL_CTX_free(p->ctx);
    SSL_CTX_free(p->old);
    arena_release(&p->arena);
    free(p);
}

struct ssl_ctx_st *tls_pair_ctx(const struct tls_pair *p)
{
    return p->ctx;
}

const char *tls_pair_pin(const struct tls_pair *p)
{
    return p->pin;
}
