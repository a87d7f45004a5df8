/* One version for everything that is built here. */
#ifndef BALM_BASE_VERSION_H
#define BALM_BASE_VERSION_H

#ifndef BALM_VERSION /* a test of upgrades builds a newer one */
#define BALM_VERSION "0.1.0"
#endif
#define BALM_VERSION_DATE "2026-11-28" /* as the man pages show it */

#endif
