#!/usr/bin/env python3
"""When a schedule comes, held against others who know: croniter (the cron library of Python, Debian's python3-croniter) in UTC, and in real
zones a walk over every minute of the clock that Python's zoneinfo shows."""
import datetime
import glob
import json
import os
import random
import subprocess
import sys
import unittest
import zoneinfo

from harness import BALM, PATIENCE, main
from peers import Unavailable, cache_dir, fetch

SEED = int(os.environ.get("BALM_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
UTC = datetime.timezone.utc
LIMITS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
NAMES = {"month": "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), "weekday": "SUN MON TUE WED THU FRI SAT".split()}
LENGTHS = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
# A change of each kind: an hour, half an hour, a whole day, at midnight, backwards in winter, twice a year around a fast, none at all.
CHANGES = [("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"), ("America/New_York", "2026-03-08"),
           ("America/New_York", "2026-11-01"), ("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"),
           ("Pacific/Apia", "2011-12-30"), ("America/Sao_Paulo", "2018-11-04"), ("America/Sao_Paulo", "2018-02-18"),
           ("Europe/Dublin", "2027-03-28"), ("Europe/Dublin", "2027-10-31"), ("Africa/Casablanca", "2026-02-15"),
           ("Africa/Casablanca", "2026-03-22"), ("America/Nuuk", "2026-03-29"), ("Asia/Kolkata", "2026-05-05"),
           ("Asia/Kathmandu", "1986-01-01"), ("Antarctica/Troll", "2026-03-29"), ("America/St_Johns", "2010-11-07"),
           ("Europe/Berlin", "2061-03-27"), ("America/New_York", "2060-11-07"), ("Asia/Pyongyang", "2018-05-05"), ("Asia/Gaza", "2026-10-24")]


class Field:
    """A random field, as text and as the set of what fits, made side by side."""

    def __init__(self, rng, name):
        low, high = LIMITS[name]
        self.values, items = set(), []
        self.starts_with_star = False
        if rng.random() < 0.35:
            self.text, self.values, self.starts_with_star = "*", set(range(low, high + 1)), True
            return
        for i in range(rng.choice([1, 1, 1, 2, 3])):
            kind = rng.random()
            if kind < 0.5:
                v = rng.randint(low, high)
                items.append(self.word(rng, name, v))
                self.values.add(v)
            elif kind < 0.75 or high - low < 2:
                a = rng.randint(low, high - 1)
                b = rng.randint(a + 1, high)
                step = rng.randint(1, b - a) if rng.random() < 0.4 else 1
                items.append(self.word(rng, name, a) + "-" + self.word(rng, name, b) + (f"/{step}" if step > 1 else ""))
                self.values.update(range(a, b + 1, step))
            else:
                step = rng.randint(1, min(high - low, 12))
                items.append(f"*/{step}")
                self.values.update(range(low, high + 1, step))
                self.starts_with_star |= i == 0
        self.text = ",".join(items)

    @staticmethod
    def word(rng, name, value):
        if name in NAMES and rng.random() < 0.5:
            return rng.choice([str.upper, str.lower, str.title])(NAMES[name][value - LIMITS[name][0]])
        return str(value)


class Expression:
    def __init__(self, rng):
        self.fields = {name: Field(rng, name) for name in LIMITS}
        self.text = " ".join(f.text for f in self.fields.values())

    def fits(self, local):
        f = self.fields
        day = local.day in f["day"].values
        weekday = local.isoweekday() % 7 in f["weekday"].values
        both = f["day"].starts_with_star or f["weekday"].starts_with_star
        return (local.minute in f["minute"].values and local.hour in f["hour"].values and local.month in f["month"].values
                and (day and weekday if both else day or weekday))

    def comes_within(self, zone, begin, end):
        """Every minute from begin to end: does the clock show a time that fits, shows it anew, or leapt over one?"""
        found, minute = [], datetime.timedelta(minutes=1)
        before = (begin - minute).astimezone(zone).replace(tzinfo=None)
        at = begin
        while at < end:
            local = at.astimezone(zone)
            naive = local.replace(tzinfo=None, fold=0)
            if self.fields["hour"].starts_with_star:
                comes = self.fits(naive)
            else:
                leapt, comes = before + minute, self.fits(naive) and local.fold == 0
                while leapt < naive and not comes:
                    comes = self.fits(leapt)
                    leapt += minute
            if comes:
                found.append(at)
            before, at = naive, at + minute
        return found


def balm_times(expression, zone, begin, count):
    done = subprocess.run([BALM, "schedule", expression, "--time-zone", zone, "--from", begin.isoformat().replace("+00:00", "Z"),
                           "--count", str(count), "--json"], capture_output=True, text=True, timeout=60 * PATIENCE)
    if done.returncode != 0:
        return done.stderr
    return [datetime.datetime.fromisoformat(t["time"][:19] + "+00:00") for t in json.loads(done.stdout)]


def croniter_class():
    for name in ("croniter", "dateutil", "pytz"):
        if not glob.glob(os.path.join(cache_dir(), "usr/lib/python3/dist-packages", name)):
            fetch(["python3-croniter", "python3-dateutil", "python3-tz", "python3-six"])
            break
    sys.path.insert(0, os.path.join(cache_dir(), "usr/lib/python3/dist-packages"))
    try:
        from croniter import croniter
    except ImportError as e:
        raise Unavailable(f"croniter cannot be loaded: {e}")
    return croniter


class ScheduleTimes(unittest.TestCase):
    def setUp(self):
        self.rng = random.Random(SEED)

    def test_in_utc_as_croniter_says(self):
        try:
            croniter = croniter_class()
        except Unavailable as e:
            self.skipTest(str(e))
        n_compared = 0
        while n_compared < 1200:
            e = Expression(self.rng)
            days = e.fields["day"], e.fields["weekday"]
            if any(f.text != "*" and (f.starts_with_star or len(f.values) in (7, 31)) for f in days):
                continue  # croniter has its own mind about what is a star there; the walk below has these
            if min(days[0].values) > max(LENGTHS[m - 1] for m in e.fields["month"].values):
                continue  # and it finds no Monday where the other day never comes
            begin = datetime.datetime.fromtimestamp(self.rng.randint(1577836800, 2240524800), UTC)
            found = balm_times(e.text, "UTC", begin, 4)
            if isinstance(found, str):
                self.assertIn("never comes", found, f"{e.text} seed {SEED}")
                continue
            it = croniter(e.text, begin, max_years_between_matches=60)
            said = [it.get_next(datetime.datetime) for _ in range(4)]
            ours, theirs = next(((a, b) for a, b in zip(found, said) if a != b), (None, None))
            if ours is not None and ours < theirs and croniter.match(e.text, ours):
                continue  # it passes over a time that it says matches (the 1st of March, for "*/5" among others): no witness
            self.assertEqual(found, said, f"{e.text} from {begin} seed {SEED}")
            n_compared += 1

    def test_in_real_zones_minute_by_minute(self):
        n_times = 0
        for round_ in range(6):
            for name, day in CHANGES:
                try:
                    zone = zoneinfo.ZoneInfo(name)
                except zoneinfo.ZoneInfoNotFoundError as e:
                    self.skipTest(str(e))
                e = Expression(self.rng)
                for f in ("month", "day") if round_ % 3 else ():
                    e.fields[f].text, e.fields[f].values, e.fields[f].starts_with_star = "*", set(range(1, 32)), True
                e.text = " ".join(f.text for f in e.fields.values())
                middle = datetime.datetime.fromisoformat(day + "T00:00:00+00:00")
                begin, end = middle - datetime.timedelta(hours=30), middle + datetime.timedelta(hours=40)
                expected = e.comes_within(zone, begin + datetime.timedelta(minutes=1), end)
                if len(expected) > 900:
                    expected = expected[:900]
                found = balm_times(e.text, name, begin, len(expected) + 1)
                if isinstance(found, str):
                    self.assertIn("never comes", found)
                    continue
                if len(expected) < 900:
                    self.assertTrue(len(found) == len(expected) or found[len(expected)] >= end,
                                    f"'{e.text}' in {name} around {day}: {found[-1]} too many, seed {SEED}")
                self.assertEqual(found[:len(expected)], expected, f"'{e.text}' in {name} around {day}, seed {SEED}")
                n_times += len(expected)
        self.assertGreater(n_times, 1000)


if __name__ == "__main__":
    main()
