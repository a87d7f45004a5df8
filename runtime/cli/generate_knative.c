/* A function as a Knative Service: what bot.yaml says, in the strictest pod that it needs. */
#include <inttypes.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/generate.h"
#include "function/invocation.h"

#define SECRETS_FOLDER "/var/openfaas/secrets"
#define UID            12000 /* as OpenFaaS has it, and our own images */
/* Between exec_timeout and the revision's own limit: ours answers first, with a reason. */
#define MARGIN_S 10

static void append_metadata(struct buf *b, const struct manifest *m)
{
    buf_printf(b,
               "---\napiVersion: serving.knative.dev/v1\nkind: Service\nmetadata:\n  name: %.*s\n  labels:\n"
               "    app.kubernetes.io/part-of: balm\n  annotations:\n    balm.dev/acts: \"%s\"\n"
               "    balm.dev/summary: ",
               SV_ARG(m->name), m->acts ? "true" : "false");
    buf_append_json_string(b, m->summary);
    buf_append_char(b, '\n');
}

/* The sidecar probes readiness, the kubelet liveness: both on the one port there is, which Knative fills in.
 */
static void append_container(struct buf *b, const struct manifest *m, struct strview image_prefix)
{
    char timeout[DURATION_TEXT_MAX];
    buf_printf(b,
               "      containers:\n"
               "        - image: %.*s%.*s:latest\n"
               "          ports:\n            - name: http1 # or h2c: it speaks both\n"
               "              containerPort: 8080\n"
               "          env:\n            - name: exec_timeout\n              value: %s\n",
               SV_ARG(image_prefix), SV_ARG(m->name), duration_format(m->timeout_ns, timeout));
    for (size_t i = 0; i < m->n_environment; i++)
        buf_printf(b, "            # %.*s: %.*s\n", SV_ARG(m->environment[i].name),
                   SV_ARG(m->environment[i].description));
    buf_append(b, SV("          readinessProbe:\n            httpGet:\n              path: /_/ready\n"
                     "          livenessProbe:\n            httpGet:\n              path: /_/health\n"
                     "          resources:\n            requests: {cpu: 10m, memory: 16Mi}\n"
                     "            limits: {memory: 128Mi}\n"
                     "          securityContext:\n            allowPrivilegeEscalation: false\n"
                     "            readOnlyRootFilesystem: true\n            runAsNonRoot: true\n"));
    buf_printf(b, "            runAsUser: %d\n", UID);
    buf_append(b, SV("            capabilities: {drop: [ALL]}\n"
                     "            seccompProfile: {type: RuntimeDefault}\n"));
}

static void append_mount(struct buf *b, struct strview name)
{
    buf_printf(b,
               "            - name: %.*s\n              mountPath: " SECRETS_FOLDER
               "/%.*s\n              readOnly: true\n",
               SV_ARG(name), SV_ARG(name));
}

/* A folder each, whose files are the secret's keys. Optional: a pod without one starts, and says what it
 * lacks when it is asked to do something. */
static void append_secret(struct buf *b, struct strview name, struct strview secret)
{
    buf_printf(b,
               "        - name: %.*s\n          secret:\n            secretName: %.*s\n            optional: "
               "true\n",
               SV_ARG(name), SV_ARG(secret));
}

static void append_volumes(struct buf *b, const struct manifest *m)
{
    struct arena a = {0};
    struct strview key = SV(INVOCATION_KEY_SECRET);
    buf_append(b, SV("          volumeMounts:\n            - name: tmp\n              mountPath: /tmp\n"));
    if (m->acts) append_mount(b, key);
    for (size_t i = 0; i < m->secrets.n; i++)
        append_mount(b, m->secrets.items[i]);
    buf_append(b, SV("      volumes:\n        - name: tmp\n          emptyDir: {}\n"));
    /* Each function has a key of its own. */
    if (m->acts) append_secret(b, key, arena_printf(&a, "%.*s-invocation-key", SV_ARG(m->name)));
    for (size_t i = 0; i < m->secrets.n; i++)
        append_secret(b, m->secrets.items[i], m->secrets.items[i]);
    arena_release(&a);
}

static void append_service(struct buf *b, const struct manifest *m, struct strview image_prefix)
{
    append_metadata(b, m);
    buf_printf(b,
               "spec:\n  template:\n    metadata:\n      annotations:\n"
               "        autoscaling.knative.dev/min-scale: \"0\"\n    spec:\n      timeoutSeconds: %" PRId64
               "\n"
               "      automountServiceAccountToken: false\n      enableServiceLinks: false\n",
               (m->timeout_ns + NS_PER_S - 1) / NS_PER_S + MARGIN_S);
    append_container(b, m, image_prefix);
    append_volumes(b, m);
}

void generate_knative(const struct manifest *manifests, size_t n, struct strview image_prefix, struct buf *b)
{
    buf_append(
        b,
        SV("# Made by `balm generate knative`; `kubectl apply -f` takes it.\n"
           "# Secrets are read from " SECRETS_FOLDER "/NAME: the key called NAME, else the only one.\n"
           "# containerConcurrency: N lets at most N requests in at once and queues the others; max_inflight (an\n"
           "# environment variable) refuses what is beyond with 429. Leave it 0 here, or set both to the same "
           "N.\n"));
    for (size_t i = 0; i < n; i++)
        append_service(b, &manifests[i], image_prefix);
}
