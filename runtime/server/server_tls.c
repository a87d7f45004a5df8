/* Certificate and key of the listener: read at the start, and again when their files change. Connections that
 * are open keep the pair they were greeted with. */
#include "server/server_impl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
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

_Static_assert(sizeof(PIN_PREFIX) + (SHA256_BYTES + 2) / 3 * 4 <= SERVER_PIN_MAX, "SERVER_PIN_MAX");

struct server_tls {
    char *cert_file, *key_file;
    SSL_CTX *ctx, *old; /* old: of connections whose handshake has not begun */
    char pin[SERVER_PIN_MAX];
    int64_t expires_unix_s;
    uint8_t seen[SHA256_BYTES]; /* of the files as last read, good or bad */
};

/* One reading of the files, on a worker. */
struct tls_reading {
    const char *cert_file, *key_file;
    SSL_CTX *ctx;
    char pin[SERVER_PIN_MAX];
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
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1) return say(r->err, r->cert_file);
    r->expires_unix_s = (int64_t)timegm(&tm);
    return STATUS_OK;
}

static enum status read_pin(struct tls_reading *r, X509 *cert)
{
    unsigned char *der = NULL;
    uint8_t digest[SHA256_BYTES];
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (n <= 0) return say(r->err, r->cert_file);
    sha256(sv_n((const char *)der, (size_t)n), digest);
    OPENSSL_free(der);
    memcpy(r->pin, PIN_PREFIX, sizeof(PIN_PREFIX));
    (void)EVP_EncodeBlock((unsigned char *)r->pin + sizeof(PIN_PREFIX) - 1, digest, sizeof(digest));
    return STATUS_OK;
}

static enum status load_pair(struct tls_reading *r)
{
    SSL_CTX *ctx = r->ctx;
    if (SSL_CTX_use_certificate_chain_file(ctx, r->cert_file) != 1) return say(r->err, r->cert_file);
    enum status s = check_key_file(r->key_file, r->err);
    if (s != STATUS_OK) return s;
    if (SSL_CTX_use_PrivateKey_file(ctx, r->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return say(r->err, r->key_file);
    X509 *cert = SSL_CTX_get0_certificate(ctx);
    s = read_expiry(r, cert);
    return s == STATUS_OK ? read_pin(r, cert) : s;
}

static void digest_files(struct tls_reading *r)
{
    struct arena a = {0};
    struct strview parts[3] = {{0}, SV("\n"), {0}};
    (void)!file_read(&a, r->cert_file, FILE_MAX, &parts[0], NULL);
    (void)!file_read(&a, r->key_file, FILE_MAX, &parts[2], NULL);
    struct strview both = arena_join(&a, parts, ARRAY_LEN(parts));
    sha256(both, r->seen);
    mem_wipe((char *)both.ptr, both.len);
    mem_wipe((char *)parts[2].ptr, parts[2].len);
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
    r->status = load_pair(r);
    if (r->status == STATUS_OK) return;
    SSL_CTX_free(r->ctx);
    r->ctx = NULL;
}

/* ---- in force ---- */

static void warn_of_expiry(const struct server_tls *tls)
{
    int64_t left_s = tls->expires_unix_s - clock_unix_ns() / NS_PER_S;
    char expires[RFC3339_LEN + 1];
    rfc3339_format(tls->expires_unix_s * NS_PER_S, expires);
    if (left_s < EXPIRES_SOON_S)
        log_warn("server",
                 left_s < 0 ? "the TLS certificate has expired" : "the TLS certificate expires soon",
                 LOG_STR("file", tls->cert_file), LOG_STR("expires", expires));
}

static void put_in_force(struct server *s, const struct tls_reading *r)
{
    struct server_tls *tls = s->tls;
    tls->old = tls->ctx;
    tls->ctx = s->accept.ssl_ctx = r->ctx;
    tls->expires_unix_s = r->expires_unix_s;
    memcpy(tls->pin, r->pin, sizeof(tls->pin));
    warn_of_expiry(tls);
}

static void forget_old(struct server_tls *tls)
{
    SSL_CTX_free(tls->old);
    tls->old = NULL;
}

/* A pair that cannot be used leaves the one before in force: the log says why, once for each content. */
static void look_again(struct server *s)
{
    struct server_tls *tls = s->tls;
    struct error err;
    struct tls_reading r = {.cert_file = tls->cert_file, .key_file = tls->key_file, .err = &err};
    work_run(read_files, &r);
    if (memcmp(r.seen, tls->seen, sizeof(r.seen)) == 0) {
        SSL_CTX_free(r.ctx);
        return;
    }
    memcpy(tls->seen, r.seen, sizeof(tls->seen));
    if (r.status != STATUS_OK) {
        log_warn("server", "the TLS certificate was not renewed: the one before stays",
                 LOG_STR("reason", err.message));
        return;
    }
    put_in_force(s, &r);
    log_info("server", "TLS certificate renewed", LOG_STR("file", tls->cert_file));
    if (s->cfg.on_tls_renewed != NULL) s->cfg.on_tls_renewed(s->cfg.arg);
    if (sleep_until(clock_monotonic_ns() + HANDSHAKE_NS) == STATUS_OK) forget_old(tls);
}

static char *folder_of(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? arena_cstr(a, SV(".")) : arena_cstr(a, sv_n(path, (size_t)(slash - path) + 1));
}

static void watch_fiber(void *arg)
{
    struct server *s = arg;
    struct fiber_event changed;
    struct folder_watch *watches[2] = {NULL, NULL};
    struct arena a = {0};
    struct error ignored;
    fiber_event_init(&changed);
    (void)!folder_watch_start(s->loop, folder_of(&a, s->tls->cert_file), &changed, &watches[0], &ignored);
    (void)!folder_watch_start(s->loop, folder_of(&a, s->tls->key_file), &changed, &watches[1], &ignored);
    for (;;) {
        enum status st = fiber_event_wait(&changed, clock_monotonic_ns() + LOOK_NS);
        if (st == STATUS_CANCELLED || sleep_ms(SETTLE_MS) != STATUS_OK) break;
        fiber_event_reset(&changed);
        look_again(s);
    }
    folder_watch_stop(watches[0]);
    folder_watch_stop(watches[1]);
    arena_release(&a);
}

enum status server_tls_start(struct server *s, struct error *err)
{
    if (s->cfg.tls_cert_file == NULL && s->cfg.tls_key_file == NULL) return STATUS_OK;
    if (s->cfg.tls_cert_file == NULL || s->cfg.tls_key_file == NULL || s->cfg.http2)
        return error_set(err, STATUS_INVALID_ARGUMENT,
                         "server '%s': TLS needs certificate and key, and is HTTP/1.1 only", s->cfg.name);
    s->tls = mem_zalloc(1, sizeof(*s->tls));
    s->tls->cert_file = server_copy_text(s->cfg.tls_cert_file);
    s->tls->key_file = server_copy_text(s->cfg.tls_key_file);
    struct tls_reading r = {.cert_file = s->tls->cert_file, .key_file = s->tls->key_file, .err = err};
    work_run(read_files, &r);
    if (r.status != STATUS_OK) return r.status;
    memcpy(s->tls->seen, r.seen, sizeof(r.seen));
    put_in_force(s, &r);
    return fiber_scope_spawn(&s->scope, watch_fiber, s, err);
}

void server_tls_free(struct server_tls *tls)
{
    if (tls == NULL) return;
    SSL_CTX_free(tls->ctx);
    SSL_CTX_free(tls->old);
    free(tls->cert_file);
    free(tls->key_file);
    free(tls);
}

const char *server_tls_pin(const struct server *s)
{
    return s->tls != NULL ? s->tls->pin : NULL;
}
