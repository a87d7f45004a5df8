/* TLS connections of this process that were given up because of the peer's certificate. Loop thread only. */
#ifndef BALM_CLIENT_CLIENT_COUNT_H
#define BALM_CLIENT_CLIENT_COUNT_H

/* One more connection that was given up because of the peer's certificate. */
void client_count_refused_certificate(void);
/* How many since the last time that somebody asked. */
unsigned client_take_refused_certificates(void);

#endif
