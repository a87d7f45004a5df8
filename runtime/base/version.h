/* One version for everything that is built here. */
#ifndef BALM_BASE_VERSION_H
#define BALM_BASE_VERSION_H

#define BALM_VERSION "0.1.0"

#endif
