/* Apart from the client itself, so that asking links no client into a function that has none. */
#include "client/client_count.h"

static unsigned certificates_refused;

void client_count_refused_certificate(void)
{
    certificates_refused++;
}

unsigned client_take_refused_certificates(void)
{
    unsigned n = certificates_refused;
    certificates_refused = 0;
    return n;
}
