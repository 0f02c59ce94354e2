"""Writes the hourly power of a household that does not exist: `python household.py > examples/power/household.csv`."""

import datetime
import math
import random

HOURS = 10 * 7 * 24


def bump(hour, at, width):
    return math.exp(-(((hour - at) / width) ** 2))


def main():
    rng, start, warmth = random.Random(7), datetime.datetime(2024, 1, 8), 0.0
    print("time,power_kw,temperature_c")
    for step in range(HOURS):
        time = start + datetime.timedelta(hours=step)
        hour, weekend = time.hour, time.weekday() > 4
        warmth = 0.97 * warmth + rng.gauss(0, 0.5)
        temperature = 4 + step / 300 + 4 * math.sin((hour - 9) / 24 * 2 * math.pi) + warmth
        heating = 0.08 * max(0.0, 16 - temperature)
        morning = 0.5 * bump(hour, 11, 3) if weekend else 0.9 * bump(hour, 7, 1.5)
        evening = 1.4 * bump(hour, 19.5, 2.5)
        power = (0.25 + heating + morning + evening) * math.exp(rng.gauss(0, 0.12))
        print(f"{time:%Y-%m-%d %H:%M},{power:.3f},{temperature:.1f}")


if __name__ == "__main__":
    main()
