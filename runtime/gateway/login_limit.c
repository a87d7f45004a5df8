#include "gateway/login_limit.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"

#define MILLI         1000 /* points are counted in thousandths */
#define RECENT_MAX    8    /* wrong guesses remembered of an address */
#define TELL_PACE_NS  (600 * NS_PER_S)
#define HOST_TEXT_MAX 64

struct address {
    uint64_t key;   /* 0: free */
    int64_t points; /* thousandths, at `at_ns` */
    int64_t at_ns, told_ns;
    uint64_t recent[RECENT_MAX];
    unsigned next_recent;
};

struct login_limit {
    uint8_t secret[SHA256_BYTES]; /* of the hashes */
    struct address addresses[LOGIN_ADDRESSES_MAX];
};

struct login_limit *login_limit_new(void)
{
    struct login_limit *l = mem_zalloc(1, sizeof(*l));
    random_bytes(l->secret, sizeof(l->secret));
    return l;
}

void login_limit_free(struct login_limit *l)
{
    free(l);
}

static uint64_t keyed_hash(const struct login_limit *l, struct strview data)
{
    uint8_t digest[SHA256_BYTES];
    uint64_t hash;
    hmac_sha256(sv_n((const char *)l->secret, sizeof(l->secret)), data, digest);
    memcpy(&hash, digest, sizeof(hash));
    return hash | 1; /* never 0 */
}

/* What of a peer one person has: an IPv4 address, or an IPv6 network. An IPv4 client of a socket for both
 * comes as ::ffff:a.b.c.d. */
static uint64_t address_key(const struct login_limit *l, struct strview peer)
{
    char host[HOST_TEXT_MAX];
    uint8_t v6[16];
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (peer.len == 0 || peer.len >= sizeof(host)) return keyed_hash(l, peer);
    memcpy(host, peer.ptr, peer.len);
    host[peer.len] = '\0';
    char *port = strrchr(host, ':');
    if (port != NULL) *port = '\0';
    size_t len = strlen(host);
    if (host[0] != '[' || host[len - 1] != ']') return keyed_hash(l, sv(host));
    host[len - 1] = '\0';
    if (inet_pton(AF_INET6, host + 1, v6) != 1) return keyed_hash(l, sv(host));
    bool is_v4 = memcmp(v6, mapped, sizeof(mapped)) == 0;
    return keyed_hash(l, is_v4 ? sv_n((const char *)v6, 16) : sv_n((const char *)v6, 8));
}

static int64_t points_at(const struct address *a, int64_t now_ns)
{
    int64_t full = (int64_t)LOGIN_BUDGET * MILLI;
    int64_t gained = (now_ns - a->at_ns) / (NS_PER_S / MILLI) * LOGIN_POINTS_A_SECOND;
    return gained >= full - a->points ? full : a->points + gained;
}

/* Its own entry; without one, of the few places where it may be (so that looking is cheap) the free one, or
 * the one whose budget is fullest. */
#define PLACES 8

static struct address *place_of(struct login_limit *l, uint64_t key, int64_t now_ns)
{
    struct address *best = NULL;
    for (unsigned i = 0; i < PLACES; i++) {
        struct address *a = &l->addresses[(key / 2 + i) % LOGIN_ADDRESSES_MAX];
        if (a->key == key) return a;
        if (best != NULL && best->key == 0) continue;
        if (best == NULL || a->key == 0 || points_at(a, now_ns) > points_at(best, now_ns)) best = a;
    }
    return best;
}

static const struct address *find(const struct login_limit *l, uint64_t key)
{
    for (unsigned i = 0; i < PLACES; i++) {
        const struct address *a = &l->addresses[(key / 2 + i) % LOGIN_ADDRESSES_MAX];
        if (a->key == key) return a;
    }
    return NULL;
}

unsigned login_limit_wait_s(const struct login_limit *l, struct strview peer, int64_t now_ns)
{
    const struct address *a = find(l, address_key(l, peer));
    if (a == NULL) return 0;
    int64_t missing = (int64_t)LOGIN_GUESS_COST * MILLI - points_at(a, now_ns);
    if (missing <= 0) return 0;
    int64_t a_second = (int64_t)LOGIN_POINTS_A_SECOND * MILLI;
    return (unsigned)((missing + a_second - 1) / a_second);
}

static bool is_repeated(struct address *a, uint64_t guess)
{
    for (unsigned i = 0; i < RECENT_MAX; i++)
        if (a->recent[i] == guess) return true;
    a->recent[a->next_recent++ % RECENT_MAX] = guess;
    return false;
}

bool login_limit_failed(struct login_limit *l, struct strview peer, struct strview credentials,
                        int64_t now_ns)
{
    uint64_t key = address_key(l, peer);
    struct address *a = place_of(l, key, now_ns);
    if (a->key != key)
        *a = (struct address){.key = key, .points = (int64_t)LOGIN_BUDGET * MILLI, .at_ns = now_ns};
    int64_t cost = is_repeated(a, keyed_hash(l, credentials)) ? LOGIN_REPEAT_COST : LOGIN_GUESS_COST;
    int64_t points = points_at(a, now_ns) - cost * MILLI;
    a->points = points > 0 ? points : 0;
    a->at_ns = now_ns;
    if (a->points >= (int64_t)LOGIN_GUESS_COST * MILLI) return false;
    if (a->told_ns != 0 && now_ns - a->told_ns < TELL_PACE_NS) return false;
    a->told_ns = now_ns;
    return true;
}
