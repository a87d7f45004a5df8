/* Files of secrets and headers with credentials, of any bytes: a secret has no white space around it, and
 * nobody comes in but with the very login or token.
 *
 * Input: "AUTHORIZATION\0FILE".
 *
 * Reads: function/secret.c gateway/secrets.c */
#include "function/secret.h"

#include <stdlib.h>

#include "folder.h"
#include "gateway/gateway_impl.h"
#include "replay.h"

static const char login_base64[] = "YWRtaW46cGFzc3dvcmQ="; /* admin:password */

static void prepare(void)
{
    static bool is_prepared;
    if (is_prepared) return;
    is_prepared = true;
    (void)setenv("secret_mount_path", folder(), 1);
    folder_make("secrets");
    (void)folder_put("secrets/basic-auth-user", SV("admin\n"));
    (void)folder_put("secrets/basic-auth-password", SV("password"));
    (void)folder_put("secrets/invocation-key", SV("k"));
}

static bool is_trimmed(struct strview s)
{
    return s.len > 0 && sv_trim(s).len == s.len;
}

static void check_header(const struct gateway_secrets *s, struct strview header)
{
    if (gateway_secrets_check_basic(s, header)) {
        struct strview given = sv_trim(sv_sub(header, 6, header.len));
        /* The last character but one has bits that are no part of the login. */
        assert(given.len == sizeof(login_base64) - 1 && sv_starts_with(given, sv_n(login_base64, 18)));
    }
    if (gateway_secrets_check_bearer(s, header))
        assert(sv_eq(sv_trim(sv_sub(header, 7, header.len)), s->token));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct arena arena = {0};
    struct gateway_secrets secrets = {.user = sv(NULL)};
    struct strview all = sv_n((const char *)bytes, n), header = sv_sub(all, 0, sv_find(all, '\0'));
    struct strview content = sv_sub(all, header.len + 1, n), secret;
    struct error err = {0};
    bool is_new = false;
    prepare();
    (void)folder_put("a-secret", content);
    (void)folder_put("secrets/webhook-token", content);
    if (secret_read(&arena, "a-secret", &secret, &err) == STATUS_OK)
        assert(is_trimmed(secret) && sv_eq(secret, sv_trim(content)) && secret.len <= SECRET_READ_MAX);
    else
        assert(err.code == STATUS_FAILED_PRECONDITION);
    if (gateway_secrets_load(folder(), &secrets, &is_new, &err) == STATUS_OK) {
        assert(is_trimmed(secrets.token) && sv_eq(secrets.token, sv_trim(content)));
        check_header(&secrets, header);
    }
    gateway_secrets_release(&secrets);
    arena_release(&arena);
    return 0;
}
